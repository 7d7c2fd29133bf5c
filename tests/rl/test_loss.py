"""PPO's loss: against the specification, gradient, statistics, parts of a minibatch, kernel.

tests/rl/test_agent.py has the gradient of the whole loss with respect to the agent's parameters.
"""

from fractions import Fraction

import numpy as np
import pytest
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.rl.config import PPOConfig
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical
from minis5.rl.loss import STATS, Batch, ppo_loss
from minis5.verify.gradients import assert_close, check_gradients

NVEC = (2, 3)
DISTRIBUTIONS = {
    "categorical": (Categorical(3), ref.categorical),
    "multi": (
        MultiCategorical(NVEC),
        lambda params, action: ref.multi_categorical(params, action, NVEC),
    ),
    "gaussian": (DiagGaussian(2), ref.diag_gaussian),
}


def loss_problem(kind, T=9, B=4, dtype=np.float64, valid=True, seed=0):
    """Return a distribution, its parameters, values and a batch.

    Ratios and changes of the value are within and beyond their clips, on both sides.
    """
    dist, _ = DISTRIBUTIONS[kind]
    rng = np.random.default_rng(seed)
    params = rng.standard_normal((T, B, dist.num_params)).astype(dtype)
    actions = dist.sample(params, rng)
    value, moved, advantages, error, log_ratio = rng.standard_normal((5, T, B)).astype(dtype)
    batch = Batch(
        actions=actions,
        log_probs=dist.log_prob(params, actions) - dtype(0.3) * log_ratio,
        values=value - dtype(0.3) * moved,
        advantages=advantages,
        returns=value + error,
        valid=np.ones((T, B), bool) if valid else rng.random((T, B)) < 0.6,
    )
    return dist, params, value, batch


def reference_loss(kind, params, value, batch, config):
    names = ("clip", "value_coef", "entropy_coef", "clip_value")
    return ref.ppo_loss(
        DISTRIBUTIONS[kind][1],
        params,
        value,
        batch,
        **{name: getattr(config, name) for name in names},
    )


@pytest.mark.parametrize("valid", [True, False], ids=["all valid", "some valid"])
@pytest.mark.parametrize("clip_value", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_loss_equals_reference(kind, dtype, clip_value, valid):
    config = PPOConfig(clip=0.15, clip_value=clip_value, value_coef=0.7, entropy_coef=0.05)
    dist, params, value, batch = loss_problem(kind, dtype=dtype, valid=valid)
    loss, stats, d_dist, d_value = ppo_loss(dist, params, value, batch, config)
    exact = Batch(*(z.astype(np.float64) if z.dtype == np.float32 else z for z in batch))
    expected = reference_loss(
        kind, params.astype(np.float64), value.astype(np.float64), exact, config
    )
    assert_close(loss, expected, T=value.size, dtype=dtype)
    named = dict(zip(STATS, stats, strict=True))
    parts = named["policy_loss"] + 0.7 * named["value_loss"] - 0.05 * named["entropy"]
    assert_close(parts, expected, T=value.size, dtype=dtype)
    assert named["loss"] == loss
    assert (
        d_dist.dtype == d_value.dtype == dtype
        and d_dist.shape == params.shape
        and d_value.shape == value.shape
    )
    if not valid:
        assert not d_dist[~batch.valid].any() and not d_value[~batch.valid].any()
        for name in ("log_probs", "values", "advantages", "returns"):
            getattr(exact, name)[~batch.valid] = np.nan  # what does not count must not be looked at
        again, *_ = ppo_loss(
            dist, params.astype(np.float64), value.astype(np.float64), exact, config
        )
        assert_close(again, expected, T=value.size)


@pytest.mark.parametrize("clip_value", [True, False])
@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_loss_gradient(kind, clip_value):
    """Central differences; random numbers do not hit the edges of the clips."""
    config = PPOConfig(clip=0.15, clip_value=clip_value, value_coef=0.7, entropy_coef=0.05)
    dist, params, value, batch = loss_problem(kind, valid=False)

    def forward(inputs):
        return (np.array([ppo_loss(dist, inputs["params"], inputs["value"], batch, config)[0]]),)

    def backward(inputs, cotangents):
        _, _, d_dist, d_value = ppo_loss(dist, inputs["params"], inputs["value"], batch, config)
        return {"params": cotangents[0] * d_dist, "value": cotangents[0] * d_value}

    check_gradients(forward, backward, {"params": params, "value": value}, entries=20)


def test_loss_statistics():
    """KL is the mean of (ρ - 1) - log ρ over valid steps; ratios beyond the clip are counted."""
    dist, params, value, batch = loss_problem("categorical", valid=False)
    _, stats, _, _ = ppo_loss(dist, params, value, batch, PPOConfig(clip=0.15))
    log_ratio = (dist.log_prob(params, batch.actions) - batch.log_probs)[batch.valid]
    assert 0 < stats[STATS.index("clip_fraction")] < 1
    assert_close(stats[STATS.index("kl")], np.mean(np.exp(log_ratio) - 1 - log_ratio), T=value.size)
    assert stats[STATS.index("clip_fraction")] == np.mean(np.abs(np.exp(log_ratio) - 1) > 0.15)


def test_parts_of_a_minibatch_add_up():
    """With the whole count, losses and gradients of two halves add up to those of the whole.

    Ranks rely on it.
    """
    dist, params, value, batch = loss_problem("categorical", valid=False)
    config, count = PPOConfig(entropy_coef=0.05), batch.valid.sum()
    whole = ppo_loss(dist, params, value, batch, config)
    halves = [
        ppo_loss(
            dist,
            params[:, part],
            value[:, part],
            Batch(*(z[:, part] for z in batch)),
            config,
            count,
        )
        for part in (slice(0, 2), slice(2, 4))
    ]
    assert_close(halves[0][0] + halves[1][0], whole[0], T=value.size)
    for i in (2, 3):
        assert_close(np.concatenate([half[i] for half in halves], axis=1), whole[i])


@pytest.mark.parametrize("order", ["C", "F"])
def test_loss_takes_any_memory_layout(order):
    dist, params, value, batch = loss_problem("categorical")
    expected = ppo_loss(dist, params, value, batch, PPOConfig())
    got = ppo_loss(dist, params, np.asarray(value, order=order), batch, PPOConfig())
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def test_nothing_valid_is_no_loss():
    dist, params, value, batch = loss_problem("categorical")
    loss, stats, d_dist, d_value = ppo_loss(
        dist, params, value, batch._replace(valid=batch.valid & False), PPOConfig()
    )
    assert loss == 0 and not stats.any() and not d_dist.any() and not d_value.any()


def test_kernel_in_the_simulator_is_the_loop(tmp_path):
    check_in_simulator("loss", tmp_path)


def test_float64_beside_float32_is_for_sums():
    assert mixed("loss") == {"loss.ppo_loss_mean_kernel"}


# Digits


def exact_value_loss(value, batch, clip):
    """Return the mean of ½·max((V-R)², (V_c-R)²), in fractions."""
    total = Fraction(0)
    for v, old, target in zip(value.flat, batch.values.flat, batch.returns.flat, strict=True):
        v, old, target = (Fraction(float(z)) for z in (v, old, target))
        error, moved = v - target, v - old
        clipped = error if clip is None else old + min(max(moved, -clip), clip) - target
        total += max(error**2, clipped**2) / 2
    return total / value.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6, 1e12])
