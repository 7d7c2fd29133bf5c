"""Proximal policy optimisation for agents with memory.

One iteration collects T steps in B environments (rollout.py) and computes advantages and λ-returns
(gae.py). Then, ``epochs`` times, it goes through the environments in ``minibatches`` random groups.
For each group it replays the whole T steps from the state at the rollout's start, and takes an Adam
step on the loss (loss.py).

With one pass and one minibatch the ratio is 1 when the gradient is taken, and nothing is clipped.
This is the advantage actor-critic (A2C, 1602.01783), the preset ``a2c``. With several ranks
(comm.py) each has its share of the environments in every minibatch, and gradients are summed.

Leaves out: recurrent burn-in; environments in shared memory.
Source: 1707.06347; the loop as in the authors' code of 2303.03982. Specification: reference.gae,
reference.ppo_loss, reference.adam_step. GPU form of the passes: cuda/minis5_cuda/rl/ppo.py.
Tests: tests/rl/test_ppo.py.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
from gymnasium.vector import VectorEnv

from minis5.arrays import move, to_host
from minis5.columns import take_columns
from minis5.ops import form_for
from minis5.rl.adam import Adam
from minis5.rl.agent import ActorCritic
from minis5.rl.autoreset import changing_wrappers
from minis5.rl.comm import Comm
from minis5.rl.config import PPOConfig
from minis5.rl.first_value import start_critic
from minis5.rl.gae import gae
from minis5.rl.learning_doors import check_trainer
from minis5.rl.loss import STATS, Batch, ppo_loss
from minis5.rl.malloc import keep_freed_memory
from minis5.rl.masks import mask_backward, mask_forward
from minis5.rl.normalize import Normalizers, count_groups
from minis5.rl.rates import rates
from minis5.rl.rollout import Collector

Row = dict[str, float]  # the figures of one iteration


class PPO:
    """Train ``agent`` in ``envs``.

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

    Attributes
    ----------
    collector, passes : Collector, Passes; for an agent on a GPU, their GPU forms
    adam : Adam
    steps, updates, episodes : int
        So far, over all ranks.

    Raises
    ------
    ValueError
        Environments, minibatches and ranks do not divide, or the spaces are not the agent's.
    """

    def __init__(
        self,
        agent: ActorCritic,
        envs: VectorEnv,
        config: PPOConfig | None = None,
        *,
        seed: int = 0,
        comm: Comm | None = None,
    ) -> None:
        self.agent, self.envs, self.config, self.seed = agent, envs, config or PPOConfig(), seed
        self.comm = comm or Comm()
        check_trainer(agent, envs, self.config, self.comm.size)
        agent.behind = changing_wrappers(envs)
        self.steps = self.updates = self.episodes = 0
        self.seconds = 0.0
        self.total_steps: int | None = None
        size, own = agent.parameter_vector.size, rates(agent, self.config.ssm_lr_factor)
        self.adam = Adam(size, agent.dtype, self.config.adam_eps, agent.xp, own)
        grouped = self.config.reward_groups != "none"
        count = count_groups(envs, self.config.reward_groups) if grouped else 1
        self.normalizers = Normalizers(agent, self.config, envs.num_envs, count)
        self.passes = form_for(agent.device, Passes)(self)
        more = {"groups": self.config.reward_groups} if grouped else {}
        collect, first = form_for(agent.device, Collector), self.comm.rank * envs.num_envs
        self.collector = collect(agent, envs, seed, first_index=first, **more)

    def learn(self, total_steps: int, callback: Callable[[Row], object] | None = None) -> list[Row]:
        """Iterate until ``total_steps`` environment steps have been taken in all; return the rows.

        ``callback(row)`` is called after each iteration; training stops when it returns True. Steps
        that only reset (autoreset mode NEXT_STEP) are counted too.
        """
        rows = []
        for row in self.iterations(total_steps):
            rows.append(row)
            if callback is not None and callback(row):
                break
        return rows

    def iterations(self, total_steps: int) -> Iterator[Row]:
        """Yield the rows of ``learn(total_steps)``, and keep none, for very long runs."""
        self.total_steps = total_steps
        while self.steps < total_steps:
            yield self.iteration()

    def iteration(self) -> Row:
        """Collect and learn once; return a row of figures."""
        with self.passes.stream:
            return self._iteration()

    def _iteration(self):
        start, c = time.perf_counter(), self.config
        rng = np.random.default_rng([self.seed, self.updates, self.comm.rank, 0])
        rollout, ended = self.collector.collect(c.unroll, rng)
        self.normalizers.see(rollout, self.comm)
        left = 1 - self.steps / self.total_steps if c.anneal_lr and self.total_steps else 1
        lr = max(c.lr * left, 0.0)
        self.steps += c.num_envs * c.unroll
        stats, norm = self.update(rollout, lr)
        self.updates += 1
        totals = [len(ended), sum(r for r, _ in ended), sum(n for _, n in ended)]
        count, returns, lengths = self.comm.allreduce(np.array(totals, np.float64))
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
        """Learn from a rollout at rate ``lr``; return means of loss.STATS and the gradient norm."""
        c, done = self.config, rollout.done
        terminated = done if c.truncation_is_termination else rollout.terminated
        if c.trial_horizon:
            terminated, done = terminated | (ended := self._trial_ends(rollout)), done | ended
        rewards = self.normalizers.rewards(rollout.rewards, rollout.groups)
        rewards = rewards * rewards.dtype.type(c.reward_scale)
        if c.center_values and self.updates == 0:
            rollout = start_critic(self.agent, rollout, rewards, terminated, c.gamma, self.comm)
        values = rollout.values, rollout.next_values
        advantages = gae(rewards, *values, terminated, done, c.gamma, c.gae_lambda)
        rng = np.random.default_rng([self.seed, self.updates, self.comm.rank, 1])
        return self.passes(rollout, advantages, advantages + rollout.values, lr, rng)

    def _trial_ends(self, rollout):
        """Return where a trial ended (T, B): the last number of the next observation says so."""
        encoder, agent = self.agent.observation_encoder, self.agent
        last = move(encoder.observation_vector(self.collector.obs), agent.device)
        flags = rollout.x[1:, :, encoder.size - 1], last[None, :, -1]
        return agent.xp.concatenate(flags) != 0

    def groups(self, rng):
        """Return one pass's minibatches, drawn by ``rng``: numbers (minibatches, environments)."""
        return rng.permutation(self.envs.num_envs).reshape(self.config.minibatches, -1)

    def batch(self, rollout, advantages, returns, group):
        """Return the Batch of ``group`` in ``rollout``; ``advantages``, ``returns`` are (T, B)."""
        past = (rollout.actions, rollout.log_probs, rollout.values, advantages, returns)
        return Batch(*take_columns([*past, rollout.valid], group))

    def enough(self, stats):
        """Return whether a pass with these ``stats`` (minibatches, 6) exceeds target_kl."""
        bound = self.config.target_kl
        return bound is not None and np.mean(stats, axis=0)[STATS.index("kl")] > bound

    def gradient(self, rollout, group, batch, count):
        """Return gradient and figures of ``group`` in ``rollout``: its batch, ``count`` steps."""
        agent, inputs = self.agent, [rollout.x, rollout.reset, rollout.initial_state]
        dist_params, value, _, cache = agent.forward(*take_columns(inputs, group))
        mask = None if rollout.masks is None else rollout.masks.take(group, axis=1)
        dist_params = mask_forward(dist_params, mask)
        loss = ppo_loss(agent.distribution, dist_params, value, batch, self.config, count)
        _, figures, d_dist, d_value = loss
        grads, _ = agent.backward(mask_backward(d_dist, mask), d_value, cache)
        return agent.gradient_vector(grads), figures

    def state_dict(self):
        """Return this rank's arrays by name: all that the next iteration needs but parameters."""
        m, v, taken = map(to_host, self.adam.moments)
        counters = [*taken, self.steps, self.updates, self.episodes, self.total_steps or 0]
        state = {"adam/m": m, "adam/v": v, "counters": np.array(counters, np.int64)}
        state |= {"seconds": np.array(self.seconds), **self.normalizers.state_dict()}
        collector = self.collector.state_dict()
        return state | {f"collector/{name}": value for name, value in collector.items()}

    def load_state_dict(self, state):
        """Take up ``state`` of :meth:`state_dict`: training goes on as if it had never stopped."""
        device, moments, prefix = self.agent.device, self.adam.moments, "collector/"
        moments.m[:], moments.v[:] = move(state["adam/m"], device), move(state["adam/v"], device)
        moments.steps[:], *counters = (int(n) for n in state["counters"])
        self.steps, self.updates, self.episodes, total = counters
        self.total_steps, self.seconds = total or None, float(state["seconds"])
        collector = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.collector.load_state_dict(collector)
        self.normalizers.load_state_dict(state)


