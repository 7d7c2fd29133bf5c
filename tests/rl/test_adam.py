"""Adam with clipping by the global norm: against the specification, by hand; its kernels."""

import numpy as np
import pytest
from kernel_cases import several_steps
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.rl.adam import Adam
from minis5.verify.gradients import EPS, assert_close


def run_reference(theta, grads, lr, eps, max_norm):
    """Take several steps of one tensor by the specification; return theta and the norms."""
    params, m, v, norms = {"w": theta}, {"w": np.zeros_like(theta)}, {"w": np.zeros_like(theta)}, []
    for i, g in enumerate(grads):
        clipped, norm = ref.clip_by_global_norm({"w": g}, np.inf if max_norm is None else max_norm)
        params, m, v = ref.adam_step(params, clipped, m, v, i + 1, lr=lr[i], eps=eps)
        norms.append(norm)
    return params["w"], norms


def test_first_step_by_hand():
    """A step is lr against the gradient's sign, whatever its size, less what eps takes.

    The norm 5 is returned, whether it is clipped or not.
    """
    for max_norm in (None, 1.0, 5.0):
        theta, adam = np.ones(2), Adam(2, np.float64, eps=1e-12)
        assert adam.step(theta, np.array([3.0, -4.0]), 0.1, max_norm) == 5.0
        np.testing.assert_allclose(theta, [0.9, 1.1], rtol=1e-10)
        assert adam.moments.steps == 1
    theta, adam = np.ones(1), Adam(1, np.float64, eps=1.0)
    adam.step(theta, np.array([1.0]), 0.1)
    np.testing.assert_allclose(theta, 0.95, rtol=8 * EPS)


@pytest.mark.parametrize("max_norm", [None, 0.5, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_reference(dtype, max_norm):
    """200 steps with a falling learning rate and gradients of sizes from 1e-6 to 1e2."""
    rng = np.random.default_rng(0)
    N, size = 200, 50
    theta = rng.standard_normal(size).astype(dtype)
    grads = (rng.standard_normal((N, size)) * 10.0 ** rng.uniform(-6, 2, (N, 1))).astype(dtype)
    lr = np.linspace(1e-2, 0.0, N)
    expected, norms = run_reference(
        theta.astype(np.float64), grads.astype(np.float64), lr, 1e-5, max_norm
    )
    adam = Adam(size, dtype, eps=1e-5)
    got = [adam.step(theta, g, rate, max_norm) for g, rate in zip(grads, lr, strict=True)]
    np.testing.assert_allclose(got, norms, rtol=32 * np.finfo(dtype).eps)
    assert theta.dtype == adam.moments.m.dtype == adam.moments.v.dtype == dtype
    assert_close(theta, expected, T=N)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rates_equal_reference(dtype):
    """Tensors with learning rates of their own; a rate of 1 everywhere gives the same bits."""
    rng, sizes = np.random.default_rng(1), {"a": 3, "b": 20, "c": 5}
    factors, ends = {"a": 0.3, "c": 0.0}, np.cumsum(list(sizes.values()))[:-1]
    theta, grads = (rng.standard_normal(shape).astype(dtype) for shape in (28, (50, 28)))

    def parts(vector):
        return dict(zip(sizes, np.split(vector.astype(np.float64), ends), strict=True))

    params = parts(theta)
    m, v = ({k: np.zeros(n) for k, n in sizes.items()} for _ in range(2))
    for i, g in enumerate(grads):
        clipped, _ = ref.clip_by_global_norm(parts(g), 0.5)
        params, m, v = ref.adam_step(params, clipped, m, v, i + 1, lr=1e-2, eps=1e-5, rates=factors)
    found = []
    own = np.concatenate([np.full(n, factors.get(k, 1.0), dtype) for k, n in sizes.items()])
    for rates in (own, np.ones(28, dtype), None):
        vector, adam = theta.copy(), Adam(28, dtype, eps=1e-5, rates=rates)
        for g in grads:
            adam.step(vector, g, 1e-2, 0.5)
        found.append(vector)
    assert_close(found[0], np.concatenate(list(params.values())), T=50)
    np.testing.assert_array_equal(found[0][-5:], theta[-5:])
    np.testing.assert_array_equal(found[1], found[2])
    assert np.abs(found[0] - found[2]).max() > 0.05


def test_gradient_and_zero_gradient():
    theta, grad, adam = np.ones(3), np.zeros(3), Adam(3, np.float64)
    assert adam.step(theta, grad, 0.1, 0.5) == 0.0
    np.testing.assert_array_equal(theta, 1.0)
    grad[:] = 7.0
    adam.step(theta, grad, 0.1, 0.5)
    np.testing.assert_array_equal(grad, 7.0)  # clipping does not write into it


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_bad_gradient_changes_nothing(bad):
    theta, adam = np.ones(3), Adam(3, np.float64)
    adam.step(theta, np.ones(3), 0.1)
    before = theta.copy(), adam.moments.m.copy(), adam.moments.v.copy(), adam.moments.steps.copy()
    with (
        np.errstate(over="ignore"),
        pytest.raises(FloatingPointError, match=r"^gradient: expected finite values"),
    ):
        adam.step(theta, np.array([1.0, bad, 1.0]), 0.1, 0.5)
    for one, two in zip(
        before, (theta, adam.moments.m, adam.moments.v, adam.moments.steps), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_kernels_in_the_simulator_are_the_loop(tmp_path):
    """One step in every case, and several steps one after the other."""
    check_in_simulator("adam", tmp_path, several_steps)


def test_float64_beside_float32_is_for_the_norm():
    """The gradient's norm is summed in float64, with the scalars that it enters."""
    assert mixed("adam") == {"adam.squares_kernel", "adam.scalars_kernel"}