def test_value_loss_keeps_its_digits_without_clipping(size, dtype):
    """Old values of any size do not count; errors far smaller than the values do."""
    config = PPOConfig(clip_value=False, value_coef=1.0)
    dist, params, value, batch = loss_problem("categorical", dtype=dtype)
    batch = batch._replace(values=(batch.values * size).astype(dtype))
    for spread in (1, 2.0**-10):
        batch = batch._replace(returns=(value + dtype(spread) * batch.advantages).astype(dtype))
        stats, d_value = ppo_loss(dist, params, value, batch, config)[1::2]
        expected = float(exact_value_loss(value, batch, None))
        got = stats[STATS.index("value_loss")]
        np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(dtype).eps, atol=0)
        error = value.astype(np.float64) - batch.returns
        assert_close(d_value * value.size, error, dtype=dtype)


@pytest.mark.parametrize("clip_value", [True, False])
@pytest.mark.parametrize("name", ["log_probs", "advantages", "returns"])
def test_nan_reaches_loss_and_gradient(name, clip_value):
    """So that Adam refuses the step."""
    dist, params, value, batch = loss_problem("categorical")
    getattr(batch, name)[2, 1] = np.nan
    loss, _, d_dist, d_value = ppo_loss(
        dist, params, value, batch, PPOConfig(clip_value=clip_value)
    )
    assert np.isnan(loss) and (np.isnan(d_dist).any() or np.isnan(d_value).any())


def test_masked_actions_have_no_gradient():
    dist, params, value, batch = loss_problem("categorical")
    holes = np.zeros(params.shape, bool)
    holes[::2, :, 0] = True
    params[holes] = -np.inf
    actions = np.where(batch.actions == 0, 1, batch.actions)
    batch = batch._replace(actions=actions, log_probs=dist.log_prob(params, actions) - 0.1)
    loss, stats, d_dist, _ = ppo_loss(dist, params, value, batch, PPOConfig(entropy_coef=0.05))
    exact = reference_loss("categorical", params, value, batch, PPOConfig(entropy_coef=0.05))
    assert_close(loss, exact, T=value.size)
    assert np.isfinite(stats).all() and np.isfinite(d_dist).all() and not d_dist[holes].any()
