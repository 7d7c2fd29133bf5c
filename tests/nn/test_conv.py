"""Convolutions: forward against the specification and a hand-worked case, gradients, doors.

The kernels are checked against the CPU forms in Numba's simulator.
"""

import numpy as np
import pytest
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.nn.conv import (
    conv_backward,
    conv_forward,
    conv_init,
    conv_size,
    im2col_backward,
    im2col_forward,
)
from minis5.nn.layers import SLOPES
from minis5.verify.gradients import assert_close, check_gradients

# rows and columns of an image, of a window, stride: odd sizes, pixels left over, no overlap
SIZES = [
    ((1, 1), (1, 1), 1),
    ((5, 7), (3, 2), 2),
    ((6, 6), (2, 2), 3),
    ((9, 4), (4, 4), 4),
    ((7, 8), (3, 3), 1),
]
sizes = pytest.mark.parametrize("image, window, stride", SIZES)


def params(rng, window=(3, 2), channels=2, filters=3, dtype=np.float64):
    kernel, bias = (rng.standard_normal(s) for s in ((*window, channels, filters), filters))
    return {"kernel": kernel.astype(dtype), "bias": bias.astype(dtype)}


def test_by_hand():
    """One window slides over three columns; the second channel counts tenfold."""
    image = np.array([[[1, 1], [2, 0], [3, 1]], [[4, 0], [5, 1], [6, 0]]], float)
    p = {"kernel": np.zeros((2, 2, 2, 1)), "bias": np.array([-100.0])}
    p["kernel"][0, 0], p["kernel"][1, 1] = [[1], [10]], [[1], [10]]
    sums = np.array([[[1 + 10 + 5 + 10], [2 + 6]]]) - 100.0
    np.testing.assert_array_equal(ref.conv(p, image, 1), sums)
    np.testing.assert_array_equal(ref.conv(p, image, 1, "relu"), 0 * sums)
    np.testing.assert_array_equal(conv_forward(p, image[None])[0], sums[None])


