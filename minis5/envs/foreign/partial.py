"""Partially observable forms of an environment: only some numbers of its observation are shown.

    minis5 train HalfCheetah-v5 --wrapper \\
        'minis5.envs.foreign.partial:KeepNumbers={"numbers": [0, 1, 2, 3, 4, 5, 6, 7]}'

shows positions and hides velocities, as is customary in tests of memory.

Leaves out: observations that are no Box of one axis.
Source: the tasks of Ni, Eysenbach & Salakhutdinov 2022 (2110.05038).
Tests: tests/envs/foreign/test_partial.py.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import RecordConstructorArgs

from minis5.checks import check_integer


class KeepNumbers(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """Show only some numbers of each observation, in the order in which they are named.

    Parameters
    ----------
    env : gymnasium.Env
        Its observations are a Box of one axis.
    numbers : sequence of int
        Indices of the numbers to show, each in [0, size) and named once.

    Raises
    ------
    ValueError
        The observation space is another, or an index is not in it, is named twice or is none.
    """

    def __init__(self, env, numbers):
        RecordConstructorArgs.__init__(self, numbers=numbers)
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            remedy = "flatten it first with gymnasium.wrappers:FlattenObservation"
            raise ValueError(f"env: expected a Box of one axis, got {space}; {remedy}")
        size, remedy = space.shape[0], "count from 0"
        if isinstance(numbers, str) or not np.iterable(numbers) or not len(list(numbers)):
            expected = f"a list of indices below {size}"
            raise ValueError(f"numbers: expected {expected}, got {numbers!r}; {remedy}")
        self.numbers = [check_integer("numbers", i, 0, size - 1, remedy) for i in numbers]
        if len(set(self.numbers)) < len(self.numbers):
            raise ValueError(f"numbers: expected each index once, got {numbers}; leave one out")
        low, high = space.low[self.numbers], space.high[self.numbers]
        self.observation_space = Box(low, high, dtype=space.dtype)

    def observation(self, observation):
        """Return the numbers of an observation that are shown."""
        return observation[self.numbers]
