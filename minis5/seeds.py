"""Seeds of the environments in a batch, and handing them over.

Tests: tests/test_seeds.py.
"""

import inspect
import warnings
from typing import Any

import gymnasium
import numpy as np

# Errors that say that an argument is not wanted.
REFUSALS = (TypeError, ValueError, AssertionError, gymnasium.error.Error)


def episode_seeds(seed: int, first_index: int, count: int) -> list[int]:
    """Return seeds of `count` environments, which are numbered from `first_index`.

    An environment's seed depends on `seed` and its number alone.
    """
    streams = [np.random.SeedSequence(seed, spawn_key=(first_index + i,)) for i in range(count)]
    return [int(stream.generate_state(1)[0]) for stream in streams]


def reset_with_seeds(envs: Any, seeds: list[int]) -> Any:
    """Reset a vector environment, and return what it returns.

    It gets a seed for each environment, or the first one alone if it does not take a list. If its
    `reset` has no argument `seed`, a warning says that it alone decides.
    """
    kinds = gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv
    if isinstance(getattr(envs, "unwrapped", None), kinds):
        return envs.reset(seed=seeds)
    parameters = inspect.signature(envs.reset).parameters.values()
    if not any(p.name == "seed" or p.kind == p.VAR_KEYWORD for p in parameters):
        text = f"seed: the reset of {envs} takes none, so it alone decides which episodes it plays"
        warnings.warn(text, stacklevel=2)
        return envs.reset()
    try:
        return envs.reset(seed=seeds)
    except REFUSALS as refusal:
        try:
            return envs.reset(seed=seeds[0])
        except REFUSALS:
            raise refusal from None
