"""The recurrence without rounding errors: against the reference, and against mpmath."""

import numpy as np
import pytest

from minis5 import reference
from minis5.verify.operations.exact import Fixed, exact_scan, exact_scan_vjp, fixed


def problem(is_complex, T=40):
    rng = np.random.default_rng(0)

    def some(*shape):
        z = rng.standard_normal(shape)
        return z + 1j * rng.standard_normal(shape) if is_complex else z

    a = 0.3 * some(2)
    return a, some(T, 3, 2), rng.random((T, 3)) < 0.1, some(3, 2), some(T, 3, 2)


@pytest.mark.parametrize("is_complex", [False, True])
def test_it_is_the_reference(is_complex):
    a, b, reset, x0, dx = problem(is_complex)
    for arguments in ((a, b, reset, x0), (a, b, None, None)):
        x, expected = exact_scan(*arguments), reference.scan(*arguments)
        np.testing.assert_allclose(x, expected, rtol=0, atol=1e-14)
        assert x.dtype == expected.dtype
        for got, want in zip(
            exact_scan_vjp(*arguments, x, dx), reference.scan_vjp(*arguments, x, dx), strict=True
        ):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
            assert got.dtype == want.dtype and got.shape == want.shape


def test_numbers_are_exact():
    z = fixed(0.1 + 2.0**-60 * 1j)
    assert z.rounded() == 0.1 + 2.0**-60 * 1j
    assert fixed(3).times(fixed(5)) == fixed(15) and fixed(2j).times(fixed(2j)) == fixed(-4)
    assert fixed(1j).conj() == fixed(-1j) and fixed(1).plus(fixed(2j)) == fixed(1 + 2j)
    tiny = Fixed(1, 0)
    assert fixed(1.0).plus(tiny).rounded() == 1.0 and fixed(1.0).plus(tiny) != fixed(1.0)


def test_where_float64_is_not_enough():
    """The state is what is left of two numbers that cancel but for one part in 2^60."""
    b = np.array([1.0, -1.0, 2.0**-60])[:, None, None]
    big = np.array([[[2.0**60]], [[0.0]], [[0.0]]])
    assert exact_scan(np.ones(1), b + big)[-1, 0, 0] == 2.0**60
    assert exact_scan(np.ones(1), np.concatenate([b, big, -big]))[-1, 0, 0] == 2.0**-60


def test_it_is_mpmath():
    mpmath = pytest.importorskip("mpmath")
    a, b, _, _, _ = problem(True, 200)
    a = a / np.abs(a) * (1 - 2.0**-20)
    x = exact_scan(a, b)
    with mpmath.workdps(50):
        state = mpmath.mpc(0)
        for t in range(200):
            state = mpmath.mpc(a[1]) * state + mpmath.mpc(b[t, 2, 1])
        assert complex(state) == x[-1, 2, 1]
