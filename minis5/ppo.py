"""Proximal policy optimisation for agents with memory.

One iteration: collect T steps in B environments (rollout.py); advantages and λ-returns (gae.py); then, ``epochs`` times, go through
the environments in ``minibatches`` random groups, replay each group's whole T steps from the memory stored at the rollout's start,
and take an Adam step on

    L = mean over valid steps of  -min(ρA, clip(ρ, 1±ε)A) + c_v·½·max((V-R)², (V_clipped-R)²) - c_H·H,     ρ = π(a)/π_old(a)

With one pass and one minibatch ρ is 1 when the gradient is taken and nothing is clipped: this is then the advantage actor-critic
(A2C, 1602.01783), the preset ``a2c``. With several ranks (comm.py) each has its share of the environments in every minibatch;
gradients are summed.

Left out: recurrent burn-in, shared-memory environments, a scale of the rewards that follows them (reward_scale is constant).
Source: 1707.06347; the loop and the clipped value loss as in the authors' code of 2303.03982. Specification: reference.ppo_loss.
Tests: tests/test_ppo.py, tests/test_agent.py (gradient of the whole loss).
"""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from . import device_ppo
from .adam import Adam
from .arrays import array_module, loop, move, to_host
from .comm import Comm
from .gae import gae
from .malloc import keep_freed_memory
from .rollout import Collector


