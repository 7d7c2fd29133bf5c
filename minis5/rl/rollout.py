"""Rollouts: the agent acts in a vector environment for T steps, and the collector keeps them.

``Collector.state`` is the core's state before the observation in hand. A rollout begins with a copy
of it, ``initial_state``, and has the flags ``reset`` of its steps. Learning starts from that state
and replays the T steps with the same flags. It meets the very states that acting met, as long as
the weights are the same; they drift as the weights change, as in the paper.

autoreset.py has Gymnasium's three autoreset modes, which differ in where an episode's last
observation o is. In NEXT_STEP, the step that only resets is marked not valid: nothing is learnt. If
an episode was truncated, V(o) is kept as the next value. If it terminated, nothing follows.

Source: 1707.06347, algorithm 1; the stored state as in the authors' code of 2303.03982.
This file is the specification of its GPU form, cuda/minis5_cuda/rl/rollout.py.
Tests: tests/rl/test_rollout.py.
"""

from typing import NamedTuple

import numpy as np

from minis5.arrays import Array
from minis5.ops import fast
from minis5.rl.autoreset import DISABLED, NEXT_STEP, SAME_STEP, Door, check_rewards, is_native
from minis5.rl.masks import MaskReader, mask_forward
from minis5.spaces import ObservationError, leaves, rebuild

__all__ = ["Collector", "Rollout"]

# Name in state.npz: attribute. Files of 0.1.0 called the state "memory", so that name stays.
KEPT = {"memory": "state"}
KEPT |= {name: name for name in ("reset", "previous_action", "resetting", "returns", "lengths")}


class Rollout(NamedTuple):
    """T steps of B environments; every array is (T, B, ...) but ``initial_state``."""

    x: Array  # network input
    reset: Array  # bool: x[t] begins an episode
    actions: Array  # as the distribution drew them
    log_probs: Array  # of these actions
    values: Array  # of the observations acted on
    next_values: Array  # value of the true next observation
    rewards: Array  # as the environments gave them
    terminated: Array  # bool: no value follows
    done: Array  # bool: terminated or truncated
    valid: Array  # bool: False where the step only reset the environment
    initial_state: Array  # the core's state before x[0], batch on axis 1
    masks: Array | None = None  # bool (T, B, num_params): legal actions; None: all are
    groups: Array | None = None  # int64 (T, B): the view PPOConfig.reward_groups in each step


@fast
def count(rewards, done, valid, returns, lengths, totals, counts):
    """Add a step (B,) to returns and lengths; copy them; begin anew where an episode is done."""
    for i in range(done.size):
        if valid[i]:
            returns[i] += rewards[i]
            lengths[i] += 1
        totals[i], counts[i] = returns[i], lengths[i]
        if done[i]:
            returns[i] = lengths[i] = 0


