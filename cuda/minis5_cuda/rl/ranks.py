"""What several ranks do together in the passes over a rollout: counts, moments and sums.

Each rank has its share of the environments in every minibatch. The formulas are those of
minis5/rl/ppo.py with several ranks, and two sums over the ranks make them complete:
    the moments of the advantages of all minibatches, once an iteration;
    [gradient | figures] of a minibatch, which is recorded with it.
After the second, all ranks have the same numbers, bit for bit: they take the same Adam step, and
decide the same with target_kl.

Leaves out: how the sums are computed (comm.py); steps that are not valid, which native environments
do not have. Specification and CPU form: class Passes in minis5/rl/ppo.py.
Tests: tests/rl/test_nccl.py (simulator), tests/gpu/test_nccl.py.
"""

import numpy as np

from minis5.rl.loss import STATS
from minis5_cuda.rl.comm import NCCLComm


class Ranks:
    """The part of one rank.

    Parameters
    ----------
    ppo : minis5.rl.ppo.PPO
        A trainer with several ranks.
    minibatches : int
        Minibatches of all passes of an iteration.
    graphs : minis5_cuda.graphs.Series
        The recordings in which gradients are summed.

    Attributes
    ----------
    count : int64 () array
        Steps in a minibatch, of all ranks.
    moments : float64 (minibatches, 2) array
        Σ A and Σ A² over a minibatch, as means over the ranks: what a rank's own share of the steps
        would have if all shares were alike.

    Raises
    ------
    ValueError
        The ranks' communicator is not one for GPUs.
    """

    def __init__(self, ppo, minibatches, graphs):
        self.comm, xp, c = ppo.comm, ppo.agent.xp, ppo.config
        if not isinstance(self.comm, NCCLComm):
            raise ValueError(
                f"comm: expected an NCCLComm for ranks on GPUs, got {type(self.comm).__name__}; "
                "make one before the agent: with minis5_cuda.rl.comm.NCCLComm(comm) as comm"
            )
        self.count = xp.full((), c.num_envs // c.minibatches * c.unroll, np.int64)
        self.moments = xp.zeros((minibatches, 2))
        self.vector = xp.zeros(ppo.agent.parameter_vector.size + len(STATS), ppo.agent.dtype)
        self.comm.graphs.append(graphs)

    def begin(self, advantages, groups):
        """Compute the moments of all minibatches.

        advantages: (T, B) of this rank; groups: int64 (minibatches, environments of this rank).
        """
        a = advantages.astype(np.float64)
        for i, power in enumerate((a, a * a)):
            self.moments[:, i] = power.sum(axis=0).take(groups).sum(axis=1)
        self.comm.add_up(self.moments.ravel())
        self.moments *= 1 / self.comm.size

    def total(self, grad, figures):
        """Return the sums over all ranks of a minibatch's gradient (n,) and figures.

        They overwrite those of the last minibatch.
        """
        n = grad.size
        self.vector[:n], self.vector[n:] = grad, figures
        self.comm.add_up(self.vector)
        return self.vector[:n], self.vector[n:].astype(figures.dtype)
