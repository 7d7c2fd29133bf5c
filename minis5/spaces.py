"""Observations: batches of them as trees of arrays, and float32 vectors made of them.

A batch of observations is a tree: an array, or a tuple or dict of trees. `take`, `leaves` and
`rebuild` work on it. `ObservationEncoder` makes the agent's input of it, one vector for each
observation:

    Box                        the values, in C order
    Discrete, MultiDiscrete    one-hot vectors, counted from the space's `start`
    MultiBinary                zeros and ones
    Tuple, Dict                the parts' vectors end to end, in the space's order

Images can stay apart: they are no part of the vectors, and `images` returns them as they are.

Leaves out: normalisation (minis5/rl/normalize.py); Graph, Sequence, Text and OneOf spaces.
GPU form: cuda/minis5_cuda/spaces.py. Tests: tests/test_spaces.py.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from minis5.arrays import array_module, as_array, on_gpu
from minis5.ops import operation

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these"


# Trees of arrays


def take(batch, rows):
    """Return the observations ``rows`` of a batch, as a batch."""
    if isinstance(batch, dict):
        return {key: take(part, rows) for key, part in batch.items()}
    if isinstance(batch, tuple):
        return tuple(take(part, rows) for part in batch)
    return batch[rows]


def leaves(batch):
    """Return the arrays of a batch in a fixed order."""
    if isinstance(batch, dict):
        return [leaf for part in batch.values() for leaf in leaves(part)]
    if isinstance(batch, tuple):
        return [leaf for part in batch for leaf in leaves(part)]
    return [batch]


def rebuild(like, arrays):
    """Return a batch built as ``like`` from an iterator of its arrays: the inverse of `leaves`."""
    if isinstance(like, dict):
        return {key: rebuild(part, arrays) for key, part in like.items()}
    if isinstance(like, tuple):
        return tuple(rebuild(part, arrays) for part in like)
    return next(arrays)


# Vectors


class ObservationError(ValueError):
    """An observation has a value that its space does not have; ``row``: its place in the batch."""

    row = 0

    @classmethod
    def at(cls, row, message):
        error = cls(message)
        error.row = int(row)
        return error

    def located(self, first_index, rows=None, steps=None):
        """Return this error with the environment's number, and the step of its episode.

        rows: numbers of the batch's rows, if they are not 0, 1, …; steps: (B,), taken so far, or
        None for an episode's last observation.
        """
        i = self.row if rows is None else int(rows[self.row])
        when = "the last of its episode" if steps is None else f"step {steps[i]} of its episode"
        return ObservationError(f"{self} (environment {first_index + i}, {when})")


class Leaf(NamedTuple):
    """A part of a space whose observations are arrays, and its place in the vector."""

    path: tuple  # keys and indices that lead to it
    name: str  # for messages
    kind: str  # "box", "binary", "one-hot" or "image"
    shape: tuple
    begin: int
    end: int
    start: np.ndarray | None = None  # one-hot: each component's smallest value
    sizes: np.ndarray | None = None  # one-hot: each component's number of values
    offsets: np.ndarray | None = None  # one-hot: each component's place within the vector


class ObservationEncoder:
    """Encode observations of ``space``, with any leading batch axes, as float32 vectors.

    Parameters
    ----------
    space : gymnasium.Space
    is_image : callable, optional
        Says of a Box whether it is of images, which stay apart; default: none is.

    Attributes
    ----------
    size : int
        Length of the vectors.
    leaves : list of Leaf
        The parts of the space, in order.
    image_shapes : list of tuple
        Of the images that stay apart, in the space's order.
    boxes : bool (size,)
        Which components are values of a Box.

    Raises
    ------
    ValueError
        The space, or a part of it, is not supported.
    """

    def __init__(self, space, is_image=lambda space: False):
        self.space = space
        self.leaves = []
        self.size = 0
        self._add(space, (), "observation", is_image)
        self.image_shapes = [leaf.shape for leaf in self.leaves if leaf.kind == "image"]
        if self.size == 0 and not self.image_shapes:
            remedy = "an agent needs an input"
            raise ValueError(f"space: expected at least one value, got the empty {space}; {remedy}")
        self.boxes = np.zeros(self.size, bool)
        for leaf in self.leaves:
            self.boxes[leaf.begin : leaf.end] = leaf.kind == "box"

    def _add(self, space, path, name, is_image):
        """Add the leaves of a part of the space, which ``path`` leads to."""
        one_hot = {}
        if isinstance(space, spaces.Dict | spaces.Tuple):
            for key, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
                self._add(part, (*path, key), f"{name}[{key!r}]", is_image)
            return
        if is_image(space):
            kind, width = "image", 0
        elif isinstance(space, spaces.Box):
            kind, width = "box", math.prod(space.shape)
        elif isinstance(space, spaces.MultiBinary):
            kind, width = "binary", math.prod(space.shape)
        elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
            sizes, start = sizes.astype(np.int64), np.ravel(space.start).astype(np.int64)
            kind, width = "one-hot", int(sizes.sum())
            offsets = self.size + np.cumsum(sizes) - sizes
            one_hot = {"start": start, "sizes": sizes, "offsets": offsets}
        else:
            got = f"{name} is {space}, which is not supported"
            raise ValueError(f"space: {got}; supported are {SUPPORTED}")
        begin, end = self.size, self.size + width
        self.leaves.append(Leaf(path, name, kind, space.shape, begin, end, **one_hot))
        self.size = end

    def observation_vector(self, observation):
        """Return the vectors of a batch of observations.

        Parameters
        ----------
        observation : array, or tuple or dict of arrays as gymnasium.vector batches them
            Every array has the same leading batch axes (none for a single observation).

        Returns
        -------
        float32 (..., size)
            A new array.

        Raises
        ------
        ValueError
            The observation has another structure, shape or dtype than the space, is not finite, or
            has a value outside a Discrete, MultiDiscrete or MultiBinary space. Values on a GPU are
            not checked.
        """
        lead = out = None
        for leaf in self.leaves:
            values = _pick(observation, leaf)
            axes = values.ndim - len(leaf.shape)
            fits = values.shape[max(axes, 0) :] == leaf.shape
            if not fits or lead not in (None, values.shape[:axes]):
                expected = f"(..., {', '.join(map(str, leaf.shape))})" if leaf.shape else "(...)"
                expected += "" if lead is None else f" with batch axes {lead}"
                remedy = "pass observations of the space that the agent was made for"
                got = f"expected shape {expected}, got {values.shape}"
                raise ValueError(f"{leaf.name}: {got}; {remedy}")
            if out is None:
                lead = values.shape[:axes]
                out = array_module(values).zeros((math.prod(lead), self.size), np.float32)
            _WRITE[leaf.kind](leaf, values.reshape(len(out), math.prod(leaf.shape)), out)
        return out.reshape(*lead, self.size)

    def images(self, observation):
        """Return the images of a batch of observations, uint8 (..., *shape) each, of the space."""
        return [_pick(observation, leaf) for leaf in self.leaves if leaf.kind == "image"]


def _pick(observation, leaf):
    """Return the leaf's array within a batch of observations."""
    for depth, key in enumerate(leaf.path):
        try:
            observation = observation[key]
        except (KeyError, IndexError, TypeError) as error:
            wanted, got = list(leaf.path[: depth + 1]), type(observation).__name__
            raise ValueError(
                f"observation: expected a part at {wanted}, got {got} without it; "
                "pass a dict or tuple built as the space is"
            ) from error
    values = as_array(observation, leaf.name)
    try:
        values = values if on_gpu(values) else np.asarray(values)
    except ValueError as error:
        remedy = "stack a list of observations into arrays first"
        raise ValueError(f"{leaf.name}: expected an array, got {error}; {remedy}") from error
    if leaf.kind == "image" and values.dtype != np.uint8:
        got, remedy = values.dtype, "cast it; images are not scaled before they come here"
        raise ValueError(f"{leaf.name}: expected uint8, got {got}; {remedy}")
    kinds, wanted = ("biuf", "numbers") if leaf.kind == "box" else ("biu", "integers")
    if values.dtype.kind not in kinds:
        raise ValueError(
            f"{leaf.name}: expected {wanted}, got dtype {values.dtype}; "
            "cast it, or stack a list of observations into arrays first"
        )
    return values.astype(np.int64, copy=False) if leaf.kind == "one-hot" else values


