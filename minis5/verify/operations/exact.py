"""The recurrence and its adjoint without rounding errors, for sequences so long that float64's
errors would show.

Numbers are integers with 200 binary places. Inputs are exact then, a product loses 2^-200, and only
results are rounded to float64. (These are 60 digits, and Python's integers need no package.)

Leaves out: NaN, Inf, numbers too small for 200 places, and a multiplier that differs in time.
Tests: tests/verify/test_exact.py, against mpmath where it is installed.
"""

from typing import NamedTuple

import numpy as np

PLACES = 200
ONE = 1 << PLACES


class Fixed(NamedTuple):
    """A complex number, exact in 200 binary places."""

    re: int
    im: int

    def plus(self, other: "Fixed") -> "Fixed":
        return Fixed(self.re + other.re, self.im + other.im)

    def times(self, other: "Fixed") -> "Fixed":
        re, im = self.re * other.re - self.im * other.im, self.re * other.im + self.im * other.re
        return Fixed(re >> PLACES, im >> PLACES)

    def conj(self) -> "Fixed":
        return Fixed(self.re, -self.im)

    def rounded(self) -> complex:
        """Return the nearest complex128."""
        return complex(self.re / ONE, self.im / ONE)  # Python rounds a quotient of integers once


def fixed(z: complex) -> Fixed:
    """Return a number of NumPy or Python as it is."""
    z = complex(z)
    parts = (part.as_integer_ratio() for part in (z.real, z.imag))
    return Fixed(*((above << PLACES) // below for above, below in parts))


def _like(z, dtype):
    """Return complex numbers in ``dtype``, real or complex."""
    return z if dtype.kind == "c" else z.real


def exact_scan(a, b, reset=None, x0=None):
    """Return what reference.scan returns, rounded once. Arguments as there; a (P,)."""
    T, B, P = b.shape
    x = np.zeros((T, B, P), complex)
    for n, p in np.ndindex(B, P):
        state, factor = fixed(0.0 if x0 is None else x0[n, p]), fixed(a[p])
        for t in range(T):
            new = fixed(b[t, n, p])
            forgotten = reset is not None and reset[t, n]
            state = new if forgotten else factor.times(state).plus(new)
            x[t, n, p] = state.rounded()
    return _like(x, np.result_type(a, b))


def exact_scan_vjp(a, b, reset, x0, x, dx):
    """Return what reference.scan_vjp returns, rounded once. Arguments as there; a (P,)."""
    T, B, P = b.shape
    da, db, dx0 = np.zeros(P, complex), np.zeros((T, B, P), complex), np.zeros((B, P), complex)
    for p in range(P):
        total, factor = fixed(0.0), fixed(a[p]).conj()
        for n in range(B):
            from_later = fixed(0.0)
            for t in reversed(range(T)):
                g = fixed(dx[t, n, p]).plus(from_later)
                db[t, n, p] = g.rounded()
                if reset is not None and reset[t, n]:
                    from_later = fixed(0.0)
                    continue
                start = 0.0 if x0 is None else x0[n, p]
                previous = fixed(x[t - 1, n, p] if t else start)
                from_later, total = factor.times(g), total.plus(g.times(previous.conj()))
            dx0[n, p] = from_later.rounded()
        da[p] = total.rounded()
    dtype = np.result_type(a, b, dx)
    return tuple(_like(z, dtype) for z in (da, db, dx0))
