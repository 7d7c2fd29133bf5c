"""PPO's inner loop on a GPU: the passes over a rollout, each minibatch one replay of a recorded CUDA graph.

The arithmetic is ppo.py's; here stands only how it is driven without the host. Everything that differs from minibatch to minibatch
lies on the device: its number, the environments of all minibatches, the learning rate. The host looks once an iteration, at the
statistics (and once a pass where target_kl asks for it).

Tested in tests/test_cuda_training.py (simulator) and tests/gpu/test_training.py.
"""

import importlib

import numpy as np

from .adam import check_norm
from .arrays import array_module, to_host
from .device_rollout import DeviceCollector, _store


def parts(ppo):
    """For a trainer whose agent lives on a GPU: its collector, its passes over a rollout, and the stream to work on.

    CUDA graphs cannot be recorded on the default stream. This one waits for that and that for this one, so that copies which
    others make on the default stream keep their place.
    """
    if ppo.comm.size > 1:
        raise ValueError(f"comm: expected one process for an agent on a GPU, got {ppo.comm.size}; use workers=1")
    if not hasattr(ppo.envs, "check_actions"):
        raise ValueError("envs: expected environments on the GPU for an agent there; make them with make_vec(..., device='cuda')")
    graph = importlib.import_module("minis5_cuda.graphs").Graph
    stream = ppo.agent.xp.cuda.Stream()
    return DeviceCollector(ppo.agent, ppo.envs, ppo.seed, graph), Passes(ppo, graph), stream


class Passes:
    """All passes over one rollout; arguments and results of PPO._passes."""

    def __init__(self, ppo, graph):
        xp, c = ppo.agent.xp, ppo.config
        self.ppo, self.minibatch = ppo, graph(self._minibatch)
        self.k = xp.zeros(1, np.int64)  # number of the minibatch
        self.groups = xp.zeros((c.epochs * c.minibatches, c.num_envs // c.minibatches), np.int64)
        self.stats = xp.zeros((len(self.groups), 7))  # ppo.STATS and the gradient's norm
        self.settings, self.norm = xp.zeros(3), xp.zeros(1)
        self.data = None  # rollout, advantages, returns: arrays that stay

    def __call__(self, rollout, advantages, returns, lr, rng):
        ppo, c, xp = self.ppo, self.ppo.config, self.ppo.agent.xp
        self._keep(rollout, advantages, returns)
        self.groups[:] = xp.asarray(np.concatenate([ppo.groups(rng) for _ in range(c.epochs)]))
        self.settings[:] = xp.asarray(np.array([lr, c.max_grad_norm or np.inf, c.adam_eps]))
        self.k[:] = 0
        done = 0
        for _ in range(c.epochs):
            for _ in range(c.minibatches):
                self.minibatch()
            done += c.minibatches
            if c.target_kl is not None and ppo.enough(to_host(self.stats)[done - c.minibatches : done, :-1]):
                break
        stats = to_host(self.stats)[:done].mean(axis=0)
        check_norm(stats[-1])
        return stats[:-1], float(stats[-1])

    def _keep(self, rollout, advantages, returns):
        """Put what is learnt from where the recorded minibatch looks for it; most of it stands there already."""
        if self.data is None:
            self.data = rollout, advantages, returns
        for mine, new in zip((*self.data[0], *self.data[1:]), (*rollout, advantages, returns), strict=True):
            if mine is not new:
                mine[:] = new

    def _minibatch(self):
        ppo, (rollout, advantages, returns) = self.ppo, self.data
        group = self.groups.take(self.k, axis=0)[0]
        batch = ppo.batch(rollout, advantages, returns, group)
        batch = batch._replace(advantages=self._normalised(batch.advantages))
        grad, figures = ppo.gradient(rollout, group, batch, None)
        ppo.adam.step_on_gpu(ppo.agent.flat, grad, self.settings, self.norm)
        _store(self.k, array_module(grad).concatenate([figures, self.norm]), self.stats)
        self.k += 1

    def _normalised(self, advantages):
        """To mean 0 and deviation 1, as PPO._advantage_scales does it; every step of native environments is valid."""
        if not self.ppo.config.normalize_advantages:
            return advantages
        a = advantages.astype(np.float64)
        mean, square = a.mean(), (a * a).mean()
        deviation = array_module(a).sqrt(array_module(a).maximum(square - mean * mean, 0)) + 1e-8
        return ((a - mean) / deviation).astype(advantages.dtype)
