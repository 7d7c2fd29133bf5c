"""Scalar functions for compiled loops: tanh, sigmoid, gelu and its slope, exp.

In plain Python they are the functions of `math`. Compiled for float64 they call libm. Compiled
for float32, tanh and exp are polynomials: LLVM turns these into vector instructions, which it does
not do for a call of libm.

Sources: tanh: the rational minimax approximation of degree 13/6 in Eigen; exp: Cephes' expf; gelu:
1606.08415, the tanh approximation. Tests: tests/nn/test_scalars.py.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

GELU = math.sqrt(2 / math.pi)
CUBIC = 0.044715
# In LLVM instead of Numba, which would analyse the function anew wherever it is called.
INLINED: Any = {"forceinline": True, "fastmath": {"contract"}, "error_model": "numpy"}
INLINED |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
FAR = 1e4  # beyond it tanh(u) is ±1 to the last bit


def tanh(x):
    return math.tanh(x)


@overload(tanh, jit_options=INLINED)
def tanh_compiled(x):
    """Compile tanh; float32: within 5 ulp."""
    if x != types.float32:
        return lambda x: math.tanh(x)
    f = np.float32
    one, edge = f(1), f(7.90531110763549805)
    n1, n3, n5 = f(4.89352455891786e-03), f(6.37261928875436e-04), f(1.48572235717979e-05)
    n7, n9, n11 = f(5.12229709037114e-08), f(-8.60467152213735e-11), f(2.00018790482477e-13)
    n13 = f(-2.76076847742355e-16)
    d0, d2 = f(4.89352518554385e-03), f(2.26843463243900e-03)
    d4, d6 = f(1.18534705686654e-04), f(1.19825839466702e-06)

    def rational(x):
        s = x * x
        above = (((((n13 * s + n11) * s + n9) * s + n7) * s + n5) * s + n3) * s + n1
        below = ((d6 * s + d4) * s + d2) * s + d0
        y = x * above / below
        y = one if x > edge else y  # exactly ±1 outside; NaN compares false and goes through
        return -one if x < -edge else y

    return rational


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@overload(sigmoid, jit_options=INLINED)
def sigmoid_compiled(x):
    half = x(0.5)
    return lambda x: half + half * tanh(half * x)


def gelu(x):
    return 0.5 * x * (1 + math.tanh(GELU * (x + CUBIC * x * x * x)))


@overload(gelu, jit_options=INLINED)
def gelu_compiled(x):
    half, one, k, c = x(0.5), x(1), x(GELU), x(CUBIC)
    return lambda x: half * x * (one + tanh(k * (x + c * x * x * x)))


def dgelu(x):
    # beyond FAR the slope is 1 or 0, but x² may overflow: 0·inf would be NaN
    x = FAR if x > FAR else -FAR if x < -FAR else x
    t = math.tanh(GELU * (x + CUBIC * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU * (1 + 3 * CUBIC * x * x)


@overload(dgelu, jit_options=INLINED)
def dgelu_compiled(x):
    half, one, k, c, c3, far = x(0.5), x(1), x(GELU), x(CUBIC), x(3 * CUBIC), x(FAR)

    def dgelu(x):
        x = far if x > far else -far if x < -far else x
        t = tanh(k * (x + c * x * x * x))
        return half * (one + t) + half * x * (one - t * t) * k * (one + c3 * x * x)

    return dgelu


def exp(x):
    return math.exp(x)


@overload(exp, jit_options=INLINED)
def exp_compiled(x):
    """Compile exp; float32: within 2 ulp for arguments from -87 to 88, 0 below."""
    if x != types.float32:
        return lambda x: math.exp(x)
    f = np.float32
    one, half, zero, low = f(1), f(0.5), f(0), f(-87)
    per_log2, log2_high, log2_low = f(1.44269504088896341), f(0.693359375), f(-2.12194440e-4)
    c0, c1, c2 = f(1.9875691500e-4), f(1.3981999507e-3), f(8.3334519073e-3)
    c3, c4, c5 = f(4.1665795894e-2), f(1.6666665459e-1), f(5.0000001201e-1)
    bias, shift = np.int32(127), np.int32(23)

    def exp(x):
        inside = x if x > low else low  # NaN too, so that n is a number
        n = np.floor(inside * per_log2 + half)  # x = n log 2 + r, |r| <= log(2)/2
        r = inside - n * log2_high - n * log2_low
        p = (((((c0 * r + c1) * r + c2) * r + c3) * r + c4) * r + c5) * r * r + r + one
        p *= np.int32((np.int32(n) + bias) << shift).view(np.float32)  # 2ⁿ, by its exponent bits
        return x if x != x else (p if x > low else zero)

    return exp
