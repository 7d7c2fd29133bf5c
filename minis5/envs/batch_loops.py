"""The two loops over a batch of environments, compiled once for each environment.

`compile_loops` puts an environment's own reset, step and observe into `reset_rows` and `step_rows`.

Leaves out: threads. A loop runs on the caller's thread without the GIL, over the rows start <= i <
stop. Rows are independent, so that callers can split a batch: vector.py between CPU threads,
cuda/minis5_cuda/envs.py with one row for each CUDA thread.
Tests: tests/envs/test_batch_loops.py, test_all_levels.py and test_cuda_envs.py.
"""

import zlib
from functools import cache
from pathlib import Path

from numba import njit

import minis5.elementary
import minis5.random
from minis5.envs.compose import bind, files

reset = step = observe = None  # placeholders: compile_loops binds an environment's own


def reset_rows(start, stop, params, ints, floats, obs):
    """Begin a new episode in rows of `ints`, `floats`; write its first observation to `obs`."""
    for i in range(start, stop):
        reset(params, ints[i], floats[i])
        observe(params, ints[i], floats[i], obs[i])


def step_rows(
    start,
    stop,
    params,
    ints,
    floats,
    actions,
    autoreset,
    obs,
    final_obs,
    reward,
    terminated,
    truncated,
):
    """Step rows of the state; with `autoreset`, begin a new episode in a row whose episode ended.

    `obs` gets the observation after that. `final_obs` gets the one before, in the rows whose
    episode ended; its other rows stay as they are.

    The outputs are separate arguments because a named tuple of them would take 3 us a call longer
    to unpack: a third of a step of 64 environments.
    """
    for i in range(start, stop):
        reward[i], terminated[i], truncated[i] = step(params, ints[i], floats[i], actions[i])
        if autoreset and (terminated[i] or truncated[i]):
            observe(params, ints[i], floats[i], final_obs[i])
            reset(params, ints[i], floats[i])
        observe(params, ints[i], floats[i], obs[i])


def sources(env):
    """Return the paths of all files that may be compiled into the loops of `env`.

    They are its own files and its parts', all of minis5/envs, random.py and elementary.py.
    """
    outside = [minis5.elementary.__file__, minis5.random.__file__, *files(env)]
    return [Path(file) for file in outside] + sorted(Path(__file__).parent.rglob("*.py"))


@cache
def compile_loops(env):
    """Return `reset_rows` and `step_rows`, compiled for `env`, a module or compose.Composed.

    Numba's cache looks at one source file only. So the name under which a loop is cached carries a
    digest of every source that may be compiled into it.
    """
    digest = zlib.crc32(b"".join(file.read_bytes() for file in sources(env)))
    compiled = []
    for loop in (reset_rows, step_rows):
        copy = bind(loop, reset=env.reset, step=env.step, observe=env.observe)
        copy.__qualname__ = f"{loop.__name__}_{env.__name__.rpartition('.')[2]}_{digest:08x}"
        # Without Numba's runtime (_nrt=False): rows are views, and counting references to them took
        # up to half of the time of a step.
        compiled.append(njit(cache=True, nogil=True, _nrt=False, no_cfunc_wrapper=True)(copy))
    return tuple(compiled)
