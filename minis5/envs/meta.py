"""Meta-environments: several trials in an episode, in an encoding drawn for every episode.

Around any native environment, by options of `find`, `make_vec` and `minis5 train --env-option`:
    trials=K               an episode is K trials, which all begin in the state of the
                           environment's reset; random events within a trial (noise, say) are drawn
                           anew. The end of the last trial ends the episode.
    project_observation=N  N numbers M_o o instead of the observation o
    project_action=N       the action is a in Box(-1, 1, (N,)); the environment gets M_a a, clipped
                           to its Box, or, if its actions are Discrete, the number of the largest
                           component of M_a a
    projections=K          there are only K pairs of M_o and M_a, the same in every batch and
                           process; an episode draws one of them
    permute_actions=true   Discrete actions have a random order
    action_repeat=K        a step is K of the environment's with the same action, fewer if a trial
                           ends; rewards are summed
An episode draws M_o (N, |o|), M_a (actions, N) and the order, in this order and before the
environment's own reset, from the environment's generator row. With projections=K it draws a number
k < K instead of the matrices, which come from stream k of a generator of their own. Entries are
independent and normal with variance 1 / N. So the mean of |M_o o|^2 is |o|^2, and a component of
M_a a has on average the mean square of a's components.

The observation is one float32 vector: o, projected or not, then the last reward, then 1 if the last
step ended a trial; both are 0 at an episode's start. o is flattened as minis5/spaces.py does it
(Box values as they are, all others one-hot). At the end of a trial that is not the last, the next
one's first observation comes at once; the last observation of the old one is not seen. M_o o and
M_a a are sums in float64, from left to right, rounded to float32 in the end.

Leaves out: projections of MultiDiscrete actions. Foreign environments:
minis5/envs/foreign/wrappers.py.
Source: 2303.03982, Algorithm 1 and the experiment with projected CartPole.
Differs from the authors' code (popjaxrl): it leaves Discrete actions as they are, which
is an option here.
Tests: tests/envs/test_meta.py; with all other environments, test_all_levels.py,
test_legal_states.py and test_cuda_envs.py.
"""

import inspect
import math
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete, Tuple
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.envs.compose import Composed, compiled
from minis5.envs.task import Range, row_size
from minis5.random import GENERATOR_SIZE, next_integer, next_normal, shuffle

PAIRS = 0x50414952  # the key from which a limited number of projections comes
MOST = 10_000  # numbers in a projected observation or action
# Placeholders: `compose` binds an environment's own functions and one of ACTS.
reset_env = step_env = observe_env = act = None


class MetaParams(NamedTuple):
    env: tuple  # the environment's own
    ints: int  # its state: ints[:ints] and floats[:floats]
    floats: int  # then: the trial's return, the last reward, whether the last step ended a trial
    trials: int
    repeat: int  # the environment's steps in a step
    parts: tuple  # (count, size) of runs of numbers in its observation, as `runs` makes them
    features: int  # |o|
    observed: int  # rows of M_o; 0: not projected
    actions: int  # numbers in the environment's action; for Discrete ones, how many there are
    acted: int  # columns of M_a; 0: not projected
    projections: int  # how many pairs of them there are; 0: every episode has its own
    low: tuple  # bounds of the environment's Box of actions, if they are projected
    high: tuple
    trial: int  # ints[trial]: number of the trial, from 0
    permutation: int  # ints[permutation:]: the order of actions
    first_ints: int  # ints[first_ints:]: the trials' first state, without the generator row
    first_floats: int  # floats[first_floats:]
    row: int  # floats[row:]: room for the environment's observation
    flat: int  # floats[flat:]: the same, flattened
    action: int  # floats[action:]: room for the environment's action
    m_o: int  # floats[m_o:], floats[m_a:]: the matrices by rows
    m_a: int


@njit(nogil=True)
def draw_matrix(row, out, begin, size, n):
    """Draw out[begin : begin + size] from a generator row: independent, normal, variance 1 / n."""
    scale = 1.0 / math.sqrt(n)
    for i in range(begin, begin + size):
        out[i] = scale * next_normal(row)


@njit(nogil=True)
def dot(matrix, begin, vector, size):
    """Return the sum of matrix[begin + j] * vector[j] over 0 <= j < size, from left to right."""
    total = 0.0
    for j in range(size):
        total += matrix[begin + j] * vector[j]
    return total


@njit(nogil=True)
def flatten(parts, row, out):
    """Write the observation `row` to `out`: numbers as they are, in float32, or one-hot."""
    j = k = 0
    for count, size in parts:
        for _ in range(count):
            if size == 0:
                out[k] = np.float32(row[j])
            for value in range(size):
                out[k + value] = 1.0 if row[j] == value else 0.0
            j, k = j + 1, k + max(size, 1)


def act_as_given(params, ints, floats, action):
    return step_env(params.env, ints, floats, action)


def act_permuted(params, ints, floats, action):
    return step_env(params.env, ints, floats, ints[params.permutation + action])


