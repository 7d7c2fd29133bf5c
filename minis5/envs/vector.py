"""Many copies of one native environment in one call, behind gymnasium.vector.VectorEnv.

Autoreset mode SAME_STEP: the step that ends an episode resets the environment. `observations` holds
the first observation of the next episode, and infos["final_obs"] the last one of the old.
Tests: tests/envs/test_vector.py and test_all_levels.py.
"""

import math
from collections.abc import Mapping

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from minis5.arrays import as_array
from minis5.checks import check_integer
from minis5.envs.actions import ActionCheck
from minis5.envs.batch_loops import compile_loops
from minis5.envs.states import check_state
from minis5.envs.task import from_rows, row_dtype, row_size
from minis5.processes import thread_pool
from minis5.random import GENERATOR_SIZE, MASK, seed_to_key


class NativeVectorEnv(gymnasium.vector.VectorEnv):
    """`num_envs` environments whose state is two arrays, stepped by one compiled loop.

    Parameters
    ----------
    env : module or Composed
        An environment, as minis5/envs/task.py describes it.
    task : Task
        The level.
    num_envs : int
    seed : int
        Not negative. Environment i draws from stream `first_index` + i of this seed, and from
        nothing else.
    first_index : int
        Number of the first environment: two vector environments of 32 with first_index 0 and 32
        give the same episodes as one of 64.
    num_threads : int
        Threads that share the rows; the episodes are the same for any number. They pay if a step of
        the whole batch takes about a millisecond or more: from some ten thousand environments on.
    """

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}
    native = True  # see minis5/rl/rollout.py: is_native

    def __init__(self, env, task, num_envs, seed=0, first_index=0, num_threads=1):
        self.num_envs = check_integer(
            "num_envs", num_envs, 1, 2**31, "pass for example num_envs=64"
        )
        self._first_index = check_integer(
            "first_index", first_index, 0, 2**31, "pass first_index=0"
        )
        threads = min(
            check_integer("num_threads", num_threads, 1, 1024, "pass num_threads=1"), self.num_envs
        )
        self._key = seed_to_key(seed)
        self.task = task
        self.single_observation_space = task.observation_space
        self.single_action_space = task.action_space
        self.observation_space = batch_space(task.observation_space, self.num_envs)
        self.action_space = batch_space(task.action_space, self.num_envs)
        shape = self.num_envs, row_size(task.observation_space)
        self._rows = shape, row_dtype(task.observation_space)
        self._check_actions = ActionCheck(task.action_space, self.num_envs)
        self._reset_rows, self._step_rows = compile_loops(env)
        self._ints = np.zeros((self.num_envs, task.ints), np.int64)
        self._floats = np.zeros((self.num_envs, task.floats))
        cuts = [self.num_envs * k // threads for k in range(threads + 1)]
        self._parts = list(zip(cuts[:-1], cuts[1:], strict=True))
        self._started = False
        self._ints[:, :GENERATOR_SIZE] = self._generators()

    def _generators(self):
        """Return the generator rows from which all streams begin: key, stream, counter."""
        streams = (self._first_index + np.arange(self.num_envs)) & MASK
        return np.stack(np.broadcast_arrays(self._key, streams, 0), axis=1)

    def _run(self, loop, *arguments):
        """Call a compiled loop on all rows, a part of them in each thread."""
        arguments = self.task.params, self._ints, self._floats, *arguments
        rest = self._parts[1:]
        others = [thread_pool(len(rest)).submit(loop, *part, *arguments) for part in rest]
        loop(*self._parts[0], *arguments)
        for other in others:
            other.result()

    def reset(self, *, seed=None, options=None):
        """Begin a new episode in every environment.

        A `seed` (int) begins the streams anew; without one they go on.
        """
        if seed is not None:
            self._key = seed_to_key(seed)
            self._ints[:, :GENERATOR_SIZE] = self._generators()
        obs = np.empty(*self._rows)
        self._run(self._reset_rows, obs)
        self._started = True
        return from_rows(self.single_observation_space, obs), {}

    def step(self, actions):
        """Step every environment.

        Parameters
        ----------
        actions : array (num_envs, *shape of one action)
            Integers for Discrete and MultiDiscrete spaces, floats for Box.

        Returns
        -------
        observations, rewards (float64), terminated (bool), truncated (bool), infos
            New arrays. If at least one episode ended, infos has "final_obs", the ended
            environments' observations before the reset (zeros in the other rows), and "_final_obs",
            bool (num_envs,), true for those environments. Otherwise infos is empty.

        Raises
        ------
        ValueError
            An action has a wrong dtype, shape or value. No environment has been stepped then.
        gymnasium.error.ResetNeeded
            Before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded(
                "step: the environments have no state yet; call reset() first"
            )
        actions = self._check_actions(actions)
        n = self.num_envs
        obs, final_obs = np.empty(*self._rows), np.zeros(*self._rows)
        reward, terminated, truncated = np.empty(n), np.empty(n, bool), np.empty(n, bool)
        self._run(self._step_rows, actions, True, obs, final_obs, reward, terminated, truncated)
        ended = terminated | truncated
        space = self.single_observation_space
        infos = (
            {"final_obs": from_rows(space, final_obs), "_final_obs": ended} if ended.any() else {}
        )
        return from_rows(space, obs), reward, terminated, truncated, infos

    def get_state(self):
        """Return everything that the coming episodes depend on, as a dict of arrays (copies)."""
        return {"ints": self._ints.copy(), "floats": self._floats.copy()}

    def set_state(self, state):
        """Go on from what `get_state` returned.

        Raises
        ------
        ValueError
            An array is missing, belongs to another environment or another number of them, or has
            a number that no episode can reach.
        """
        arrays = {}
        if not isinstance(state, Mapping):
            remedy = "pass what get_state returned"
            raise TypeError(
                f"state: expected a dict of arrays, got {type(state).__name__}; {remedy}"
            )
        for name, mine in (("ints", self._ints), ("floats", self._floats)):
            given = as_array(state.get(name), f"state[{name!r}]")
            array = arrays[name] = given if isinstance(given, np.ndarray) else np.empty(0, object)
            if array.shape != mine.shape or array.dtype != mine.dtype:
                raise ValueError(
                    f"state[{name!r}]: expected {mine.dtype} {mine.shape}, got {array.dtype} "
                    f"{array.shape}; pass the state of the same environment and num_envs"
                )
        check_state(self.task, **arrays)
        self._fill(self._ints, arrays["ints"])
        self._fill(self._floats, arrays["floats"])
        self._started = True

    def view(self, name):
        """Return a part of the environments' state by name, as it is now.

        Parameters
        ----------
        name : str
            One of self.task.views. A meta-environment (minis5/envs/meta.py) has "M_o", "M_a",
            "permutation", "trial" and "trial_return", a mixture (minis5/envs/mixture.py) "task".

        Returns
        -------
        int64 or float64 (num_envs, ...)
            A new array, on the host.

        Raises
        ------
        ValueError
            There is no such part.
        """
        views = self.task.views
        if not isinstance(name, str) or name not in views:
            known = (
                f"one of {', '.join(map(repr, views))}"
                if views
                else "no name at all, as this environment has no views"
            )
            raise ValueError(f"name: expected {known}, got {name!r}")
        array, begin, shape = views[name]
        return (
            self.get_state()[array][:, begin : begin + math.prod(shape)]
            .reshape(self.num_envs, *shape)
            .copy()
        )

    @staticmethod
    def _fill(mine, array):
        """Copy the host's `array` into an array of the state."""
        mine[:] = array
