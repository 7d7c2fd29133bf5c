"""The first wrong number, and how it is wrong: numbers by hand."""

import numpy as np
import pytest

from minis5.verify.case import Case
from minis5.verify.compare import accuracy, agrees, as_numbers, first_wrong

RNG = np.random.default_rng(0)
REAL = RNG.standard_normal((5, 2, 3))
COMPLEX = REAL + 1j * RNG.standard_normal((5, 2, 3))


def case_of(expected, dtype="float32", steps=1):
    return Case("scan", "a", ("core",), dtype, {"T": 5, "B": 2}, {}, {"x": expected}, steps=steps)


def words(expected, got, **options):
    wrong = first_wrong(case_of(expected, **options), {"x": got})
    return None if wrong is None else wrong.words


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("expected", [REAL, COMPLEX], ids=["real", "complex"])
def test_the_bound(dtype, expected):
    """An error of the allowed size passes, a slightly larger one does not, at any scale."""
    allowed = 64 * np.finfo(dtype).eps * 7
    for scale in (1.0, 1e-30, 1e30):
        for factor, fails in ((0.99, False), (1.01, True)):
            got = expected.copy()
            got[2, 1, 0] += factor * allowed * np.abs(expected).max()
            message = words(scale * expected, scale * got, dtype=dtype, steps=7)
            assert (message is not None) is fails
            if fails:
                assert message.startswith("x[2, 1, 0]: expected ")
                assert "wrong at t = 2 only" in message and "only in row 1" in message


def test_a_bound_for_zeros_is_absolute():
    zeros = np.zeros((5, 2, 3))
    assert words(zeros, zeros + 7e-6) is None
    assert "expected 0, got 9e-06" in words(zeros, zeros + 9e-6)


def test_subnormal_numbers_have_the_bound_of_the_smallest_normal_one():
    tiny = float(np.finfo(np.float32).tiny)
    got = np.full((5, 2, 3), tiny / 64)
    got[0] += 8e-6 * tiny * 0.9
    assert words(np.full((5, 2, 3), tiny / 64), got) is None
    assert "all zero" in words(np.full((5, 2, 3), tiny / 64), 0 * got)


def test_shapes_come_first():
    assert words(REAL, REAL[:4]) == "x: expected shape (5, 2, 3), got (4, 2, 3)"
    assert words(REAL, REAL.transpose(1, 0, 2)).endswith("; the axes are in another order")
    assert words(REAL, np.full((1,), np.nan)).startswith("x: expected shape")


def test_kinds():
    assert words(COMPLEX, REAL) == "x: expected complex numbers, got real ones"
    assert words(REAL, COMPLEX) == "x: expected real numbers, got complex ones"
    assert words(REAL, REAL + 0j) is None  # of one who computes with complex numbers alone
    assert words(REAL, REAL.astype(object)) == (
        "x: expected an array of numbers, got an array of dtype object"
    )
    assert words(REAL, "text") == "x: expected an array of numbers, got str"
    assert words(REAL, None) == "x: expected an array of numbers, got NoneType"
    assert words(REAL, [[1, 2], [3]]) == "x: expected an array of numbers, got list"
    assert words(np.ones((5, 2)), np.ones((5, 2), int)) is None
    assert words(np.ones((5, 2), bool), np.ones((5, 2), int)) is None
    assert words(np.ones((5, 2), int), np.ones((5, 2), bool)) is None
    assert words(np.ones((5, 2), bool), np.full((5, 2), 2)).startswith("x: expected bool")


def test_integers_are_exact():
    expected = np.arange(10).reshape(5, 2)
    got = expected.copy()
    got[3, 0] = 7
    assert words(expected, expected) is None
    assert words(expected, got).startswith("x[3, 0]: expected 6, got 7; wrong at t = 3 only")


