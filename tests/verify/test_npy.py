"""The .npy files of test vectors: bytes by hand, NumPy's reader, and everything that is wrong."""

import io

import numpy as np
import pytest

from minis5.verify.npy import from_npy, kind_of, to_npy

ARRAYS = {
    "real": np.array([[1.5, -2.0, np.nan], [np.inf, 5e-324, -0.0]]),
    "complex": np.array([1 + 2j, complex(np.nan, 3)]),
    "bool": np.array([[True], [False]]),
    "integer": np.array(-(2**60)),
}


def saved(z, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, z, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ARRAYS)
def test_round_trip(kind):
    z = ARRAYS[kind]
    got = from_npy(to_npy(z), kind)
    assert kind_of(z) == kind and got.dtype == z.dtype and got.shape == z.shape
    assert got.tobytes() == z.tobytes()
    stored = np.load(io.BytesIO(to_npy(z)))  # NumPy reads it
    assert stored.dtype.str == {"bool": "|u1", "integer": "<i8"}.get(kind, "<f8")
    assert stored.shape == (z.shape if kind != "complex" else (*z.shape, 2))


def test_the_bytes_are_numpy_s_too():
    for z in (np.zeros((33, 2, 3)), np.zeros(7), np.array(1.0)):
        data = to_npy(z)
        assert data[:8] == b"\x93NUMPY\x01\x00" and (10 + data[8]) % 64 == 0
        assert data == saved(z, version=(1, 0))


@pytest.mark.parametrize(
    "kind, z, expected",
    [
        ("real", np.float32([1.5, 2]), [1.5, 2]),
        ("real", np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [[1, 2], [3, 4]]),
        ("complex", np.complex64([1 + 2j]), [1 + 2j]),
        ("complex", np.complex128([[1 + 2j]]), [[1 + 2j]]),
        ("complex", np.float32([[1, 2], [3, 4]]), [1 + 2j, 3 + 4j]),
        ("complex", np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]), [1 + 2j, 3 + 4j]),
        ("bool", np.array([True, False]), [True, False]),
        ("integer", np.int32([-3]), [-3]),
        ("integer", np.uint8([3]), [3]),
        ("real", np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_what_others_write_is_read(kind, z, expected):
    got = from_npy(saved(z), kind)
    assert kind_of(got) == kind and got.dtype.itemsize in (1, 8, 16)
    np.testing.assert_array_equal(got, expected)
    assert np.array_equal(from_npy(saved(z, version=(2, 0)), kind), got)


LONG_HEADER = b"\x93NUMPY\x01\x00" + (60_000).to_bytes(2, "little") + b" " * 60_000


@pytest.mark.parametrize(
    "kind, data, message",
    [
        ("real", b"", "expected a .npy file of format 1.0 or 2.0, got an empty file"),
        ("real", saved(np.zeros(3), version=(3, 0)), "(format 3.0); write it as README.txt says"),
        (
            "real",
            LONG_HEADER,
            "(Header info length (60000) is large and may not be safe to load sec",
        ),
        ("real", b"PK\x03\x04zip", r"got one that begins with b'PK\x03\x04zi'"),
        ("real", b"1.5 2.0\n", "expected a .npy file"),
        ("real", to_npy(np.zeros(3))[:9], "expected a .npy file"),
        ("real", to_npy(np.zeros(3))[:60], "expected a .npy file"),
        ("real", to_npy(np.zeros(3))[:-1], "expected 24 bytes of numbers for shape (3,), got 23"),
        ("real", to_npy(np.zeros(3)) + b"x", "expected 24 bytes of numbers for shape (3,), got 25"),
        ("real", to_npy(np.zeros(3)).replace(b"(3,)", b"(9**9,)"), "expected a .npy file"),
        ("real", to_npy(np.zeros(3)).replace(b"(3,),", b"(-3,)"), "bytes of numbers for shape (-3"),
        ("real", saved(np.zeros(3, ">f8")), "expected little-endian float64 ('<f8'), got big-end"),
        ("real", saved(np.zeros(3, ">f8")), "write the bytes in the other order"),
        ("complex", saved(np.zeros(3, ">c16")), "expected little-endian float64"),
        ("integer", saved(np.zeros(3, ">i4")), "expected little-endian int64 ('<i8'), got big-en"),
        ("real", saved(np.zeros(3, int)), "expected real numbers as float64 ('<f8'), got int64"),
        ("real", saved(np.zeros(3, complex)), "got complex128 ('<c16')"),
        ("real", saved(np.zeros(3, np.float16)), "got float16"),
        ("real", saved(np.array(["a"])), "got str"),
        ("real", saved(np.array([None]), allow_pickle=True), "got pickled objects"),
        ("complex", to_npy(np.zeros((2, 3))), "expected a last axis of 2 (real, imaginary)"),
        ("complex", to_npy(np.array(1.0)), "expected a last axis of 2"),
        ("bool", to_npy(np.zeros(3)), "expected bool numbers as uint8 ('|u1'), got float64"),
        ("bool", saved(np.uint8([0, 7])), "expected flags 0 and 1, got 7"),
        ("integer", to_npy(np.zeros(3)), "expected integer numbers as int64"),
    ],
)
def test_what_is_wrong_is_said(kind, data, message):
    with pytest.raises(ValueError) as caught:
        from_npy(data, kind)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_any_damage_is_a_value_error():
    """Every byte of the header changed, in 20 ways; what comes is an array or a ValueError."""
    whole, rng = to_npy(np.arange(6.0).reshape(2, 3)), np.random.default_rng(0)
    for place in range(128):
        for value in rng.integers(0, 256, 20):
            data = bytearray(whole)
            data[place] = value
            try:
                assert from_npy(bytes(data), "real").size * 8 <= len(whole)
            except ValueError:
                pass
