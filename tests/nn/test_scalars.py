"""Scalar functions of compiled loops: the approximations in float32."""

import numpy as np
import pytest

from minis5.nn import scalars
from minis5.ops import fast


@fast
def tanh_of_each(x, y):
    for i in range(x.size):
        y[i] = scalars.tanh(x[i])


@fast
def sigmoid_of_each(x, y):
    for i in range(x.size):
        y[i] = scalars.sigmoid(x[i])


@fast
def exp_of_each(x, y):
    for i in range(x.size):
        y[i] = scalars.exp(x[i])


def test_tanh_of_float32():
    """Within 5 ulp of float64, and exactly ±1 far out. NaN stays NaN."""
    x = np.concatenate([np.linspace(-12, 12, 200_001), [-np.inf, np.inf, np.nan]])
    x = x.astype(np.float32)
    y = np.empty_like(x)
    tanh_of_each(x, y)
    expected = np.tanh(x.astype(np.float64))
    error = np.abs(y - expected)[:-1]
    assert (error <= 5 * np.spacing(np.abs(expected[:-1]).astype(np.float32))).all()
    assert y[0] == y[-3] == -1 and y[-2] == 1 and np.isnan(y[-1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid(dtype):
    x = np.linspace(-30, 30, 100_001).astype(dtype)
    y = np.empty_like(x)
    sigmoid_of_each(x, y)
    expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert (np.abs(y - expected) <= 4 * np.finfo(dtype).eps).all()


def test_exp_of_float32():
    x = np.concatenate(
        [np.linspace(-90, 88, 200_001), [0, -87.0001, -1e30, -np.inf, np.nan]]
    ).astype(np.float32)
    y = np.empty_like(x)
    exp_of_each(x, y)
    expected, inside = np.exp(x.astype(np.float64)), x > -87
    assert (np.abs(y - expected) <= 2 * np.spacing(expected.astype(np.float32)))[inside].all()
    assert not y[x <= -87].any() and np.isnan(y[-1]) and y[-5] == 1


@fast
def gelu_of_each(x, y, slope):
    for i in range(x.size):
        y[i], slope[i] = scalars.gelu(x[i]), scalars.dgelu(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_far_out(dtype):
    """x³ and x² overflow; gelu is x or 0 there, and its slope 1 or 0. NaN stays NaN."""
    far = np.array([1e2, 1e13, 1e20, 1e38, np.finfo(dtype).max], dtype)
    x = np.concatenate([far, -far, [dtype(np.nan)]])
    y, slope = np.empty_like(x), np.empty_like(x)
    gelu_of_each(x, y, slope)
    np.testing.assert_array_equal(y, [*far, *np.zeros(5), np.nan])
    np.testing.assert_array_equal(slope, [*np.ones(5), *np.zeros(5), np.nan])


@fast
def all_of_each(x, y):
    for i in range(x.size):
        y[i, 0], y[i, 1] = scalars.tanh(x[i]), scalars.sigmoid(x[i])
        y[i, 2], y[i, 3] = scalars.gelu(x[i]), scalars.dgelu(x[i])
        y[i, 4] = scalars.exp(x[i])


def test_functions_of_python_are_the_compiled_ones():
    """Python calls them where nothing is compiled: in the simulator of a GPU."""
    x = np.concatenate([np.linspace(-6, 6, 101), [-1e20, 1e20]])
    y = np.empty((x.size, 5))
    with np.errstate(over="ignore"):
        all_of_each(x, y)
    names = "tanh", "sigmoid", "gelu", "dgelu", "exp"
    for name, column in zip(names, y.T, strict=True):
        # math.exp raises where the compiled one is infinite
        some = x[:-2] if name in ("exp", "sigmoid") else x
        found = [getattr(scalars, name)(value) for value in some.tolist()]
        np.testing.assert_allclose(found, column[: len(some)], rtol=1e-14, atol=1e-15, err_msg=name)
