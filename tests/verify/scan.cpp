// The resettable scan, checked by minis5's test vectors: no library, .npy files read by hand.
//   c++ -std=c++17 scan.cpp -o scan && ./scan DIR GOT && minis5 verify DIR GOT scan
// -DMULTIPLY makes the usual mistake: a reset multiplies by zero, so that NaN passes it.
#include <complex>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>
using std::string, std::filesystem::path;

template <class T> std::vector<T> read(const path& name) {  // none if there is no file
  std::ifstream file(name, std::ios::binary);
  string data(std::istreambuf_iterator<char>(file), {});
  if (data.empty()) return {};
  size_t begin = 10 + uint8_t(data[8]) + 256 * uint8_t(data[9]);
  std::vector<T> z((data.size() - begin) / sizeof(T));
  std::memcpy((void*)z.data(), &data[begin], z.size() * sizeof(T));
  return z;
}

template <class T> void solve(const path& from, const path& to, size_t steps, size_t B, size_t P) {
  auto a = read<T>(from / "a.npy"), b = read<T>(from / "b.npy"), x = read<T>(from / "x0.npy");
  auto reset = read<uint8_t>(from / "reset.npy");
  x.resize(B * P);
  std::vector<T> out;
  for (size_t t = 0; t < steps; t++)
    for (size_t n = 0; n < B * P; n++) {
      T factor = a[a.size() == P ? n % P : t * B * P + n];
      bool begins = !reset.empty() && reset[t * B + n / P];
#ifdef MULTIPLY
      x[n] = factor * (x[n] * T(begins ? 0 : 1)) + b[t * B * P + n];
#else
      x[n] = (begins ? T(0) : factor * x[n]) + b[t * B * P + n];
#endif
      out.push_back(x[n]);
    }
  std::ostringstream header;
  header << "{'descr': '<f8', 'fortran_order': False, 'shape': (" << steps << ", " << B << ", "
         << P << (sizeof(T) == 8 ? "" : ", 2") << "), }";
  string text = header.str() + string(117 - header.str().size(), ' ') + "\n";
  create_directories(to);
  std::ofstream file(to / "x.npy", std::ios::binary);
  file.write("\x93NUMPY\x01\x00\x76\x00", 10) << text;
  file.write((const char*)out.data(), sizeof(T) * out.size());
}

int main(int, char** argv) {
  path vectors = path(argv[1]) / "scan", got = path(argv[2]) / "scan";
  std::ifstream table(vectors / "cases.tsv");
  string line, cell;
  for (std::getline(table, line); std::getline(table, line);) {
    std::vector<string> row;  // id, flags, dtype, inputs, outputs, steps, T, B, P, numbers
    for (std::istringstream cells(line); std::getline(cells, cell, '\t');) row.push_back(cell);
    auto run = row[9] == "complex" ? solve<std::complex<double>> : solve<double>;
    run(vectors / row[0], got / row[0], stoi(row[6]), stoi(row[7]), stoi(row[8]));
  }
}
