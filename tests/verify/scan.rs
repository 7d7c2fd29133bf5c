// The resettable scan, checked by minis5's test vectors: no crate, .npy files read by hand.
//   rustc --edition 2021 scan.rs && ./scan DIR GOT && minis5 verify DIR GOT scan
// --cfg multiply makes the usual mistake: a reset multiplies by zero, so that NaN passes it.
use std::{env, fs, path::Path};

/// Return the numbers of a .npy file, flags as 0 and 1; none if there is no file.
fn read(path: &Path) -> Vec<f64> {
    let Ok(data) = fs::read(path) else { return vec![] };
    let begin = 10 + data[8] as usize + 256 * data[9] as usize;
    if String::from_utf8_lossy(&data[10..begin]).contains("'|u1'") {
        return data[begin..].iter().map(|&flag| flag as f64).collect();
    }
    data[begin..].chunks_exact(8).map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap())).collect()
}

fn write(folder: &Path, shape: &str, numbers: &[f64]) {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
    let mut data = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    data.extend(format!("{header:117}\n").bytes());
    data.extend(numbers.iter().flat_map(|z| z.to_le_bytes()));
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("x.npy"), data).unwrap();
}

/// Return the product of two real numbers, or of two complex ones (real, imaginary).
fn times(a: &[f64], x: &[f64]) -> Vec<f64> {
    if a.len() == 1 { return vec![a[0] * x[0]]; }
    vec![a[0] * x[0] - a[1] * x[1], a[0] * x[1] + a[1] * x[0]]
}

fn main() {
    let folders: Vec<String> = env::args().skip(1).collect();
    let (vectors, got) = (Path::new(&folders[0]).join("scan"), Path::new(&folders[1]).join("scan"));
    for line in fs::read_to_string(vectors.join("cases.tsv")).unwrap().lines().skip(1) {
        let row: Vec<&str> = line.split('\t').collect(); // id flags dtype … T B P numbers
        let size = |i: usize| row[i].parse::<usize>().unwrap();
        let (steps, batch, states, w) = (size(6), size(7), size(8), 1 + (row[9] == "complex") as usize);
        let input = |name: &str| read(&vectors.join(row[0]).join(name));
        let (a, b, reset) = (input("a.npy"), input("b.npy"), input("reset.npy"));
        let (mut x, mut out) = (input("x0.npy"), vec![]);
        x.resize(batch * states * w, 0.0);
        for t in 0..steps {
            for n in 0..batch * states {
                let i = (t * batch * states + n) * w;
                let k = if a.len() == states * w { n % states * w } else { i };
                let begins = !reset.is_empty() && reset[t * batch + n / states] > 0.0;
                let mut old = times(&a[k..k + w], &x[n * w..n * w + w]);
                if begins {
                    old.iter_mut().for_each(|z| *z = if cfg!(multiply) { *z * 0.0 } else { 0.0 });
                }
                (0..w).for_each(|j| x[n * w + j] = old[j] + b[i + j]);
            }
            out.extend_from_slice(&x);
        }
        let last = if w == 2 { ", 2" } else { "" };
        write(&got.join(row[0]), &format!("{steps}, {batch}, {states}{last}"), &out);
    }
}