def act_projected(params, ints, floats, action):
    size, n = params.actions, params.acted
    row = floats[params.action : params.action + size]
    for i in range(size):
        value = dot(floats, params.m_a + i * n, action, n)
        row[i] = np.float32(min(max(value, params.low[i]), params.high[i]))
    return step_env(params.env, ints, floats, row)


def act_largest(params, ints, floats, action):
    best, n = 0, params.acted
    largest = dot(floats, params.m_a, action, n)
    for i in range(1, params.actions):
        value = dot(floats, params.m_a + i * n, action, n)
        if value > largest:
            best, largest = i, value
    return step_env(params.env, ints, floats, best)


ACTS = {f.__name__: f for f in (act_as_given, act_permuted, act_projected, act_largest)}


@njit(nogil=True)
def draw_matrices(params, row, floats):
    if params.observed > 0:
        draw_matrix(row, floats, params.m_o, params.observed * params.features, params.observed)
    if params.acted > 0:
        draw_matrix(row, floats, params.m_a, params.actions * params.acted, params.acted)


def reset(params, ints, floats):
    actions = params.actions
    if params.projections > 0:  # from another stream, and back to the episode's
        pair = next_integer(ints, params.projections)
        key, stream, counter = ints[0], ints[1], ints[2]
        ints[0], ints[1], ints[2] = PAIRS, pair, 0
        draw_matrices(params, ints, floats)
        ints[0], ints[1], ints[2] = key, stream, counter
    else:
        draw_matrices(params, ints, floats)
    if params.permutation > 0:
        for i in range(actions):
            ints[params.permutation + i] = i
        shuffle(ints, params.permutation, actions)
    reset_env(params.env, ints, floats)
    if params.trials > 1:
        for i in range(GENERATOR_SIZE, params.ints):
            ints[params.first_ints + i - GENERATOR_SIZE] = ints[i]
        for i in range(params.floats):
            floats[params.first_floats + i] = floats[i]
    ints[params.trial] = 0
    for i in range(3):
        floats[params.floats + i] = 0.0
    # The state after a reset must not depend on what was there before.
    for i in range(params.action, params.m_o):
        floats[i] = 0.0


def step(params, ints, floats, action):
    reward, terminated, truncated = act(params, ints, floats, action)
    for _ in range(params.repeat - 1):
        if not (terminated or truncated):
            more, terminated, truncated = act(params, ints, floats, action)
            reward += more
    ended = terminated or truncated
    total = params.floats
    floats[total] += reward
    floats[total + 1], floats[total + 2] = reward, 1.0 if ended else 0.0
    if not ended or ints[params.trial] == params.trials - 1:
        return reward, terminated, truncated
    for i in range(GENERATOR_SIZE, params.ints):
        ints[i] = ints[params.first_ints + i - GENERATOR_SIZE]
    for i in range(params.floats):
        floats[i] = floats[params.first_floats + i]
    ints[params.trial] += 1
    floats[total] = 0.0
    return reward, False, False


def observe(params, ints, floats, out):
    row = floats[params.row : params.flat]
    flat = floats[params.flat : params.action]
    observe_env(params.env, ints, floats, row)
    flatten(params.parts, row, flat)
    n = params.observed
    for i in range(n):
        out[i] = dot(floats, params.m_o + i * params.features, flat, params.features)
    if n == 0:
        n = params.features
        for i in range(n):
            out[i] = flat[i]
    out[n], out[n + 1] = floats[params.floats + 1], floats[params.floats + 2]


@cache
def compose(env, way):
    """Return the environment around `env` whose actions go through `ACTS[way]`."""
    names = {"reset_env": env.reset, "step_env": env.step, "observe_env": env.observe}
    names["act"] = compiled(ACTS[way], **names)

    def render(params, ints, floats):
        inner = env.render(params.env, ints[: params.ints], floats[: params.floats])
        return f"trial {ints[params.trial] + 1}/{params.trials}: {inner}"

    return Composed(
        f"meta_{way}", (env,), *(compiled(f, **names) for f in (reset, step, observe)), render
    )


def runs(space):
    """Return (count, size) for each run of equal entries in an observation of `space`.

    Each of the `count` entries has `size` values; a size of 0 is a number of a Box.
    """
    if isinstance(space, Box):
        return ((row_size(space), 0),)
    if isinstance(space, Tuple):
        sizes = [part.n for part in space]
    else:
        sizes = np.ravel(space.n if isinstance(space, Discrete) else space.nvec)
    return tuple((len(list(run)), int(size)) for size, run in groupby(sizes))


def with_reward_and_end(low, high):
    """Return the space of observations within `low` and `high`, (n,), and of two numbers more.

    They are the last reward and the end of a trial.
    """
    return Box(
        np.append(low, [-np.inf, 0]).astype(np.float32),
        np.append(high, [np.inf, 1]).astype(np.float32),
    )


def ranges_of(task, params):
    """Return the ranges of the state around that of `task`, whose copy begins the trials."""
    ranges = list(task.ranges)
    if params.trials > 1:
        shifts = {"ints": params.first_ints - GENERATOR_SIZE, "floats": params.first_floats}
        for old in task.ranges:
            shift = shifts[old.array]
            only = (old.only[0] + shifts["ints"], old.only[1]) if old.only else ()
            ranges.append(old._replace(begin=old.begin + shift, end=old.end + shift, only=only))
    ranges.append(Range("ints", params.trial, params.trial + 1, 0, params.trials - 1))
    if params.permutation > 0:
        begin, actions = params.permutation, params.actions
        ranges.append(Range("ints", begin, begin + actions, 0, actions - 1))
    return tuple(ranges)


