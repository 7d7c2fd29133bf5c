"""Kernel of PPO's loss: the terms of one minibatch, summed, and the gradients of policy and value loss.

`ppo_loss_terms` takes the arguments of minis5/rl/ppo.py's loop `_ppo_terms`: arrays on the GPU, C-contiguous, of one float dtype (`sums`
float64, `valid` bool). Terms are computed in that dtype and summed in float64, in a fixed order (reduce.py).

Leaves out: everything that is not summed over steps, which is left to minis5/rl/ppo.py.
Source: 1707.06347, eq. 7 and 9; value clipping as in the code of 2303.03982. Tests: tests/rl/test_cuda_loss.py,
tests/gpu/test_kernels.py.
"""

import math

import numpy as np
from numba import cuda

from minis5.ops import form_of
from minis5.rl import loss as cpu
from minis5_cuda.launch import kernel, launch
from minis5_cuda.reduce import add_stripes, flat, over_lanes, over_rows, scratch, walk


@kernel
def ppo_loss_terms_kernel(steps, bounds, d_log_prob, d_value, partial):
    """This block's part of the sums; d_log_prob, d_value.

    Written with comparisons instead of min and max, which lose NaN on a GPU: it has to reach the sums.
    """
    low, high, reach = bounds.low, bounds.high, bounds.reach
    real = steps.value.dtype.type
    policy = value_loss = entropies = divergence = clips = np.float64(0)
    first, step = walk()
    for i in range(first, steps.value.size, step):
        if not steps.valid[i]:
            continue
        log_ratio = steps.log_prob[i] - steps.old_log_prob[i]
        ratio, advantage = real(math.exp(log_ratio)), steps.advantage[i]
        clipped = low if ratio < low else high if ratio > high else ratio
        plain_gain, clipped_gain = ratio * advantage, clipped * advantage
        # the minimum takes the plain ratio: the only case with a gradient
        if plain_gain <= clipped_gain:
            policy -= np.float64(plain_gain)
            d_log_prob[i] = -plain_gain
        else:
            policy -= np.float64(clipped_gain)
        error, moved = steps.value[i] - steps.target[i], steps.value[i] - steps.old_value[i]
        held = -reach if moved < -reach else reach if moved > reach else moved
        error_clipped = steps.old_value[i] + held - steps.target[i]
        square, square_clipped = error * error, error_clipped * error_clipped
        value_loss += 0.5 * np.float64(square_clipped if square_clipped > square else square)
        if held == moved or square >= square_clipped:
            d_value[i] = error
        entropies += np.float64(steps.entropy[i])
        divergence += np.float64(ratio) - 1.0 - np.float64(log_ratio)
        clips += 1.0 if ratio < low or ratio > high else 0.0
    for k, total in enumerate((policy, value_loss, entropies, divergence, clips)):
        total = over_rows(over_lanes(total, partial), partial)
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            partial[cuda.blockIdx.y, k] = total


@form_of(cpu.ppo_loss_terms)
def ppo_loss_terms(steps, bounds, sums, d_log_prob, d_value):
    """Sums over valid steps, and gradients of the first two with respect to log_prob and value.

    The arrays of ``steps`` have one float dtype (valid: bool). Terms are computed in it and summed in float64, in a fixed order.
    """
    grid, block = flat(steps.value.size, high=1)
    partial = scratch(sums, grid[1], sums.size)
    bounds = cpu.Bounds(*map(steps.value.dtype.type, bounds))
    launch(ppo_loss_terms_kernel, grid, block, steps, bounds, d_log_prob, d_value, partial)
    add_stripes(partial, sums)
