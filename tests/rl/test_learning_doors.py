"""What the loss, the advantages and Adam are given: what does not fit is named, nothing is read."""

import numpy as np
import pytest

from minis5.rl.adam import Adam
from minis5.rl.config import PPOConfig
from minis5.rl.distributions import Categorical, DiagGaussian
from minis5.rl.gae import gae
from minis5.rl.loss import Batch, ppo_loss

BAD = (TypeError, ValueError)
CONFIG = PPOConfig()


def problem(dist, T=5, B=4):
    rng = np.random.default_rng(0)
    params = rng.standard_normal((T, B, dist.num_params)).astype(np.float32)
    actions = dist.sample(params, rng)
    floats = rng.standard_normal((4, T, B)).astype(np.float32)
    return params, floats[3].copy(), Batch(actions, *floats, np.ones((T, B), bool))


# The loss


@pytest.mark.parametrize("name", Batch._fields[1:])
@pytest.mark.parametrize("dist", [Categorical(3), DiagGaussian(2)], ids=["categorical", "gaussian"])
def test_arrays_of_a_batch_that_do_not_fit(dist, name):
    """The loop would read beyond the end of those that are shorter."""
    params, value, batch = problem(dist)
    array = getattr(batch, name)
    for bad in (array[:1], array[:, :1], array.T, array.ravel(), array * 1j, array.tolist(), None):
        with pytest.raises(BAD, match=rf"^batch.{name}: expected .*got .*; give one for each step"):
            ppo_loss(dist, params, value, batch._replace(**{name: bad}), CONFIG)
    with pytest.raises(BAD, match=rf"^batch.{name}: expected "):
        ppo_loss(dist, params, value, batch._replace(**{name: array.astype(np.int64)}), CONFIG)


@pytest.mark.parametrize("dist", [Categorical(3), DiagGaussian(2)], ids=["categorical", "gaussian"])
def test_parameters_and_values_that_do_not_fit(dist):
    params, value, batch = problem(dist)
    for bad in (params[:1], params[..., :1], params[0], params.tolist(), None):
        with pytest.raises(BAD, match=r"^(dist_params|value): expected .*got .*; "):
            ppo_loss(dist, bad, value, batch, CONFIG)
    for bad in (value[:1], value.T, value[..., None], value > 0, value.tolist(), None):
        with pytest.raises(BAD, match=r"^value: expected .*got .*; "):
            ppo_loss(dist, params, bad, batch, CONFIG)
    for bad in (batch.actions[:1], batch.actions[:, :1], batch.actions * 1j, None):
        with pytest.raises(BAD, match=r"^action: expected .*got .*; "):
            ppo_loss(dist, params, value, batch._replace(actions=bad), CONFIG)
    with pytest.raises(TypeError, match=r"^batch: expected a Batch, got tuple; "):
        ppo_loss(dist, params, value, tuple(batch), CONFIG)


def test_one_advantage_for_many_steps():
    n, dist = 2000, Categorical(2)
    zero, logits, actions = (
        np.zeros(s, t) for s, t in (((n, 1), "f4"), ((n, 1, 2), "f4"), (n, int))
    )
    actions = actions[:, None]
    batch = Batch(actions, zero, zero, zero[:1] + 1, zero, zero == 0)
    with pytest.raises(ValueError, match=r"^batch.advantages: .*\(2000, 1\), got .*\(1, 1"):
        ppo_loss(dist, logits, zero, batch, CONFIG)


# Advantages


def test_terminated_without_done():
    """Gymnasium's pair is (terminated, truncated): advantages would run across an end."""
    zero, terminated = np.zeros((3, 2)), np.zeros((3, 2), bool)
    terminated[1, 1] = terminated[2, 0] = True
    with pytest.raises(
        ValueError, match=r"^terminated, done: expected True .*got False at \(1, 1\); done is "
    ):
        gae(zero, zero, zero, terminated, np.zeros((3, 2), bool), 1.0, 1.0)
    gae(zero, zero, zero, terminated, terminated, 1.0, 1.0)


