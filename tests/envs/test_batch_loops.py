"""The compiled loops: functions run undecorated, Numba's cache, and the sources it must know."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compositions import COMPOSED, environment_and_task
from numba.core.dispatcher import Dispatcher

import minis5
from minis5.envs import memory_chain
from minis5.envs.batch_loops import compile_loops, sources
from minis5.envs.popgym import cartpole, pendulum
from minis5.envs.registry import REGISTRY, find


def test_step_functions_run_undecorated():
    task = find("MemoryChain-2")[1]
    ints, floats = np.zeros(task.ints, np.int64), np.zeros(0)
    ints[memory_chain.CONTEXT] = 1
    assert memory_chain.step.py_func(task.params, ints, floats, 0) == (0.0, False, False)
    assert memory_chain.step.py_func(task.params, ints, floats, 1) == (1.0, True, False)
    task = find("PositionOnlyCartPoleEasy")[1]
    plain, compiled = (np.array([0.01, -0.02, 0.03, 0.04]) for _ in range(2))
    ints = np.zeros(task.ints, np.int64)
    for t in range(50):
        cartpole.step.py_func(task.params, ints, plain, t % 2)
        cartpole.step(task.params, ints, compiled, t % 2)
    np.testing.assert_array_equal(plain, compiled)


TOY = """
from typing import NamedTuple
from gymnasium.spaces import Box
from numba import njit
from minis5.envs.task import Task

class ToyParams(NamedTuple):
    toy: int

def configure():
    space = Box(-1, 1, (1,))
    return Task(ToyParams(1), 4, 0, space, space, 9, 0.0, 0.0)

@njit
def reset(params, ints, floats):
    ints[3] = 0

@njit
def step(params, ints, floats, action):
    ints[3] += 1
    return 0.0, False, ints[3] == 9

@njit
def observe(params, ints, floats, out):
    out[0] = VALUE

def render(params, ints, floats):
    return ""
"""


CACHED = """
import toy
from minis5.envs import meta
from minis5.envs.batch_loops import compile_loops
from minis5.envs.vector import NativeVectorEnv
env, task = meta.wrap(toy, toy.configure(), trials=2)
obs, _ = NativeVectorEnv(env, task, 2).reset()
print(obs[0, 0], sum(compile_loops(env)[0].stats.cache_hits.values()))
"""


def test_numba_s_cache_knows_the_parts(tmp_path):
    """A composition is compiled once for all processes, and again when a part has changed."""
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    variables = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": paths,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    printed = []
    for value in ("0.5", "0.5", "0.25"):
        (tmp_path / "toy.py").write_text(TOY.replace("VALUE", value), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", CACHED],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        printed.append(result.stdout.split())
    assert printed == [["0.5", "0"], ["0.5", "1"], ["0.25", "0"]]


def test_compositions_have_names_of_their_own():
    envs = {environment_and_task(name)[0] for name in COMPOSED} | {cartpole, pendulum}
    envs.add(find("PositionOnlyCartPoleEasy", {"trials": 2})[0])
    envs.add(find("Mixture", {"tasks": "PositionOnlyPendulumEasy", "trials": 1})[0])
    assert len({compile_loops(env)[0].__qualname__ for env in envs}) == len(envs) == 9


def functions_in(env):
    """Return all compiled functions, in plain Python, that a loop of `env` can call."""
    found, waiting = {}, [env.reset, env.step, env.observe]
    while waiting:
        function = waiting.pop().py_func
        if function not in found.values():
            found[id(function)] = function
            names = (function.__globals__.get(name) for name in function.__code__.co_names)
            waiting += [value for value in names if isinstance(value, Dispatcher)]
    return list(found.values())


def imported_into(function):
    """Return the modules of minis5 from which the file of `function` takes a name that it uses."""
    tree = ast.parse(Path(function.__code__.co_filename).read_text(encoding="utf-8"))
    return {
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("minis5.")
        for name in node.names
        if (name.asname or name.name) in function.__code__.co_names
    }


@pytest.mark.parametrize("name", [*REGISTRY, *COMPOSED])
def test_the_cache_knows_every_source(name):
    """All files with a function or a constant that is compiled into a loop are in its digest."""
    env = environment_and_task(name)[0]
    known, modules = set(sources(env)), set()
    for function in functions_in(env):
        assert Path(function.__code__.co_filename) in known
        modules |= imported_into(function)
    assert "minis5.random" in modules or env.__name__.startswith("meta")
    for module in modules:
        assert Path(sys.modules[module].__file__) in known


def test_sources_are_those_of_the_environments_and_what_is_below_them():
    folder = Path(minis5.__file__).parent
    known = set(sources(memory_chain))
    assert {folder / "elementary.py", folder / "random.py"} < known
    assert set(folder.glob("envs/**/*.py")) < known
