"""Collecting experience: the agent acts in a vector environment for T steps; what learning needs is kept.

The memory's life: ``Collector.state`` is the core's state before the observation in hand. A rollout remembers it as ``initial_state``
and returns it with the flags ``reset``; learning starts from ``initial_state`` and replays the T steps with the same flags, so that it
meets the very states that acting met (with the weights of the time; they drift as the weights change, as in the paper).

Autoreset modes of Gymnasium's vector environments, and what becomes of an episode's last observation o:
    SAME_STEP   o comes in infos["final_obs"]; the observation returned begins the next episode
    NEXT_STEP   o is returned; the next step only resets: it is marked not valid and is not learnt from
    DISABLED    o is returned; the collector resets the environments that ended, at once
Where an episode was truncated, V(o) is kept as the next value. Where it terminated, nothing follows.

Tests: tests/rl/test_rollout.py.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np

from minis5.spaces import leaves, rebuild, take

SAME_STEP, NEXT_STEP, DISABLED = (
    gym.vector.AutoresetMode[m] for m in ("SAME_STEP", "NEXT_STEP", "DISABLED")
)


class Rollout(NamedTuple):
    """T steps of B environments; every array is (T, B, ...) but ``initial_state``."""

    x: np.ndarray  # network input
    reset: np.ndarray  # bool: x[t] begins an episode
    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    next_values: np.ndarray  # value of the true next observation
    rewards: np.ndarray
    terminated: np.ndarray  # bool
    done: np.ndarray  # bool: terminated or truncated
    valid: np.ndarray  # bool: False where the step only reset the environment
    initial_state: np.ndarray  # the core's state before x[0], batch on axis 1


def is_native(envs):
    """Return whether these are minis5's own environments, whose state can be read and set (get_state, set_state)."""
    return getattr(envs, "native", False)


def autoreset_mode(envs):
    """The vector environment's autoreset mode; Gymnasium's default, NEXT_STEP, where it does not say."""
    return envs.metadata.get("autoreset_mode", NEXT_STEP)


def final_observations(infos, rows, space):
    """Last observations of the episodes that ended in ``rows``, stacked as a batch (SAME_STEP)."""
    final = infos["final_obs"]
    if isinstance(final, np.ndarray) and final.dtype == object:
        items = [final[i] for i in rows]
        out = gym.vector.utils.create_empty_array(space, n=len(items))
        return gym.vector.utils.concatenate(space, items, out)
    return take(final, rows)


# in files: here
KEPT = {"memory": "state"} | {
    n: n for n in ("reset", "previous_action", "resetting", "returns", "lengths")
}