@pytest.mark.parametrize("name", ["gamma", "lam"])
@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, None, "1", True])
def test_discounts_that_are_none(name, bad):
    zero, never = np.zeros((3, 2)), np.zeros((3, 2), bool)
    factors = {"gamma": 0.9, "lam": 0.9} | {name: bad}
    with pytest.raises(ValueError, match=rf"^{name}: expected a number in \[0, 1\], got "):
        gae(zero, zero, zero, never, never, **factors)


# Adam


@pytest.mark.parametrize("name", ["theta", "grad"])
def test_vectors_that_do_not_fit(name):
    """The loop would write beyond the end."""
    adam, right = Adam(6), {"theta": np.zeros(6, np.float32), "grad": np.ones(6, np.float32)}
    array = right[name]
    for bad in (
        np.zeros(200_000, np.float32),
        array[:5],
        array[None],
        array.reshape(2, 3),
        array.astype(np.float64),
        array.astype(int),
        array.tolist(),
        None,
    ):
        with pytest.raises(BAD, match=rf"^{name}: expected .*got .*; they are vectors"):
            adam.step(**(right | {name: bad}), lr=1e-3)
    assert not adam.moments.m.any() and adam.moments.steps == 0


def test_memory_layouts_of_adam():
    """A view with gaps is updated in place, and nothing between."""
    long, plain, grad = np.ones(12, np.float32), np.ones(6, np.float32), np.arange(6, dtype="f4")
    assert Adam(6).step(long[::2], grad[::-1], 0.1) == Adam(6).step(plain, grad[::-1].copy(), 0.1)
    np.testing.assert_array_equal(long[::2], plain)
    np.testing.assert_array_equal(long[1::2], 1)
    plain.flags.writeable = False
    with pytest.raises(ValueError, match=r"^theta: expected an array to write to, .*; copy it"):
        Adam(6).step(plain, grad, 0.1)


@pytest.mark.parametrize("name, bad", [("lr", z) for z in (-1, np.nan, np.inf, None, "1", True)])
def test_learning_rates_that_are_none(name, bad):
    theta = np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"^lr: expected a number in "):
        Adam(2).step(theta, theta.copy(), bad)
    if bad not in (None, np.inf):
        with pytest.raises(ValueError, match=r"^max_norm: expected a number in "):
            Adam(2).step(theta, theta.copy(), 0.1, bad)
    np.testing.assert_array_equal(theta, 1)


@pytest.mark.parametrize("scale", [1e25, 1e-25, 1e38, 0.0])
def test_norms_beyond_the_dtype(scale):
    """Squares overflow or vanish in float32; the norm does not, and clipping makes a plain step."""
    grad = np.array([3, -4], np.float32) * np.float32(scale / 4)
    theta, adam = np.ones(2, np.float32), Adam(2, eps=1e-12)
    norm = adam.step(theta, grad, 0.1, 0.5)
    np.testing.assert_allclose(norm, 1.25 * scale, rtol=1e-6)
    if scale > 1:
        np.testing.assert_allclose(theta, [0.9, 1.1], rtol=1e-5)
        with pytest.raises(FloatingPointError, match=r"^gradient: .*overflow"):
            Adam(2).step(theta, grad, 0.1)  # v could not hold the squares


def test_no_learning_rate_is_no_step():
    theta = np.ones(2, np.float32)
    Adam(2).step(theta, np.array([3, -4], np.float32), 0.0, 0.0)
    np.testing.assert_array_equal(theta, 1)


def test_factors_of_the_learning_rate_that_do_not_fit():
    for bad in (np.ones(5, np.float32), np.ones(7, np.float32), np.ones(6), [1.0] * 6, 1.0):
        with pytest.raises(BAD, match=r"^rates: expected .*got .*; give one factor"):
            Adam(6, rates=bad)
