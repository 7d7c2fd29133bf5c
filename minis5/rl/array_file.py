"""Files of named arrays that other programs write and read: .npz and .safetensors.

    .npz           a zip of .npy arrays, read without pickle
    .safetensors   8 bytes: the length of a JSON header, little-endian; the header, which says each
                   array's dtype, shape and place; the arrays' bytes, end to end

Every size that a file declares is compared with the file's own before memory is taken. Nothing
from a file is run. Half precision (F16, BF16) is read as float32, which holds it exactly.

Leaves out: 8-bit and 4-bit floats; the header's free texts (``__metadata__``).
Source: the format's description, https://github.com/huggingface/safetensors.
Tests: tests/rl/test_array_file.py.
"""

import json
import math
from collections.abc import Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from minis5.files import load_npz, parse_json, reason, write_bytes

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
    "BF16": "<u2",  # the upper half of a float32
}
MOST_HEADER = 100_000_000  # bytes, as the format says
SUFFIXES = (".npz", ".safetensors")


def check_suffix(path: str | PathLike, argument: str) -> Path:
    """Return ``path`` as a Path; raise ValueError unless it ends in .npz or .safetensors."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        wanted = f"a file that ends in {' or '.join(SUFFIXES)}"
        remedy = "these formats hold arrays alone; a pickle can run code"
        raise ValueError(f"{argument}: expected {wanted}, got {path.name!r}; {remedy}")
    return path


def read_arrays(path: str | PathLike, argument: str = "path") -> dict[str, np.ndarray]:
    """Return the arrays of an .npz or .safetensors file by name.

    Parameters
    ----------
    path : path
    argument : str
        The name of the argument that the path came from, for messages.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The name ends otherwise, or the content is not what the format says.
    """
    path = check_suffix(path, argument)
    if not path.is_file():
        raise FileNotFoundError(f"{argument}: no file {path}; give the path of one")
    try:
        return load_npz(path) if path.suffix == ".npz" else parse(path.read_bytes())
    except MemoryError:
        raise
    except Exception as error:  # damage makes zipfile and NumPy raise almost anything
        raise ValueError(
            f"{path}: expected an intact {path.suffix} file, got a damaged or foreign one "
            f"({reason(error)}); write it anew"
        ) from error


def write_arrays(path: str | PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the file ``path`` by ``arrays``, whole or not at all; the same bytes every time.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        The name ends otherwise, or an array has a dtype that the format lacks.
    """
    path = check_suffix(path, "path")
    if path.suffix == ".npz":
        named: dict[str, Any] = dict(arrays)
        buffer = BytesIO()
        np.savez(buffer, **named)
        write_bytes(path, buffer.getvalue())
    else:
        write_bytes(path, build(arrays))


def parse(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a .safetensors file's bytes, as copies.

    Raises
    ------
    ValueError
        The header or a size is not what the format says.
    """
    if len(data) < 8:
        raise ValueError(f"expected 8 bytes and a header, got {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, MOST_HEADER):
        raise ValueError(f"it declares a header of {length} bytes, and has {len(data) - 8}")
    header = parse_json(data[8 : 8 + length].decode())
    if not isinstance(header, dict):
        raise ValueError(f"header: expected an object, got {type(header).__name__}")
    header.pop("__metadata__", None)
    body, arrays, places = memoryview(data)[8 + length :], {}, []
    for name, entry in header.items():
        kind, shape, (begin, end) = _entry(name, entry)
        size = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
        if not 0 <= begin <= end <= len(body) or end - begin != size:
            raise ValueError(f"{name} declares {kind} {shape} from byte {begin} to {end}")
        array = np.frombuffer(body[begin:end], DTYPES[kind]).reshape(shape)
        if kind == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        arrays[name] = array.astype(np.float32 if kind == "F16" else array.dtype.newbyteorder("="))
        places.append((begin, end))
    last = 0
    for begin, end in sorted(places):
        if begin != last:
            raise ValueError(f"byte {min(begin, last)} belongs to two arrays or to none")
        last = end
    if last != len(body):
        raise ValueError(f"expected {last} bytes of arrays, got {len(body)}")
    return arrays


def _entry(name, entry):
    """Return an array's dtype, shape and place in the file, checked one by one."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: expected dtype, shape and data_offsets, got {entry!r:.60}")
    kind, shape, place = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise ValueError(f"{name}: expected a dtype of {', '.join(DTYPES)}, got {kind!r:.60}")
    for part, numbers in (("shape", shape), ("data_offsets", place)):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole or (part == "data_offsets" and len(numbers) != 2):
            raise ValueError(f"{name}: expected whole numbers as {part}, got {numbers!r:.60}")
    return kind, tuple(shape), place


def build(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a .safetensors file of ``arrays``.

    Wider dtypes come first, so that every array starts at a multiple of its dtype's size.

    Raises
    ------
    ValueError
        An array has a dtype that the format lacks.
    """
    kinds = {np.dtype(dtype): kind for kind, dtype in DTYPES.items() if kind != "BF16"}
    header, parts, end = {}, [], 0
    for name in sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize):
        array = np.asarray(arrays[name])
        little = array.dtype.newbyteorder("<")
        if little not in kinds:
            known = ", ".join(dtype.name for dtype in kinds)
            raise ValueError(f"{name}: expected one of {known}, got {array.dtype}; take an .npz")
        parts.append(array.astype(little, copy=False).tobytes())
        begin, end = end, end + len(parts[-1])
        place = {"shape": list(array.shape), "data_offsets": [begin, end]}
        header[name] = {"dtype": kinds[little], **place}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
