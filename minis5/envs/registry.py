"""The environments by name: make_vec, the table of levels, and their registration with Gymnasium.

Native environments run compiled and in batches. They are all of POPGym (Morad et al., ICLR 2023),
step by step the same; MemoryChain; twelve tasks of the DeepMind Control Suite (Tassa et al.,
1801.00690), the same to rounding; mixtures of native ones; and meta-environments around them. Ids
that begin with "dmc/" are the suite's own (minis5/envs/foreign/dmc.py), every other is Gymnasium's.

Tests: tests/envs/test_registry.py and test_all_levels.py.
"""

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from minis5.checks import check_choice, check_integer
from minis5.envs import memory_chain, meta, mixture
from minis5.envs.control import acrobot, ball_in_cup, finger, point_mass, reacher
from minis5.envs.control import cartpole as suite_cartpole
from minis5.envs.control import pendulum as suite_pendulum
from minis5.envs.foreign import dmc
from minis5.envs.foreign.make import batch_maker, find_spec
from minis5.envs.foreign.named import (
    MODULES,
    PACKAGES,
    close_names,
    find_wrappers,
    import_environment,
)
from minis5.envs.foreign.processes import ProcessVectorEnv
from minis5.envs.popgym import (
    autoencode,
    battleship,
    concentration,
    count_recall,
    higher_lower,
    labyrinth,
    minesweeper,
    multiarmed_bandit,
    repeat_first,
    repeat_previous,
)
from minis5.envs.popgym import cartpole as popgym_cartpole
from minis5.envs.popgym import pendulum as popgym_pendulum
from minis5.envs.random_returns import RANDOM_RETURNS
from minis5.envs.single import NativeEnv
from minis5.envs.vector import NativeVectorEnv
from minis5.ops import gpu_form
from minis5.random import seed_to_key
from minis5.seeds import episode_seeds, reset_with_seeds

POPGYM = (
    repeat_previous,
    popgym_cartpole,
    popgym_pendulum,
    autoencode,
    count_recall,
    higher_lower,
    repeat_first,
    concentration,
    multiarmed_bandit,
    minesweeper,
    battleship,
    labyrinth,
)
CONTROL_SUITE = (suite_cartpole, suite_pendulum, acrobot, point_mass, reacher, ball_in_cup, finger)
REGISTRY = {  # name: (environment, options of the level)
    name: (env, options)
    for env in (memory_chain, *POPGYM, *CONTROL_SUITE)
    for name, options in env.LEVELS.items()
}
MIXTURE = "Mixture"
VECTOR_OPTIONS = ("num_threads", "processes", "vectorization_mode", "vector_kwargs")


def find(env_id, options=None):
    """Return environment and Task of a native id, or None if `env_id` is not native.

    Parameters
    ----------
    env_id : str
        "RepeatPreviousEasy", its Gymnasium id "minis5/RepeatPreviousEasy-v0", or "MemoryChain-64",
        short for "MemoryChain" with memory_length=64. "Mixture" draws one of several tasks for
        every episode (minis5/envs/mixture.py).
    options : dict, optional
        They replace the level's own. For "Mixture":
        tasks="PositionOnlyPendulumEasy,PositionOnlyPendulumHard" or the like. Any native
        environment also takes those of minis5/envs/meta.py: trials, project_observation,
        project_action, projections, permute_actions, action_repeat.

    Raises
    ------
    ValueError
        An option is unknown or out of range.
    """
    name, options = env_id, dict(options or {})
    if match := re.fullmatch(r"minis5/(.+)-v0", name):
        name = match[1]
    if match := re.fullmatch(r"MemoryChain-(\d+)", name):
        name, options = "MemoryChain", {"memory_length": int(match[1]), **options}
    if name == MIXTURE:
        level, configure = {}, _mixture
    elif name in REGISTRY:
        env, level = REGISTRY[name]
        configure = env.configure
    else:
        return None
    accepted = list(inspect.signature(configure).parameters)
    for option in options:
        if option not in accepted and option not in meta.OPTIONS:
            raise ValueError(
                f"{option}: {name} has no such option"
                f"{close_names(option, [*accepted, *meta.OPTIONS])}; its options are "
                f"{', '.join(accepted)}, and any environment's {', '.join(meta.OPTIONS)}"
            )
    around = {
        option: options.pop(option)
        for option in meta.OPTIONS
        if option in options and option not in accepted
    }
    configured = configure(**{**level, **options})
    native = configured if name == MIXTURE else (env, configured)
    return meta.wrap(*native, **around) if around else native


