"""Collecting experience where the environments live on the GPU: nothing visits the host until the rollout is whole.

The same rollout as rollout.py's, for native environments (autoreset mode SAME_STEP). One step of all of them (network input,
features, policy, sampled action, environments, record) reads and writes arrays that stay where they are, the number of the step
among them; it is recorded once as a CUDA graph and then queued T times. Values and log-probabilities come at the end, all at once.

Where an episode was truncated, the value of its last observation is needed while its memory is at hand. Levels that are truncated
at all (Task.truncates) therefore ask the GPU after each step whether one was, and wait for its answer.

Leaves out: environments that are not minis5's own. Tested in tests/test_cuda_training.py against rollout.py (simulator), tests/gpu.
"""

import numpy as np

from .arrays import as_array, loop, move, to_host
from .random import Generator
from .rollout import Rollout, leaves, rebuild

STATE = ("reset", "memory", "previous_action", "returns", "lengths")


@loop
def _store(t, row, rows):
    """rows[t[0]] = row.  t: int64 (1,); row: (n,); rows: (T, n)."""
    for i in range(row.size):
        rows[t[0], i] = row[i]


@loop
def _record(t, reward, terminated, truncated, reset, returns, lengths, resets, rewards, ends, dones, totals, counts):
    """What a step gave (B,) goes to row t[0] of (T, B); reset, returns and lengths (B,) move on to the next step."""
    for i in range(reward.size):
        at = t[0]
        done = terminated[i] or truncated[i]
        resets[at, i], rewards[at, i], ends[at, i], dones[at, i] = reset[i], reward[i], terminated[i], done
        returns[i] += reward[i]
        lengths[i] += 1
        totals[at, i], counts[at, i] = returns[i], lengths[i]
        if done:
            returns[i], lengths[i] = 0.0, 0
        reset[i] = done


@loop
def _bootstrap(t, value, terminated, truncated, next_values, known):
    """Row t[0] of next_values and known (T, B), where an episode was truncated: the value (B,) of its last observation."""
    for i in range(value.size):
        if truncated[i] and not terminated[i]:
            next_values[t[0], i] = value[i]
            known[t[0], i] = True


