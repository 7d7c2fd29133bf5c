"""Mixture: one of several tasks, drawn anew for every episode and not named in the observation.

An episode draws its task uniformly, then plays it. Tasks have Box observations and Box actions of one axis, which may differ in
size: the largest observation is the mixture's, with zeros behind a smaller one; the largest action is the mixture's, of which a
task takes the first numbers. The state has room for the largest task; the tasks share it.

Which task's function runs is decided by halves: `either` makes one environment of two, and a tree of them has all tasks as its
leaves. Each is a scalar function as all others, so that Numba compiles the whole for the CPU or a GPU.

Leaves out: probabilities, and tasks that differ in the bounds of their actions.
Source: 2303.03982, Algorithm 1, which draws a task E for every episode; minis5/envs/meta.py projects its observations and actions.
Tested in tests/envs/test_mixture.py; with all other environments in tests/envs/test_envs.py and tests/envs/test_cuda_envs.py.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from minis5.envs.compose import Composed, compiled
from minis5.envs.task import Task, row_size
from minis5.random import GENERATOR_SIZE, next_integer

reset_first = step_first = observe_first = None  # placeholders: `either` binds its parts' own
reset_second = step_second = observe_second = None
reset_drawn = step_drawn = observe_drawn = None  # placeholders: `compose` binds the tree's


class Either(NamedTuple):
    task: int  # ints[task]: number of the episode's task
    middle: int  # number of the second half's first task
    first: tuple  # the halves' parameters
    second: tuple


class MixtureParams(NamedTuple):
    task: int  # ints[task]: number of the episode's task; the task's integers are ints[:task]
    floats: int  # and its floats floats[:floats]
    tasks: int
    size: int  # of the largest observation
    drawn: tuple  # the tree's parameters


def reset_either(params, ints, floats):
    if ints[params.task] < params.middle:
        reset_first(params.first, ints, floats)
    else:
        reset_second(params.second, ints, floats)


def step_either(params, ints, floats, action):
    if ints[params.task] < params.middle:
        return step_first(params.first, ints, floats, action)
    return step_second(params.second, ints, floats, action)


def observe_either(params, ints, floats, out):
    if ints[params.task] < params.middle:
        observe_first(params.first, ints, floats, out)
    else:
        observe_second(params.second, ints, floats, out)


@cache
def either(first, second):
    """One environment of two, for Either's parameters."""
    names = {"reset_first": first.reset, "step_first": first.step, "observe_first": first.observe}
    names |= {
        "reset_second": second.reset,
        "step_second": second.step,
        "observe_second": second.observe,
    }

    def render(params, ints, floats):
        env, inner = (
            (first, params.first) if ints[params.task] < params.middle else (second, params.second)
        )
        return env.render(inner, ints, floats)

    functions = (compiled(f, **names) for f in (reset_either, step_either, observe_either))
    return Composed("either", (first, second), *functions, render)


def tree(leaves, task, begin=0):
    """Environment and parameters of all `leaves`, (environment, parameters) each, numbered from `begin`."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    first, second = tree(leaves[:half], task, begin), tree(leaves[half:], task, begin + half)
    return either(first[0], second[0]), Either(task, begin + half, first[1], second[1])


def reset(params, ints, floats):
    # what the last task left would otherwise stay where this one has nothing
    for i in range(GENERATOR_SIZE, params.task):
        ints[i] = 0
    for i in range(params.floats):
        floats[i] = 0.0
    ints[params.task] = next_integer(ints, params.tasks)
    reset_drawn(params.drawn, ints, floats)


def step(params, ints, floats, action):
    return step_drawn(params.drawn, ints, floats, action)


def observe(params, ints, floats, out):
    for i in range(params.size):
        out[i] = 0.0
    observe_drawn(params.drawn, ints, floats, out)


@cache
def compose(drawn):
    """The mixture whose tasks are the environment `drawn`, as `tree` makes it."""
    names = {"reset_drawn": drawn.reset, "step_drawn": drawn.step, "observe_drawn": drawn.observe}

    def render(params, ints, floats):
        return f"task {ints[params.task]}: {drawn.render(params.drawn, ints, floats)}"

    return Composed(
        "mixture", (drawn,), *(compiled(f, **names) for f in (reset, step, observe)), render
    )


def mix(natives):
    """The mixture of native environments.

    Parameters
    ----------
    natives : dict
        {name: (environment, Task)}, in the order of the tasks' numbers.

    Returns
    -------
    Composed, Task
        The task's view "task" is the number of the episode's task, int64.

    Raises
    ------
    ValueError
        When a task's observations or actions are no Box of one axis, or actions have different bounds.
    """
    tasks = [task for _, task in natives.values()]
    for name, (_, task) in natives.items():
        for what, space in (
            ("observations", task.observation_space),
            ("actions", task.action_space),
        ):
            if not isinstance(space, Box) or len(space.shape) != 1 or space.dtype != np.float32:
                raise ValueError(
                    f"tasks: expected {what} in a float32 Box of one axis, got {space} for {name}; leave {name} out"
                )
    bounds = {
        name: {*task.action_space.low.tolist(), *task.action_space.high.tolist()}
        for name, (_, task) in natives.items()
    }
    names = list(bounds)
    for name in names:
        if bounds[name] != bounds[names[0]] or len(bounds[name]) != 2:
            got = f"{natives[names[0]][1].action_space} for {names[0]} and {natives[name][1].action_space} for {name}"
            raise ValueError(
                f"tasks: expected the same bounds for all actions, got {got}; leave one out"
            )
    size, actions = (
        max(row_size(getattr(task, what)) for task in tasks)
        for what in ("observation_space", "action_space")
    )
    place, floats = max(task.ints for task in tasks), max(task.floats for task in tasks)
    env, drawn = tree([(env, task.params) for env, task in natives.values()], place)
    low, high = (
        np.stack(
            [
                np.pad(
                    getattr(task.observation_space, side),
                    (0, size - row_size(task.observation_space)),
                )
                for task in tasks
            ]
        )
        for side in ("low", "high")
    )
    return compose(env), Task(
        params=MixtureParams(place, floats, len(tasks), size, drawn),
        ints=place + 1,
        floats=floats,
        observation_space=Box(low.min(axis=0), high.max(axis=0)),
        action_space=Box(*sorted(bounds[names[0]]), (actions,)),
        episode_length=max(task.episode_length for task in tasks),
        worst_return=min(task.worst_return for task in tasks),
        best_return=max(task.best_return for task in tasks),
        truncates=any(task.truncates for task in tasks),
        views={"task": ("ints", place, ())},
    )
