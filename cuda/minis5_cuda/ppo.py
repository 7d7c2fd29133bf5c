"""Kernel of PPO's loss: the terms of one minibatch, summed, and the gradients of policy and value loss.

`ppo_terms` takes the arguments of minis5/ppo.py's loop `_ppo_terms`: arrays on the GPU, C-contiguous, of one float dtype (`sums`
float64, `valid` bool). Terms are computed in that dtype and summed in float64, in a fixed order (reduce.py).

Leaves out: everything that is not summed over steps, which is left to minis5/ppo.py.
Source: 1707.06347, eq. 7 and 9; value clipping as in the code of 2303.03982. Tests: tests/test_cuda_loss.py,
tests/gpu/test_kernels.py.
"""

import math

import numpy as np
from numba import cuda

from .launch import kernel, launch
from .reduce import add_stripes, flat, over_lanes, over_rows, scratch, walk


@kernel
def ppo_terms_kernel(
    log_prob, old_log_prob, advantage, value, old_value, target, entropy, valid, low, high, reach, d_log_prob, d_value, partial
):
    """This block's part of the sums; d_log_prob, d_value.

    Written with comparisons in the place of min and max, which on a GPU let go of NaN: it has to reach the sums.
    """
    policy = value_loss = entropies = divergence = clips = np.float64(0)
    first, step = walk()
    for i in range(first, value.size, step):
        if not valid[i]:
            continue
        log_ratio = log_prob[i] - old_log_prob[i]
        ratio = value.dtype.type(math.exp(log_ratio))
        clipped = low if ratio < low else high if ratio > high else ratio
        plain_gain, clipped_gain = ratio * advantage[i], clipped * advantage[i]
        if plain_gain <= clipped_gain:  # the minimum takes the plain ratio: the only case with a gradient
            policy -= np.float64(plain_gain)
            d_log_prob[i] = -plain_gain
        else:
            policy -= np.float64(clipped_gain)
        error, moved = value[i] - target[i], value[i] - old_value[i]
        held = -reach if moved < -reach else reach if moved > reach else moved
        error_clipped = old_value[i] + held - target[i]
        square, square_clipped = error * error, error_clipped * error_clipped
        value_loss += 0.5 * np.float64(square_clipped if square_clipped > square else square)
        if held == moved or square >= square_clipped:
            d_value[i] = error
        entropies += np.float64(entropy[i])
        divergence += np.float64(ratio) - 1.0 - np.float64(log_ratio)
        clips += 1.0 if ratio < low or ratio > high else 0.0
    for k, total in enumerate((policy, value_loss, entropies, divergence, clips)):
        total = over_rows(over_lanes(total, partial), partial)
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            partial[cuda.blockIdx.y, k] = total


def ppo_terms(
    log_prob, old_log_prob, advantage, value, old_value, target, entropy, valid, low, high, reach, sums, d_log_prob, d_value
):
    """Sums over valid steps, and gradients of the first two with respect to log_prob and value.

    Parameters
    ----------
    log_prob, old_log_prob, advantage, value, old_value, target, entropy : (n,) arrays
    valid : (n,) bool array
    low, high, reach : float
        Ratios are clipped to [low, high], the value's change to [-reach, reach].
    sums : (5,) float64 array
        Grows by: policy loss, value loss, entropy, KL, number of clipped ratios.
    d_log_prob, d_value : (n,) arrays
        Zeros on entry; only elements with a gradient are written.
    """
    grid, block = flat(value.size, high=1)
    partial = scratch(sums, grid[1], sums.size)
    arrays = log_prob, old_log_prob, advantage, value, old_value, target, entropy, valid
    launch(ppo_terms_kernel, grid, block, *arrays, *map(value.dtype.type, (low, high, reach)), d_log_prob, d_value, partial)
    add_stripes(partial, sums)
