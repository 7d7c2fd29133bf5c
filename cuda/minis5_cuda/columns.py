"""Columns: a minibatch's environments out of a rollout, and matrices side by side, in one launch.

An array is copied word by word, whatever its dtype is: in words of four bytes, or byte by byte if
its rows are no whole words (flags, pixels). A launch takes arrays of both kinds.

Leaves out: arrays that are not C-contiguous, which CuPy would copy first.
Source: minis5's own. Specification and CPU form: take_columns in minis5/columns.py; of
`join_columns`, which is no operation by itself, numpy.concatenate.
Tests: tests/test_columns.py, of each kernel by itself; tests/gpu/test_training.py.
"""

import math

import numpy as np

from minis5 import columns as cpu
from minis5.arrays import array_module
from minis5.ops import form_of
from minis5_cuda.launch import blocks, cuda, device, kernel, launch

BLOCK = 256  # threads
MOST_BLOCKS = 256  # along an array
GROUP = 12  # arrays of each kind in a launch: each takes up to 176 bytes of the 4 KB of arguments


@device
def take(array, width, columns, numbers, out):
    """Write the columns ``numbers`` of ``array`` to ``out``; width: words of a column."""
    for i in range(cuda.grid(1), out.size, cuda.gridsize(1)):
        row, word = i // width, i % width
        t, n = row // numbers.size, row % numbers.size
        out[i] = array[(t * columns + numbers[n]) * width + word]


@kernel
def take_columns_kernel(words, octets, widths, number, columns, numbers):
    """Take the columns of pair blockIdx.y, (array, out): ``number`` of words, then of octets."""
    y = cuda.blockIdx.y
    if y < number:
        array, out = words[y]
        take(array, widths[y], columns, numbers, out)
    else:
        array_of_octets, out_of_octets = octets[y - number]
        take(array_of_octets, widths[y], columns, numbers, out_of_octets)


@form_of(cpu.take_columns)
def take_columns(arrays, numbers):
    """Return the ``numbers`` (n,) of axis 1 of each of ``arrays`` (T, B, ...), as (T, n, ...)."""
    xp, n, kinds = array_module(numbers), numbers.size, ([], [])
    outs = [xp.empty((len(z), n, *z.shape[2:]), z.dtype) for z in arrays]
    for array, out in zip(arrays, outs, strict=True):
        width = math.prod(array.shape[2:]) * array.itemsize
        size, word = (1, np.uint8) if width % 4 else (4, np.uint32)
        if out.size:
            pair = tuple(z.reshape(-1).view(word) for z in (array, out))
            kinds[size == 1].append((pair, np.int64(width // size)))
    for i in range(0, max(map(len, kinds)), GROUP):
        some = [kind[i : i + GROUP] for kind in kinds]
        widths = tuple(width for kind in some for _, width in kind)
        most = max(out.size for kind in some for (_, out), _ in kind)
        grid = min(blocks(most, BLOCK), MOST_BLOCKS), len(widths)
        pairs = [tuple(pair for pair, _ in kind) for kind in some]
        none = ((z[:0], z[:0]) for z in (numbers.view(np.uint32), numbers.view(np.uint8)))
        pairs = [given or (nothing,) for given, nothing in zip(pairs, none, strict=True)]
        counts = np.int64(len(some[0])), np.int64(arrays[0].shape[1])
        launch(take_columns_kernel, grid, BLOCK, *pairs, widths, *counts, numbers)
    return outs


@kernel
def join_columns_kernel(lefts, rights, widths, outs):
    """Write row by row left and right number y side by side, y = blockIdx.y; all are vectors."""
    y = cuda.blockIdx.y
    left, right, width, out = lefts[y], rights[y], widths[y], outs[y]
    for i in range(cuda.grid(1), left.size, cuda.gridsize(1)):
        at = i // width * 2 * width + i % width
        out[at], out[at + width] = left[i], right[i]


def join_columns(lefts, rights):
    """Return each of ``lefts`` (..., M) with what is next to it in ``rights``, as (..., 2M)."""
    xp, outs = array_module(lefts[0]), []
    for i in range(0, len(lefts), GROUP):
        some = lefts[i : i + GROUP], rights[i : i + GROUP]
        joined = [xp.empty((*z.shape[:-1], 2 * z.shape[-1]), z.dtype) for z in some[0]]
        flat = (tuple(z.reshape(-1) for z in arrays) for arrays in (*some, joined))
        one, two, out = flat
        widths = tuple(np.int64(z.shape[-1]) for z in some[0])
        grid = min(blocks(max(z.size for z in one), BLOCK), MOST_BLOCKS), len(one)
        launch(join_columns_kernel, grid, BLOCK, one, two, widths, out)
        outs += joined
    return outs