def _mixture(tasks=""):
    """Return environment and Task of a mixture of `tasks`, ids with commas between them."""
    names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else []
    natives = {name: find(name) for name in names}
    wrong = [name for name in names if natives[name] is None or names.count(name) > 1]
    if wrong or not names:
        got = f"{wrong[0]!r}{close_names(wrong[0], REGISTRY)}" if wrong else repr(tasks)
        raise ValueError(
            "tasks: expected different native ids with commas between them, such as "
            f"PositionOnlyPendulumEasy,PositionOnlyPendulumHard; got {got}"
        )
    return mixture.mix(natives)


def make_vec(
    env_id: str,
    num_envs: int,
    seed: int = 0,
    *,
    first_index: int = 0,
    num_threads: int = 1,
    processes: int = 1,
    device: str = "cpu",
    env_options: Mapping[str, Any] | None = None,
    wrappers: Sequence[Any] | None = None,
    **options: Any,
) -> gymnasium.vector.VectorEnv:
    """Return a vector environment, native or Gymnasium's.

    Parameters
    ----------
    env_id : str
        A native id (`minis5 envs` lists them), a task of the DeepMind Control Suite such as
        "dmc/cartpole-swingup" (extra `control`), or any id that gymnasium.make takes:
        "CartPole-v1", "module:Env-v0".
    num_envs : int
        Number of environments, B.
    seed : int
        Not negative. The stream of environment i depends only on (seed, first_index + i), so that a
        batch split over processes gives the same episodes. `reset` without a seed uses this one at
        first and goes on afterwards.
    first_index : int
        Number of this batch's first environment.
    num_threads : int
        Threads that share a native batch; they pay from some ten thousand environments on. Foreign
        environments ignore it.
    processes : int
        Processes that share a foreign batch (minis5/envs/foreign/processes.py); the episodes are
        the same for any number. Native environments ignore it.
    device : "cpu" or "cuda"
        With "cuda" a native batch, and the arrays that it returns, are on the GPU
        (cuda/minis5_cuda/envs.py).
    env_options : dict
        Options of the environment: those of a native level, or arguments of a foreign environment's
        constructor, which gets them as they are, even those named seed or num_envs. A foreign one
        also takes max_episode_steps, a time limit.
    wrappers : sequence
        Wrappers around each single environment, the first one innermost: names such as
        "gymnasium.wrappers:FlattenObservation", functions or classes, or pairs of one of these and
        a dict of keyword arguments. A wrapped native environment runs as a foreign one does.
    **options
        More options of the environment, whose names are none of the above. A foreign batch also
        takes gymnasium.make_vec's vectorization_mode ("sync", "async" or "vector_entry_point";
        default "sync") and vector_kwargs (arguments of SyncVectorEnv or AsyncVectorEnv).

    Returns
    -------
    gymnasium.vector.VectorEnv
        A native one has autoreset mode SAME_STEP, get_state and set_state. A foreign one has been
        seeded: a SyncVectorEnv or, with `processes`, a ProcessVectorEnv.

    Raises
    ------
    ValueError
        An id, an option or a wrapper is unknown, or a value is wrong.
    ModuleNotFoundError
        The extra that the environment needs is missing.
    DeviceError
        `device` is "cuda", and numba-cuda, CuPy, the driver or a GPU is missing.
    """
    if not isinstance(env_id, str):
        raise ValueError(f"env_id: expected a string such as 'RepeatPreviousEasy', got {env_id!r}")
    check_choice("device", device, ("cpu", "cuda"))
    around = find_wrappers(wrappers)
    batch = {n: options.pop(n) for n in ("vectorization_mode", "vector_kwargs") if n in options}
    given = _merged(env_options, options)
    if (native := find(env_id, given if around else {**given, **batch})) and not around:
        env, task = native
        if device == "cuda":
            return gpu_form(NativeVectorEnv)(env, task, num_envs, seed, first_index)
        return NativeVectorEnv(env, task, num_envs, seed, first_index, num_threads)
    if device == "cuda":
        what = "is wrapped" if native else f"is not native{close_names(env_id, REGISTRY)}"
        raise ValueError(f"device: {env_id!r} {what} and runs with device='cpu' only")
    num_envs = check_integer("num_envs", num_envs, 1, 2**31, "pass for example num_envs=64")
    first_index = check_integer("first_index", first_index, 0, 2**31, "pass first_index=0")
    processes = check_integer("processes", processes, 1, 1024, "pass processes=1")
    key = seed_to_key(seed)
    spec = _native_spec(env_id) if native else _find_foreign(env_id)
    make = batch_maker(spec, given, around, **batch)
    make = partial(_make_foreign, env_id, make)
    if processes == 1:
        envs = make(num_envs)
        envs.first_index = first_index  # for messages
    else:
        envs = ProcessVectorEnv(make, num_envs, processes, first_index)
    reset_with_seeds(envs, episode_seeds(key, first_index, num_envs))
    return envs