@dataclass(frozen=True)
class PPOConfig:
    """Hyper-parameters. Defaults are the laptop preset's but for annealing; presets.py has the paper's."""

    lr: float = 1e-3  # Adam's learning rate
    anneal_lr: bool = False  # lower it linearly to zero over the run
    adam_eps: float = 1e-5  # Adam's epsilon
    num_envs: int = 64  # environments
    unroll: int = 128  # steps of each environment in an iteration
    epochs: int = 4  # passes over an iteration's data
    minibatches: int = 8  # groups of environments in a pass
    reward_scale: float = 1.0  # multiplies the rewards that are learnt from, and so the values; not those that are reported
    gamma: float = 0.99  # discount
    gae_lambda: float = 0.95  # lambda of the advantages
    clip: float = 0.2  # of the probability ratio, and of the value's change
    clip_value: bool = True  # clip the value loss
    entropy_coef: float = 0.0  # weight of the entropy bonus
    value_coef: float = 1.0  # weight of the value loss
    max_grad_norm: float | None = 0.5  # bound on the gradient's global norm; none: no bound
    normalize_advantages: bool = True  # to mean 0 and deviation 1 in each minibatch
    target_kl: float | None = None  # end an iteration's passes once the KL divergence is above this
    truncation_is_termination: bool = False  # treat a truncated episode as ended, as the paper's code does
    trial_horizon: bool = False  # advantages and values end with a trial (envs/meta.py), also at its time limit; memory stays

    def __post_init__(self):
        for name in ("num_envs", "unroll", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)}")
        for name in ("lr", "adam_eps", "clip", "reward_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("entropy_coef", "value_coef"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite number, got {getattr(self, name)}")
        for name in ("max_grad_norm", "target_kl"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a positive number or none, got {getattr(self, name)}")
        if self.num_envs % self.minibatches:
            raise ValueError(f"minibatches: expected a divisor of num_envs = {self.num_envs}, got {self.minibatches}")


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
    sums, d_log_prob, d_value = xp.zeros(len(STATS) - 1), xp.zeros(value.shape, dtype), xp.zeros(value.shape, dtype)
    arrays = (log_prob, batch.log_probs, batch.advantages, value, batch.values, batch.returns, entropy, batch.valid)
    bounds = (1 - config.clip, 1 + config.clip, config.clip if config.clip_value else np.inf)
    bounds = map(dtype, bounds)  # of one dtype with the rest, or equal products would differ in their last bit
    _ppo_terms(*(a.ravel() for a in arrays), *bounds, sums, d_log_prob.ravel(), d_value.ravel())
    means = sums / count
    loss = means[:1] + config.value_coef * means[1:2] - config.entropy_coef * means[2:3]
    d_entropy = batch.valid * (dtype(-config.entropy_coef) * each)
    d_dist = dist.backward(dist_params, batch.actions, d_log_prob * each, d_entropy)
    return loss[0], xp.concatenate([loss, means]), d_dist, d_value * (dtype(config.value_coef) * each)


@loop
def _ppo_terms(
    log_prob, old_log_prob, advantage, value, old_value, target, entropy, valid, low, high, reach, sums, d_log_prob, d_value
):
    """Sums over valid steps of: policy loss, value loss, entropy, KL, clipped ratios; d_*: gradients of the first two sums.

    Ratios are clipped to [low, high], the value's change to [-reach, reach]. d_* are zeros before.
    """
    for i in range(value.size):
        if not valid[i]:
            continue
        log_ratio = log_prob[i] - old_log_prob[i]
        ratio = math.exp(log_ratio)
        clipped = min(max(ratio, low), high)
        if ratio * advantage[i] <= clipped * advantage[i]:  # the minimum takes the plain ratio: the only case with a gradient
            sums[0] -= ratio * advantage[i]
            d_log_prob[i] = -ratio * advantage[i]
        else:
            sums[0] -= clipped * advantage[i]
        error = value[i] - target[i]
        moved = value[i] - old_value[i]
        error_clipped = old_value[i] + min(max(moved, -reach), reach) - target[i]
        sums[1] += 0.5 * max(error * error, error_clipped * error_clipped)
        if abs(moved) <= reach or error * error >= error_clipped * error_clipped:
            d_value[i] = error
        sums[2] += entropy[i]
        sums[3] += ratio - 1 - log_ratio
        sums[4] += ratio < low or ratio > high


class PPO:
    """Trains ``agent`` in ``envs``.

    Parameters
    ----------
    agent : ActorCritic
    envs : gymnasium.vector.VectorEnv
        This rank's environments; config.num_envs over all ranks.
    config : PPOConfig
    seed : int
        Of environments, actions and minibatches.
    comm : comm.Comm
        The ranks that train together; default: this process alone.

    Raises
    ------
    ValueError
        Environments, minibatches and ranks do not divide, or the spaces are not the agent's.
    """

    def __init__(self, agent, envs, config=None, *, seed=0, comm=None):
        self.agent, self.envs, self.config, self.seed = agent, envs, config or PPOConfig(), seed
        self.comm = comm or Comm()
        c, size = self.config, self.comm.size
        if envs.num_envs * size != c.num_envs:
            raise ValueError(f"num_envs: expected {c.num_envs // size} environments on each of {size} ranks, got {envs.num_envs}")
        if envs.num_envs % c.minibatches:
            raise ValueError(f"minibatches: expected a divisor of the {envs.num_envs} environments of a rank, got {c.minibatches}")
        if envs.single_action_space != agent.action_space or envs.single_observation_space != agent.observation_space:
            raise ValueError(
                f"envs: expected the agent's spaces {agent.observation_space}, {agent.action_space}, "
                f"got {envs.single_observation_space}, {envs.single_action_space}"
            )
        space = envs.single_observation_space
        if c.trial_horizon and not (isinstance(space, Box) and (space.low.flat[-1], space.high.flat[-1]) == (0, 1)):
            raise ValueError(f"trial_horizon: expected observations whose last number is in [0, 1], got {space}; pass trials=K too")
        self.steps = self.updates = self.episodes = 0
        self.seconds, self.total_steps = 0.0, None
        self.adam = Adam(agent.flat.size, agent.dtype, c.adam_eps, agent.xp)
        if agent.device == "cuda":
            self.collector, self._passes, self._stream = device_ppo.parts(self)
        else:
            keep_freed_memory()
            self._stream = nullcontext()
            self.collector = Collector(agent, envs, seed, first_index=self.comm.rank * envs.num_envs)

    def learn(self, total_steps, callback=None):
        """Iterate until ``total_steps`` environment steps have been taken in all; returns the list of rows.

        (Steps that only reset, in environments of autoreset mode NEXT_STEP, are counted too.)

        ``callback(row)`` is called after each iteration; training stops when it returns True.
        """
        rows = []
        for row in self.iterations(total_steps):
            rows.append(row)
            if callback is not None and callback(row):
                break
        return rows

    def iterations(self, total_steps):
        """As :meth:`learn`, but yields each row and keeps none, for runs of very many iterations."""
        self.total_steps = total_steps
        while self.steps < total_steps:
            yield self.iteration()

    def iteration(self):
        """Collect and learn once; returns a row of figures (a dict)."""
        with self._stream:
            return self._iteration()

    def _iteration(self):
        start, c = time.perf_counter(), self.config
        rollout, ended = self.collector.collect(c.unroll, np.random.default_rng([self.seed, self.updates, self.comm.rank, 0]))
        lr = c.lr * (1 - self.steps / self.total_steps if c.anneal_lr and self.total_steps else 1)
        self.steps += c.num_envs * c.unroll
        stats, norm = self._update(rollout, max(lr, 0.0))
        self.updates += 1
        totals = np.array([len(ended), sum(r for r, _ in ended), sum(n for _, n in ended)], np.float64)
        count, returns, lengths = self.comm.allreduce(totals)
        self.episodes += int(count)
        taken = time.perf_counter() - start
        self.seconds += taken
        return {
            "step": self.steps,
            "update": self.updates,
            "episodes": self.episodes,
            "return": float(returns / count) if count else float("nan"),
            "length": float(lengths / count) if count else float("nan"),
            **dict(zip(STATS, stats.tolist(), strict=True)),
            "grad_norm": norm,
            "lr": lr,
            "seconds": self.seconds,
            "steps_per_second": c.num_envs * c.unroll / taken,
        }

    def _update(self, rollout, lr):
        """All passes over one rollout; returns mean statistics and the mean gradient norm."""
        c = self.config
        terminated, done = rollout.done if c.truncation_is_termination else rollout.terminated, rollout.done
        if c.trial_horizon:
            terminated, done = terminated | (ended := self._trial_ends(rollout)), done | ended
        rewards = rollout.rewards * rollout.rewards.dtype.type(c.reward_scale)
        advantages = gae(rewards, rollout.values, rollout.next_values, terminated, done, c.gamma, c.gae_lambda)
        rng = np.random.default_rng([self.seed, self.updates, self.comm.rank, 1])
        return self._passes(rollout, advantages, advantages + rollout.values, lr, rng)

    def _trial_ends(self, rollout):
        """(T, B) bool: steps that ended a trial; the last number of the observation after them says so."""
        size = self.agent.flattener.size
        last = move(self.agent.flattener.flatten(self.collector.obs), self.agent.device)
        return self.agent.xp.concatenate([rollout.x[1:, :, size - 1], last[None, :, -1]]) != 0

    def _passes(self, rollout, advantages, returns, lr, rng):
        c, agent = self.config, self.agent
        stats, norms = [], []
        for _ in range(c.epochs):
            groups = self.groups(rng)
            scales = self._advantage_scales(advantages, rollout.valid, groups)
            for group, (count, mean, deviation) in zip(groups, scales, strict=True):
                batch = self.batch(rollout, advantages, returns, group)
                batch = batch._replace(advantages=((batch.advantages - mean) / deviation).astype(agent.dtype))
                grad, figures = self.gradient(rollout, group, batch, count)
                total = self.comm.allreduce(np.concatenate([grad, figures.astype(agent.dtype)]))
                norms.append(self.adam.step(agent.flat, total[: grad.size], lr, c.max_grad_norm))
                stats.append(total[grad.size :].astype(np.float64))
            if self.enough(stats[-c.minibatches :]):
                break
        return np.mean(stats, axis=0), float(np.mean(norms))

    def groups(self, rng):
        """The minibatches of one pass: (minibatches, environments) numbers of environments."""
        return rng.permutation(self.envs.num_envs).reshape(self.config.minibatches, -1)

    def batch(self, rollout, advantages, returns, group):
        """What the loss needs of the environments ``group``; advantages as they are."""
        past = (rollout.actions, rollout.log_probs, rollout.values, advantages, returns, rollout.valid)
        return Batch(*(z.take(group, axis=1) for z in past))

    def enough(self, stats):
        """Whether a pass with these statistics (minibatches, 6) has gone too far from the policy that acted."""
        return self.config.target_kl is not None and np.mean(stats, axis=0)[STATS.index("kl")] > self.config.target_kl

    def gradient(self, rollout, group, batch, count):
        """The loss's gradient on one minibatch (of this rank) as one vector, and its statistics."""
        agent = self.agent
        x, reset, memory = (z.take(group, axis=1) for z in (rollout.x, rollout.reset, rollout.memory0))
        dist_params, value, _, cache = agent.forward(x, reset, memory)
        _, figures, d_dist, d_value = ppo_loss(agent.distribution, dist_params, value, batch, self.config, count)
        grads, _ = agent.backward(d_dist, d_value, cache)
        return agent.flatten_grads(grads), figures

    def _advantage_scales(self, advantages, valid, groups):
        """(count, mean, deviation) of each minibatch over all ranks, in one reduction for a whole pass."""
        a, v = advantages.astype(np.float64), valid.astype(np.float64)
        sums = np.stack([[v[:, g].sum(), (v * a)[:, g].sum(), (v * a * a)[:, g].sum()] for g in groups])
        count, total, squares = self.comm.allreduce(sums.ravel()).reshape(-1, 3).T
        if not self.config.normalize_advantages:
            return [(n, 0.0, 1.0) for n in count]
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean * mean, 0)
        return list(zip(count, mean, np.sqrt(variance) + 1e-8, strict=True))

    def state_dict(self):
        """All that the next iteration depends on, but the agent's parameters: arrays by name, this rank's share."""
        k, count = self.collector, to_host(self.adam.count)
        state = {
            "adam/m": to_host(self.adam.m),
            "adam/v": to_host(self.adam.v),
            "counters": np.array([*count, self.steps, self.updates, self.episodes, self.total_steps or 0], np.int64),
            "seconds": np.array(self.seconds),
        }
        return state | {f"collector/{name}": value for name, value in k.state_dict().items()}

    def load_state_dict(self, state):
        """Take up what :meth:`state_dict` gave, so that training goes on as if it had never stopped."""
        device = self.agent.device
        self.adam.m[:], self.adam.v[:] = move(state["adam/m"], device), move(state["adam/v"], device)
        self.adam.count[:], self.steps, self.updates, self.episodes, total = (int(n) for n in state["counters"])
        self.total_steps, self.seconds = total or None, float(state["seconds"])
        prefix = "collector/"
        self.collector.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
