"""The check that every action passes before an environment sees it.

Tested in tests/envs/test_envs.py.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit


@njit(cache=True, nogil=True)
def first_illegal(actions, low, high):
    """Number of the first row of `actions` (n, k) with a value outside [low, high] (k,) or a NaN; -1 if there is none."""
    for i in range(actions.shape[0]):
        for j in range(actions.shape[1]):
            if not low[j] <= actions[i, j] <= high[j]:
                return i
    return -1


class ActionCheck:
    """Turns `num_envs` actions of `space` (Discrete, MultiDiscrete or Box) into an array that the compiled loops take.

    Calling it with an array (num_envs, *shape of one action), integers or, for Box, floats, returns a contiguous int64
    array, or one of the Box's dtype. It raises a ValueError when dtype, shape or a value is wrong.
    """

    def __init__(self, space, num_envs):
        self.space, self.num_envs = space, num_envs
        self.shape = (num_envs, *space.shape)
        self.floats = isinstance(space, Box)
        if self.floats:
            self.low, self.high = space.low, space.high
        else:
            self.high = (
                np.reshape(space.n if isinstance(space, Discrete) else space.nvec, -1).astype(
                    np.int64
                )
                - 1
            )
            self.low = np.zeros_like(self.high)

    def __call__(self, actions):
        actions = np.asarray(actions)
        if actions.shape != self.shape or actions.dtype.kind not in ("f" if self.floats else "iu"):
            raise ValueError(
                f"actions: expected {'floats' if self.floats else 'integers'} {self.shape}, num_envs first, got "
                f"{actions.dtype} {actions.shape}; pass one action of {self.space} for each environment"
            )
        rows = np.ascontiguousarray(actions, self.low.dtype)
        bad = first_illegal(rows.reshape(self.num_envs, -1), self.low, self.high)
        if bad >= 0:
            one = self.low.size == 1
            legal = (
                f"[{self.low[0]}, {self.high[0]}]"
                if one
                else f"{self.low.tolist()} to {self.high.tolist()}"
            )
            raise ValueError(
                f"actions: expected values in {legal}, got {actions[bad]} for environment {bad}; "
                f"the action space is {self.space}"
            )
        return rows