def test_nan_comes_before_numbers():
    expected = REAL.copy()
    expected[1, 0, 0], expected[1, 1, 0], expected[3, 1, 1] = np.nan, np.inf, -np.inf
    assert words(expected, expected) is None
    for index, value in (((1, 1, 0), -np.inf), ((1, 1, 0), np.nan), ((1, 0, 0), np.inf)):
        got = expected.copy()
        got[index] = value
        assert words(expected, got).startswith(f"x[{', '.join(map(str, index))}]: expected ")
    got = expected.copy()
    got[1, 0, 0], got[4, 0, 0] = 1.0, np.nan
    message = words(expected, got)
    assert "1 numbers are not finite" in message and "1 are finite and should not be" in message
    assert "x[1, 0, 0]: expected nan, got 1" in message


def test_any_part_of_a_complex_number_may_be_nan():
    expected, got = COMPLEX.copy(), COMPLEX.copy()
    expected[0, 0, 0], got[0, 0, 0] = complex(np.nan, np.nan), complex(np.inf, 1.0)
    assert words(expected, got) is None
    got[0, 0, 0] = 1.0
    assert words(expected, got).startswith("x[0, 0, 0]: expected nan")


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda z: 2 * z, "times 2"),
        (lambda z: -z, "times -1"),
        (lambda z: 0.5 * z, "times 0.5"),
        (lambda z: 0.0123 * z, "times 0.0123"),
        (lambda z: z.real + 0j, "the imaginary part is missing"),
        (lambda z: 0 * z, "all zero"),
        (np.conj, "conjugated"),
        (lambda z: z[::-1], "reversed in time"),
        (lambda z: np.concatenate([z[:1], z[:-1]]), "one step late"),
        (lambda z: np.concatenate([z[1:], z[-1:]]), "one step early"),
        (lambda z: np.concatenate([z[:3], z[3:] + 1]), "wrong from t = 3 on"),
        (lambda z: np.concatenate([z[:2] + 1, z[2:]]), "wrong up to t = 1"),
        (lambda z: z + [[1], [0]], "only in row 0 of the batch"),
        (lambda z: z.astype(np.complex64), "about what single precision gives"),
        (lambda z: z * (1 + 2e-4 * RNG.random(z.shape)), "about what half or TF32 precision gives"),
    ],
)
def test_what_is_striking_is_said(change, said):
    message = words(COMPLEX, change(COMPLEX), dtype="float64")
    assert said in message.split("; ")


def test_huge_wrong_numbers_do_not_warn(recwarn):
    assert words(REAL, REAL * 5e307) is not None
    assert words(1e300 * COMPLEX, np.full(COMPLEX.shape, 1e308 + 1e308j)) is not None
    assert not recwarn.list


def test_missing_outputs():
    case = case_of(REAL)
    assert first_wrong(case, {}).words == "x: expected an array, got none"
    assert first_wrong(case, {"x": REAL, "more": 1}) is None


def test_agrees():
    case, other = case_of(REAL), {"x": 2 * REAL}
    assert agrees(case, {"x": 2 * REAL * (1 + 1e-6)}, other)
    assert not agrees(case, {"x": REAL}, other) and not agrees(case, {}, other)
    assert not agrees(case, {"x": 2 * REAL[:1]}, other) and not agrees(case, {"x": "a"}, other)
    bad = np.where(REAL > 0, np.nan, REAL)
    assert agrees(case, {"x": bad}, {"x": bad}) and not agrees(case, {"x": REAL}, {"x": bad})


def test_accuracy():
    case = case_of(REAL)
    largest = np.abs(REAL).max()
    got = REAL.copy()
    got[1, 1, 1] += 0.25 * largest
    assert accuracy(case, {"x": got}) == pytest.approx(0.25)
    assert accuracy(case, {"x": REAL}) == 0.0
    assert accuracy(case, {}) is None and accuracy(case, {"x": REAL[:1]}) is None
    got[0, 0, 0] = np.nan
    assert accuracy(case, {"x": got}) is None
    assert accuracy(case_of(np.where(REAL > 0, np.inf, REAL)), {"x": REAL}) == 0.0


def test_others_arrays_that_refuse():
    class Refusing:
        def __array__(self, *arguments, **keywords):
            raise RuntimeError("not on this device")

    assert as_numbers(Refusing()) is None
    assert words(REAL, Refusing()) == "x: expected an array of numbers, got Refusing"
