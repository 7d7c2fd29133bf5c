"""What foreign environments show, as an agent can take it: no texts, and MiniGrid's cells in words.

    texts            are left out of Dict and Tuple spaces, at any depth
    MiniGrid cells   an image of them has three numbers for a cell: object, colour and state. They
                     are names, not amounts: the space says so (MultiDiscrete), and the agent sees
                     one-hot vectors.

`adapt` does both for every environment that minis5 makes by its id, outside of the user's wrappers.
It depends on nothing but the environment, so that training, evaluation and watching agree. Only
observations with a text are changed, which no agent could take before.

Leaves out: what a text says. MiniGrid's pixels (its wrappers RGBImg…) stay pixels, and an image
alone (its wrapper ImgObsWrapper) stays numbers.
Source: minigrid.core.constants. Tests: tests/envs/foreign/test_observed.py.
"""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

GRID = "minigrid.minigrid_env"  # the module of all of MiniGrid's environments
PIXELS = "RGB"  # how the names of MiniGrid's wrappers begin that draw


class WithoutTexts(gymnasium.ObservationWrapper):
    """Leave texts out of observations.

    Attributes
    ----------
    left_out : tuple of str
        Names of the parts that are missing.

    Raises
    ------
    ValueError
        Nothing but texts is there.
    """

    def __init__(self, env):
        super().__init__(env)
        self.left_out = tuple(_texts(env.observation_space))
        space = _without(env.observation_space)
        if space is None:
            got = f"nothing but texts, {env.observation_space}"
            remedy = "wrap the environment in one that shows numbers"
            raise ValueError(f"observation_space: expected something to see, got {got}; {remedy}")
        self.observation_space = space

    def observation(self, observation):
        return _part(observation, self.observation_space)


class GridCategories(gymnasium.ObservationWrapper):
    """Say that the cells of MiniGrid's image are categories: object, colour, state."""

    def __init__(self, env):
        super().__init__(env)
        image = env.observation_space["image"]
        kinds = np.broadcast_to(_counts(), image.shape)
        cells = spaces.MultiDiscrete(kinds, dtype=image.dtype)
        parts = {**env.observation_space.spaces, "image": cells}
        self.observation_space = spaces.Dict(parts)

    def observation(self, observation):
        return observation


def adapt(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment whose observations an agent can take, as far as that is known."""
    if _shows_cells(env):
        env = GridCategories(env)
    return WithoutTexts(env) if any(True for _ in _texts(env.observation_space)) else env


def left_out(envs: Any) -> tuple[str, ...]:
    """Return the names of the texts that the environments of a batch in this process leave out."""
    return tuple(getattr(next(iter(getattr(envs, "envs", ())), None), "left_out", ()))


def _is_text(space):
    return isinstance(space, spaces.Text) or getattr(space, "dtype", None) == np.dtype(str)


def _parts(space):
    return space.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)


def _texts(space, name="observation") -> Iterator[str]:
    """Yield the names of the texts in a space."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        for key, part in _parts(space):
            yield from _texts(part, f"{name}[{key!r}]")
    elif _is_text(space):
        yield name


def _without(space):
    """Return a space without its texts; None if nothing is left."""
    if not isinstance(space, spaces.Dict | spaces.Tuple):
        return None if _is_text(space) else space
    kept = {key: part for key, old in _parts(space) if (part := _without(old)) is not None}
    if all(kept.get(key) is old for key, old in _parts(space)):
        return space
    # a tuple's parts keep their numbers as keys: the observation is a tuple with the texts
    return spaces.Dict(kept) if kept else None


def _part(observation, space):
    """Return the part of an observation that the space has."""
    if isinstance(space, spaces.Dict):
        return {key: _part(observation[key], part) for key, part in space.items()}
    return observation


def _shows_cells(env):
    """Return whether an environment shows MiniGrid's cells and a mission, and draws nothing."""
    if not any(kind.__module__ == GRID for kind in type(env.unwrapped).__mro__):
        return False
    wrapper = env
    while isinstance(wrapper, gymnasium.Wrapper):
        if type(wrapper).__name__.startswith(PIXELS):
            return False
        wrapper = wrapper.env
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or not any(map(_is_text, space.values())):
        return False
    image = space.get("image")
    of_bytes = isinstance(image, spaces.Box) and image.dtype == np.uint8
    return of_bytes and len(image.shape) == 3 and image.shape[2] == 3


def _counts():
    """Return how many objects, colours and states MiniGrid has.

    A state is a door's (open, closed, locked) or, where the agent is shown, one of four directions.
    """
    from minigrid.core.constants import COLOR_TO_IDX, DIR_TO_VEC, OBJECT_TO_IDX, STATE_TO_IDX

    tables = OBJECT_TO_IDX.values(), COLOR_TO_IDX.values(), STATE_TO_IDX.values()
    objects, colours, states = (max(numbers) + 1 for numbers in tables)
    return objects, colours, max(states, len(DIR_TO_VEC))
