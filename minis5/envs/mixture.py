"""Mixture: one of several tasks, drawn anew for every episode and not named in the observation.

An episode draws its task uniformly, then plays it. Tasks have Box observations and Box actions of
one axis, which may differ in size. The mixture's observation is as long as the largest, with zeros
behind a smaller one. Its action is as long as the largest; a task takes the first numbers of it.
The state has room for the largest task; the tasks share it.

The task's function is found by halves: `either` makes one environment of two, and a tree of them
has all tasks as its leaves. Each is a scalar function like all others, so that Numba compiles the
whole for the CPU or a GPU.

Leaves out: probabilities, and tasks that differ in the bounds of their actions.
Source: 2303.03982, Algorithm 1, which draws a task E for every episode; minis5/envs/meta.py
projects its observations and actions.
Tests: tests/envs/test_mixture.py; with all other environments, test_all_levels.py,
test_legal_states.py and test_cuda_envs.py.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from minis5.envs.compose import Composed, compiled
from minis5.envs.task import Range, Task, row_size
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
    """Return one environment of two, for Either's parameters."""
    names = {"reset_first": first.reset, "step_first": first.step, "observe_first": first.observe}
    names |= {
        "reset_second": second.reset,
        "step_second": second.step,
        "observe_second": second.observe,
    }

    def render(params, ints, floats):
        if ints[params.task] < params.middle:
            return first.render(params.first, ints, floats)
        return second.render(params.second, ints, floats)

    functions = (compiled(f, **names) for f in (reset_either, step_either, observe_either))
    return Composed("either", (first, second), *functions, render)


def tree(leaves, task, begin=0):
    """Return environment and parameters of all `leaves`, such pairs, numbered from `begin`."""
    if len(leaves) == 1:
        return leaves[0]
    half = len(leaves) // 2
    first, second = tree(leaves[:half], task, begin), tree(leaves[half:], task, begin + half)
    return either(first[0], second[0]), Either(task, begin + half, first[1], second[1])


def reset(params, ints, floats):
    # The state after a reset must not depend on the task before, which may have had more of it.
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
    """Return the mixture whose tasks are the environment `drawn`, as `tree` makes it."""
    names = {"reset_drawn": drawn.reset, "step_drawn": drawn.step, "observe_drawn": drawn.observe}

    def render(params, ints, floats):
        return f"task {ints[params.task]}: {drawn.render(params.drawn, ints, floats)}"

    return Composed(
        "mixture", (drawn,), *(compiled(f, **names) for f in (reset, step, observe)), render
    )


def mix(natives):
    """Return the mixture of native environments.

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
        A task's observations or actions are no Box of one axis, or actions have different bounds.
    """
    tasks = [task for _, task in natives.values()]
    for name, (_, task) in natives.items():
        for what, space in (
            ("observations", task.observation_space),
            ("actions", task.action_space),
        ):
            if not isinstance(space, Box) or len(space.shape) != 1 or space.dtype != np.float32:
                raise ValueError(
                    f"tasks: expected {what} in a float32 Box of one axis, got {space} for {name}; "
                    f"leave {name} out"
                )
    bounds = {
        name: {*task.action_space.low.tolist(), *task.action_space.high.tolist()}
        for name, (_, task) in natives.items()
    }
    first = next(iter(bounds))
    for name in bounds:
        if bounds[name] != bounds[first] or len(bounds[name]) != 2:
            one, other = (natives[n][1].action_space for n in (first, name))
            raise ValueError(
                f"tasks: expected the same bounds for all actions, got {one} for {first} and "
                f"{other} for {name}; leave one out"
            )
    size = max(row_size(task.observation_space) for task in tasks)
    actions = max(row_size(task.action_space) for task in tasks)
    place, floats = max(task.ints for task in tasks), max(task.floats for task in tasks)
    env, drawn = tree([(env, task.params) for env, task in natives.values()], place)
    spaces = [task.observation_space for task in tasks]
    low = np.stack([np.pad(space.low, (0, size - row_size(space))) for space in spaces])
    high = np.stack([np.pad(space.high, (0, size - row_size(space))) for space in spaces])
    ranges = (r._replace(only=(place, k)) for k, task in enumerate(tasks) for r in task.ranges)
    return compose(env), Task(
        params=MixtureParams(place, floats, len(tasks), size, drawn),
        ints=place + 1,
        floats=floats,
        observation_space=Box(low.min(axis=0), high.max(axis=0)),
        action_space=Box(*sorted(bounds[first]), (actions,)),
        episode_length=max(task.episode_length for task in tasks),
        worst_return=min(task.worst_return for task in tasks),
        best_return=max(task.best_return for task in tasks),
        truncates=any(task.truncates for task in tasks),
        ranges=(Range("ints", place, place + 1, 0, len(tasks) - 1), *ranges),
        views={"task": ("ints", place, ())},
    )
