"""What a minibatch leaves: its figures, its number, and whether more minibatches count.

`target_kl` ends an iteration's passes after one whose mean KL divergence is above it. Minibatches
of later passes have been queued by then, because to look at the figures would mean to wait. They
are computed, but change nothing: the bound on the gradient becomes -inf, with which Adam takes no
step (minis5/rl/adam.py), and this kernel writes nothing more.

What it costs: the time of the passes that no longer count. Where most iterations end early, fewer
epochs do the same in less time.

It is no operation: it counts. Source: minis5's own. Specification: `PPO.enough` and the loop of
class Passes in minis5/rl/ppo.py.
Tests: the kernel by itself: tests/test_kernels.py; tests/rl/test_whole_graphs.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.rl.loss import STATS
from minis5_cuda.launch import kernel, launch

KL = STATS.index("kl")


class Tally(NamedTuple):
    """What is known of the minibatches so far."""

    k: object  # int64 (1,): how many counted, and so the number of the next one
    stats: object  # float64 (minibatches in all, 7): loss.STATS and the gradient's norm
    settings: object  # float64 (3,), of adam_step: learning rate, bound, ε


@kernel
def tally_kernel(figures, norm, tally, minibatches, target):
    """Count a minibatch, if it counts; at the end of a pass decide about the next one.

    One thread. NaN is not above the target.
    """
    k, stats, settings = tally.k[0], tally.stats, tally.settings
    if settings[1] == -math.inf:
        return
    for j in range(figures.size):
        stats[k, j] = figures[j]
    stats[k, figures.size] = norm[0]
    tally.k[0] = k + 1
    if (k + 1) % minibatches == 0:
        total = np.float64(0)
        for row in range(k + 1 - minibatches, k + 1):
            total += stats[row, KL]
        if total / np.float64(minibatches) > target:
            settings[1] = -math.inf


def count(figures, norm, tally, config):
    """Count a minibatch whose step Adam has taken: its figures (6,) and gradient's norm (1,)."""
    target = np.float64(math.inf if config.target_kl is None else config.target_kl)
    launch(tally_kernel, 1, 1, figures, norm, tally, config.minibatches, target)
