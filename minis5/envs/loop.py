"""The two loops over a batch of environments, compiled once for each environment with its own reset, step and observe.

Leaves out: threads. A loop runs on the caller's thread without the GIL, and rows are independent, so that callers can
split a batch.
Tested in tests/test_envs.py.
"""

import zlib
from functools import cache
from pathlib import Path
from types import FunctionType

from numba import njit

import minis5.random

reset = step = observe = None  # placeholders: compile_loops binds an environment's own


def reset_rows(params, ints, floats, obs):
    """Begin a new episode in every row of the state `ints`, `floats` and write its first observation to `obs`."""
    for i in range(ints.shape[0]):
        reset(params, ints[i], floats[i])
        observe(params, ints[i], floats[i], obs[i])


def step_rows(params, ints, floats, actions, num_actions, autoreset, obs, next_obs, reward, terminated, truncated):
    """Step every row; with `autoreset`, begin a new episode where one ended.

    `next_obs` gets each row's observation before that reset, `obs` the one after it.
    Returns the number of the first row whose action is not in [0, num_actions), with no row changed, otherwise -1.
    """
    for i in range(ints.shape[0]):
        if actions[i] < 0 or actions[i] >= num_actions:
            return i
    for i in range(ints.shape[0]):
        reward[i], terminated[i], truncated[i] = step(params, ints[i], floats[i], actions[i])
        observe(params, ints[i], floats[i], next_obs[i])
        if autoreset and (terminated[i] or truncated[i]):
            reset(params, ints[i], floats[i])
            observe(params, ints[i], floats[i], obs[i])
        else:
            for j in range(obs.shape[1]):
                obs[i, j] = next_obs[i, j]
    return -1


@cache
def compile_loops(env):
    """`reset_rows` and `step_rows` compiled for the environment module `env`.

    The functions are copied with other globals, rather than made by a closure, because Numba cannot cache closures over
    compiled functions on disk. Numba's cache looks at one source file only, so the name under which a loop is cached
    carries a digest of every source that is compiled into it.
    """
    names = {**globals(), "reset": env.reset, "step": env.step, "observe": env.observe}
    sources = b"".join(Path(file).read_bytes() for file in (__file__, env.__file__, minis5.random.__file__))
    compiled = []
    for loop in (reset_rows, step_rows):
        copy = FunctionType(loop.__code__, names, loop.__name__)
        copy.__qualname__ = f"{loop.__name__}_{env.__name__.rpartition('.')[2]}_{zlib.crc32(sources):08x}"
        compiled.append(njit(cache=True, nogil=True)(copy))
    return tuple(compiled)
