"""Many copies of one native environment in one call, behind gymnasium.vector.VectorEnv.

Autoreset mode SAME_STEP: in the step that ends an episode the environment is reset, `observations` holds the first
observation of the next episode and infos["final_obs"] the last one of the old.
Tested in tests/test_envs.py.
"""

import math

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from minis5.envs.loop import compile_loops
from minis5.envs.task import check_integer
from minis5.random import MASK, seed_to_key


class NativeVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments whose state is two arrays, stepped by one compiled loop.

    Parameters
    ----------
    env : module
        An environment, as minis5/envs/task.py describes it.
    task : Task
        The level.
    num_envs : int
    seed : int
        Not negative. Environment i draws from stream `first_index` + i of this seed and from nothing else.
    first_index : int
        Number of the first environment: two vector environments of 32 with first_index 0 and 32 give the same episodes
        as one of 64.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(self, env, task, num_envs, seed=0, first_index=0):
        self.num_envs = check_integer("num_envs", num_envs, 1, 2**31, "pass for example num_envs=64")
        self._first_index = check_integer("first_index", first_index, 0, 2**31, "pass first_index=0")
        self._key = seed_to_key(seed)
        self.task = task
        self.single_observation_space, self.single_action_space = task.observation_space, task.action_space
        self.observation_space = batch_space(task.observation_space, self.num_envs)
        self.action_space = batch_space(task.action_space, self.num_envs)
        self._reset_rows, self._step_rows = compile_loops(env)
        self._ints = np.zeros((self.num_envs, task.ints), np.int64)
        self._floats = np.zeros((self.num_envs, task.floats))
        self._width = math.prod(task.observation_space.shape)
        self._started = False
        self._seed_rows()

    def _seed_rows(self):
        self._ints[:, 0] = self._key
        self._ints[:, 1] = (self._first_index + np.arange(self.num_envs)) & MASK
        self._ints[:, 2] = 0

    def _empty_observations(self):
        return np.empty((self.num_envs, self._width), self.single_observation_space.dtype)

    def _shaped(self, observations):
        return observations.reshape(self.num_envs, *self.single_observation_space.shape)

    def reset(self, *, seed=None, options=None):
        """Begin a new episode everywhere; a `seed` (int) begins the streams anew, without one they go on."""
        if seed is not None:
            self._key = seed_to_key(seed)
            self._seed_rows()
        obs = self._empty_observations()
        self._reset_rows(self.task.params, self._ints, self._floats, obs)
        self._started = True
        return self._shaped(obs), {}

    def step(self, actions):
        """Step every environment.

        Parameters
        ----------
        actions : integer (num_envs,)

        Returns
        -------
        observations, rewards (float64), terminated (bool), truncated (bool), infos
            New arrays. Where at least one episode ended, infos has "final_obs", every environment's observation before
            the reset, and "_final_obs", bool (num_envs,), true where an episode ended; otherwise infos is empty.

        Raises
        ------
        ValueError
            When an action has a wrong dtype, shape or value; no environment has been stepped then.
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("step: the environments have no state yet; call reset() first")
        actions = np.asarray(actions)
        n = self.num_envs
        if actions.shape != (n,) or actions.dtype.kind not in "iu":
            raise ValueError(
                f"actions: expected integers (num_envs,) = ({n},), got {actions.dtype} {actions.shape}; "
                "pass one integer for each environment"
            )
        obs, next_obs = self._empty_observations(), self._empty_observations()
        reward, terminated, truncated = np.empty(n), np.empty(n, bool), np.empty(n, bool)
        num_actions = int(self.single_action_space.n)
        bad = self._step_rows(
            self.task.params, self._ints, self._floats, np.ascontiguousarray(actions, np.int64), num_actions, True,
            obs, next_obs, reward, terminated, truncated,
        )  # fmt: skip
        if bad >= 0:
            raise ValueError(
                f"actions: expected values in [0, {num_actions}), got {actions[bad]} for environment {bad}; "
                f"the action space is {self.single_action_space}"
            )
        ended = terminated | truncated
        infos = {"final_obs": self._shaped(next_obs), "_final_obs": ended} if ended.any() else {}
        return self._shaped(obs), reward, terminated, truncated, infos

    def get_state(self):
        """Everything that the coming episodes depend on, as a dict of arrays (copies)."""
        return {"ints": self._ints.copy(), "floats": self._floats.copy()}

    def set_state(self, state):
        """Go on from what `get_state` returned.

        Raises
        ------
        ValueError
            When an array is missing or belongs to another environment or another number of them.
        """
        for name, mine in (("ints", self._ints), ("floats", self._floats)):
            array = np.asarray(state.get(name))
            if array.shape != mine.shape or array.dtype != mine.dtype:
                raise ValueError(
                    f"state[{name!r}]: expected {mine.dtype} {mine.shape}, got {array.dtype} {array.shape}; "
                    "pass the state of the same environment and num_envs"
                )
        self._ints[:], self._floats[:] = state["ints"], state["floats"]
        self._started = True
