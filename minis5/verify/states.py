"""States of anybody's memory core: an array, or arrays nested in dicts, tuples and lists.

Where a state has its batch axis is found out by asking for states of two sizes.

Tests: tests/verify/test_replay.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minis5.verify.trees import map_leaves


def leaves_of(tree: Any) -> list[np.ndarray]:
    """Return the arrays of a tree in a fixed order."""
    found: list[np.ndarray] = []
    map_leaves(lambda leaf: found.append(np.asarray(leaf)), tree)
    return found


class States:
    """States of a batch, from what the user gave.

    Parameters
    ----------
    initial_state : callable
        initial_state(batch) → a state.
    dtype : name
        Real and complex numbers are given in this precision.

    Raises
    ------
    ValueError
        A leaf has no axis that is as long as the batch.
    """

    def __init__(self, initial_state: Callable, dtype: str) -> None:
        self.make, self.dtype = initial_state, np.dtype(dtype)
        self.complex = np.result_type(self.dtype, np.complex64)
        self.axes = map_leaves(self._axis, initial_state(2), initial_state(3))

    @staticmethod
    def _axis(two, three):
        two, three = np.shape(two), np.shape(three)
        axes = [i for i in range(len(two)) if (two[i], three[i]) == (2, 3)]
        if len(two) != len(three) or len(axes) != 1:
            wanted = "arrays with one axis as long as the batch"
            got = f"shapes {two} for a batch of 2 and {three} for one of 3"
            raise ValueError(f"initial_state: expected {wanted}, got {got}; add a batch axis")
        return axes[0]

    def initial(self, batch: int) -> Any:
        """Return the state of ``batch`` episodes that have not begun."""
        return map_leaves(self._cast, self.make(batch))

    def _cast(self, leaf):
        kinds = {"f": self.dtype, "c": self.complex}
        leaf = np.array(leaf)
        return leaf.astype(kinds.get(leaf.dtype.kind, leaf.dtype))

    def take(self, state: Any, rows: list[int]) -> Any:
        """Return the states of some rows of the batch."""
        return map_leaves(lambda z, axis: np.take(np.asarray(z), rows, axis), state, self.axes)

    def poisoned(self, state: Any, row: int, bad: float) -> Any:
        """Return a state, all of whose real and complex numbers in a row are ``bad``."""

        def poison(leaf, axis):
            leaf = np.array(leaf)
            if leaf.dtype.kind in "fc":
                np.moveaxis(leaf, axis, 0)[row] = bad
            return leaf

        return map_leaves(poison, state, self.axes)


def copied(tree: Any) -> Any:
    """Return a copy of a tree's arrays."""
    return map_leaves(lambda leaf: np.array(leaf), tree)
