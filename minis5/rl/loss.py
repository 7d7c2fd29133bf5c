"""PPO's loss, and its gradients with respect to the policy's parameters and the value.

    L = mean over valid steps of  -min(ρA, clip(ρ, 1±ε)·A) + c_v·½·max((V-R)², (V_c-R)²) - c_H·H

with ρ = π(a)/π_old(a), ε = clip, c_v = value_coef, c_H = entropy_coef, H the entropy, and V_c the
value moved to within ±ε of the old value.

Source: 1707.06347, eq. 7 and 9; the clipped value as in the authors' code of 2303.03982.
Specification: reference.ppo_loss. GPU form: cuda/minis5_cuda/rl/loss.py.
Tests: tests/rl/test_loss.py, tests/rl/test_agent.py (gradient of the whole loss).
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import Array, array_module
from minis5.ops import array_operation, fast
from minis5.rl.learning_doors import take_batch

STATS = ("loss", "policy_loss", "value_loss", "entropy", "kl", "clip_fraction")


class Batch(NamedTuple):
    """What the loss needs to know of the past; all (T, B, ...)."""

    actions: Array
    log_probs: Array
    values: Array
    advantages: Array  # as they enter the loss: normalised already
    returns: Array
    valid: Array  # bool


def ppo_loss(dist, dist_params, value, batch, config, count=None):
    """Return the loss of a batch, its statistics and its gradients.

    Parameters
    ----------
    dist : distribution (distributions.py)
    dist_params : (T, B, n)
    value : (T, B)
    batch : Batch
    config : PPOConfig
    count : int array or None
        Valid steps to average over, on all ranks; None: those in ``batch``.

    Returns
    -------
    loss : float64
    stats : (6,) float64, in the order of STATS; kl is the mean of (ρ - 1) - log ρ
    d_dist : gradient of ``dist_params``
    d_value : gradient of ``value``

    Raises
    ------
    TypeError, ValueError
        An array's shape or dtype does not fit ``dist_params``, or an action is illegal.
    """
    dist_params, value, batch = take_batch(dist.num_params, dist_params, value, batch, count, Batch)
    xp, shape = array_module(value), value.shape
    log_prob, entropy = dist.log_prob(dist_params, batch.actions), dist.entropy(dist_params)
    policy = (log_prob, batch.log_probs, batch.advantages, entropy)
    steps = Steps(*(z.ravel() for z in (*policy, value, batch.values, batch.returns, batch.valid)))
    figures, slopes = xp.empty(6), [xp.empty(shape, value.dtype) for _ in range(3)]
    ppo_loss_mean(steps, config, count, figures, *(z.ravel() for z in slopes))
    d_dist = dist.backward(dist_params, batch.actions, *slopes[:2])
    return figures[0], figures, d_dist, slopes[2]


class Steps(NamedTuple):
    """What the loss of each step is made of; all (n,)."""

    log_prob: Array
    old_log_prob: Array
    advantage: Array
    entropy: Array
    value: Array
    old_value: Array
    target: Array
    valid: Array  # bool


@array_operation
def ppo_loss_mean(steps, config, count, figures, d_log_prob, d_entropy, d_value):
    """Write figures (6,) float64, which are STATS, and the loss's gradients (n,)."""
    dtype, sums, clip = d_value.dtype.type, np.empty(5), config.clip
    reach = clip if config.clip_value else np.inf
    bounds = tuple(map(dtype, (1 - clip, 1 + clip, reach)))  # or ties would differ
    ppo_loss_terms(steps, bounds, sums, d_log_prob, d_value)
    count = np.maximum(steps.valid.sum() if count is None else count, 1)
    figures[1:] = means = sums / count
    figures[0] = means[0] + config.value_coef * means[1] - config.entropy_coef * means[2]
    each = 1 / count.astype(dtype)
    d_log_prob *= each
    d_entropy[:] = steps.valid * (dtype(-config.entropy_coef) * each)
    d_value *= dtype(config.value_coef) * each


@fast
def ppo_loss_terms(steps, bounds, sums, d_log_prob, d_value):
    """Write sums (5,) float64 over valid steps, and the gradients of the first two (n,).

    The sums are those of policy loss, value loss, entropy, KL and clipped ratios.
    """
    low, high, reach = bounds  # of ratios, and of the value's change
    sums[:] = 0
    for i in range(steps.value.size):
        d_log_prob[i] = d_value[i] = 0
        if not steps.valid[i]:
            continue
        log_ratio = steps.log_prob[i] - steps.old_log_prob[i]
        ratio, advantage = math.exp(log_ratio), steps.advantage[i]  # ρ, A
        clipped = min(max(ratio, low), high)
        if not ratio * advantage > clipped * advantage:  # NaN too
            sums[0] -= ratio * advantage  # the minimum is ρA, whose slope along log π is ρA
            d_log_prob[i] = -ratio * advantage
        else:
            sums[0] -= clipped * advantage  # the minimum is constant: no gradient
        error = steps.value[i] - steps.target[i]  # V - R
        moved = steps.value[i] - steps.old_value[i]
        clipped_error = error  # not clipped: the sum below would only lose digits
        if reach < math.inf:
            clipped_error = steps.old_value[i] + min(max(moved, -reach), reach) - steps.target[i]
        sums[1] += 0.5 * max(error * error, clipped_error * clipped_error)
        if abs(moved) <= reach or error * error >= clipped_error * clipped_error:
            d_value[i] = error
        sums[2] += steps.entropy[i]
        sums[3] += ratio - 1 - log_ratio  # an estimate of the KL divergence, never negative
        sums[4] += ratio < low or ratio > high
