"""The .npy files of the test vectors: written with the same bytes everywhere, read with suspicion.

A stored array is little-endian: real numbers float64, complex ones float64 with a last axis
(real, imaginary), flags uint8, integers int64. Files that other programs wrote may be float32 or
NumPy's own complex and bool types too.

Source: the .npy format 1.0, numpy.lib.format. Tests: tests/verify/test_npy.py.
"""

import io
import math

import numpy as np

KINDS = {  # what an array holds: how it is stored, and what else is read
    "real": ("<f8", ("<f8", "<f4")),
    "complex": ("<f8", ("<f8", "<f4", "<c16", "<c8")),
    "bool": ("|u1", ("|u1", "|b1")),
    "integer": ("<i8", ("<i8", "<i4", "<i2", "|i1", "<u8", "<u4", "<u2", "|u1")),
}
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def kind_of(z: np.ndarray) -> str:
    """Return which of KINDS an array holds."""
    return {"f": "real", "c": "complex", "b": "bool"}.get(z.dtype.kind, "integer")


def to_npy(z: np.ndarray) -> bytes:
    """Return the bytes of a .npy file that stores ``z``."""
    if z.dtype.kind == "c":
        z = np.stack([z.real, z.imag], axis=-1)
    stored = np.ascontiguousarray(z, KINDS[kind_of(z)][0]).reshape(z.shape)
    header = f"{{'descr': '{stored.dtype.str}', 'fortran_order': False, 'shape': {stored.shape}, }}"
    padding = -(10 + len(header) + 1) % 64
    text = header.encode("latin1") + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + stored.tobytes()


def from_npy(data: bytes, kind: str) -> np.ndarray:
    """Return the array of a .npy file, as float64, complex128, bool or int64.

    Parameters
    ----------
    data : bytes
        The whole file.
    kind : str
        Which of KINDS it has to hold.

    Raises
    ------
    ValueError
        It is no .npy file, is cut short, or holds something else; the message says which.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError("format {}.{}".format(*version))
        shape, is_fortran, dtype = HEADERS[version](stream)
    except Exception as error:  # damage makes NumPy raise almost anything
        kinds, remedy = "a .npy file of format 1.0 or 2.0", "write it as README.txt says"
        words = " ".join(str(error).split()).split(". ")[0][:100] or type(error).__name__
        raise ValueError(f"expected {kinds}, got {_beginning(data)} ({words}); {remedy}") from None
    stored, accepted = KINDS[kind]
    if dtype.str not in accepted:
        named = f"{np.dtype(stored).name} ({stored!r})"
        if dtype.str.startswith(">"):
            remedy = "write the bytes in the other order"
            raise ValueError(
                f"expected little-endian {named}, got big-endian {dtype.str!r}; {remedy}"
            )
        got = "pickled objects" if dtype.hasobject else f"{dtype.name} ({dtype.str!r})"
        raise ValueError(f"expected {kind} numbers as {named}, got {got}; convert them")
    rest, size = len(data) - stream.tell(), math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or rest != size:
        wanted, remedy = f"{size} bytes of numbers for shape {shape}", "write the whole array"
        raise ValueError(f"expected {wanted}, got {rest}; {remedy}")
    array = np.frombuffer(data, dtype, offset=stream.tell())
    array = array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)
    if kind == "complex" and dtype.kind == "f":
        if shape[-1:] != (2,):
            wanted, remedy = "a last axis of 2 (real, imaginary)", "write both parts of each number"
            raise ValueError(f"expected {wanted}, got shape {shape}; {remedy}")
        array = np.ascontiguousarray(array, np.float64).view(np.complex128)[..., 0]
    if kind == "bool" and dtype.kind == "u" and (array > 1).any():
        raise ValueError(f"expected flags 0 and 1, got {array.max()}; write 1 for true")
    types = {"real": np.float64, "complex": np.complex128, "bool": np.bool_, "integer": np.int64}
    return array.astype(types[kind])


def _beginning(data):
    return "an empty file" if not data else f"one that begins with {data[:6]!r}"
