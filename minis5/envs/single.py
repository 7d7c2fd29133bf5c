"""One native environment behind gymnasium.Env: a batch of one, without autoreset.

It calls the batched loops. With the same seed, its episodes are those of environment 0 of the
vector environment, or of the environment whose number is its ``stream``.
Tests: tests/envs/test_single.py and test_all_levels.py.
"""

import gymnasium
import numpy as np

from minis5.checks import check_integer
from minis5.envs.actions import ActionCheck
from minis5.envs.batch_loops import compile_loops
from minis5.envs.task import from_rows, row_dtype, row_size
from minis5.random import seed_to_key


class NativeEnv(gymnasium.Env):
    """A native environment, as gymnasium.make("minis5/RepeatPreviousEasy-v0") makes it.

    Parameters
    ----------
    env : module or Composed
        An environment, as minis5/envs/task.py describes it.
    task : Task
        The level.
    render_mode : None or "ansi"
        With "ansi", `render` returns a line of text.
    stream : int
        Number of the environment of a batch whose episodes these are.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 10}

    def __init__(self, env, task, render_mode=None, stream=0):
        if render_mode not in (None, "ansi"):
            raise ValueError(
                f"render_mode: expected None or 'ansi', got {render_mode!r}; "
                "leave it out or pass 'ansi'"
            )
        self.render_mode = render_mode
        self.module, self.task = env, task
        self.stream = check_integer("stream", stream, 0, 2**31, "pass stream=0")
        self.observation_space, self.action_space = task.observation_space, task.action_space
        self._observe, self._render = env.observe, env.render
        self._reset_rows, self._step_rows = compile_loops(env)
        self._ints = np.zeros((1, task.ints), np.int64)
        self._floats = np.zeros((1, task.floats))
        self._rows = np.empty(
            (1, row_size(self.observation_space)), row_dtype(self.observation_space)
        )
        self._check_actions = ActionCheck(self.action_space, 1)
        self._seeded = self._running = False

    def observation(self):
        """Return the observation of the present state."""
        self._observe(self.task.params, self._ints[0], self._floats[0], self._rows[0])
        return self._observation()

    def _observation(self):
        """Return the one observation in the batch of one, a copy."""
        batch = from_rows(self.observation_space, self._rows.copy())
        return tuple(int(part[0]) for part in batch) if isinstance(batch, tuple) else batch[0]

    def reset(self, *, seed=None, options=None):
        """Begin an episode; a `seed` begins the stream of that seed, otherwise it goes on."""
        key = None if seed is None else seed_to_key(seed)
        super().reset(seed=seed)
        if key is None and not self._seeded:
            key = self.np_random.integers(2**32)
        if key is not None:
            self._ints[0, :3] = key, self.stream, 0
            self._seeded = True
        self._reset_rows(0, 1, self.task.params, self._ints, self._floats, self._rows)
        self._running = True
        return self._observation(), {}

    def state(self):
        """Return the present state, integers and floats as task.py describes them: copies."""
        return self._ints[0].copy(), self._floats[0].copy()

    def step(self, action):
        """Take one step; return observation, reward, terminated, truncated, info.

        Raises
        ------
        ValueError
            `action` is not in the action space.
        gymnasium.error.ResetNeeded
            Before the first reset and after the end of an episode.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("step: no episode is running; call reset() first")
        try:
            actions = self._check_actions(np.asarray(action)[None])
        except ValueError:
            raise ValueError(
                f"action: expected a member of {self.action_space}, got {action!r}; "
                "env.action_space.sample() shows one"
            ) from None
        reward, flags = np.empty(1), np.empty((2, 1), bool)
        state, rows = (self.task.params, self._ints, self._floats), self._rows
        self._step_rows(0, 1, *state, actions, False, rows, rows, reward, *flags)
        terminated, truncated = bool(flags[0, 0]), bool(flags[1, 0])
        self._running = not (terminated or truncated)
        return self._observation(), float(reward[0]), terminated, truncated, {}

    def get_state(self):
        """Return all that the coming steps depend on: a dict of arrays (copies), without batch."""
        return {"ints": self._ints[0].copy(), "floats": self._floats[0].copy()}

    def render(self):
        """Return the present state as text with render_mode "ansi", otherwise None."""
        if self.render_mode is None:
            gymnasium.logger.warn(
                'render: no render_mode was given; pass render_mode="ansi" to gymnasium.make'
            )
            return None
        return self._render(self.task.params, self._ints[0], self._floats[0])
