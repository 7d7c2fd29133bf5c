"""A toy for tests of mixtures: `size` numbers count the steps from `begin` on; not registered.

The action is `size` torques, which earn their sum.
"""

from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.envs.task import Task
from minis5.random import GENERATOR_SIZE, next_uniform

STEPS = GENERATOR_SIZE
LEVELS = {
    f"Counter{size}": {"size": size, "begin": 10 * size, "length": 3 + size} for size in range(1, 6)
}


class CounterParams(NamedTuple):
    size: int
    begin: int
    length: int


def configure(size, begin, length):
    high = np.full(size, begin + length, np.float32)
    return Task(
        params=CounterParams(size, begin, length),
        ints=STEPS + 1 + size,
        floats=6 - size,
        observation_space=Box(high - length, high),
        action_space=Box(-2, 2, (size,)),
        episode_length=length,
        worst_return=-2.0 * size * length,
        best_return=2.0 * size * length,
        truncates=False,
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    for i in range(params.size):
        ints[STEPS + 1 + i] = params.begin
    for i in range(6 - params.size):
        floats[i] = next_uniform(ints)


@njit(nogil=True)
def step(params, ints, floats, action):
    ints[STEPS] += 1
    reward = 0.0
    for i in range(params.size):
        ints[STEPS + 1 + i] += 1
        reward += np.float64(action[i])
    return reward, ints[STEPS] == params.length, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    for i in range(params.size):
        out[i] = ints[STEPS + 1 + i]


def render(params, ints, floats):
    return f"{ints[STEPS]} of {params.length}"