class Passes:
    """Run all passes over one rollout on the CPU. (GPU form: cuda/minis5_cuda/rl/ppo.py.)

    Parameters
    ----------
    ppo : PPO
        The trainer: its agent, its settings, its share of the environments.
    """

    def __init__(self, ppo):
        keep_freed_memory()
        self.ppo, self.stream = ppo, nullcontext()  # the stream on which an iteration works

    def __call__(self, rollout, advantages, returns, lr, rng):
        """Learn from a rollout; return the means of loss.STATS and of the gradient norm."""
        ppo, c, agent = self.ppo, self.ppo.config, self.ppo.agent
        stats, norms = [], []
        for _ in range(c.epochs):
            groups = ppo.groups(rng)
            scales = self._advantage_scales(advantages, rollout.valid, groups)
            for group, (count, mean, deviation) in zip(groups, scales, strict=True):
                batch = ppo.batch(rollout, advantages, returns, group)
                normalised = ((batch.advantages - mean) / deviation).astype(agent.dtype)
                batch = batch._replace(advantages=normalised)
                grad, figures = ppo.gradient(rollout, group, batch, count)
                total = ppo.comm.allreduce(np.concatenate([grad, figures.astype(agent.dtype)]))
                grad, figures = total[: grad.size], total[grad.size :]
                norms.append(ppo.adam.step(agent.parameter_vector, grad, lr, c.max_grad_norm))
                stats.append(figures.astype(np.float64))
            if ppo.enough(stats[-c.minibatches :]):
                break
        return np.mean(stats, axis=0), float(np.mean(norms))

    def _advantage_scales(self, advantages, valid, groups):
        """Return (count, mean, deviation) of each minibatch over all ranks, by one reduction."""
        a, v = advantages.astype(np.float64), valid.astype(np.float64)
        moments = (v, v * a, v * a * a)
        sums = np.stack([[z[:, group].sum() for z in moments] for group in groups])
        count, total, squares = self.ppo.comm.allreduce(sums.ravel()).reshape(-1, 3).T
        if not self.ppo.config.normalize_advantages:
            return [(n, 0.0, 1.0) for n in count]
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean * mean, 0)
        return list(zip(count, mean, np.sqrt(variance) + 1e-8, strict=True))
