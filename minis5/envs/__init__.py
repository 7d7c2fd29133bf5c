"""The environments by name: make_vec, the table of levels, and their registration with Gymnasium.

Native ones (minis5/envs/*.py) run compiled and in batches; every other id is Gymnasium's.
Tested in tests/test_make_vec.py and tests/test_envs.py.
"""

import difflib
import inspect
import re

import gymnasium
import numpy as np

from minis5.envs import memory_chain, position_only_cartpole, repeat_previous
from minis5.envs.single import NativeEnv
from minis5.envs.task import check_integer
from minis5.envs.vector import NativeVectorEnv
from minis5.random import seed_to_key

REGISTRY = {  # name: (environment, options of the level)
    name: (env, options)
    for env in (memory_chain, repeat_previous, position_only_cartpole)
    for name, options in env.LEVELS.items()
}


def find(env_id, options=None):
    """Environment and Task of a native id, or None if `env_id` is not native.

    Parameters
    ----------
    env_id : str
        "RepeatPreviousEasy", its Gymnasium id "minis5/RepeatPreviousEasy-v0", or "MemoryChain-64", short for
        "MemoryChain" with memory_length=64.
    options : dict, optional
        Replace the level's own.

    Raises
    ------
    ValueError
        When an option is unknown or out of range.
    """
    name, options = env_id, dict(options or {})
    if match := re.fullmatch(r"minis5/(.+)-v0", name):
        name = match[1]
    if match := re.fullmatch(r"MemoryChain-(\d+)", name):
        name, options = "MemoryChain", {"memory_length": int(match[1]), **options}
    if name not in REGISTRY:
        return None
    env, level = REGISTRY[name]
    accepted = list(inspect.signature(env.configure).parameters)
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"{option}: {name} has no such option{_close(option, accepted)}; its options are {', '.join(accepted)}"
            )
    return env, env.configure(**{**level, **options})


def make_vec(env_id, num_envs, seed=0, *, first_index=0, **options):
    """A vector environment, native or Gymnasium's.

    Parameters
    ----------
    env_id : str
        A native id (see `find`; `table` lists them), or any id that gymnasium.make takes: "CartPole-v1",
        "module:Env-v0".
    num_envs : int
        Number of environments.
    seed : int
        Not negative. The stream of environment i depends only on (seed, first_index + i), so that a batch split over
        processes gives the same episodes. `reset` without a seed uses this one at first and goes on afterwards.
    first_index : int
        Number of this batch's first environment.
    **options
        Options of the environment; for Gymnasium's, keyword arguments of gymnasium.make_vec.

    Returns
    -------
    gymnasium.vector.VectorEnv
        Native: autoreset mode SAME_STEP, with get_state and set_state. Otherwise a SyncVectorEnv that has been seeded.

    Raises
    ------
    ValueError
        When an id or an option is unknown, or a value is wrong.
    """
    if not isinstance(env_id, str):
        raise ValueError(f"env_id: expected a string such as 'RepeatPreviousEasy', got {env_id!r}")
    if native := find(env_id, options):
        return NativeVectorEnv(*native, num_envs, seed, first_index)
    num_envs = check_integer("num_envs", num_envs, 1, 2**31, "pass for example num_envs=64")
    first_index = check_integer("first_index", first_index, 0, 2**31, "pass first_index=0")
    key = seed_to_key(seed)
    try:
        envs = gymnasium.make_vec(env_id, num_envs, **{"vectorization_mode": "sync", **options})
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        if env_id.rpartition(":")[2] in gymnasium.registry:
            raise ValueError(f"env_id: gymnasium cannot make {env_id!r} with options {options}: {error}") from error
        raise ValueError(
            f"env_id: unknown environment {env_id!r}{_close(env_id, [*REGISTRY, *gymnasium.registry])}; "
            f"native ones are {', '.join(REGISTRY)} (`minis5 envs` describes them), others go by their "
            f"Gymnasium id, such as CartPole-v1 or module:Env-v0 ({type(error).__name__}: {error})"
        ) from error
    seeds = [np.random.SeedSequence(key, spawn_key=(first_index + i,)).generate_state(1)[0] for i in range(num_envs)]
    envs.reset(seed=[int(seed) for seed in seeds])
    return envs


def table():
    """The native levels, one dict each, for people and for `minis5 envs`.

    Returns
    -------
    list of dict
        Keys: id, observation_space, action_space (strings), episode_length (most steps), random_return (expected, of
        the uniform random policy), best_return (largest possible), options (dict, with the level's values).
    """
    rows = []
    for name, (env, options) in REGISTRY.items():
        task = env.configure(**options)
        rows.append(
            {
                "id": name,
                "observation_space": str(task.observation_space),
                "action_space": str(task.action_space),
                "episode_length": task.episode_length,
                "random_return": task.random_return,
                "best_return": task.best_return,
                "options": dict(options),
            }
        )
    return rows


def _close(name, names):
    matches = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(matches)}?)" if matches else ""


def make_single(env_id, render_mode=None, **options):
    """One native environment behind gymnasium.Env, without wrappers: what gymnasium.make("minis5/...-v0") calls."""
    native = find(env_id, options)
    if native is None:
        raise ValueError(f"env_id: {env_id!r} is not native{_close(env_id, REGISTRY)}; use gymnasium.make")
    return NativeEnv(*native, render_mode=render_mode)


for _name in REGISTRY:
    gymnasium.register(
        f"minis5/{_name}-v0",
        entry_point="minis5.envs:make_single",
        vector_entry_point="minis5.envs:make_vec",
        kwargs={"env_id": _name},
    )
