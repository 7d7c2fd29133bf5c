"""Actions between an agent's distribution and an environment's action space.

Tests: tests/rl/test_actions.py.
"""

import gymnasium as gym
import numpy as np

from minis5.arrays import array_module
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical


class Actions:
    """An action space with its distribution; integers start at 0 inside, boxes are flat inside.

    Parameters
    ----------
    space : gymnasium.Space
        Discrete, MultiDiscrete with one axis, or Box of floats.

    Raises
    ------
    ValueError
        Another space.
    """

    def __init__(self, space):
        self.space, self.start, self._constants = space, 0, {}
        if isinstance(space, gym.spaces.Discrete):
            self.distribution, self.start = Categorical(space.n), space.start
        elif isinstance(space, gym.spaces.MultiDiscrete) and space.nvec.ndim == 1:
            self.distribution, self.start = MultiCategorical(space.nvec), space.start
        elif isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
            self.distribution = DiagGaussian(int(np.prod(space.shape)))
        else:
            expected = "Discrete, MultiDiscrete with one axis, or Box of floats"
            remedy = "wrap the environment so that it takes one of these"
            raise ValueError(f"action_space: expected {expected}, got {space}; {remedy}")

    def to_env(self, action):
        """Return the distribution's action (B, ...) as a batch that the environment takes.

        Actions outside a Box are clipped to it.
        """
        xp = array_module(action)
        start, low, high = self._bounds(xp)
        if isinstance(self.space, gym.spaces.Box):
            clipped = xp.clip(action.reshape(-1, *self.space.shape), low, high)
            return clipped.astype(self.space.dtype)
        return (action + start).astype(self.space.dtype, copy=False)

    def _bounds(self, xp):
        """Return start, low and high as arrays of ``xp``, made once."""
        if xp not in self._constants:
            box = isinstance(self.space, gym.spaces.Box)
            low, high = (self.space.low, self.space.high) if box else (0, 0)
            self._constants[xp] = [xp.asarray(n) for n in (self.start, low, high)]
        return self._constants[xp]
