"""Actions between an agent's distribution and an environment's action space.

    Discrete, MultiDiscrete   integers from 0 inside, from the space's start outside
    MultiBinary               choices between 0 and 1
    Box of integers           as MultiDiscrete, from its low to its high
    Box of floats             a Gaussian's values

Arrays of any shape are flat inside. A dimension of a Box with two bounds is scaled: -1 inside is
low outside, 0 the middle and 1 high; what lies beyond is clipped. The values of every other
dimension are the same on both sides, clipped to the bound that it has.

Leaves out: Dict and Tuple of actions; squashing. Tests: tests/rl/test_actions.py.
"""

from typing import NamedTuple

import gymnasium as gym
import numpy as np

from minis5.arrays import Array, array_module, move, on_gpu
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical

MOST_VALUES = 2**16  # of one number in a Box of integers


class Scaling(NamedTuple):
    """outside = middle + half · inside, clipped to [low, high]; all of the space's shape."""

    low: Array
    high: Array
    half: Array
    middle: Array
    least: Array  # bounds of the inside: -1 and 1 if scaled, else low and high
    most: Array


class Actions:
    """An action space with its distribution.

    Parameters
    ----------
    space : gymnasium.Space
        Discrete, MultiDiscrete, MultiBinary, Box of floats, or bounded Box of integers.
    scale : bool
        Scale the bounded dimensions of a Box of floats; False only clips them.
    show_clipped : bool
        The agent sees its previous action in a Box of floats as the environment took it. False:
        as it was drawn.
    shown : bool
        The agent sees its previous action at all. False: it sees zeros.

    Attributes
    ----------
    distribution : Categorical, MultiCategorical or DiagGaussian
    sizes : list of int, or None
        How many values each number of an action has; None for a Box of floats.
    scaled : bool
        ``scale`` makes a difference: some dimension has two bounds that are not -1 and 1.

    Raises
    ------
    ValueError
        Another space, an empty one, or a Box of integers with more than MOST_VALUES values.
    """

    def __init__(self, space, scale=False, show_clipped=True, shown=True):
        self.space, self.sizes, self.scaled = space, None, False
        self.show_clipped, self.shown = show_clipped, shown
        self._is_box = isinstance(space, gym.spaces.Box) and space.dtype.kind == "f"
        if isinstance(space, gym.spaces.Discrete):
            self.sizes, constants = [int(space.n)], (np.asarray(space.start),)
            self.distribution = Categorical(space.n)
        elif self._is_box and space.low.size:
            self.distribution, constants = DiagGaussian(space.low.size), scaling(space, scale)
            self.scaled = bool((constants.half != 1).any() or (constants.middle != 0).any())
        else:
            self.sizes, start = _choices(space)
            self.distribution, constants = MultiCategorical(self.sizes), (start,)
        self._constants = {False: constants}  # whether on a GPU: arrays

    def to_env(self, action):
        """Return the distribution's action (B, ...) as a batch that the environment takes."""
        xp, constants = array_module(action), self._arrays(on_gpu(action))
        action = action.reshape(-1, *self.space.shape)
        if not self._is_box:
            return (action + constants[0]).astype(self.space.dtype, copy=False)
        low, high, half, middle, least, most = constants
        if self.scaled:
            action = xp.clip(action, least, most) * half + middle
        return xp.clip(action, low, high).astype(self.space.dtype)

    def encode(self, action, dtype=np.float32):
        """Return the distribution's action (B, ...) as the agent sees it a step later.

        A Gaussian's action is clipped as `to_env` clips it. Otherwise nothing would bound a policy
        whose mean grows with the action that it sees: the environment does not feel what lies
        beyond its bounds, and the network's input would grow without end.
        """
        if not self.shown:
            shape = (len(action), self.distribution.encoded_size)
            return array_module(action).zeros(shape, dtype)
        if self._is_box and self.show_clipped:
            *_, least, most = self._arrays(on_gpu(action))
            action = array_module(action).clip(action, least.reshape(-1), most.reshape(-1))
        return self.distribution.encode(action, dtype)

    def _arrays(self, gpu):
        """Return the constants where the actions are, made once: a CUDA graph may not copy them."""
        if gpu not in self._constants:
            self._constants[gpu] = [move(array, "cuda") for array in self._constants[False]]
        return self._constants[gpu]


def actions_for(config, space):
    """Return the Actions that an AgentConfig asks for."""
    shown = config.clip_previous_action, config.show_previous_action
    return Actions(space, config.scale_actions, *shown)


def scaling(space, scale):
    """Return the Scaling of a Box of floats.

    A bound as large as the dtype's largest number is none: environments write infinity so too.
    """
    dtype = np.result_type(space.dtype, np.float32)  # half precision is too coarse to compute in
    low, high, largest = space.low, space.high, np.finfo(space.dtype).max
    bounded = (low > -largest) & (high < largest) & scale
    low, high = low.astype(dtype), high.astype(dtype)
    bottom, top = np.where(bounded, low, -1), np.where(bounded, high, 1)
    half, middle = top / 2 - bottom / 2, top / 2 + bottom / 2  # 1 and 0 if there are no bounds
    least, most = np.where(bounded, -1, low), np.where(bounded, 1, high)
    return Scaling(low, high, *(z.astype(dtype) for z in (half, middle, least, most)))


def _choices(space):
    """Return how many values each number of an action has (a list), and the smallest values."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        sizes, start = space.nvec, space.start
    elif isinstance(space, gym.spaces.MultiBinary):
        sizes, start = np.full(space.shape, 2), np.zeros(space.shape, np.int8)
    elif isinstance(space, gym.spaces.Box) and space.dtype.kind in "iub":
        # in Python's integers, because the difference of two bounds may not fit their dtype
        start, sizes = space.low, space.high.astype(object) - space.low.astype(object) + 1
        if sizes.size and sizes.max() > MOST_VALUES:
            expected = f"at most {MOST_VALUES} values for each number in a Box of integers"
            remedy = "wrap the environment so that it takes fewer, or a Box of floats"
            raise ValueError(f"action_space: expected {expected}, got {space}; {remedy}")
    else:
        sizes = np.zeros(0)
    if not sizes.size:
        expected = "Discrete, MultiDiscrete, MultiBinary or a Box that is not empty"
        remedy = "wrap the environment so that it takes one of these"
        raise ValueError(f"action_space: expected {expected}, got {space}; {remedy}")
    return sizes.ravel().tolist(), start.astype(np.int64)
