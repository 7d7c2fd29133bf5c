"""What an environment tells the library about itself.

An environment is a module with
    LEVELS                          {name: options}, one row for each level
    configure(**options) -> Task    sizes, spaces and constants; its parameters are the options
    reset(params, ints, floats)
    step(params, ints, floats, action) -> reward, terminated, truncated
    observe(params, ints, floats, out)       writes one observation into the row `out`
    render(params, ints, floats) -> str      plain Python, never compiled
All but `configure` and `render` are scalar code: plain Python, and compiled by Numba for the CPU or
a GPU.

`params` is the level's constants, a NamedTuple whose class no other environment equals in both name
and fields (AutoencodeParams, for example: if two are alike, Numba takes 0.3 ms longer for each
call). `ints` (int64) and `floats` (float64) are one environment's state. `ints` begins with a
generator row (minis5/random.py), which `reset` and `step` may draw from and must not touch
otherwise. `action` is an integer for a Discrete space, otherwise a row: int64 for MultiDiscrete,
floats for Box. It has been checked already. The row `out` holds Box and MultiDiscrete values in
order, Discrete as one number, and a Tuple of Discrete as one number each. Rows have the space's
dtype or, within a composition (compose.py), are parts of `floats`. A Box's values are the same
then, but to compute with them in float32 (or float64) an environment has to cast them.

Tests: tests/envs/test_task.py; for every environment, test_all_levels.py and test_legal_states.py.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import gymnasium
import numpy as np


class Range(NamedTuple):
    """What numbers a part of the state holds in any episode: array[begin:end] in [low, high].

    The compiled loops index with some of them, unchecked; states.py checks a state from outside.
    """

    array: str  # "ints" or "floats"
    begin: int
    end: int
    low: float
    high: float
    only: tuple = ()  # (place, value): where ints[place] == value, in a mixture


class Task(NamedTuple):
    """One level of an environment.

    Attributes
    ----------
    params : NamedTuple of int and float
        Constants handed to every scalar function.
    ints, floats : int
        Length of an environment's integer state (generator row included) and of its float state.
    observation_space, action_space : gymnasium.Space
        Of a single environment. Observations: Discrete, MultiDiscrete, Tuple of Discrete, or Box
        with one axis. Actions: Discrete, MultiDiscrete or Box with one axis; integers from 0.
    episode_length : int
        The most steps an episode can have.
    worst_return, best_return : float
        No return is below or above; in most tasks some decks or boards reach them.
    truncates : bool
        Whether an episode may be truncated.
    ranges : tuple of Range
        The legal numbers of the state, behind the generator row. Floats are finite, too.
    views : dict
        Names for parts of the state, {name: ("ints" or "floats", begin, shape)}, that
        NativeVectorEnv.view reads.
    """

    params: tuple
    ints: int
    floats: int
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    episode_length: int
    worst_return: float
    best_return: float
    truncates: bool = True
    ranges: tuple = ()
    views: Mapping = MappingProxyType({})


def row_size(space):
    """Return how many numbers one observation or action of `space` has."""
    if isinstance(space, gymnasium.spaces.Tuple):
        return len(space.spaces)
    return int(np.prod(space.shape))


def row_dtype(space):
    """Return the dtype of one observation's or action's row."""
    return np.dtype(np.int64) if isinstance(space, gymnasium.spaces.Tuple) else space.dtype


def from_rows(space, rows):
    """Return a batch of the space, as gymnasium.vector shapes it, from rows (n, row_size)."""
    if isinstance(space, gymnasium.spaces.Tuple):
        return tuple(np.ascontiguousarray(rows.T))
    return rows.reshape(len(rows), *space.shape)
