"""What is wrong with an array: the first wrong number, and how it is wrong, in words.

An output is right if max |got - expected| ≤ c·eps·T·max |expected|, with c = 64 for forward passes
and 256 for gradients. Its shape comes first, then where it is NaN or infinite: a real number must
be NaN, Inf or -Inf just where it is expected to be; of a complex number any such part counts, as
libraries differ in which part gets it. If all that is expected is zero, the bound is absolute.

Leaves out: why it is wrong (the causes of each operation; judge.py). Tests:
tests/verify/test_compare.py.
"""

from typing import Any, NamedTuple

import numpy as np

from minis5.verify.case import Case


class Wrong(NamedTuple):
    """What is wrong with one output."""

    output: str
    at: tuple[int, ...] | None  # index of the first wrong number; None if the array as a whole is
    expected: str
    got: str
    words: str  # a sentence

    def __str__(self) -> str:
        return self.words


def first_wrong(case: Case, got: dict[str, Any]) -> Wrong | None:
    """Return what is wrong with the first wrong output of a case; None if all are right.

    Parameters
    ----------
    case : Case
    got : {output: array}
        An output that the case does not have is left alone; one that it has and that is missing
        here is wrong.
    """
    for name, expected in case.expected.items():
        if name not in got:
            return Wrong(name, None, "an array", "none", f"{name}: expected an array, got none")
        with np.errstate(all="ignore"):  # wrong numbers may be of any size
            wrong = _wrong(case, name, got[name], expected)
        if wrong is not None:
            return wrong
    return None


def agrees(case: Case, got: dict[str, Any], other: dict[str, np.ndarray]) -> bool:
    """Return whether outputs agree with ``other`` instead of what is expected, as tightly."""
    for name, z in other.items():
        if name not in got or (array := as_numbers(got[name])) is None or array.shape != z.shape:
            return False
        array = _of_kind(array, z)
        if _kind(array) != _kind(z) or _misses(case, name, array, z).any():
            return False
    return True


def accuracy(case: Case, got: dict[str, Any]) -> float | None:
    """Return the largest max |error| / max |expected| of a case's outputs, over finite numbers.

    None if an output is missing, has another shape, or is not finite where it should be.
    """
    worst = 0.0
    for name, expected in case.expected.items():
        array = as_numbers(got.get(name))
        if array is None or array.shape != expected.shape:
            return None
        finite = np.isfinite(expected)
        if not np.isfinite(array[finite]).all():
            return None
        if expected.dtype.kind == "b":
            array, expected = array.astype(float), expected.astype(float)
        if finite.any():
            size, error = np.abs(expected[finite]), np.abs(array[finite] - expected[finite])
            worst = max(worst, float(error.max() / (size.max() or 1.0)))
    return worst


def as_numbers(value: Any) -> np.ndarray | None:
    """Return ``value`` as an array of 64-bit numbers or flags; None if it is none."""
    try:
        array = np.asarray(value)
    except Exception:  # others' arrays refuse in their own ways
        return None
    kinds = {"f": np.float64, "c": np.complex128, "i": np.int64, "u": np.int64, "b": np.bool_}
    if array.dtype.kind not in kinds:
        return None
    with np.errstate(invalid="ignore"):
        return array.astype(kinds[array.dtype.kind])


def _kind(z):
    """Return what numbers an array holds, in words."""
    return {"f": "real", "c": "complex", "b": "bool"}.get(z.dtype.kind, "integer")


def _of_kind(z, expected):
    """Return an array as the kind of numbers that is expected, if that loses nothing."""
    wanted, kind = _kind(expected), _kind(z)
    if {wanted, kind} == {"bool", "integer"} and np.isin(z, (0, 1)).all():
        return z.astype(expected.dtype)
    if (wanted, kind) == ("real", "complex") and not z.imag[np.isfinite(z.real)].any():
        return z.real  # whoever computes with complex numbers alone
    return z


def _marks(z):
    """Return 0 where a number is finite; 1, 2, 3 for NaN, Inf, -Inf; 1 for all these if complex."""
    if z.dtype.kind == "c":
        return (~np.isfinite(z)).astype(np.int8)
    return np.isnan(z) + 2 * np.isposinf(z) + 3 * np.isneginf(z)


def _misses(case, name, got, expected):
    """Return where the numbers of an output are wrong, a bool array."""
    if expected.dtype.kind not in "fc":
        return got != expected
    marks = _marks(expected)
    misses = _marks(got) != marks
    finite = (marks == 0) & ~misses
    return misses | (finite & (_errors(got, expected, finite) > _allowed(case, name, expected)))


def _errors(got, expected, where):
    difference = np.zeros(expected.shape)
    difference[where] = np.abs(got[where] - expected[where])
    return difference


def _allowed(case, name, expected):
    """Return the largest |error| that is allowed; a fault's zeros are not tiny numbers."""
    largest = _largest(expected) or _largest(case.expected[name]) or 1.0
    return case.tolerance(name) * max(largest, float(np.finfo(case.dtype).tiny))


def _largest(z):
    """Return the size of the largest finite number; 0 if there is none."""
    return np.abs(z[np.isfinite(z)]).max(initial=0.0)


