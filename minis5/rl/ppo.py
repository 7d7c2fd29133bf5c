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
Tests: tests/rl/test_ppo.py, tests/rl/test_agent.py (gradient of the whole loss).
"""

import time
from contextlib import nullcontext

import numpy as np
from gymnasium.spaces import Box

from minis5.arrays import move, to_host
from minis5.ops import gpu_form
from minis5.rl.adam import Adam
from minis5.rl.comm import Comm
from minis5.rl.config import PPOConfig
from minis5.rl.gae import gae
from minis5.rl.loss import STATS, Batch, ppo_loss
from minis5.rl.malloc import keep_freed_memory
from minis5.rl.rollout import Collector


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
            raise ValueError(
                f"num_envs: expected {c.num_envs // size} environments on each of {size} ranks, got {envs.num_envs}"
            )
        if envs.num_envs % c.minibatches:
            raise ValueError(
                f"minibatches: expected a divisor of the {envs.num_envs} environments of a rank, got {c.minibatches}"
            )
        if (
            envs.single_action_space != agent.action_space
            or envs.single_observation_space != agent.observation_space
        ):
            raise ValueError(
                f"envs: expected the agent's spaces {agent.observation_space}, {agent.action_space}, "
                f"got {envs.single_observation_space}, {envs.single_action_space}"
            )
        space = envs.single_observation_space
        if c.trial_horizon and not (
            isinstance(space, Box) and (space.low.flat[-1], space.high.flat[-1]) == (0, 1)
        ):
            raise ValueError(
                f"trial_horizon: expected observations whose last number is in [0, 1], got {space}; pass trials=K too"
            )
        self.steps = self.updates = self.episodes = 0
        self.seconds, self.total_steps = 0.0, None
        self.adam = Adam(agent.parameter_vector.size, agent.dtype, c.adam_eps, agent.xp)
        on_gpu = agent.device == "cuda"
        self.passes = (gpu_form(Passes) if on_gpu else Passes)(self)
        collect = gpu_form(Collector) if on_gpu else Collector
        self.collector = collect(agent, envs, seed, first_index=self.comm.rank * envs.num_envs)

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
        with self.passes.stream:
            return self._iteration()

    def _iteration(self):
        start, c = time.perf_counter(), self.config
        rollout, ended = self.collector.collect(
            c.unroll, np.random.default_rng([self.seed, self.updates, self.comm.rank, 0])
        )
        lr = c.lr * (1 - self.steps / self.total_steps if c.anneal_lr and self.total_steps else 1)
        self.steps += c.num_envs * c.unroll
        stats, norm = self.update(rollout, max(lr, 0.0))
        self.updates += 1
        totals = np.array(
            [len(ended), sum(r for r, _ in ended), sum(n for _, n in ended)], np.float64
        )
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

    def update(self, rollout, lr):
        """All passes over one rollout; returns mean statistics and the mean gradient norm."""
        c = self.config
        terminated, done = (
            rollout.done if c.truncation_is_termination else rollout.terminated,
            rollout.done,
        )
        if c.trial_horizon:
            terminated, done = terminated | (ended := self._trial_ends(rollout)), done | ended
        rewards = rollout.rewards * rollout.rewards.dtype.type(c.reward_scale)
        advantages = gae(
            rewards, rollout.values, rollout.next_values, terminated, done, c.gamma, c.gae_lambda
        )
        rng = np.random.default_rng([self.seed, self.updates, self.comm.rank, 1])
        return self.passes(rollout, advantages, advantages + rollout.values, lr, rng)

    def _trial_ends(self, rollout):
        """(T, B) bool: steps that ended a trial; the last number of the observation after them says so."""
        size = self.agent.observation_encoder.size
        last = move(
            self.agent.observation_encoder.observation_vector(self.collector.obs), self.agent.device
        )
        return self.agent.xp.concatenate([rollout.x[1:, :, size - 1], last[None, :, -1]]) != 0

    def groups(self, rng):
        """The minibatches of one pass: (minibatches, environments) numbers of environments."""
        return rng.permutation(self.envs.num_envs).reshape(self.config.minibatches, -1)

    def batch(self, rollout, advantages, returns, group):
        """What the loss needs of the environments ``group``; advantages as they are."""
        past = (
            rollout.actions,
            rollout.log_probs,
            rollout.values,
            advantages,
            returns,
            rollout.valid,
        )
        return Batch(*(z.take(group, axis=1) for z in past))

    def enough(self, stats):
        """Whether a pass with these statistics (minibatches, 6) has gone too far from the policy that acted."""
        return (
            self.config.target_kl is not None
            and np.mean(stats, axis=0)[STATS.index("kl")] > self.config.target_kl
        )

    def gradient(self, rollout, group, batch, count):
        """The loss's gradient on one minibatch (of this rank) as one vector, and its statistics."""
        agent = self.agent
        x, reset, state = (
            z.take(group, axis=1) for z in (rollout.x, rollout.reset, rollout.initial_state)
        )
        dist_params, value, _, cache = agent.forward(x, reset, state)
        _, figures, d_dist, d_value = ppo_loss(
            agent.distribution, dist_params, value, batch, self.config, count
        )
        grads, _ = agent.backward(d_dist, d_value, cache)
        return agent.gradient_vector(grads), figures

    def state_dict(self):
        """All that the next iteration depends on, but the agent's parameters: arrays by name, this rank's share."""
        k, count = self.collector, to_host(self.adam.moments.count)
        state = {
            "adam/m": to_host(self.adam.moments.m),
            "adam/v": to_host(self.adam.moments.v),
            "counters": np.array(
                [*count, self.steps, self.updates, self.episodes, self.total_steps or 0], np.int64
            ),
            "seconds": np.array(self.seconds),
        }
        return state | {f"collector/{name}": value for name, value in k.state_dict().items()}

    def load_state_dict(self, state):
        """Take up what :meth:`state_dict` gave, so that training goes on as if it had never stopped."""
        device = self.agent.device
        moments = self.adam.moments
        moments.m[:], moments.v[:] = move(state["adam/m"], device), move(state["adam/v"], device)
        moments.count[:], self.steps, self.updates, self.episodes, total = (
            int(n) for n in state["counters"]
        )
        self.total_steps, self.seconds = total or None, float(state["seconds"])
        prefix = "collector/"
        self.collector.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )


