"""Files of arrays come back bit for bit; what is not what the formats say is refused with a reason.

The bytes of .safetensors below are written out by hand from the format's description.
"""

import json
import pickle
import tracemalloc

import numpy as np
import pytest

from minis5.rl.array_file import DTYPES, read_arrays, write_arrays

rng = np.random.default_rng(0)
ARRAYS = {
    "a/b": rng.standard_normal((2, 3)).astype(np.float32),
    "c": rng.standard_normal(5),
    "d": (rng.standard_normal(3) + 1j).astype(np.complex64),
    "e": np.arange(3, dtype=np.uint8),
    "f": np.array(7, np.int64),
    "g": np.array([True, False]),
    "h": np.zeros((0, 4), np.float32),
}


def safetensors(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(kind="F32", shape=(2,), begin=0, end=8):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_round_trip(tmp_path, suffix):
    path = tmp_path / f"arrays{suffix}"
    write_arrays(path, ARRAYS)
    first = path.read_bytes()
    back = read_arrays(path)
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
    write_arrays(path, ARRAYS)
    assert path.read_bytes() == first


def test_safetensors_by_hand(tmp_path):
    path = tmp_path / "x.safetensors"
    body = np.array([1.5, -2], "<f4").tobytes() + bytes([0x80, 0x3F, 0x40, 0xC0, 0x00, 0x3C])
    header = {
        "__metadata__": {"format": "pt"},
        "half": entry("F16", (1,), 12, 14),
        "brain": entry("BF16", (1, 2), 8, 12),
        "x": entry(),
    }
    path.write_bytes(safetensors(header, body))
    back = read_arrays(path)
    assert {name: (array.dtype.name, array.tolist()) for name, array in back.items()} == {
        "half": ("float32", [1.0]),
        "brain": ("float32", [[1.0, -3.0]]),
        "x": ("float32", [1.5, -2.0]),
    }


def test_every_array_starts_at_a_multiple_of_its_size(tmp_path):
    path = tmp_path / "x.safetensors"
    write_arrays(path, {"a": np.zeros(3, np.float32), "b": np.zeros(2), "c": np.zeros(1, np.uint8)})
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    for each in json.loads(data[8 : 8 + length]).values():
        assert each["data_offsets"][0] % np.dtype(DTYPES[each["dtype"]]).itemsize == 0


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"123", "8 bytes"),
        (safetensors({}, length=2**63), "declares a header of"),
        (safetensors({}, length=3), "declares a header of"),
        (safetensors(b"\xff\xfe"), "decode"),
        (safetensors(b"[1]"), "expected an object"),
        (safetensors(b'{"x": 1'), "damaged"),
        (safetensors(b'{"x": 1, "x": 2}'), "twice"),
        (safetensors(b"[" * 100_000), "nested"),
        (safetensors({"x": 1}), "dtype, shape and data_offsets"),
        (safetensors({"x": entry("F8_E4M3")}, bytes(8)), "F8_E4M3"),
        (safetensors({"x": entry(["F32"])}, bytes(8)), "expected a dtype"),
        (safetensors({"x": entry(shape=(-2,))}, bytes(8)), "whole numbers as shape"),
        (safetensors({"x": entry(shape=(2.0,))}, bytes(8)), "whole numbers as shape"),
        (safetensors({"x": {**entry(), "shape": 2}}, bytes(8)), "whole numbers as shape"),
        (safetensors({"x": {**entry(), "data_offsets": [0]}}, bytes(8)), "data_offsets"),
        (safetensors({"x": entry(end=12)}, bytes(12)), "from byte 0 to 12"),
        (safetensors({"x": entry(shape=(10**30,), end=4 * 10**30)}, bytes(8)), "declares F32"),
        (safetensors({"x": entry()}, bytes(4)), "declares F32"),
        (safetensors({"x": entry(), "y": entry()}, bytes(8)), "two arrays or to none"),
        (safetensors({"x": entry(begin=4, end=12)}, bytes(12)), "two arrays or to none"),
        (safetensors({"x": entry()}, bytes(9)), "expected 8 bytes"),
    ],
)
def test_a_bad_safetensors_file_is_refused(tmp_path, data, word):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=rf"x\.safetensors: expected an intact.*({word}|$)"
    ) as error:
        read_arrays(path)
    assert word in str(error.value) or word == "damaged"


def test_a_header_takes_no_more_memory_than_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"x": entry(shape=(2**40,), end=2**42)}, bytes(8)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="declares F32"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle ran')",)


def test_a_pickle_is_not_run(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([Trap()], object))
    with pytest.raises(ValueError, match="pickled objects"):
        read_arrays(tmp_path / "x.npz")
    for name in ("x.pt", "x.pkl", "x.bin", "x"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        with pytest.raises(ValueError, match=r"ends in \.npz or \.safetensors.*pickle"):
            read_arrays(tmp_path / name)


def test_what_cannot_be_read_or_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="file: no file"):
        read_arrays(tmp_path / "none.npz", "file")
    with pytest.raises(ValueError, match="c: expected one of .* got complex128; take an .npz"):
        write_arrays(tmp_path / "x.safetensors", {"c": np.zeros(2, complex)})
    with pytest.raises(ValueError, match="ends in"):
        write_arrays(tmp_path / "x.txt", {})
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(3.0))  # others may compress
    assert read_arrays(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]
    (tmp_path / "x.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match=r"x\.npz: expected an intact"):
        read_arrays(tmp_path / "x.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
