"""Gymnasium's environments by id, in batches: like gymnasium.make_vec, with one difference.

`options` reach the environment's constructor as they are, whatever their names. gymnasium.make_vec
keeps num_envs, vectorization_mode, vector_kwargs and wrappers for itself, wherever they come from.
Only max_episode_steps and disable_env_checker go to gymnasium.make, unless the constructor has an
argument of that name. And texts in observations are left out (observed.py).

Tests: tests/envs/foreign/test_make.py.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs import registration
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from minis5.checks import check_choice, check_integer
from minis5.envs.foreign.batch import EnvBatch, FreshObservations
from minis5.envs.foreign.named import Wrapper, apply, misfit
from minis5.envs.foreign.observed import adapt

MODES = {"sync": EnvBatch, "async": AsyncVectorEnv}
WHOLE = "vector_entry_point"  # mode: the environment's own vector form
OF_MAKE = ("max_episode_steps", "disable_env_checker")


def find_spec(name: str) -> registration.EnvSpec | None:
    """Return Gymnasium's entry of an id without module; without a version it is the latest."""
    if name in gymnasium.registry:
        return gymnasium.registry[name]
    try:
        namespace, bare, version = registration.parse_env_id(name)
    except gymnasium.error.Error:
        return None
    latest = registration.find_highest_version(namespace, bare)
    if version is not None or latest is None:
        return None
    return gymnasium.registry[registration.get_env_id(namespace, bare, latest)]


def batch_maker(
    spec: registration.EnvSpec,
    options: dict[str, Any],
    wrappers: Sequence[Wrapper] = (),
    vectorization_mode: str | None = None,
    vector_kwargs: dict[str, Any] | None = None,
) -> Callable[[int], VectorEnv]:
    """Return a function that makes a vector environment of so many environments.

    Parameters
    ----------
    spec : EnvSpec
    options : dict
        For the environment's constructor.
    wrappers : sequence of Wrapper
        Around each single environment, the first one innermost.
    vectorization_mode : "sync", "async" or "vector_entry_point"
        None: "sync", or what there is.
    vector_kwargs : dict
        Keyword arguments of SyncVectorEnv or AsyncVectorEnv, such as autoreset_mode.

    Raises
    ------
    ValueError
        An option that the constructor does not take, an unknown mode, or wrappers around an
        environment that only comes in batches.
    """
    if vector_kwargs is not None and not isinstance(vector_kwargs, dict):
        raise ValueError(f"vector_kwargs: expected a dict, got {vector_kwargs!r}; leave it out")
    kwargs = dict(vector_kwargs or {})
    if vectorization_mode is None:
        vectorization_mode = "sync" if spec.entry_point is not None else WHOLE
    mode = getattr(vectorization_mode, "value", vectorization_mode)
    check_choice("vectorization_mode", mode, (*MODES, WHOLE))
    whole = mode == WHOLE
    creator = spec.vector_entry_point if whole else spec.entry_point
    if creator is None:
        raise ValueError(
            f"vectorization_mode: {spec.id} has no entry point for {mode!r}; choose another"
        )
    if isinstance(creator, str):
        creator = registration.load_env_creator(creator)
    if whole and (wrappers or kwargs):
        raise ValueError(
            f"{'wrappers' if wrappers else 'vector_kwargs'}: {spec.id} comes as one batch, "
            "vectorization_mode='vector_entry_point', and takes none; choose 'sync'"
        )
    parameters = _parameters(creator)
    own = {n: v for n, v in options.items() if n not in OF_MAKE or n in parameters}
    limits = {n: v for n, v in options.items() if n not in own}
    if limits.get("max_episode_steps", -1) not in (-1, None):
        remedy = "leave it out for the environment's own limit"
        check_integer("max_episode_steps", limits["max_episode_steps"], 1, 2**62, remedy)
    spec = copy.copy(spec)
    spec.kwargs = {**spec.kwargs, **own}
    if whole:
        limit = limits.get("max_episode_steps", spec.max_episode_steps)
        if limit is not None and "max_episode_steps" not in own:
            spec.kwargs["max_episode_steps"] = limit
    name = getattr(creator, "__qualname__", repr(creator))
    if whole and "num_envs" in spec.kwargs:
        raise ValueError(
            f"env_options: num_envs of {name} is the size of the batch; pass it to make_vec itself"
        )
    if complaint := misfit(creator, (), {**({"num_envs": 1} if whole else {}), **spec.kwargs}):
        raise ValueError(f"env_options: {name} of {spec.id} {complaint}")
    if isinstance(asked := kwargs.get("autoreset_mode"), str):
        check_choice("autoreset_mode", asked, [known.value for known in AutoresetMode])
    if not whole and (complaint := misfit(MODES[mode], ([],), kwargs)):
        raise ValueError(f"vector_kwargs: {MODES[mode].__name__} {complaint}")
    if whole:
        return partial(_whole, creator, spec)
    if mode == "async":  # Gymnasium's processes reset before they send the last observation
        wrappers = (*wrappers, Wrapper("FreshObservations", FreshObservations, {}))
    one = partial(_one, spec, limits, tuple(wrappers))
    return partial(_batch, MODES[mode], one, kwargs, spec)


def _parameters(creator):
    try:
        return inspect.signature(creator).parameters
    except (TypeError, ValueError):  # of C, say
        return {}


def _one(spec, limits, wrappers):
    return adapt(apply(gymnasium.make(spec, **limits), wrappers))


def _batch(kind, one, kwargs, spec, num_envs):
    envs = kind([one] * num_envs, **kwargs)
    envs.spec = spec
    return envs


def _whole(creator, spec, num_envs):
    envs = creator(num_envs=num_envs, **copy.deepcopy(spec.kwargs))
    envs.unwrapped.spec = spec
    return envs
