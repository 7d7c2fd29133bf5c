"""Actions between an agent's distribution and an environment's action space.

Tests: tests/rl/test_actions.py.
"""

import gymnasium as gym
import numpy as np

from minis5.arrays import array_module
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical


class Actions:
    """Between an action space and its distribution: integers start at 0 inside, boxes are flat inside and clipped outside."""

    def __init__(self, space):
        self.space, self.start, self._constants = space, 0, {}
        if isinstance(space, gym.spaces.Discrete):
            self.distribution, self.start = Categorical(space.n), space.start
        elif isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
            self.distribution, self.start = MultiCategorical(space.nvec), space.start
        elif isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self.distribution = DiagGaussian(int(np.prod(space.shape)))
        else:
            raise ValueError(
                f"action_space: expected Discrete, MultiDiscrete with one axis, or Box of floats, got {space}; "
                "wrap the environment so that it takes one of these"
            )

    def to_env(self, action):
        """Distribution's action (B, ...) → a batch that the environment takes."""
        start, low, high = self._bounds(array_module(action))
        if isinstance(self.space, gym.spaces.Box):
            return (
                array_module(action)
                .clip(action.reshape(-1, *self.space.shape), low, high)
                .astype(self.space.dtype)
            )
        return (action + start).astype(self.space.dtype, copy=False)

    def _bounds(self, xp):
        """Start, low and high as arrays of ``xp``, made once."""
        if xp not in self._constants:
            numbers = (self.start, getattr(self.space, "low", 0), getattr(self.space, "high", 0))
            self._constants[xp] = [xp.asarray(n) for n in numbers]
        return self._constants[xp]