class Passes:
    """All passes over one rollout, on the CPU. (The GPU form: cuda/minis5_cuda/rl/ppo.py.)

    Parameters
    ----------
    ppo : PPO
        The trainer: its agent, its settings, its share of the environments.
    """

    def __init__(self, ppo):
        keep_freed_memory()
        self.ppo, self.stream = ppo, nullcontext()  # the stream on which an iteration works

    def __call__(self, rollout, advantages, returns, lr, rng):
        """Learn from a rollout; returns the mean of each of loss.STATS and the mean gradient norm."""
        ppo, c, agent = self.ppo, self.ppo.config, self.ppo.agent
        stats, norms = [], []
        for _ in range(c.epochs):
            groups = ppo.groups(rng)
            scales = self._advantage_scales(advantages, rollout.valid, groups)
            for group, (count, mean, deviation) in zip(groups, scales, strict=True):
                batch = ppo.batch(rollout, advantages, returns, group)
                batch = batch._replace(
                    advantages=((batch.advantages - mean) / deviation).astype(agent.dtype)
                )
                grad, figures = ppo.gradient(rollout, group, batch, count)
                total = ppo.comm.allreduce(np.concatenate([grad, figures.astype(agent.dtype)]))
                norms.append(
                    ppo.adam.step(agent.parameter_vector, total[: grad.size], lr, c.max_grad_norm)
                )
                stats.append(total[grad.size :].astype(np.float64))
            if ppo.enough(stats[-c.minibatches :]):
                break
        return np.mean(stats, axis=0), float(np.mean(norms))

    def _advantage_scales(self, advantages, valid, groups):
        """(count, mean, deviation) of each minibatch over all ranks, in one reduction for a whole pass."""
        a, v = advantages.astype(np.float64), valid.astype(np.float64)
        sums = np.stack(
            [[v[:, g].sum(), (v * a)[:, g].sum(), (v * a * a)[:, g].sum()] for g in groups]
        )
        count, total, squares = self.ppo.comm.allreduce(sums.ravel()).reshape(-1, 3).T
        if not self.ppo.config.normalize_advantages:
            return [(n, 0.0, 1.0) for n in count]
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean * mean, 0)
        return list(zip(count, mean, np.sqrt(variance) + 1e-8, strict=True))
