"""Observations of any supported space as float32 vectors: the agent's input.

Box values are passed through, flattened; Discrete and MultiDiscrete become one-hot vectors (counted from the space's
`start`), MultiBinary zeros and ones; Tuple and Dict are the concatenation of their parts, in the space's order.

Leaves out: scaling and normalisation; Graph, Sequence, Text and OneOf spaces.
Tested in tests/test_spaces.py.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from minis5.arrays import array_module, as_array, on_gpu
from minis5.ops import operation

SUPPORTED = "Box, Discrete, MultiDiscrete, MultiBinary, and Tuple and Dict of these"


class Leaf(NamedTuple):
    """A part of the space that is an array, and its place in the vector."""

    path: tuple  # keys and indices that lead to it
    name: str  # for messages
    kind: str  # "box", "binary" or "one-hot"
    shape: tuple
    begin: int
    end: int
    start: np.ndarray | None = None  # one-hot: each component's smallest value
    sizes: np.ndarray | None = None  # one-hot: each component's number of values
    offsets: np.ndarray | None = None  # one-hot: each component's place within the vector


class ObservationEncoder:
    """Turns observations of `space`, with any leading batch axes, into float32 vectors.

    Parameters
    ----------
    space : gymnasium.Space

    Attributes
    ----------
    size : int
        Length of the vectors.

    Raises
    ------
    ValueError
        When the space, or a part of it, is not supported.
    """

    def __init__(self, space):
        self.space = space
        self._leaves = []
        self.size = 0
        self._add(space, (), "observation")
        if self.size == 0:
            raise ValueError(
                f"space: expected at least one value, got the empty {space}; an agent needs an input"
            )

    def _add(self, space, path, name):
        one_hot = {}
        if isinstance(space, spaces.Dict | spaces.Tuple):
            for key, part in space.items() if isinstance(space, spaces.Dict) else enumerate(space):
                self._add(part, (*path, key), f"{name}[{key!r}]")
            return
        if isinstance(space, spaces.Box):
            kind, width = "box", math.prod(space.shape)
        elif isinstance(space, spaces.MultiBinary):
            kind, width = "binary", math.prod(space.shape)
        elif isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
            sizes = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec).astype(
                np.int64
            )
            start = np.ravel(space.start).astype(np.int64)
            kind, width = "one-hot", int(sizes.sum())
            offsets = self.size + np.cumsum(sizes) - sizes
            one_hot = {"start": start, "sizes": sizes, "offsets": offsets}
        else:
            raise ValueError(
                f"space: {name} is {space}, which is not supported; supported are {SUPPORTED}"
            )
        self._leaves.append(
            Leaf(path, name, kind, space.shape, self.size, self.size + width, **one_hot)
        )
        self.size += width

    def observation_vector(self, observation):
        """Encode a batch of observations.

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
            When the observation has another structure, shape or dtype than the space, is not finite, or has a value
            outside a Discrete, MultiDiscrete or MultiBinary space.
        """
        lead = out = None
        for leaf in self._leaves:
            values = _pick(observation, leaf)
            axes = values.ndim - len(leaf.shape)
            if values.shape[max(axes, 0) :] != leaf.shape or lead not in (
                None,
                values.shape[:axes],
            ):
                expected = f"(..., {', '.join(map(str, leaf.shape))})" if leaf.shape else "(...)"
                same = "" if lead is None else f" with batch axes {lead}"
                raise ValueError(
                    f"{leaf.name}: expected shape {expected}{same}, got {values.shape}; "
                    "pass observations of the space that the agent was made for"
                )
            if out is None:
                lead = values.shape[:axes]
                out = array_module(values).zeros((math.prod(lead), self.size), np.float32)
            _WRITE[leaf.kind](leaf, values.reshape(len(out), math.prod(leaf.shape)), out)
        return out.reshape(*lead, self.size)


def _pick(observation, leaf):
    """The leaf's array within a nested observation."""
    for depth, key in enumerate(leaf.path):
        try:
            observation = observation[key]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"observation: expected a part at {list(leaf.path[: depth + 1])}, got {type(observation).__name__} "
                "without it; pass a dict or tuple built as the space is"
            ) from error
    values = as_array(observation)
    values = values if on_gpu(values) else np.asarray(values)
    if values.dtype.kind not in ("biuf" if leaf.kind == "box" else "biu"):
        raise ValueError(
            f"{leaf.name}: expected {'numbers' if leaf.kind == 'box' else 'integers'}, got dtype {values.dtype}; "
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
        raise ValueError(
            f"{leaf.name}: expected finite float32 values, got {values[row, column]} at batch row {row}, "
            f"component {column}; check the environment's dynamics, or clip its observations"
        )


def _write_binary(leaf, values, out):
    wrong = (values != 0) & (values != 1)
    if array_module(out) is np and wrong.any():
        raise ValueError(
            f"{leaf.name}: expected zeros and ones, got {values[wrong][0]}; check the environment"
        )
    out[:, leaf.begin : leaf.end] = values


@cache
def _on(xp, numbers):
    return xp.asarray(numbers, np.int64)


def _tables(leaf, xp):
    """Start, sizes and offsets as arrays of ``xp``."""
    tables = leaf.start, leaf.sizes, leaf.offsets
    return tables if xp is np else [_on(xp, tuple(table.tolist())) for table in tables]


@operation
def one_hot(values, start, sizes, offsets, out):
    """Set the ones of a batch of one-hot vectors in `out`; returns (row, component) of the first illegal value, or (-1, -1).

    (On a GPU an illegal value sets nothing, and (-1, -1) is returned.)
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
        low = leaf.start[column]
        raise ValueError(
            f"{leaf.name}: expected values in [{low}, {low + leaf.sizes[column]}), got {values[row, column]} at "
            f"batch row {row}, component {column}; check the environment, or the space's start"
        )


_WRITE = {"box": _write_box, "binary": _write_binary, "one-hot": _write_one_hot}


# Batches of observations: arrays, or tuples or dicts of them


def take(batch, rows):
    """Observations of some environments: arrays, or tuples or dicts of them."""
    if isinstance(batch, dict):
        return {k: take(v, rows) for k, v in batch.items()}
    if isinstance(batch, tuple):
        return tuple(take(v, rows) for v in batch)
    return batch[rows]


def leaves(batch):
    """The arrays of a batch of observations, in a fixed order."""
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    return (
        [leaf for value in batch for leaf in leaves(value)] if isinstance(batch, tuple) else [batch]
    )


def rebuild(like, arrays):
    """The inverse of :func:`leaves`: a batch of the structure of ``like`` from an iterator of arrays."""
    if isinstance(like, dict):
        return {key: rebuild(value, arrays) for key, value in like.items()}
    return (
        tuple(rebuild(value, arrays) for value in like) if isinstance(like, tuple) else next(arrays)
    )
