"""Kernel of PPO's loss: the terms of one minibatch, summed, and the gradients of two of the sums.

`ppo_loss_terms` takes the arguments of the operation of the same name in minis5/rl/loss.py: arrays
on the GPU, C-contiguous, of one float dtype (`sums` float64, `valid` bool). Terms are computed in
that dtype and summed in float64, in a fixed order (reduce.py).

Leaves out: all that is not summed over steps, which minis5/rl/loss.py computes with whole arrays.
Source: 1707.06347, eq. 7 and 9; value clipping as in the code of 2303.03982. Specification:
ppo_loss in minis5/reference/s5_ppo.py. CPU form: minis5/rl/loss.py.
Tests: tests/rl/test_loss.py, tests/gpu/test_kernels.py.
"""

import math

import numpy as np

from minis5.ops import form_of
from minis5.rl import loss as cpu
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import flat, over_lanes, over_rows, scratch, sum_stripes, walk


@kernel
def ppo_loss_terms_kernel(steps, bounds, d_log_prob, d_value, partial):
    """Write d_log_prob and d_value, and to partial this block's part of the sums.

    The code compares instead of calling min and max, which lose NaN on a GPU. NaN must reach the
    sums.
    """
    low, high, reach = bounds.low, bounds.high, bounds.reach
    real = steps.value.dtype.type
    policy = value_loss = entropies = divergence = clips = np.float64(0)
    first, step = walk()
    for i in range(first, steps.value.size, step):
        d_log_prob[i] = d_value[i] = real(0)
        if not steps.valid[i]:
            continue
        log_ratio = steps.log_prob[i] - steps.old_log_prob[i]
        ratio, advantage = real(math.exp(log_ratio)), steps.advantage[i]  # ρ, A
        clipped = low if ratio < low else high if ratio > high else ratio
        plain_gain, clipped_gain = ratio * advantage, clipped * advantage
        # the minimum takes the plain ratio: the only case with a gradient
        if not plain_gain > clipped_gain:  # NaN too
            policy -= np.float64(plain_gain)  # -ρA
            d_log_prob[i] = -plain_gain  # dρ/dlog π = ρ, so d(-ρA)/dlog π = -ρA
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
            d_value[i] = error
        entropies += np.float64(steps.entropy[i])
        # (ρ - 1) - log ρ: an estimate of the KL divergence that is never negative
        divergence += np.float64(ratio) - 1.0 - np.float64(log_ratio)
        clips += 1.0 if ratio < low or ratio > high else 0.0
    for k, total in enumerate((policy, value_loss, entropies, divergence, clips)):
        total = over_rows(over_lanes(total, partial), partial)
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            partial[cuda.blockIdx.y, k] = total


@form_of(cpu.ppo_loss_terms)
def ppo_loss_terms(steps, bounds, sums, d_log_prob, d_value):
    """Write the sums over valid steps to ``sums``, and the gradients of the first two.

    d_log_prob and d_value are with respect to log_prob and value. The arrays of ``steps`` have one
    float dtype (valid: bool). Terms are computed in it and summed in float64, in a fixed order.
    """
    grid, block = flat(steps.value.size, high=1)
    partial = scratch(sums, grid[1], sums.size)
    bounds = cpu.Bounds(*map(steps.value.dtype.type, bounds))
    launch(ppo_loss_terms_kernel, grid, block, steps, bounds, d_log_prob, d_value, partial)
    sum_stripes(partial, sums)
