"""sin, cos, log, exp and wrap: constants, errors against exact sums and libm, equal bits.

The equal bits are those of Python and Numba; no operations are fused. tests/test_ptx.py examines
the functions as code for GPUs.
"""

import math
import re
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit

from minis5 import elementary

PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459")
LOG_2 = Fraction("0.69314718055994530941723212145817656807550013436025525412068001")
RANGE = 1e5
FUNCTIONS = {
    name: (getattr(elementary, name), getattr(math, name)) for name in ("sin", "cos", "log", "exp")
}
ULPS = {"sin": 2, "cos": 2, "log": 1, "exp": 1}


@njit
def each(function, x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = function(x[i])
    return out


def points(name):
    """Dense and random grids over the whole range, with the places where digits cancel."""
    rng = np.random.default_rng(0)
    if name == "exp":
        halves = np.arange(-2041, 2045) * (math.log(2) / 2)  # where the exponent changes
        around = [np.nextafter(halves, -np.inf), halves, np.nextafter(halves, np.inf)]
        tiny = 10.0 ** rng.uniform(-300, 0, 20_000)
        grids = [
            np.linspace(-708, 709, 100_001),
            rng.uniform(-708, 709, 50_000),
            np.linspace(-2, 2, 100_001),
        ]
        return np.concatenate([*grids, *around, tiny, -tiny, [0.0]])
    if name == "log":
        near_one = 1 + rng.uniform(-1, 1, 50_000) * 10.0 ** rng.uniform(-16, 0, 50_000)
        wide = 10.0 ** rng.uniform(-308, 308, 50_000)
        uniforms = 1 - rng.integers(0, 2**32, 50_000) / 2**32  # what next_normal asks for
        edges = [
            5e-324,
            2e-310,
            2.0**-1022,
            math.nextafter(1, 0),
            1,
            math.nextafter(1, 2),
            0.5**0.5,
            2**0.5,
            1.7976e308,
        ]
        return np.concatenate([np.linspace(1e-6, 4, 100_001), near_one, wide, uniforms, edges])
    quarters = np.arange(-63_661, 63_662) * (math.pi / 2)  # next to the zeros: little is left of x
    eighths = np.arange(-20_001, 20_000, 2) * (math.pi / 4)  # where the series changes
    around = [np.nextafter(eighths, -np.inf), eighths, np.nextafter(eighths, np.inf)]
    tiny = 10.0 ** rng.uniform(-300, 0, 20_000)
    grids = [
        np.linspace(-8, 8, 100_001),
        np.linspace(-RANGE, RANGE, 100_001),
        rng.uniform(-RANGE, RANGE, 50_000),
    ]
    return np.concatenate([*grids, quarters, *around, tiny, -tiny])


def exact(name, x):
    """sin x, cos x, log x or exp x to 35 places and more."""
    with localcontext(prec=60):
        if name in ("log", "exp"):
            return Fraction(Decimal(x).ln() if name == "log" else Decimal(x).exp())
        pi = Decimal(PI.numerator) / PI.denominator
        angle = Decimal(x) + (pi / 2 if name == "cos" else 0)
        angle -= round(angle / (2 * pi)) * 2 * pi
        total, term, n = Decimal(0), angle, 1
        while abs(term) > abs(angle) / 10**40:  # Taylor's series
            total += term
            n += 2
            term *= -angle * angle / ((n - 1) * n)
        return Fraction(total)


def leading_bits(number, bits):
    """Return the first `bits` bits of a number in [1/2, 8), by truncation."""
    unit = Fraction(1, 2 ** (bits - math.frexp(number)[1]))
    return math.floor(number / unit) * unit


def test_constants():
    parts = [
        Fraction(part)
        for part in (elementary.HALF_PI_1, elementary.HALF_PI_2, elementary.HALF_PI_3)
    ]
    assert parts[0] == leading_bits(PI / 2, 37) and parts[0] + parts[1] == leading_bits(PI / 2, 74)
    assert abs(sum(parts) - PI / 2) < Fraction(1, 2**129)
    parts = [Fraction(part) for part in (elementary.LN2_1, elementary.LN2_2)]
    assert parts[0] == leading_bits(LOG_2, 32) and abs(sum(parts) - LOG_2) < Fraction(1, 2**85)
    parts = [Fraction(part) for part in (elementary.TAU_1, elementary.TAU_2)]
    assert parts[0] == leading_bits(Fraction(math.tau), 33) and sum(parts) == Fraction(math.tau)
    assert elementary.SQRT_HALF == math.sqrt(0.5) and elementary.LOG2_E == float(1 / LOG_2)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_against_exact_values(name):
    x = points(name)
    sample = np.concatenate([np.random.default_rng(1).choice(x, 500), x[:: len(x) // 500]])
    if name in ("sin", "cos"):  # the double nearest to a multiple of pi / 2 in all the range
        sample = np.append(sample, 29 * math.pi / 2)
    y = each(FUNCTIONS[name][0], sample)
    for argument, value in zip(sample.tolist(), y.tolist(), strict=True):
        true = exact(name, argument)
        assert abs(Fraction(value) - true) < ULPS[name] * Fraction(math.ulp(float(true))), argument


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_against_libm(name):
    ours, libm = FUNCTIONS[name]
    x = points(name)
    reference = np.array([libm(v) for v in x])
    assert (abs(each(ours, x) - reference) <= ULPS[name] * np.spacing(abs(reference))).all()


def test_values_known_beforehand():
    assert elementary.sin(0.0) == 0 and elementary.cos(0.0) == 1 and elementary.log(1.0) == 0
    tiny = 10.0 ** np.arange(-300, -8)
    np.testing.assert_array_equal(each(elementary.sin, tiny), tiny)
    assert (each(elementary.cos, tiny) == 1).all()
    for function in (elementary.sin, elementary.cos):
        assert abs(each(function, points("sin"))).max() == 1
    assert elementary.exp(0.0) == 1 and (each(elementary.exp, tiny[tiny < 1e-16]) == 1).all()
    assert each(elementary.exp, np.array([-708.0, np.nextafter(-708, -709), -1e300]))[
        1:
    ].tolist() == [0, 0]
    assert 0 < elementary.exp(-708.0) < 4e-308 and elementary.exp(709.0) > 8e307
    powers = np.arange(-1074, 1024)
    np.testing.assert_allclose(each(elementary.log, 2.0**powers), powers * math.log(2), rtol=3e-16)


@settings(deadline=None)
@given(st.floats(-RANGE, RANGE))
@example(-math.pi)
@example(-3 * math.pi)
@example(-1e-17 - math.pi)
@example(math.nextafter(-math.pi, -4))
def test_wrap_is_the_remainder_of_python_and_numpy(x):
    expected = (x + math.pi) % math.tau - math.pi
    assert elementary.wrap(x) == expected == (np.float64(x) + np.pi) % (2 * np.pi) - np.pi


def test_wrap_next_to_whole_turns():
    turns = np.arange(-15_900, 15_900) * math.tau
    for x in (turns, turns - math.pi, turns + math.pi):
        for y in (np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)):
            np.testing.assert_array_equal(
                each(elementary.wrap, y), (y + np.pi) % (2 * np.pi) - np.pi
            )


def test_python_and_numba_give_the_same_bits():
    def same_bits(compiled, plain, x):
        np.testing.assert_array_equal(
            each(compiled, x).view(np.int64), np.array([plain(v) for v in x]).view(np.int64)
        )

    rng = np.random.default_rng(2)
    angles = rng.choice(points("sin"), 20_000)
    same_bits(elementary.sin, lambda v: elementary._sine.py_func(v, 0), angles)
    # of Python's floats, too
    same_bits(elementary.cos, lambda v: elementary._sine.py_func(float(v), 1), angles)
    same_bits(elementary.wrap, elementary.wrap.py_func, angles)
    same_bits(elementary.log, elementary.log.py_func, rng.choice(points("log"), 20_000))
    same_bits(elementary.exp, elementary.exp.py_func, rng.choice(points("exp"), 20_000))


def test_numba_fuses_nothing():
    each(elementary.sin, np.ones(1))
    for function in (elementary._sine, elementary.log, elementary.exp, elementary.wrap):
        function(1.0, 0) if function is elementary._sine else function(1.0)
        for assembly in function.inspect_asm().values():
            assert not re.findall(r"\b\w*f\w*n?m(?:add|sub|la|ls)\w*", assembly)
