"""Kernel of PPO's loss: the terms of one minibatch, their means, and the loss's gradients.

`ppo_loss_mean` takes the arguments of the operation of the same name in minis5/rl/loss.py: arrays
on the GPU, C-contiguous, of one float dtype (`figures` float64, `valid` bool). Terms are computed
in that dtype and summed in float64, in a fixed order (reduce.py). The last block to come to its end
makes the figures of the sums.

Leaves out: log-probability and entropy (distributions.py).
Source: 1707.06347, eq. 7 and 9; value clipping as in the code of 2303.03982. Specification:
ppo_loss in minis5/reference/s5_ppo.py. CPU form: minis5/rl/loss.py.
Tests: tests/rl/test_loss.py, tests/gpu/test_kernels.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import on_gpu
from minis5.ops import form_of
from minis5.rl import loss as cpu
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import counters, flat, is_last, over_block, scratch, walk


class Bounds(NamedTuple):
    """Ratios are clipped to [low, high], the value's change to [-reach, reach]."""

    low: np.floating
    high: np.floating
    reach: np.floating


@kernel
def ppo_loss_mean_kernel(steps, bounds, factors, count, counted, partial, arrived, figures, slopes):
    """Write the figures and the slopes: gradients of log_prob, entropy and value.

    ``count`` is a number, or -1: then it is in ``counted``. The code compares instead of calling
    min and max, which lose NaN on a GPU. NaN must reach the sums.
    """
    low, high, reach = bounds.low, bounds.high, bounds.reach
    real = steps.value.dtype.type
    total_count = np.float64(max(counted[0] if count < 0 else count, 1))
    each = real(1) / real(total_count)
    d_log_prob, d_entropy, d_value = slopes
    for_value, for_entropy = real(factors[0]) * each, real(-factors[1]) * each
    policy = value_loss = entropies = divergence = clips = np.float64(0)
    first, step = walk()
    for i in range(first, steps.value.size, step):
        d_log_prob[i] = d_entropy[i] = d_value[i] = real(0)
        if not steps.valid[i]:
            continue
        d_entropy[i] = for_entropy
        log_ratio = steps.log_prob[i] - steps.old_log_prob[i]
        ratio, advantage = real(math.exp(log_ratio)), steps.advantage[i]  # ρ, A
        clipped = low if ratio < low else high if ratio > high else ratio
        plain_gain, clipped_gain = ratio * advantage, clipped * advantage
        # the minimum takes the plain ratio: the only case with a gradient
        if not plain_gain > clipped_gain:  # NaN too
            policy -= np.float64(plain_gain)  # -ρA
            d_log_prob[i] = -plain_gain * each  # dρ/dlog π = ρ, so d(-ρA)/dlog π = -ρA
        else:
            policy -= np.float64(clipped_gain)
        error = steps.value[i] - steps.target[i]  # V - R
        moved = steps.value[i] - steps.old_value[i]
        held = -reach if moved < -reach else reach if moved > reach else moved
        error_clipped = error  # not clipped: the sum below would only lose digits
        if reach < math.inf:
            error_clipped = steps.old_value[i] + held - steps.target[i]
        square, square_clipped = error * error, error_clipped * error_clipped
        value_loss += 0.5 * np.float64(square_clipped if square_clipped > square else square)
        # ½·max((V - R)², (V_clipped - R)²) has the gradient V - R where V is not clipped, or where
        # the maximum takes the plain error; else it has none
        if held == moved or square >= square_clipped:
            d_value[i] = error * for_value
        entropies += np.float64(steps.entropy[i])
        # (ρ - 1) - log ρ: an estimate of the KL divergence that is never negative
        divergence += np.float64(ratio) - 1.0 - np.float64(log_ratio)
        clips += 1.0 if ratio < low or ratio > high else 0.0
    policy, value_loss = over_block(policy), over_block(value_loss)
    entropies, divergence = over_block(entropies), over_block(divergence)
    clips, row = over_block(clips), cuda.blockIdx.y
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        partial[row, 0], partial[row, 1], partial[row, 2] = policy, value_loss, entropies
        partial[row, 3], partial[row, 4] = divergence, clips
    if is_last(arrived):
        for k in range(5):
            total, lane = np.float64(0), cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
            for stripe in range(lane, partial.shape[0], cuda.blockDim.x * cuda.blockDim.y):
                total += partial[stripe, k]
            total = over_block(total)
            if lane == 0:
                figures[1 + k] = total / total_count
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:  # the thread that wrote them
            figures[0] = figures[1] + factors[0] * figures[2] - factors[1] * figures[3]


@form_of(cpu.ppo_loss_mean)
def ppo_loss_mean(steps, config, count, figures, d_log_prob, d_entropy, d_value):
    """Write the figures, float64 (6,), and the gradients of log_prob, entropy and value, (n,).

    The arrays of ``steps`` have one float dtype (valid: bool). Terms are computed in it and summed
    in float64, in a fixed order.
    """
    (grid, block), real, clip = flat(steps.value.size, high=1), steps.value.dtype.type, config.clip
    reach = clip if config.clip_value else math.inf
    bounds = Bounds(*map(real, (1 - clip, 1 + clip, reach)))
    factors = np.float64(config.value_coef), np.float64(config.entropy_coef)
    count = steps.valid.sum() if count is None else count
    on_device = on_gpu(count)
    number = np.float64(-1 if on_device else count)
    counted = count.reshape(1) if on_device else figures  # of some type, and not read
    partial, slopes = scratch(figures, grid[1], 5), (d_log_prob, d_entropy, d_value)
    sums = number, counted, partial, counters(figures, 1), figures
    launch(ppo_loss_mean_kernel, grid, block, steps, bounds, factors, *sums, slopes)
