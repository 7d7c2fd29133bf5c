"""Dense, layer normalisation and gates: forward against the specification, gradients.

The kernels are checked against the CPU forms in Numba's simulator.
"""

import numpy as np
import pytest
from kernel_cases import extreme_gates
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.nn.layers import (
    GATES,
    SLOPES,
    dense_backward,
    dense_forward,
    gate_backward,
    gate_forward,
    gate_init,
    layer_norm_backward,
    layer_norm_forward,
)
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.verify.gradients import assert_close, check_gradients

DTYPES = [np.float32, np.float64]


def cast(nested, dtype):
    return unflatten_tree({name: z.astype(dtype) for name, z in flatten_tree(nested).items()})


def dense_params(rng, n_in=5, n_out=4):
    return {"kernel": rng.standard_normal((n_in, n_out)), "bias": rng.standard_normal(n_out)}


def gate_params(rng, kind, H=4):
    return {name: dense_params(rng, H, H) for name in GATES[kind]}


def check_layer(forward, backward, params, x, **more):
    """Gradients of x and of every parameter of a layer with forward(p, x), backward(dy, cache)."""

    def split(z):
        return unflatten_tree({name: value for name, value in z.items() if name != "x"})

    def back(z, cotangents):
        dx, grads = backward(cotangents[0], forward(split(z), z["x"])[1])
        return {"x": dx} | flatten_tree(grads)

    check_gradients(
        lambda z: (forward(split(z), z["x"])[0],), back, {"x": x} | flatten_tree(params), **more
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", list(SLOPES))
def test_dense(activation, dtype):
    rng = np.random.default_rng(0)
    p, x = cast(dense_params(rng), dtype), rng.standard_normal((6, 3, 5)).astype(dtype)
    expected = ref.each(
        lambda v: ref.dense(cast(p, np.float64), v, activation), x.astype(np.float64)
    )
    y, _ = dense_forward(p, x, activation)
    assert y.dtype == dtype
    assert_close(y, expected, T=5)
    assert_close(dense_forward(p, x[0], activation)[0], expected[0], T=5)  # (B, in)
    assert_close(
        dense_forward(p, x.transpose(1, 0, 2), activation)[0], expected.transpose(1, 0, 2), T=5
    )


@pytest.mark.parametrize("activation", list(SLOPES))
def test_dense_backward(activation):
    """At a point where no sum lies within 1e-3 of the kink at 0."""
    rng = np.random.default_rng(1)
    p, x = dense_params(rng), rng.standard_normal((6, 3, 5))
    assert np.abs(dense_forward(p, x, "linear")[0]).min() > 1e-3
    check_layer(lambda p, x: dense_forward(p, x, activation), dense_backward, p, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype):
    rng = np.random.default_rng(2)
    p = {
        "scale": rng.standard_normal(5).astype(dtype),
        "bias": rng.standard_normal(5).astype(dtype),
    }
    x = (3.0 + rng.standard_normal((6, 3, 5))).astype(dtype)
    y, _ = layer_norm_forward(p, x)
    assert y.dtype == dtype
    expected = ref.each(lambda v: ref.layer_norm(cast(p, np.float64), v), x.astype(np.float64))
    assert_close(y, expected, T=5, c=32)
    x = np.full((1, 1, 5), 7.0, dtype)  # no variance: eps alone is under the root
    np.testing.assert_array_equal(layer_norm_forward(p, x)[0][0, 0], p["bias"])


def test_layer_norm_backward():
    rng = np.random.default_rng(3)
    p = {"scale": rng.standard_normal(5), "bias": rng.standard_normal(5)}
    check_layer(layer_norm_forward, layer_norm_backward, p, rng.standard_normal((6, 3, 5)))
    check_layer(
        lambda p, x: layer_norm_forward(p, x, eps=0.3),
        layer_norm_backward,
        p,
        rng.standard_normal((6, 3, 5)),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", list(GATES))
def test_gate(kind, dtype):
    rng = np.random.default_rng(4)
    p, s = cast(gate_params(rng, kind), dtype), (3 * rng.standard_normal((6, 3, 4))).astype(dtype)
    y, _ = gate_forward(p, s, kind)
    assert y.dtype == dtype
    expected = ref.each(lambda v: ref.gate(cast(p, np.float64), v, kind), s.astype(np.float64))
    assert_close(y, expected, T=4)
    assert_close(gate_forward(p, s.transpose(1, 0, 2), kind)[0], expected.transpose(1, 0, 2), T=4)


@pytest.mark.parametrize("kind", list(GATES))
def test_gate_backward(kind):
    rng = np.random.default_rng(5)
    s = 1.5 * rng.standard_normal((6, 3, 4))
    check_layer(lambda p, s: gate_forward(p, s, kind), gate_backward, gate_params(rng, kind), s)


@pytest.mark.parametrize("kind", list(GATES))
def test_gate_backward_in_32_bits(kind):
    """The 32-bit gradients are the 64-bit ones to rounding."""
    rng = np.random.default_rng(6)
    p, s = gate_params(rng, kind), rng.standard_normal((33, 3, 4))
    dy = rng.standard_normal(s.shape)
    wide = gate_backward(dy, gate_forward(p, s, kind)[1])
    p, s, dy = cast(p, np.float32), s.astype(np.float32), dy.astype(np.float32)
    narrow = gate_backward(dy, gate_forward(p, s, kind)[1])
    wide, narrow = ({"s": ds} | flatten_tree(grads) for ds, grads in (wide, narrow))
    for name, z in narrow.items():
        assert z.dtype == np.float32
        assert_close(z, wide[name], T=99, dtype=np.float32, name=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_far_from_zero(dtype):
    """gelu is x on the right and 0 on the left, its slope 1 and 0, however large |x|."""
    x = np.array([8, 20, 100, 1e3, 1e4, 1e6], dtype)
    for sign, slope in ((1, 1), (-1, 0)):
        y, cache = gate_forward({}, sign * x[None], "gelu")
        dx, _ = gate_backward(np.ones_like(y), cache)
        assert (np.abs(y[0] - slope * x) <= 4 * np.finfo(dtype).eps * x).all()
        np.testing.assert_allclose(dx[0], slope, atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_far_from_zero(dtype):
    """A gate of ±1e4 is 1 or 0, with no warning and no NaN."""
    for kernel, expected in ((1e4, 1.0), (-1e4, 0.0)):
        p = {"out2": {"kernel": np.array([[kernel]], dtype), "bias": np.zeros(1, dtype)}}
        y, cache = gate_forward(p, np.ones((1, 1), dtype), "half_glu2")
        np.testing.assert_allclose(y[0, 0], expected, atol=1e-6)
        ds, grads = gate_backward(np.ones_like(y), cache)
        np.testing.assert_allclose(ds[0, 0], expected, atol=1e-2)
        assert np.isfinite(grads["out2"]["kernel"]).all()


@pytest.mark.parametrize("kind", list(GATES))
def test_nan_is_not_hidden(kind):
    """NaN in, NaN out, in its own row only."""
    rng = np.random.default_rng(7)
    for dtype in DTYPES:
        p, s = cast(gate_params(rng, kind), dtype), np.ones((3, 4), dtype)
        s[1] = np.nan
        y, _ = gate_forward(p, s, kind)
        assert np.isnan(y[1]).all() and np.isfinite(y[[0, 2]]).all()


def test_initial_weights_of_a_gate():
    p = gate_init(np.random.default_rng(8), 8, "full_glu")
    assert set(flatten_tree(p)) == {"out1/kernel", "out1/bias", "out2/kernel", "out2/bias"}
    assert not p["out1"]["bias"].any() and p["out2"]["kernel"].shape == (8, 8)


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    """All kernels, and the gates at the ends of the numbers."""
    check_in_simulator("layers", tmp_path, extreme_gates)


def test_kernels_for_float32_compute_in_float32():
    assert not mixed("layers")
