"""sin, cos, log, exp, wrap: the same bits in plain Python, under Numba and on a GPU.

libm, NumPy and NVIDIA's libdevice each round these functions in their own way, and % on floats is
no exact remainder in numba-cuda. An environment that used them would give another episode on
another machine. Here there is nothing but + - * /, floor, frexp and ldexp on float64, each of which
IEEE 754 rounds in one way only. Only a compiler that fuses a * b + c into one rounding could still
change a bit: Numba does so on no CPU, and a kernel has to be compiled without it.

Method: an argument is reduced with constants cut into parts so short that the products with them
are exact (Cody and Waite). Then follows a Taylor series in Horner's form, long enough that the
first term left out is below half a unit in the last place (ulp).
Leaves out: signed zeros, infinities, NaN, |x| > 1e5 in sin, cos and wrap, and x > 709 in exp; the
caller knows the argument's range.
Source: Cody and Waite, "Software Manual for the Elementary Functions", 1980, chapters 5, 6 and 8.
Tests: tests/test_elementary.py: sin and cos err by less than 2 ulp, log and exp by less than 1,
wrap by none. As GPU code: tests/test_ptx.py.
"""

import math

from numba import njit

HALF_PI_1 = 1.5707963267923333  # pi / 2 = the first 37 bits
HALF_PI_2 = 2.5633441515839558e-12  # + the next 37: times k < 2**16 both are exact
HALF_PI_3 = 1.0562999066987428e-23  # + the next 53
TAU_1 = 6.2831853069365025  # math.tau (not 2 pi) = its first 33 bits
TAU_2 = 2.430837753308879e-10  # + the other 20
LN2_1 = 0.6931471803691238  # log 2 = the first 32 bits: times any exponent they are exact
LN2_2 = 1.9082149292705877e-10  # + the next 53
TWO_OVER_PI = 2 / math.pi
LOG2_E = 1.4426950408889634
# Below it, exp is no normal number any more, and ldexp would round once more.
LEAST_EXPONENT = -708.0
SQRT_HALF = 0.7071067811865476
MOST_ANGLE = 1e5  # the range of sin, cos and wrap


@njit(nogil=True)
def _sine(x, quarters):
    """Return sin(x + quarters * pi / 2) for integer `quarters`."""
    k = int(math.floor(x * TWO_OVER_PI + 0.5))
    r = x - k * HALF_PI_1 - k * HALF_PI_2 - k * HALF_PI_3  # |r| <= pi / 4
    z = r * r
    k += quarters
    if k & 1:  # cos r = 1 - z / 2! + z**2 / 4! - ...
        tail = 1 / 479001600 - z * (1 / 87178291200 - z / 20922789888000)
        value = 1.0 - z * (
            1 / 2 - z * (1 / 24 - z * (1 / 720 - z * (1 / 40320 - z * (1 / 3628800 - z * tail))))
        )
    else:  # sin r = r - r z / 3! + r z**2 / 5! - ...
        tail = 1 / 6227020800 - z * (1 / 1307674368000 - z / 355687428096000)
        value = r - r * (
            z
            * (
                1 / 6
                - z * (1 / 120 - z * (1 / 5040 - z * (1 / 362880 - z * (1 / 39916800 - z * tail))))
            )
        )
    return -value if k & 2 else value


@njit(nogil=True)
def sin(x):
    """Return the sine of x in radians, |x| <= 1e5; error below 2 ulp."""
    return _sine(x, 0)


@njit(nogil=True)
def cos(x):
    """Return the cosine of x in radians, |x| <= 1e5; error below 2 ulp."""
    return _sine(x, 1)


@njit(nogil=True)
def log(x):
    """Return the natural logarithm of 0 < x < inf; error below 1 ulp."""
    m, exponent = math.frexp(x)
    e = float(exponent)
    if m < SQRT_HALF:
        m, e = m + m, e - 1.0
    f = m - 1.0  # exact, as sqrt(1/2) <= m < sqrt(2); x = (1 + f) * 2**e
    s = f / (f + 2.0)
    z = s * s  # below 0.0295
    # log(1 + f) = 2 atanh(s) = 2 s (1 + z / 3 + z**2 / 5 + ...), and 2 s = f - s f. So the largest
    # term, f, is exact.
    tail = z * (2 / 11 + z * (2 / 13 + z * (2 / 15 + z * (2 / 17 + z * (2 / 19 + z * (2 / 21))))))
    tail = z * (2 / 3 + z * (2 / 5 + z * (2 / 7 + z * (2 / 9 + tail))))
    return e * LN2_1 - (s * (f - tail) - e * LN2_2 - f)


@njit(nogil=True)
def exp(x):
    """Return e to the power of x <= 709; error below 1 ulp, but 0 if x < -708."""
    if x < LEAST_EXPONENT:
        return 0.0
    k = math.floor(x * LOG2_E + 0.5)
    r = x - k * LN2_1 - k * LN2_2  # |r| <= log(2) / 2; e**x = e**r 2**k
    # e**r = 1 + r + r**2 / 2! + r**3 / 3! + ...
    tail = 1 / 362880 + r * (
        1 / 3628800 + r * (1 / 39916800 + r * (1 / 479001600 + r * (1 / 6227020800)))
    )
    tail = 1 / 6 + r * (
        1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320 + r * tail))))
    )
    return math.ldexp(1.0 + (r + r * r * (1 / 2 + r * tail)), int(k))


@njit(nogil=True)
def wrap(x):
    """Return the angle x, |x| <= 1e5, in [-pi, pi].

    It is (x + math.pi) % math.tau - math.pi as Python and NumPy compute it.
    """
    shifted = x + math.pi
    size = abs(shifted)
    turns = math.floor(size / math.tau)  # one too many if the quotient was rounded up to it
    rest = size - turns * TAU_1 - turns * TAU_2  # exact
    if rest < 0.0:
        rest += math.tau
    if shifted < 0.0 and rest > 0.0:
        rest = math.tau - rest
    return rest - math.pi