class DeviceCollector:
    """As rollout.Collector, for an agent and native environments that live on one device.

    Parameters
    ----------
    agent : ActorCritic
    envs : minis5_cuda.envs.CudaVectorEnv
    seed : int
        Of the environments.
    record : callable
        What makes a repeatable function of one (minis5_cuda.graphs.Graph).
    """

    def __init__(self, agent, envs, seed, record):
        xp, B = agent.xp, envs.num_envs
        self.agent, self.envs, self.T = agent, envs, None
        envs.check_actions = False  # they are legal, and to look would mean to wait
        obs, _ = envs.reset(seed=seed)
        self.obs = rebuild(obs, map(as_array, leaves(obs)))  # views of the environments' arrays, which every step overwrites
        self.reset = xp.ones(B, bool)
        self.memory = agent.initial_memory(B)
        self.previous_action = xp.zeros((B, agent.distribution.encoded_size), agent.dtype)
        self.returns, self.lengths = xp.zeros(B), xp.zeros(B, np.int64)
        self.given = self.final_obs = None  # what the environments' step returns
        self.t, self.rng = xp.zeros(1, np.int64), Generator(0, xp)
        self._prepare = record(agent.stepper, result=True)
        self._step, self._last_values = record(self._one_step), record(self._value_all)

    def _allocate(self, T):
        """Arrays for T steps, which stay where they are from now on."""
        if T == self.T:
            return
        if self.T is not None:
            raise ValueError(f"T: expected {self.T} as in the first rollout, got {T}; make another trainer")
        agent, xp, B = self.agent, self.agent.xp, self.envs.num_envs
        action = agent.distribution.mode(xp.zeros((B, agent.distribution.num_params), agent.dtype))
        self.T, dtype = T, agent.dtype
        self.x = xp.empty((T, B, agent.input_size), dtype)
        self.features = xp.empty((T + 1, B, agent.config.encoder[-1]), dtype)
        self.params = xp.empty((T, B, agent.distribution.num_params), dtype)
        self.actions = xp.empty((T, *action.shape), action.dtype)
        self.rewards, self.final_values = xp.empty((T, B), dtype), xp.empty((T, B), dtype)
        self.resets, self.terminated, self.done, self.known = (xp.zeros((T, B), bool) for _ in range(4))
        self.totals, self.counts = xp.empty((T, B)), xp.empty((T, B), np.int64)
        self.memory0 = self.memory.copy()

    def _one_step(self):
        """One step of all environments."""
        agent, step, dist = self.agent, self.stepper, self.agent.distribution
        x = agent.encode(self.obs, self.previous_action, self.reset)
        features, memory = step.features(x, self.reset, self.memory)
        params = step.policy(features)
        action = dist.sample(params, self.rng)
        for row, rows in ((x, self.x), (features, self.features), (params, self.params), (action, self.actions)):
            _store(self.t, row.ravel(), rows.reshape(rows.shape[0], -1))
        self.memory[:] = memory
        self.previous_action[:] = dist.encode(action, agent.dtype)
        _, *given, infos = self.envs.step(agent.actions.to_env(action))
        if self.given is None:  # always the same arrays, and CuPy may not look at them anew while a graph is recorded
            self.given = [as_array(z) for z in given]  # reward, terminated, truncated
            self.final_obs = rebuild(self.obs, map(as_array, leaves(infos["final_obs"])))
        kept = (self.resets, self.rewards, self.terminated, self.done, self.totals, self.counts)
        _record(self.t, *self.given, self.reset, self.returns, self.lengths, *kept)
        self.t += 1

    def _value_all(self):
        """The value of all last observations, seen with the memory of their episodes; kept where one was truncated."""
        value = self.stepper.value(self._look(self.final_obs, self.agent.xp.zeros_like(self.reset)))
        _bootstrap(self.t - 1, value, *self.given[1:], self.final_values, self.known)

    def _was_truncated(self):
        """Whether the last step truncated an episode; waits for the GPU."""
        _, terminated, truncated = self.given
        return bool((truncated & ~terminated).any())

    def _look(self, obs, reset):
        """Features of an observation, without moving on."""
        return self.stepper.features(self.agent.encode(obs, self.previous_action, reset), reset, self.memory)[0]

    def collect(self, T, rng):
        """Act for T steps. Returns the rollout and the (return, length) of each episode that ended.

        ``rng`` (numpy.random.Generator) seeds the generator of the actions. The rollout's arrays are overwritten by the next.
        """
        self._allocate(T)
        agent, xp = self.agent, self.agent.xp
        self.memory0[:], self.t[:], self.known[:] = self.memory, 0, False
        self.rng.restart(int(rng.integers(2**32)))
        self.stepper = self._prepare()
        for _ in range(T):
            self._step()
            if self.envs.task.truncates and self._was_truncated():
                self._last_values()
        self.features[T] = self._look(self.obs, self.reset)
        values = self.stepper.value(self.features)
        next_values = xp.where(self.known, self.final_values, values[1:])
        log_probs = agent.distribution.log_prob(self.params, self.actions)
        done, totals, counts = map(to_host, (self.done, self.totals, self.counts))
        ended = list(zip(totals[done], counts[done], strict=True))
        valid = xp.ones(done.shape, bool)
        acted = (self.x, self.resets, self.actions, log_probs, values[:-1].copy(), next_values)
        return Rollout(*acted, self.rewards, self.terminated, self.done, valid, self.memory0), ended

    def state_dict(self):
        """As Collector.state_dict: on the host, so that a run may go on elsewhere."""
        state = {name: to_host(getattr(self, name)).copy() for name in STATE}
        state["resetting"] = np.zeros(self.envs.num_envs, bool)
        state |= {f"obs/{i}": to_host(leaf).copy() for i, leaf in enumerate(leaves(self.obs))}
        return state | {f"envs/{name}": value for name, value in self.envs.get_state().items()}

    def load_state_dict(self, state):
        """Take up what :meth:`state_dict` gave."""
        for name in STATE:
            getattr(self, name)[:] = move(state[name], self.agent.device)
        for i, leaf in enumerate(leaves(self.obs)):
            leaf[...] = move(state[f"obs/{i}"], self.agent.device)
        self.envs.set_state({k.removeprefix("envs/"): v for k, v in state.items() if k.startswith("envs/")})