class Collector:
    """Holds what lies between two rollouts: observation, reset flags, memory, previous action, running returns.

    Parameters
    ----------
    agent : ActorCritic
    envs : gymnasium.vector.VectorEnv
    seed : int
        Of the environments; number i of this collector has the stream (seed, first_index + i).
    """

    def __init__(self, agent, envs, seed=0, first_index=0):
        self.agent, self.envs, self.mode = agent, envs, autoreset_mode(envs)
        native = is_native(envs)  # its streams know their indices themselves
        streams = [
            np.random.SeedSequence(seed, spawn_key=(first_index + i,)) for i in range(envs.num_envs)
        ]
        self.obs, _ = envs.reset(
            seed=seed if native else [int(s.generate_state(1)[0]) for s in streams]
        )
        B, width = envs.num_envs, agent.distribution.encoded_size
        self.reset = np.ones(B, bool)
        self.state = agent.initial_state(B)
        self.previous_action = np.zeros((B, width), agent.dtype)
        self.resetting = np.zeros(B, bool)  # NEXT_STEP: the coming step only resets
        self.returns, self.lengths = np.zeros(B), np.zeros(B, np.int64)

    def collect(self, T, rng):
        """Act for T steps. Returns the rollout and the (return, length) of each episode that ended."""
        agent, B = self.agent, self.envs.num_envs
        step, dist = agent.stepper(), agent.distribution
        x = np.empty((T, B, agent.input_size), agent.dtype)
        rewards, next_values = np.empty((2, T, B), agent.dtype)
        reset, terminated, done, valid = np.empty((4, T, B), bool)
        initial_state, features, params, actions, ended = self.state.copy(), [], [], [], []
        known = np.zeros((T, B), bool)  # where next_values was found on the way
        for t in range(T):
            x[t] = agent.encode(self.obs, self.previous_action, self.reset)
            reset[t], valid[t] = self.reset, ~self.resetting
            seen, self.state = step.features(x[t], self.reset, self.state)
            features.append(seen)
            params.append(step.policy(seen))
            action = dist.sample(params[-1], rng)
            actions.append(action)
            self.previous_action = dist.encode(action, agent.dtype)
            self.obs, rewards[t], terminated[t], truncated, infos = self.envs.step(
                agent.actions.to_env(action)
            )
            done[t] = terminated[t] | truncated
            self._count(rewards[t], done[t], ended)
            if self.mode == NEXT_STEP:
                self.reset, self.resetting = self.resetting, done[t]
                continue
            self.reset = done[t]
            rows = np.flatnonzero(truncated & ~terminated[t])
            if rows.size:
                next_values[t, rows], known[t, rows] = self._value_of_final(step, rows, infos), True
            if self.mode == DISABLED and done[t].any():
                self.obs, _ = self.envs.reset(options={"reset_mask": done[t]})
        features.append(self._look(step, self.obs, self.previous_action, self.reset, self.state))
        # all at once: one large product instead of T small ones
        values = step.value(np.stack(features))
        next_values = np.where(known, next_values, values[1:])
        values, actions = values[:-1].copy(), np.stack(actions)
        log_probs = dist.log_prob(np.stack(params), actions)
        return Rollout(
            x,
            reset,
            actions,
            log_probs,
            values,
            next_values,
            rewards,
            terminated,
            done,
            valid,
            initial_state,
        ), ended

    def _count(self, rewards, done, ended):
        self.returns += np.where(self.resetting, 0, rewards)
        self.lengths += ~self.resetting
        for i in np.flatnonzero(done):
            ended.append((self.returns[i], self.lengths[i]))
            self.returns[i] = self.lengths[i] = 0

    def _value_of_final(self, step, rows, infos):
        """Value of an episode's last observation, seen with the memory of that episode."""
        if self.mode == DISABLED:
            final = take(self.obs, rows)
        else:
            final = final_observations(infos, rows, self.envs.single_observation_space)
        no_reset = np.zeros(rows.size, bool)
        state = np.ascontiguousarray(self.state[:, rows])
        return step.value(self._look(step, final, self.previous_action[rows], no_reset, state))

    def _look(self, step, obs, previous_action, reset, state):
        """Features of an observation, without moving on."""
        return step.features(self.agent.encode(obs, previous_action, reset), reset, state)[0]

    def state_dict(self):
        """What the next rollout depends on: arrays by name, "obs/..." and "envs/..." included."""
        state = {name: getattr(self, attribute).copy() for name, attribute in KEPT.items()}
        state |= {f"obs/{i}": leaf.copy() for i, leaf in enumerate(leaves(self.obs))}
        if is_native(self.envs):
            state |= {f"envs/{name}": value for name, value in self.envs.get_state().items()}
        return state

    def load_state_dict(self, state):
        """Take up what :meth:`state_dict` gave. Environments without ``set_state`` are the caller's to restore."""
        for name, attribute in KEPT.items():
            setattr(self, attribute, state[name].copy())
        self.obs = rebuild(
            self.obs, iter([state[f"obs/{i}"] for i in range(len(leaves(self.obs)))])
        )
        if is_native(self.envs):
            self.envs.set_state(
                {k.removeprefix("envs/"): v for k, v in state.items() if k.startswith("envs/")}
            )
