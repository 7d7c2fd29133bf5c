"""check_gradients: right derivatives pass; a factor, a conjugate or a missing one do not.

assert_close: shapes, NaN, the bound.
"""

import numpy as np
import pytest

from minis5.verify.gradients import assert_close, check_gradients


def forward(z):
    return (z["a"] * z["b"] ** 2, np.sum(z["b"], keepdims=True))


def backward(z, cotangents):
    one, other = cotangents
    da = one * np.conj(z["b"] ** 2)
    return {"a": da, "b": one * np.conj(2 * z["a"] * z["b"]) + other}


def inputs(dtype):
    rng = np.random.default_rng(0)
    z = {name: rng.standard_normal(5) for name in "ab"}
    return {
        name: (v + 1j * rng.standard_normal(5) if dtype is complex else v) for name, v in z.items()
    }


@pytest.mark.parametrize("dtype", [float, complex])
def test_right_gradients_pass(dtype):
    check_gradients(forward, backward, inputs(dtype))


WRONG = {
    "a factor": (float, lambda g: g | {"a": g["a"] * (1 + 1e-4)}, "^da"),
    "a conjugate": (complex, lambda g: g | {"b": g["b"].conj()}, "^db"),
    "a shape": (float, lambda g: g | {"a": g["a"][:4]}, r"^da: shape \(4,\), expected \(5,\)"),
    "a type": (complex, lambda g: g | {"a": g["a"].real}, "^da: float64 for complex128"),
    "a name": (float, lambda g: {"a": g["a"]}, r"^gradients of \['a'\], not of \['a', 'b'\]"),
    "NaN": (float, lambda g: g | {"b": g["b"] * np.nan}, "^db"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_gradients_do_not_pass(fault):
    dtype, change, message = WRONG[fault]
    with pytest.raises(AssertionError, match=message):
        check_gradients(forward, lambda z, w: change(backward(z, w)), inputs(dtype))


def test_assert_close():
    one = np.ones(3)
    assert_close(one * (1 + 8e-16), one)
    for wrong in (one * (1 + 1e-13), one * np.nan, np.ones(2)):
        with pytest.raises(AssertionError, match="^z: "):
            assert_close(wrong, one, name="z")
