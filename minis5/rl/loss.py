"""PPO's loss and its gradient with respect to the policy's parameters and the value.

    L = mean over valid steps of  -min(ρA, clip(ρ, 1±ε)A) + c_v·½·max((V-R)², (V_clipped-R)²) - c_H·H,     ρ = π(a)/π_old(a)

Source: 1707.06347, eq. 7 and 9. Specification: reference.ppo_loss. Kernel: cuda/minis5_cuda/rl/loss.py.
Tests: tests/rl/test_loss.py, tests/rl/test_agent.py (gradient of the whole loss).
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.ops import operation


class Batch(NamedTuple):
    """What the loss needs to know of the past; all (T, B, ...)."""

    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    advantages: np.ndarray  # as they enter the loss: normalised already
    returns: np.ndarray
    valid: np.ndarray  # bool


STATS = ("loss", "policy_loss", "value_loss", "entropy", "kl", "clip_fraction")


def ppo_loss(dist, dist_params, value, batch, config, count=None):
    """PPO's loss and its gradient.  1707.06347, eq. 7 and 9; value clipping as in the paper's code.

    Parameters
    ----------
    dist : distribution (distributions.py)
    dist_params : (T, B, n)
    value : (T, B)
    batch : Batch
    config : PPOConfig
    count : number of valid steps to average over; default: those in ``batch``. (Larger when a rank has a part of a minibatch.)

    Returns
    -------
    loss : float64
    stats : (6,) float64, in the order of STATS; kl is the mean of (ρ - 1) - log ρ
    d_dist : gradient of ``dist_params``
    d_value : gradient of ``value``
    """
    xp, dtype = array_module(value), value.dtype.type
    count = xp.maximum(batch.valid.sum() if count is None else count, 1)
    each = 1 / count.astype(dtype)
    log_prob, entropy = dist.log_prob(dist_params, batch.actions), dist.entropy(dist_params)
    sums, d_log_prob, d_value = (
        xp.zeros(len(STATS) - 1),
        xp.zeros(value.shape, dtype),
        xp.zeros(value.shape, dtype),
    )
    policy = (log_prob, batch.log_probs, batch.advantages, entropy)
    steps = Steps(*(z.ravel() for z in (*policy, value, batch.values, batch.returns, batch.valid)))
    # Bounds have the dtype of the rest, or equal products would differ in their last bit.
    bounds = Bounds(
        dtype(1 - config.clip),
        dtype(1 + config.clip),
        dtype(config.clip if config.clip_value else np.inf),
    )
    ppo_loss_terms(steps, bounds, sums, d_log_prob.ravel(), d_value.ravel())
    means = sums / count
    loss = means[:1] + config.value_coef * means[1:2] - config.entropy_coef * means[2:3]
    d_entropy = batch.valid * (dtype(-config.entropy_coef) * each)
    d_dist = dist.backward(dist_params, batch.actions, d_log_prob * each, d_entropy)
    return (
        loss[0],
        xp.concatenate([loss, means]),
        d_dist,
        d_value * (dtype(config.value_coef) * each),
    )


class Steps(NamedTuple):
    """What the loss of each step is made of; all (n,)."""

    log_prob: np.ndarray
    old_log_prob: np.ndarray
    advantage: np.ndarray
    entropy: np.ndarray
    value: np.ndarray
    old_value: np.ndarray
    target: np.ndarray
    valid: np.ndarray  # bool


class Bounds(NamedTuple):
    """Ratios are clipped to [low, high], the value's change to [-reach, reach]."""

    low: np.floating
    high: np.floating
    reach: np.floating


@operation
def ppo_loss_terms(steps, bounds, sums, d_log_prob, d_value):
    """Sums over valid steps of: policy loss, value loss, entropy, KL, clipped ratios; d_*: gradients of the first two sums.

    sums (5,) float64, d_* (n,) are zeros before.
    """
    low, high, reach = bounds
    for i in range(steps.value.size):
        if not steps.valid[i]:
            continue
        log_ratio = steps.log_prob[i] - steps.old_log_prob[i]
        ratio, advantage = math.exp(log_ratio), steps.advantage[i]  # ρ, A
        clipped = min(max(ratio, low), high)
        # the minimum takes the plain ratio: the only case with a gradient
        if ratio * advantage <= clipped * advantage:
            sums[0] -= ratio * advantage  # -ρA
            d_log_prob[i] = -ratio * advantage  # dρ/dlog π = ρ
        else:
            sums[0] -= clipped * advantage
        error = steps.value[i] - steps.target[i]  # V - R
        moved = steps.value[i] - steps.old_value[i]
        error_clipped = steps.old_value[i] + min(max(moved, -reach), reach) - steps.target[i]
        sums[1] += 0.5 * max(error * error, error_clipped * error_clipped)
        if abs(moved) <= reach or error * error >= error_clipped * error_clipped:
            d_value[i] = error
        sums[2] += steps.entropy[i]
        sums[3] += ratio - 1 - log_ratio  # an estimate of the KL divergence that is never negative
        sums[4] += ratio < low or ratio > high