@pytest.mark.parametrize("activation", list(SLOPES))
@sizes
def test_forward_equals_reference(image, window, stride, activation):
    rng = np.random.default_rng(0)
    p, x = params(rng, window), rng.standard_normal((2, *image, 2))
    y, _ = conv_forward(p, x, stride, activation)
    assert_close(y, np.stack([ref.conv(p, one, stride, activation) for one in x]), T=8)
    narrow = {name: z.astype(np.float32) for name, z in p.items()}
    y32, _ = conv_forward(narrow, x.astype(np.float32), stride, activation)
    assert y32.dtype == np.float32
    assert_close(y32, y, T=8, c=32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_scaled(dtype):
    rng = np.random.default_rng(1)
    p = params(rng, dtype=dtype)
    x = rng.integers(0, 256, (2, 6, 5, 2), np.uint8)
    y, _ = conv_forward(p, x, 2, "relu", 1 / 255)
    assert y.dtype == dtype
    assert_close(y, np.stack([ref.conv(p, one / 255, 2, "relu") for one in x]), T=8, c=32)


def test_features_of_a_stack():
    """The specification of a whole encoder is its layers one after the other."""
    rng = np.random.default_rng(2)
    p = {"0": params(rng, (3, 3), 3, 4), "1": params(rng, (2, 2), 4, 2)}
    image = rng.integers(0, 256, (9, 8, 3), np.uint8)
    got = ref.image_features(p, image, (2, 1), "leaky_relu")
    y = ref.conv(p["1"], ref.conv(p["0"], image / 255, 2, "leaky_relu"), 1, "leaky_relu")
    assert got.shape == (3 * 2 * 2,)
    np.testing.assert_array_equal(got, y.ravel())


@pytest.mark.parametrize("activation", ["linear", "leaky_relu"])
@sizes
def test_gradients(image, window, stride, activation):
    rng = np.random.default_rng(3)
    tensors = {"x": rng.standard_normal((2, *image, 2)), **params(rng, window)}

    def run(z):
        return conv_forward(z, z["x"], stride, activation, 0.7)

    def backward(z, cotangents):
        dx, grads = conv_backward(cotangents[0], run(z)[1])
        return {"x": dx, **grads}

    check_gradients(lambda z: (run(z)[0],), backward, tensors)


def test_a_gradient_of_the_images_is_made_only_if_needed():
    rng = np.random.default_rng(4)
    y, cache = conv_forward(params(rng), rng.standard_normal((1, 5, 5, 2)))
    dx, grads = conv_backward(np.ones_like(y), cache, need_dx=False)
    assert dx is None and {name: z.shape for name, z in grads.items()} == {
        "kernel": (3, 2, 2, 3),
        "bias": (3,),
    }


@sizes
def test_backward_is_the_adjoint(image, window, stride):
    """<im2col x, d> = <x, backward d>, and pixels in no window have no gradient."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, *image, 3))
    sides = [conv_size(size, k, stride) for size, k in zip(image, window, strict=True)]
    columns = np.full((2, *sides, window[0], window[1] * 3), np.nan)
    im2col_forward(x, stride, 0.5, columns)
    d, dx = rng.standard_normal(columns.shape), np.full(x.shape, np.nan)
    im2col_backward(d, stride, 0.5, dx)
    np.testing.assert_allclose((columns * d).sum(), (x * dx).sum(), rtol=1e-12)
    reached = [(n - 1) * stride + k for n, k in zip(sides, window, strict=True)]
    gaps = max(stride - min(window), 0)
    assert not dx[:, reached[0] :].any() and not dx[:, :, reached[1] :].any()
    assert (dx == 0).any() == (gaps > 0 or tuple(reached) != tuple(image))


def test_views_and_other_orders_are_copied():
    rng = np.random.default_rng(6)
    p, x = params(rng), rng.standard_normal((2, 2, 6, 5))
    np.testing.assert_array_equal(
        conv_forward(p, x.transpose(0, 2, 3, 1))[0],
        conv_forward(p, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))[0],
    )


def test_initial_kernels_are_orthogonal():
    p = conv_init(np.random.default_rng(0), (3, 3, 2, 5), np.sqrt(2))
    flat = p["kernel"].reshape(-1, 5)
    np.testing.assert_allclose(flat.T @ flat, 2 * np.eye(5), atol=1e-12)
    assert p["kernel"].shape == (3, 3, 2, 5) and not p["bias"].any()


MISTAKES = {
    r"x: expected .* \(N, H, W, 2\), got .* \(2, 5, 5, 3\)": {"x": np.zeros((2, 5, 5, 3))},
    r"x: expected .* \(N, H, W, 2\), got .* \(5, 5, 2\)": {"x": np.zeros((5, 5, 2))},
    r"x: expected at least one image of at least 3 x 2": {"x": np.zeros((1, 2, 5, 2))},
    r"x: expected at least one image": {"x": np.zeros((0, 5, 5, 2))},
    r"x: expected float64 as the kernel, or uint8": {"x": np.zeros((1, 5, 5, 2), np.float32)},
    r"x: expected float32 or float64 or uint8": {"x": np.zeros((1, 5, 5, 2), np.int64)},
    r"bias: expected float64 \(3\)": {"bias": np.zeros(2)},
    r"kernel: expected .* \(k, l, C, F\)": {"kernel": np.zeros((12, 3))},
    r"kernel: expected no empty axis": {"kernel": np.zeros((3, 0, 2, 3))},
    r"stride: expected an integer in \[1": {"stride": 0},
    r"scale: expected a number": {"scale": np.nan},
    r"activation: expected one of": {"activation": "gelu"},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_what_does_not_fit_is_refused_by_name(message):
    given = {**params(np.random.default_rng(0)), "x": np.zeros((1, 5, 5, 2)), **MISTAKES[message]}
    p = {name: given.pop(name) for name in ("kernel", "bias")}
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        conv_forward(p, given.pop("x"), **given)


def test_a_gradient_of_another_shape_is_refused():
    y, cache = conv_forward(params(np.random.default_rng(0)), np.zeros((1, 5, 5, 2)))
    for dy in (y[:, :-1], y.astype(np.float32), y[0]):
        with pytest.raises(ValueError, match="^dy: expected float64"):
            conv_backward(dy, cache)


def test_kernels_are_the_loops(tmp_path):
    check_in_simulator("conv", tmp_path)


def test_the_kernels_are_of_one_float_type():
    assert not mixed("conv")