def _write_box(leaf, values, out):
    part = out[:, leaf.begin : leaf.end]
    if array_module(out) is not np:  # on a GPU, looking at the values would mean waiting
        part[:] = values
        return
    with np.errstate(over="ignore", invalid="ignore"):
        part[:] = values
        total = float(part.sum())
    if not math.isfinite(total) and not np.isfinite(part).all():  # the sum alone may overflow
        row, column = np.argwhere(~np.isfinite(part))[0]
        got = f"{values[row, column]} at batch row {row}, component {column}"
        raise ObservationError.at(
            row,
            f"{leaf.name}: expected finite float32 values, got {got}; "
            "check the environment's dynamics, or clip its observations",
        )


def _write_binary(leaf, values, out):
    wrong = (values != 0) & (values != 1)
    if array_module(out) is np and wrong.any():
        row, column = np.argwhere(wrong)[0]
        got = f"{values[row, column]} at batch row {row}, component {column}"
        raise ObservationError.at(
            row, f"{leaf.name}: expected zeros and ones, got {got}; check the environment"
        )
    out[:, leaf.begin : leaf.end] = values


@cache
def _on(xp, numbers):
    return xp.asarray(numbers, np.int64)


def _tables(leaf, xp):
    """Return start, sizes and offsets as arrays of ``xp``."""
    tables = leaf.start, leaf.sizes, leaf.offsets
    return tables if xp is np else [_on(xp, tuple(table.tolist())) for table in tables]


@operation
def one_hot(values, start, sizes, offsets, out):
    """Write the ones of a batch of one-hot vectors to out (n, size), zeros on entry.

    values: (n, k); start, sizes, offsets: (k,). Returns (row, component) of the first illegal
    value, or (-1, -1). On a GPU an illegal value leaves zeros, and (-1, -1) is returned.
    """
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            index = values[i, j] - start[j]
            if not 0 <= index < sizes[j]:
                return i, j
            out[i, offsets[j] + index] = 1
    return -1, -1


def _write_one_hot(leaf, values, out):
    row, column = one_hot(values, *_tables(leaf, array_module(out)), out)
    if row >= 0:
        low, high = leaf.start[column], leaf.start[column] + leaf.sizes[column]
        got = f"{values[row, column]} at batch row {row}, component {column}"
        raise ObservationError.at(
            row,
            f"{leaf.name}: expected values in [{low}, {high}), got {got}; "
            "check the environment, or the space's start",
        )


def _write_nothing(leaf, values, out):
    del leaf, values, out


_WRITE = {
    "box": _write_box,
    "binary": _write_binary,
    "one-hot": _write_one_hot,
    "image": _write_nothing,
}
