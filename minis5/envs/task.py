"""What an environment tells the library about itself, and the check of its options.

An environment is a module with
    LEVELS                          {name: options}, one row for each level
    configure(**options) -> Task    sizes, spaces and constants; its parameters are the accepted options
    reset(params, ints, floats)
    step(params, ints, floats, action) -> reward, terminated, truncated
    observe(params, ints, floats, out)       writes one observation into the row `out`
    render(params, ints, floats) -> str      plain Python, never compiled
`params` is the level's constants; `ints` (int64) and `floats` (float64) are one environment's state. `ints` begins with
a generator row (minis5/random.py), which `reset` and `step` may draw from and must not touch otherwise.
All but `configure` and `render` are scalar code that Numba compiles for the CPU or a GPU.

Tested in tests/test_envs.py.
"""

import operator
from typing import NamedTuple

import gymnasium
import numpy as np


class Task(NamedTuple):
    """One level of an environment.

    Attributes
    ----------
    params : int64 (n,)
        Constants handed to every scalar function.
    ints, floats : int
        Length of an environment's integer state (generator row included) and of its float state.
    observation_space, action_space : gymnasium.Space
        Of a single environment; observations are Discrete, or Box with one axis; actions are Discrete from 0.
    episode_length : int
        The most steps an episode can have.
    random_return, best_return : float
        Expected return of the uniform random policy (nan where it is not known), and the best possible return.
    """

    params: np.ndarray
    ints: int
    floats: int
    observation_space: gymnasium.Space
    action_space: gymnasium.Space
    episode_length: int
    random_return: float
    best_return: float


def check_integer(name, value, low, high, remedy):
    """Return `value` as an int, or raise a ValueError that names the argument if it is no integer in [low, high]."""
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value!r}; {remedy}")
    return number