class Collector:
    """Collect rollouts, and hold what lies between two of them.

    That is the observation, reset flags, state, previous action and running returns.

    Parameters
    ----------
    agent : ActorCritic
    envs : gymnasium.vector.VectorEnv
    seed : int
        Of the environments; number i of this collector has the stream (seed, first_index + i).
    first_index : int
        Number of the first environment among those of all processes.
    groups : str, optional
        A view of native environments, which rollouts then have as their groups.
    """

    def __init__(self, agent, envs, seed=0, first_index=0, groups=None):
        self.agent, self.envs, self.door, self.groups = agent, envs, Door(envs), groups
        self.mode, self.first_index = self.door.mode, first_index
        B, width = envs.num_envs, agent.distribution.encoded_size
        self.obs, infos = self.door.begin(seed, first_index)
        self.mask_reader = MaskReader(agent, envs, infos, first_index)
        self.mask_reader.settle(agent)
        self.reset = np.ones(B, bool)
        self.mask = self.mask_reader.read(infos, self.reset)
        self.state = agent.initial_state(B)
        self.previous_action = np.zeros((B, width), agent.dtype)
        self.resetting = np.zeros(B, bool)  # NEXT_STEP: the coming step only resets
        self.returns, self.lengths = np.zeros(B), np.zeros(B, np.int64)

    def collect(self, T, rng):
        """Act for T steps with ``rng``; return rollout, and (return, length) of ended episodes."""
        agent, B = self.agent, self.envs.num_envs
        step, dist = agent.stepper(), agent.distribution
        x = np.empty((T, B, agent.input_size), agent.input_dtype)
        rewards, next_values = np.empty((2, T, B), agent.dtype)
        reset, terminated, done, valid = np.empty((4, T, B), bool)
        totals, counts, everyone = np.empty((T, B)), np.empty((T, B), np.int64), np.ones(B, bool)
        features, params, actions, masks, groups = [], [], [], [], []
        initial_state = self.state.copy()
        known = np.zeros((T, B), bool)  # where next_values was found on the way
        for t in range(T):
            x[t] = self._encode(self.obs, self.previous_action, self.reset, counts=True)
            reset[t], valid[t] = self.reset, ~self.resetting
            seen, self.state = step.features(x[t], self.reset, self.state)
            features.append(seen)
            params.append(mask_forward(step.policy(seen), self.mask))
            masks.append(self.mask)
            action = dist.sample(params[-1], rng)
            actions.append(action)
            self.previous_action = agent.actions.encode(action, agent.dtype)
            if self.groups is not None:
                groups.append(self.envs.view(self.groups))
            to_env = agent.actions.to_env(action)
            self.obs, rewards[t], terminated[t], truncated, infos = self.door.step(to_env)
            np.logical_or(terminated[t], truncated, out=done[t])
            count(rewards[t], done[t], valid[t], self.returns, self.lengths, totals[t], counts[t])
            if self.mode == NEXT_STEP:
                self.reset, self.resetting = self.resetting, done[t]
                self.mask = self.mask_reader.read(infos, ~done[t])
                continue
            self.reset = done[t]
            if truncated.any() and (rows := np.flatnonzero(truncated & ~terminated[t])).size:
                next_values[t, rows], known[t, rows] = self._last_values(step, rows, infos), True
            acting = everyone if self.mode == SAME_STEP else ~done[t]
            self.mask = self.mask_reader.read(infos, acting)
            if self.mode == DISABLED and done[t].any():
                self.obs, infos = self.door.restart(done[t])
                self.mask = self.mask_reader.read(infos, done[t], self.mask)
        check_rewards(rewards, self.first_index)
        features.append(self._look(step, self.obs, self.previous_action, self.reset, self.state))
        values = step.value(np.stack(features))  # one large product instead of T small ones
        next_values = np.where(known, next_values, values[1:])
        values, actions = values[:-1].copy(), np.stack(actions)
        log_probs = dist.log_prob(np.stack(params), actions)
        acted = (x, reset, actions, log_probs, values, next_values)
        masks = None if self.mask is None else np.stack(masks)
        groups = np.stack(groups) if groups else None
        rest = (rewards, terminated, done, valid, initial_state, masks, groups)
        return Rollout(*acted, *rest), list(zip(totals[done], counts[done], strict=True))

    def _last_values(self, step, rows, infos):
        """Return the values of last observations, each seen with the state of its own episode."""
        final = self.door.final_observations(self.obs, infos, rows)
        no_reset, state = np.zeros(rows.size, bool), np.ascontiguousarray(self.state[:, rows])
        action = self.previous_action[rows]
        return step.value(self._look(step, final, action, no_reset, state, rows))

    def _look(self, step, obs, previous_action, reset, state, rows=None):
        """Return the features of an observation, without moving on."""
        return step.features(self._encode(obs, previous_action, reset, rows), reset, state)[0]

    def _encode(self, obs, previous_action, reset, rows=None, counts=False):
        """Return the network's input; an error names the environment and the step.

        rows: environments whose last observations these are; None: all, before their next step.
        counts: whether normalisation counts the observations.
        """
        try:
            if counts and self.agent.normalizer is not None:
                self.agent.normalizer.see(obs, ~self.resetting)
            return self.agent.encode(obs, previous_action, reset)
        except ObservationError as error:
            steps = self.lengths if rows is None else None
            raise error.located(self.first_index, rows, steps) from None

    def state_dict(self):
        """Return arrays by name that the next rollout depends on, "obs/..." and "envs/..." too."""
        state = {name: getattr(self, attribute).copy() for name, attribute in KEPT.items()}
        state |= {f"obs/{i}": leaf.copy() for i, leaf in enumerate(leaves(self.obs))}
        state |= {} if self.mask is None else {"mask": self.mask}
        if is_native(self.envs):
            state |= {f"envs/{name}": value for name, value in self.envs.get_state().items()}
        return state

    def load_state_dict(self, state):
        """Take up ``state`` of :meth:`state_dict`; the caller restores foreign environments."""
        for name, attribute in KEPT.items():
            setattr(self, attribute, state[name].copy())
        observations = [state[f"obs/{i}"] for i in range(len(leaves(self.obs)))]
        self.obs = rebuild(self.obs, iter(observations))
        self.mask = None if self.mask is None else state["mask"]
        if is_native(self.envs):
            prefix = "envs/"
            theirs = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            self.envs.set_state(theirs)