def _merged(env_options, options):
    """Return the options given as a dict and by keyword in one dict."""
    named = isinstance(env_options, Mapping) and all(isinstance(name, str) for name in env_options)
    if env_options is not None and not named:
        remedy = "pass {'option': value}"
        raise ValueError(f"env_options: expected a dict of options, got {env_options!r}; {remedy}")
    both = [name for name in options if name in (env_options or {})]
    if both:
        remedy = "leave out one of the two"
        raise ValueError(f"{both[0]}: given in env_options and by keyword as well; {remedy}")
    return {**(env_options or {}), **options}


def _native_spec(env_id):
    """Return an entry as Gymnasium has one, of single native environments that can be wrapped."""
    names = {"env_id": env_id}
    return EnvSpec("Native-v0", make_single, disable_env_checker=True, kwargs=names)


def _find_foreign(env_id):
    """Return Gymnasium's entry of an id."""
    if env_id.startswith(dmc.NAMESPACE):
        dmc.register()
    name = import_environment(env_id)
    if spec := find_spec(name):
        return spec
    raise ValueError(f"env_id: unknown environment {env_id!r}{_advice(env_id)}")


def _make_foreign(env_id, make, num_envs):
    """Make a batch, in whichever process."""
    if env_id.startswith(dmc.NAMESPACE):
        dmc.register()
    return make(num_envs)


def table():
    """Return the native levels, one dict each, for people and for `minis5 envs`.

    Returns
    -------
    list of dict
        Keys: id, observation_space, action_space (strings), episode_length (most steps),
        random_return (mean of the uniform random policy, measured), worst_return, best_return
        (bounds), options (dict, with the level's values).
    """
    rows = []
    for name, (env, options) in REGISTRY.items():
        task = env.configure(**options)
        rows.append(
            {
                "id": name,
                "observation_space": _text(task.observation_space),
                "action_space": _text(task.action_space),
                "episode_length": task.episode_length,
                "random_return": RANDOM_RETURNS[name][0] if name in RANDOM_RETURNS else math.nan,
                "worst_return": task.worst_return,
                "best_return": task.best_return,
                "options": dict(options),
            }
        )
    return rows


def _text(space):
    """Return a space in a few words: MultiDiscrete([3] * 52) instead of 52 numbers."""
    if isinstance(space, gymnasium.spaces.MultiDiscrete) and len(set(space.nvec)) == 1:
        return f"MultiDiscrete([{space.nvec[0]}] * {len(space.nvec)})"
    return str(space)


def family(name):
    """Return a level's name without its difficulty: "RepeatPrevious" of "RepeatPreviousEasy"."""
    return re.sub(r"(Easy|Medium|Hard)$", "", name)


def _advice(env_id):
    """Say which id may have been meant: one that is close, a level, or one of another package."""
    name = env_id.rpartition(":")[2]
    for begin, module in MODULES.items():
        if name.startswith(begin) and module != env_id.rpartition(":")[0]:
            package = PACKAGES[module]
            return f"; write {module}:{name}, the module that registers it (pip install {package})"
    levels = [level for level in REGISTRY if name and level.startswith(name)]
    levels = levels or [level for level in REGISTRY if name.startswith(family(level))]
    if levels:
        return f"; levels are {', '.join(levels)}"
    return (
        f"{close_names(env_id, [*REGISTRY, *gymnasium.registry])}; `minis5 envs` lists the native "
        "ones, others go by their Gymnasium id, such as CartPole-v1 or module:Env-v0"
    )


def make_single(env_id, render_mode=None, **options):
    """Return one native environment behind gymnasium.Env, without wrappers.

    gymnasium.make("minis5/...-v0") calls it.
    """
    native = find(env_id, options)
    if native is None:
        raise ValueError(
            f"env_id: {env_id!r} is not native{close_names(env_id, REGISTRY)}; "
            "`minis5 envs` lists those, others come from gymnasium.make"
        )
    return NativeEnv(*native, render_mode=render_mode)


for _name in (*REGISTRY, MIXTURE):
    gymnasium.register(
        f"minis5/{_name}-v0",
        entry_point="minis5.envs.registry:make_single",
        vector_entry_point="minis5.envs.registry:make_vec",
        kwargs={"env_id": _name},
    )
