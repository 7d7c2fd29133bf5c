"""MemoryChain: one cue at step 1, asked for at step N = memory_length.

The observation is [1 - t / N, query, context bits], t = 0 … N - 1. The context bits are -1 or 1 in
the first observation and 0 afterwards. The query, the number of the bit asked for, is shown in the
N-th observation (else 0). The N-th action must be that bit (0 or 1): reward 1, otherwise -1. Every
other action is free and earns 0. The N-th step ends the episode: terminated, never truncated, as in
bsuite.

Differs from bsuite's code: there the first call of step returns the first observation a second
time, so that an episode has N + 1 steps and the cue is seen twice. Here it has N steps, as the
papers describe it (bsuite, 1908.03568; 2303.03982, "Memory length"). The delay between the last
sight of the cue and the question is N - 1 steps in both. The observation is flat, (num_bits + 2,),
instead of bsuite's (1, num_bits + 2).

Source: bsuite 0.3.6, bsuite/environments/memory_chain.py, of the experiment memory_len (Osband et
al., ICLR 2020).
Tests: tests/envs/test_memory_chain.py, by hand and in lockstep with bsuite.
"""

from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_integer

LEVELS = {"MemoryChain": {"memory_length": 64, "num_bits": 1}}
TIME = GENERATOR_SIZE  # ints[TIME]: t
QUERY = TIME + 1  # ints[QUERY]: the bit that will be asked for
CONTEXT = QUERY + 1  # ints[CONTEXT:]: the bits, 0 or 1


class Params(NamedTuple):
    memory_length: int
    num_bits: int


def configure(memory_length, num_bits):
    """Return the task that asks `memory_length` - 1 steps after a cue of `num_bits` bits."""
    memory_length = check_integer(
        "memory_length", memory_length, 1, 2**31 - 1, "try memory_length=64"
    )
    num_bits = check_integer("num_bits", num_bits, 1, 10_000, "bsuite's memory_len has num_bits=1")
    low = np.full(2 + num_bits, -1, np.float32)
    low[:2] = 0
    high = np.ones(2 + num_bits, np.float32)
    high[1] = max(1, num_bits - 1)
    return Task(
        params=Params(memory_length, num_bits),
        ints=CONTEXT + num_bits,
        floats=0,
        observation_space=Box(low, high),
        action_space=Discrete(2),
        episode_length=memory_length,
        worst_return=-1.0,
        best_return=1.0,
        truncates=False,
        ranges=(
            Range("ints", TIME, QUERY, 0, memory_length - 1),
            Range("ints", QUERY, CONTEXT, 0, num_bits - 1),
            Range("ints", CONTEXT, CONTEXT + num_bits, 0, 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[TIME] = 0
    for i in range(params.num_bits):
        ints[CONTEXT + i] = next_integer(ints, 2)
    ints[QUERY] = next_integer(ints, params.num_bits)


@njit(nogil=True)
def step(params, ints, floats, action):
    ints[TIME] += 1
    if ints[TIME] < params.memory_length:
        return 0.0, False, False
    right = action == ints[CONTEXT + ints[QUERY]]
    return 1.0 if right else -1.0, True, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    time = ints[TIME]
    out[0] = 1.0 - time / params.memory_length
    out[1] = ints[QUERY] if time == params.memory_length - 1 else 0
    for i in range(params.num_bits):
        out[2 + i] = 2 * ints[CONTEXT + i] - 1 if time == 0 else 0


def render(params, ints, floats):
    memory_length, num_bits = params
    time = ints[TIME]
    cue = "".join(map(str, ints[CONTEXT : CONTEXT + num_bits])) if time == 0 else "-"
    query = ints[QUERY] if time == memory_length - 1 else "-"
    return f"step {time + 1}/{memory_length}: cue {cue}, query {query}"
