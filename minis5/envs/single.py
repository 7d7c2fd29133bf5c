"""One native environment behind gymnasium.Env: the batched loops with a batch of one and without autoreset.

Seeded alike, its episodes are those of environment 0 of the vector environment.
Tested in tests/test_envs.py.
"""

import math

import gymnasium
import numpy as np

from minis5.envs.loop import compile_loops
from minis5.random import seed_to_key


class NativeEnv(gymnasium.Env):
    """A native environment; made by gymnasium.make("minis5/RepeatPreviousEasy-v0").

    Parameters
    ----------
    env : module
        An environment, as minis5/envs/task.py describes it.
    task : Task
        The level.
    render_mode : None or "ansi"
        With "ansi", `render` returns a line of text.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 10}

    def __init__(self, env, task, render_mode=None):
        if render_mode not in (None, "ansi"):
            raise ValueError(f"render_mode: expected None or 'ansi', got {render_mode!r}; leave it out or pass 'ansi'")
        self.render_mode = render_mode
        self.task = task
        self.observation_space, self.action_space = task.observation_space, task.action_space
        self._render = env.render
        self._reset_rows, self._step_rows = compile_loops(env)
        self._ints = np.zeros((1, task.ints), np.int64)
        self._floats = np.zeros((1, task.floats))
        self._seeded = self._running = False

    def _empty_observation(self):
        return np.empty((1, math.prod(self.observation_space.shape)), self.observation_space.dtype)

    def _shaped(self, observation):
        return observation[0] if self.observation_space.shape else observation[0, 0]

    def reset(self, *, seed=None, options=None):
        """Begin an episode; a `seed` begins stream 0 of that seed, without one the stream goes on."""
        key = None if seed is None else seed_to_key(seed)
        super().reset(seed=seed)
        if key is None and not self._seeded:
            key = self.np_random.integers(2**32)
        if key is not None:
            self._ints[0, :3] = key, 0, 0
            self._seeded = True
        obs = self._empty_observation()
        self._reset_rows(self.task.params, self._ints, self._floats, obs)
        self._running = True
        return self._shaped(obs), {}

    def step(self, action):
        """One step: observation, reward, terminated, truncated, info.

        Raises
        ------
        ValueError
            When `action` is not in the action space.
        gymnasium.error.ResetNeeded
            Before the first reset and after the end of an episode.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("step: no episode is running; call reset() first")
        if not self.action_space.contains(action):
            raise ValueError(f"action: expected an integer in {self.action_space}, got {action!r}; cast it with int()")
        obs, reward, flags = self._empty_observation(), np.empty(1), np.empty((2, 1), bool)
        self._step_rows(
            self.task.params, self._ints, self._floats, np.array([action], np.int64), int(self.action_space.n), False,
            obs, np.empty_like(obs), reward, flags[0], flags[1],
        )  # fmt: skip
        terminated, truncated = bool(flags[0, 0]), bool(flags[1, 0])
        self._running = not (terminated or truncated)
        return self._shaped(obs), float(reward[0]), terminated, truncated, {}

    def render(self):
        """The present state as a line of text with render_mode "ansi", otherwise None."""
        if self.render_mode is None:
            gymnasium.logger.warn('render: no render_mode was given; pass render_mode="ansi" to gymnasium.make')
            return None
        return self._render(self.task.params, self._ints[0], self._floats[0])