def _wrong(case, name, value, expected):
    got = as_numbers(value)
    if got is None:
        kind = getattr(value, "dtype", None)
        kind = type(value).__name__ if kind is None else f"an array of dtype {kind}"
        words = f"{name}: expected an array of numbers, got {kind}"
        return Wrong(name, None, "an array of numbers", kind, words)
    if got.shape != expected.shape:
        words = f"{name}: expected shape {expected.shape}, got {got.shape}"
        if sorted(got.shape) == sorted(expected.shape):
            words += "; the axes are in another order"
        return Wrong(name, None, str(expected.shape), str(got.shape), words)
    got = _of_kind(got, expected)
    wanted, kind = _kind(expected), _kind(got)
    if kind != wanted and (kind, wanted) != ("integer", "real"):
        words = f"{name}: expected {wanted} numbers, got {kind} ones"
        return Wrong(name, None, wanted, kind, words)
    misses = _misses(case, name, got, expected)
    if not misses.any():
        return None
    index = tuple(int(i) for i in np.argwhere(misses)[0])
    want, have = _text(expected[index]), _text(got[index])
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    words = f"{where}: expected {want}, got {have}"
    words += "".join(f"; {part}" for part in _describe(case, name, got, expected, misses))
    return Wrong(name, index, want, have, words)


def _text(z):
    """Return a number as text, short but with the digits that matter."""
    return f"{z:.9g}" if z.dtype.kind in "fc" else str(z)


def _describe(case, name, got, expected, misses):
    """Yield what is striking about a wrong array."""
    if expected.dtype.kind in "fc":
        marks, want = _marks(got), _marks(expected)
        both = (marks == 0) & (want == 0)
        if (marks != want).any():
            if (marks[want == 0] != 0).any():
                yield f"{np.count_nonzero((marks != 0) & (want == 0))} numbers are not finite"
            if (marks[want != 0] == 0).any():
                yield f"{np.count_nonzero((marks == 0) & (want != 0))} are finite and should not be"
        else:
            scale = np.abs(expected[both]).max(initial=0.0) or 1.0
            error = _errors(got, expected, both).max() / scale
            yield f"error {error:.1e} of the largest, allowed {case.tolerance(name):.1e}"
        if both.any():
            yield from _looks_like(case, name, got, expected, both)
    yield from _place(case, misses)


SIMPLE = (2.0, 0.5, -1.0)  # what a single number is told to be a multiple by
COARSER = ((2.0**-24, "single precision"), (2.0**-11, "half or TF32 precision"))


def _looks_like(case, name, got, expected, both):
    """Yield what simple change of the expected numbers gives those that came."""
    largest = float(np.abs(expected[both]).max()) or 1.0
    bound = _allowed(case, name, expected) / largest
    want, have = np.where(both, expected, 0.0) / largest, np.where(both, got, 0.0) / largest

    def equal(one, other):
        return bool((np.abs(one - other) <= bound * max(1.0, np.abs(other).max())).all())

    size = float(np.sum(np.abs(want) ** 2))
    factor = float(np.sum((np.conj(want) * have).real)) / (size or 1.0)
    likely = np.count_nonzero(want) > 1 or min(abs(k - factor) for k in SIMPLE) < 1e-3
    several = both.all() and expected.ndim > 1 and len(expected) > 1
    if not have.any():
        yield "all zero"
    elif equal(have, want.conj()) and want.dtype.kind == "c":
        yield "conjugated"
    elif abs(factor - 1.0) > 1e-3 and likely and equal(have, factor * want):
        yield f"times {factor:.4g}"
    elif want.dtype.kind == "c" and equal(have, want.real):
        yield "the imaginary part is missing"
    elif several and equal(have, want[::-1]):
        yield "reversed in time"
    elif several and equal(have[1:], want[:-1]):
        yield "one step late"
    elif several and equal(have[:-1], want[1:]):
        yield "one step early"
    error = float(np.abs(have - want).max())
    for eps, kind in COARSER:
        coarser = eps > 4 * np.finfo(case.dtype).eps
        if coarser and 0.05 * eps < error < min(2 * eps * case.steps**0.5, 0.03):
            yield f"about what {kind} gives"
            break


def _place(case, misses):
    """Yield which steps and which rows are wrong, if the first two axes are time and batch."""
    T, B = case.options.get("T"), case.options.get("B")
    if misses.ndim < 2 or misses.shape[:2] != (T, B):
        return
    steps = np.flatnonzero(misses.reshape(T, -1).any(axis=1)).tolist()
    first, last = steps[0], steps[-1]
    if first == last and T > 1:
        yield f"wrong at t = {first} only"
    elif first > 0 and last == T - 1:
        yield f"wrong from t = {first} on"
    elif first == 0 and last < T - 1:
        yield f"wrong up to t = {last}"
    rows = np.flatnonzero(misses.reshape(T, B, -1).any(axis=(0, 2))).tolist()
    if len(rows) < B:
        which = f"row {rows[0]}" if len(rows) == 1 else f"rows {', '.join(map(str, rows))}"
        yield f"only in {which} of the batch"