class _Places:
    """Hand out places in a row, one after the other."""

    def __init__(self, size):
        self.size = size

    def take(self, count):
        self.size += count
        return self.size - count


def wrap(
    env,
    task,
    *,
    trials=1,
    project_observation=0,
    project_action=0,
    projections=0,
    permute_actions=False,
    action_repeat=1,
):
    """Return the meta-environment around a native environment.

    Parameters
    ----------
    env : module or Composed
    task : Task
    trials : int
        Trials an episode.
    project_observation, project_action : int
        Numbers in an observation and in an action; 0 leaves them as they are.
    projections : int
        How many pairs of matrices there are; 0 draws new ones for every episode.
    permute_actions : bool
    action_repeat : int
        The environment's steps in a step.

    Returns
    -------
    Composed, Task
        Its views are "trial" (int64) and "trial_return" (the present trial's, so far). If they are
        drawn, there are also "M_o" (N, |o|), "M_a" (actions, N) and "permutation" (actions,), the
        environment's action for each of the agent's.

    Raises
    ------
    ValueError
        An option is out of range or does not fit the actions.
    """
    trials = check_integer("trials", trials, 1, 2**31 - 1, "trials=1 plays one trial an episode")
    observed = check_integer(
        "project_observation", project_observation, 0, MOST, "0 does not project"
    )
    acted = check_integer("project_action", project_action, 0, MOST, "0 does not project")
    projections = check_integer(
        "projections", projections, 0, 2**31, "0 draws new ones for every episode"
    )
    if projections and not (observed or acted):
        raise ValueError(
            "projections: expected project_observation or project_action as well, got "
            f"{projections} projections of nothing; give one of them or leave projections out"
        )
    check_choice("permute_actions", permute_actions, (False, True))
    repeat = check_integer(
        "action_repeat", action_repeat, 1, MOST, "action_repeat=1 does not repeat"
    )
    space, discrete = task.action_space, isinstance(task.action_space, Discrete)
    if acted and not isinstance(space, Box | Discrete):
        raise ValueError(
            "project_action: expected an environment with Box or Discrete actions, "
            f"got {space}; leave it out"
        )
    if permute_actions and (acted or not discrete):
        got = "project_action as well" if acted else space
        raise ValueError(
            "permute_actions: expected Discrete actions that are not projected, "
            f"got {got}; leave it out"
        )
    actions = int(space.n) if discrete else row_size(space)
    low, high = (space.low, space.high) if acted and not discrete else ((), ())
    parts = runs(task.observation_space)
    features = sum(count * max(size, 1) for count, size in parts)
    m_o, m_a = (observed, features), (actions, acted)
    ints, floats, again = _Places(task.ints), _Places(task.floats + 3), trials > 1
    params = MetaParams(
        env=task.params,
        ints=task.ints,
        floats=task.floats,
        trials=trials,
        repeat=repeat,
        parts=parts,
        features=features,
        observed=observed,
        actions=actions,
        acted=acted,
        projections=projections,
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        trial=ints.take(1),
        permutation=ints.take(actions) if permute_actions else 0,
        first_ints=ints.take(again * (task.ints - GENERATOR_SIZE)),
        first_floats=floats.take(again * task.floats),
        row=floats.take(row_size(task.observation_space)),
        flat=floats.take(features),
        action=floats.take(actions if acted else 0),
        m_o=floats.take(math.prod(m_o)),
        m_a=floats.take(math.prod(m_a)),
    )
    views = {
        **task.views,
        "trial": ("ints", params.trial, ()),
        "trial_return": ("floats", params.floats, ()),
    }
    views |= {"M_o": ("floats", params.m_o, m_o)} if observed else {}
    views |= {"M_a": ("floats", params.m_a, m_a)} if acted else {}
    views |= {"permutation": ("ints", params.permutation, (actions,))} if permute_actions else {}
    if acted:
        way = "act_largest" if discrete else "act_projected"
    else:
        way = "act_permuted" if permute_actions else "act_as_given"
    if observed:
        bounds = np.full(observed, -np.inf), np.full(observed, np.inf)
    elif isinstance(task.observation_space, Box):
        bounds = task.observation_space.low, task.observation_space.high
    else:
        bounds = np.zeros(features), np.ones(features)
    wrapped = task._replace(
        params=params,
        ints=ints.size,
        floats=floats.size,
        observation_space=with_reward_and_end(*bounds),
        action_space=Box(-1, 1, (acted,)) if acted else space,
        episode_length=trials * -(-task.episode_length // repeat),
        worst_return=trials * task.worst_return,
        best_return=trials * task.best_return,
        ranges=ranges_of(task, params),
        views=views,
    )
    return compose(env, way), wrapped


OPTIONS = tuple(inspect.signature(wrap).parameters)[2:]
