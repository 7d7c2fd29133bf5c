"""The GPU form of PPO's passes over a rollout: many minibatches are one replay of a CUDA graph.

The arithmetic is that of minis5/rl/ppo.py; this file drives it without the host. All that differs
from minibatch to minibatch is on the device: its number, the environments of all minibatches, the
learning rate, and whether target_kl has ended the passes (tally.py). The host draws the groups of
all passes beforehand, and looks at the statistics once an iteration. What several GPUs add to it is
in ranks.py.

Leaves out: steps that are not valid, which native environments do not have.
Source: 1707.06347. Specification: ppo_loss in minis5/reference/s5_ppo.py. CPU form: class Passes in
minis5/rl/ppo.py. Tests: tests/rl/test_cuda_training.py (simulator), tests/rl/test_whole_graphs.py
(against a host that looks after each pass), tests/gpu/test_training.py.
"""

import math

import numpy as np

from minis5.arrays import array_module, to_host
from minis5.ops import form_of
from minis5.rl import ppo as cpu
from minis5.rl.adam import adam_step, check_norm
from minis5_cuda.graphs import Series
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import flat, over_lanes, over_rows, scratch, walk
from minis5_cuda.rl.ranks import Ranks
from minis5_cuda.rl.tally import Tally, count

MINIBATCHES = 16  # most in a graph


@kernel
def moments_kernel(values, partial):
    """Write this block's Σ value and Σ value² to its row of partial (blocks, 2), in float64."""
    total = square = np.float64(0)
    first, step = walk()
    for i in range(first, values.size, step):
        value = np.float64(values[i])
        total += value
        square += value * value
    total = over_rows(over_lanes(total, partial), partial)
    square = over_rows(over_lanes(square, partial), partial)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, 0], partial[cuda.blockIdx.y, 1] = total, square


@kernel
def normalise_kernel(values, partial, out):
    """Write out = (value - mean)/(deviation + 1e-8); every block adds up all rows of partial."""
    total = square = np.float64(0)
    lane, lanes = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockDim.x
    for i in range(lane, partial.shape[0], lanes * cuda.blockDim.y):
        total += partial[i, 0]
        square += partial[i, 1]
    total = over_rows(over_lanes(total, partial), partial)
    square = over_rows(over_lanes(square, partial), partial)
    mean = total / np.float64(values.size)
    variance = square / np.float64(values.size) - mean * mean
    deviation = math.sqrt(variance if variance > 0.0 else 0.0) + 1e-8
    first, step = walk()
    for i in range(first, values.size, step):
        out[i] = out.dtype.type((np.float64(values[i]) - mean) / deviation)


def normalise(values, partial=None):
    """Return values with mean 0 and deviation 1, as minis5/rl/ppo.py scales advantages.

    values: (n,) array, float32 or float64. Mean and deviation are computed in float64.
    partial: float64 (rows, 2), parts of Σ value and Σ value², if others count than these n.
    """
    (grid, block), out = flat(values.size, high=1), array_module(values).empty_like(values)
    if partial is None:
        partial = scratch(values, grid[1], 2, np.float64)
        launch(moments_kernel, grid, block, values, partial)
    launch(normalise_kernel, grid, block, values, partial, out)
    return out


@form_of(cpu.Passes)
class Passes:
    """Run all passes over one rollout for a trainer whose agent is on the GPU.

    ``stream`` is the stream to work on, because CUDA graphs cannot be recorded on the default
    stream. This stream and the default stream wait for each other. Copies that others make on the
    default stream therefore keep their place.

    Parameters
    ----------
    ppo : minis5.rl.ppo.PPO

    Raises
    ------
    ValueError
        Several ranks without a communicator for GPUs.
    """

    def __init__(self, ppo):
        xp, c, total = ppo.agent.xp, ppo.config, ppo.config.epochs * ppo.config.minibatches
        self.ppo, self.stream = ppo, xp.cuda.Stream()
        self.minibatches, self.norm = Series(self._minibatches, MINIBATCHES), xp.zeros(1)
        self.ranks = Ranks(ppo, total, self.minibatches) if ppo.comm.size > 1 else None
        self.groups = xp.zeros((total, ppo.envs.num_envs // c.minibatches), np.int64)
        self.tally = Tally(xp.zeros(1, np.int64), xp.zeros((total, 7)), xp.zeros(3))
        self.data = None  # rollout, advantages, returns: arrays that stay

    def __call__(self, rollout, advantages, returns, lr, rng):
        """Learn from a rollout; return the mean of each of loss.STATS and the mean gradient norm.

        Raises
        ------
        FloatingPointError
            A gradient was not finite.
        RankError
            Another rank has failed.
        """
        ppo, c, xp = self.ppo, self.ppo.config, self.ppo.agent.xp
        self._keep(rollout, advantages, returns)
        self.groups[:] = xp.asarray(np.concatenate([ppo.groups(rng) for _ in range(c.epochs)]))
        k, stats, settings = self.tally
        settings[:] = xp.asarray(np.array([lr, c.max_grad_norm or np.inf, c.adam_eps]))
        k[:] = 0
        if self.ranks is not None:
            self.ranks.begin(self.data[1], self.groups)
        self.minibatches(len(self.groups))
        if self.ranks is not None:  # before anything waits in a way that nothing interrupts
            ppo.comm.wait(self.stream)
        figures = to_host(xp.concatenate([stats.ravel(), k.astype(np.float64)]))  # one copy
        means = figures[:-1].reshape(stats.shape)[: int(figures[-1])].mean(axis=0)
        check_norm(means[-1])
        return means[:-1], float(means[-1])

    def _keep(self, rollout, advantages, returns):
        """Copy a rollout to where the recorded minibatch reads it; most of it is there already."""
        if self.data is None:
            self.data = rollout, advantages, returns
        for mine, new in zip(
            (*self.data[0], *self.data[1:]), (*rollout, advantages, returns), strict=True
        ):
            if mine is not new:
                mine[:] = new

    def _minibatches(self, n):
        """Learn from the next n minibatches: this is what the graphs record."""
        for _ in range(n):
            self._minibatch()

    def _minibatch(self):
        """Learn from minibatch k, or change nothing if the passes have ended."""
        ppo, (rollout, advantages, returns) = self.ppo, self.data
        group = self.groups.take(self.tally.k, axis=0)[0]
        batch = ppo.batch(rollout, advantages, returns, group)
        batch = batch._replace(advantages=self._normalised(batch.advantages))
        steps = batch.valid.size if self.ranks is None else self.ranks.count  # all are valid
        grad, figures = ppo.gradient(rollout, group, batch, steps)
        if self.ranks is not None:
            grad, figures = self.ranks.total(grad, figures)
        theta, adam = ppo.agent.parameter_vector, ppo.adam
        adam_step(theta, grad, adam.moments, self.tally.settings, self.norm, adam.rates)
        count(figures, self.norm, self.tally, ppo.config)

    def _normalised(self, advantages):
        """Return a minibatch's advantages, scaled if the settings say so.

        Every step of native environments is valid.
        """
        if not self.ppo.config.normalize_advantages:
            return advantages
        partial = self.ranks and self.ranks.moments.take(self.tally.k, axis=0)
        return normalise(advantages.ravel(), partial).reshape(advantages.shape)
