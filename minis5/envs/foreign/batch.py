"""A batch of foreign environments in this process: SyncVectorEnv, which looks at what comes back.

The same episodes as gymnasium.vector.SyncVectorEnv's, bit for bit, in all three autoreset modes.
What differs:
    an observation is copied as soon as it is there, so an environment may reuse its array
    a reward may also be an array of one number
    what is not as it should be is refused by name: which value, environment and step
    infos may hold arrays whose shape varies; they are kept in an array of objects

Tests: tests/envs/foreign/test_batch.py, against SyncVectorEnv.
"""

import copy
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from minis5.spaces import leaves

GYMNASIUM = Path(gymnasium.__file__).parent
ARRAYS = (Box, Discrete, MultiDiscrete, MultiBinary)


class Part(NamedTuple):
    """An array within an observation."""

    path: tuple  # keys and indices that lead to it
    name: str
    shape: tuple
    dtype: np.dtype | None
    type: type | None = np.ndarray


NO_PART = Part((), "", (), None, None)


class EnvBatch(SyncVectorEnv):
    """`gymnasium.vector.SyncVectorEnv` with the differences above; the same parameters.

    Attributes
    ----------
    first_index : int
        Number of the first environment, for messages.
    """

    first_index = 0
    checked = True  # see minis5/rl/autoreset.py: Door

    def __init__(
        self, env_fns, copy=True, observation_mode="same", autoreset_mode=AutoresetMode.NEXT_STEP
    ):
        made = []
        try:
            makers = [partial(_kept, made, env_fn) for env_fn in env_fns]
            super().__init__(makers, copy, observation_mode, autoreset_mode)
        except BaseException:
            for env in made:  # a simulator may not let another one in before
                with suppress(Exception):
                    env.close()
            raise
        self.env_fns = env_fns
        self._ages = np.zeros(self.num_envs, np.int64)  # steps of each environment's episode
        self._parts = _parts(self.single_observation_space)
        self._plain = self._parts is not None and [part.path for part in self._parts] == [()]
        self._rows = None  # the batch's arrays, in the order of the parts

    def _fault(self, i, name, expected, got, remedy="correct the environment"):
        place = f"environment {self.first_index + i}, step {self._ages[i]} of its episode"
        return ValueError(f"{name}: expected {expected}, got {got} ({place}); {remedy}")

    def reset(self, *, seed=None, options=None):
        """Begin an episode in every environment, or in those of options["reset_mask"].

        `seed` is an int, one for each, or None.
        """
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed: expected {self.num_envs} seeds, got {len(seed)}; or pass one")
        mask = np.ones(self.num_envs, bool)
        if options is not None and "reset_mask" in options:
            options = dict(options)
            mask = np.asarray(options.pop("reset_mask"))
            if mask.dtype != bool or mask.shape != (self.num_envs,) or not mask.any():
                expected = f"bool ({self.num_envs},) with a true value"
                raise ValueError(f"reset_mask: expected {expected}, got {mask!r}; mark the ended")
        self._observations, infos = copy.deepcopy(self._observations), {}
        self._rows = leaves(self._observations)
        self._autoreset_envs[mask] = False
        for i in np.flatnonzero(mask).tolist():
            observation, info = self._begin(i, seed=seed[i], options=options)
            self._write(i, observation)
            infos = self._add_info(infos, info, i)
        return self._whole(), infos

    def _begin(self, i, **arguments):
        self._ages[i] = 0
        try:
            result = self.envs[i].reset(**arguments)
        except Exception as error:
            if (explained := self._explained(i, "reset", error)) is not None:
                raise explained from error
            raise
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], Mapping)):
            expected = "reset to return (observation, info)"
            raise self._fault(i, "reset", expected, _short(result), "see gymnasium.Env.reset")
        return result

    def step(self, actions):
        """Step every environment; arguments and results are those of SyncVectorEnv."""
        n, infos, same_step = self.num_envs, {}, self.autoreset_mode == AutoresetMode.SAME_STEP
        rewards, terminations, truncations = [0.0] * n, [False] * n, [False] * n
        resetting = [] if same_step else np.flatnonzero(self._autoreset_envs).tolist()
        if resetting and self.autoreset_mode == AutoresetMode.DISABLED:
            raise ValueError(f"step: environment {resetting[0]} has ended; reset it by reset_mask")
        if self._parts is not None:
            self._observations = create_empty_array(self.single_observation_space, n, fn=np.zeros)
            self._rows = leaves(self._observations)
        # most observations are one array, and take the short way
        rows, part = (self._rows[0], self._parts[0]) if self._plain else (None, NO_PART)
        self._ages += 1
        for i, action in enumerate(iterate(self.action_space, actions)):
            if i in resetting:
                observation, info = self._begin(i)
            else:
                try:
                    result = self.envs[i].step(action)
                except Exception as error:
                    if (explained := self._explained(i, "step", error)) is not None:
                        raise explained from error
                    raise
                if type(result) is not tuple or len(result) != 5:
                    expected = "step to return (observation, reward, terminated, truncated, info)"
                    raise self._fault(i, "step", expected, _short(result), "see gymnasium.Env.step")
                observation, reward, terminated, truncated, info = result
                rewards[i] = reward if type(reward) is float else self._number(i, reward)
                if terminated is not False or truncated is not False:
                    terminations[i] = terminated = self._flag(i, "terminated", terminated)
                    truncations[i] = truncated = self._flag(i, "truncated", truncated)
                    if same_step and (terminated or truncated):
                        final = {"final_obs": copy.deepcopy(observation), "final_info": info}
                        infos = self._add_info(infos, final, i)
                        observation, info = self._begin(i)
            if type(observation) is part.type and observation.dtype == part.dtype:
                if observation.shape != part.shape:
                    self._write(i, observation)
                rows[i] = observation
            else:
                self._write(i, observation)
            if info:
                infos = self._add_info(infos, info, i)
        outcome = np.array(rewards), np.array(terminations), np.array(truncations)
        self._autoreset_envs = outcome[1] | outcome[2]
        if not np.isfinite(outcome[0]).all():
            i = int(np.flatnonzero(~np.isfinite(outcome[0]))[0])
            raise self._fault(i, "reward", "a finite number", rewards[i])
        return self._whole(), *outcome, infos

    def _explained(self, i, method, error):
        """Return an error that names the place if one of Gymnasium's checks failed, or None."""
        place = error.__traceback__
        while place.tb_next is not None:
            place = place.tb_next
        if GYMNASIUM not in Path(place.tb_frame.f_code.co_filename).parents:
            return None
        if str(error).startswith("not enough values to unpack (expected 5"):
            expected = "step to return (observation, reward, terminated, truncated, info)"
            return self._fault(i, "step", expected, "fewer values", "see gymnasium.Env.step")
        got = f"{type(error).__name__}: {error}"
        return self._fault(i, method, "what Gymnasium's wrappers take", got)

    def _number(self, i, reward):
        array = _array(reward)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise self._fault(i, "reward", "a number", _short(reward))
        return float(array.item())

    def _flag(self, i, name, flag):
        if type(flag) in (bool, np.bool_):
            return bool(flag)
        array = _array(flag)
        if array.size != 1 or array.dtype.kind not in "biu" or array.item() not in (0, 1):
            raise self._fault(i, name, "True or False", _short(flag))
        return bool(array.item())

    def _write(self, i, observation):
        """Copy an environment's observation into row i of the batch."""
        if self._parts is None:
            self._env_obs[i] = copy.deepcopy(observation)
            return
        for part, rows in zip(self._parts, self._rows, strict=True):
            value = observation
            for key in part.path:
                try:
                    value = value[key]
                except (KeyError, IndexError, TypeError):
                    got = f"{type(value).__name__} without it"
                    raise self._fault(i, part.name, f"a part at {key!r}", got) from None
            if type(value) is not np.ndarray:
                value = _array(value)
            like = value.dtype == part.dtype or np.can_cast(value.dtype, part.dtype, "same_kind")
            if not like or value.shape != part.shape:
                expected = f"{part.dtype} {part.shape} as in the observation space"
                got, remedy = f"{value.dtype} {value.shape}", "correct the environment or its space"
                raise self._fault(i, part.name, expected, got, remedy)
            rows[i] = value

    def _whole(self):
        """Return the batch of observations."""
        if self._parts is None:
            space = self.single_observation_space
            empty = create_empty_array(space, self.num_envs, fn=np.zeros)
            self._observations = concatenate(space, self._env_obs, empty)
        return self._observations

    def _add_info(self, vector_infos, env_info, env_num):
        """Add one environment's info, as Gymnasium does, whatever the shapes of its arrays."""
        try:
            return super()._add_info(vector_infos, env_info, env_num)
        except ValueError:
            for key, value in env_info.items():
                known = vector_infos.get(key)
                if isinstance(known, np.ndarray) and known.shape[1:] != np.shape(value):
                    objects = np.full(self.num_envs, None, object)
                    for i in np.flatnonzero(vector_infos[f"_{key}"]):
                        objects[i] = known[i]
                    vector_infos[key] = objects
            return super()._add_info(vector_infos, env_info, env_num)


class FreshObservations(gymnasium.Wrapper):
    """Copy every observation, for batches that keep some of them while the environment goes on."""

    def step(self, action):
        observation, *rest = self.env.step(action)
        return copy.deepcopy(observation), *rest


def _kept(made, env_fn):
    """Make an environment, and add it to those made."""
    made.append(env_fn())
    return made[-1]


def _parts(space, path=(), name="observation"):
    """Return the parts of a space in the order of minis5.spaces.leaves.

    None: it has a part that is no array.
    """
    if isinstance(space, ARRAYS):
        return [Part(path, name, space.shape, np.dtype(space.dtype))]
    if not isinstance(space, Dict | Tuple):
        return None
    items = space.items() if isinstance(space, Dict) else enumerate(space)
    below = [_parts(part, (*path, key), f"{name}[{key!r}]") for key, part in items]
    return None if None in below else [part for parts in below for part in parts]


def _array(value):
    """Return a value as an array; one of objects if it is ragged."""
    try:
        return np.asarray(value)
    except ValueError:
        array = np.empty((), object)
        array[()] = value
        return array


def _short(value):
    """Return a value's text, cut."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
