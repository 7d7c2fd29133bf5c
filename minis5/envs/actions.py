"""The check that every action passes before an environment sees it.

Tests: tests/envs/test_actions.py.
"""

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from minis5.arrays import as_array


@njit(cache=True, nogil=True)
def first_illegal(actions, low, high):
    """Return the first row of `actions` (n, k) with a value outside [low, high] (k,), or with a
    NaN.

    The result is the row's number, or -1 if there is none.
    """
    for i in range(actions.shape[0]):
        for j in range(actions.shape[1]):
            if not low[j] <= actions[i, j] <= high[j]:
                return i
    return -1


class ActionCheck:
    """Turn `num_envs` actions of `space` into an array that the compiled loops take.

    The space is Discrete, MultiDiscrete or Box. A call takes an array (num_envs, *shape of one
    action), of integers or, for a Box, floats. It returns a contiguous array, int64 or of the Box's
    dtype, and raises a ValueError if dtype, shape or a value is wrong.
    """

    def __init__(self, space, num_envs):
        self.space, self.num_envs = space, num_envs
        self.shape = (num_envs, *space.shape)
        self.floats = isinstance(space, Box)
        if self.floats:
            self.low, self.high = space.low, space.high
        else:
            sizes = space.n if isinstance(space, Discrete) else space.nvec
            self.high = np.reshape(sizes, -1).astype(np.int64) - 1
            self.low = np.zeros_like(self.high)

    def __call__(self, actions):
        try:
            actions = np.asarray(as_array(actions, "actions"))
        except ValueError:  # rows of different lengths
            actions = np.empty(0, object)
        if actions.shape != self.shape or actions.dtype.kind not in ("f" if self.floats else "iu"):
            kind = "floats" if self.floats else "integers"
            raise ValueError(
                f"actions: expected {kind} {self.shape}, num_envs first, got {actions.dtype} "
                f"{actions.shape}; pass one action of {self.space} for each environment"
            )
        rows = np.ascontiguousarray(actions, self.low.dtype)
        bad = first_illegal(rows.reshape(self.num_envs, -1), self.low, self.high)
        if bad >= 0:
            legal = f"{self.low.tolist()} to {self.high.tolist()}"
            if self.low.size == 1:
                legal = f"[{self.low[0]}, {self.high[0]}]"
            raise ValueError(
                f"actions: expected values in {legal}, got {actions[bad]} for environment {bad}; "
                f"the action space is {self.space}"
            )
        return rows
