"""Sums over rows, columns and whole arrays in a fixed order, and the blocks of their kernels.

Every kernel that uses them runs in blocks of COLUMNS x ROWS threads. COLUMNS threads are neighbours
in memory, so that a warp reads one line of it. Over a matrix (N, W), a thread walks down one column
in steps of the grid's height (`tiles`). Over a flat array, it walks in steps of all threads (`flat`
and `walk`).

A sum has two stages. Its order, and so its last bit, is the same in every run. First, each thread
adds up its numbers in registers. The block adds its threads' totals in shared memory (`over_rows`,
`over_lanes`) and writes them to its row of a scratch array. Of the blocks below each other, the one
that comes to its end last (`is_last`) then adds up all rows (`add_stripes`). No second kernel is
launched for that.

Which block is last differs from run to run, but every block would add up the same rows in the same
order. It sees what the others wrote: a block's threads write, pass a fence and meet at a barrier,
and only then does one of them count the block in. The last block has read the whole count, and
passes a fence, before it reads. (Fence-fence synchronisation, PTX memory model, section 8.10; the
pattern is that of NVIDIA's sample threadFenceReduction.)

Leaves out: warp shuffles, which Numba's simulator lacks. Sums over 32 values in shared memory cost
little beside the reads of the values. The simulator runs one block after the other, and so cannot
show what a missing fence would break.
Source: minis5's own. Specification: NumPy's sums.
Tests: tests/nn/test_layers.py and tests/gpu/test_kernels.py, through the kernels that call it.
"""

import numpy as np

from minis5.arrays import array_module
from minis5_cuda.launch import blocks, cuda, device, stream

COLUMNS, ROWS = 32, 8  # of a block: a warp wide
FEWEST_COUNTERS = 1024
STRIPES = 256  # most blocks one below the other, and so most partial sums of a column


def tiles(N, W):
    """Return (grid, block) for an (N, W) array.

    `cuda.grid(2)` is then (column, first row), `cuda.gridsize(2)[1]` the step between rows.
    """
    return (max(1, blocks(W, COLUMNS)), max(1, min(blocks(N, ROWS), STRIPES))), (COLUMNS, ROWS)


def flat(size, high=8):
    """Return (grid, block) for `size` elements and `walk`; `high` * STRIPES blocks at most."""
    return (1, max(1, min(blocks(size, COLUMNS * ROWS), high * STRIPES))), (COLUMNS, ROWS)


def rows(N):
    """Return (grid, block) with a row of threads for each of N rows.

    The row is number `cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y`.
    """
    return (max(1, blocks(N, ROWS)), 1), (COLUMNS, ROWS)


def scratch(like, stripes, W, dtype=None):
    """Return an array for partial sums of W columns, on the device and of the dtype of ``like``.

    ``dtype`` is another one.
    """
    return array_module(like).empty((stripes, W), dtype or like.dtype)


@device
def walk():
    """Return (first, step): this thread has elements first, first + step, ... of a flat array."""
    x, y = cuda.grid(2)
    width, height = cuda.gridsize(2)
    return y * width + x, width * height


@device
def over_rows(value, like):
    """Return the sum of `value` over this thread's column of threads in the block.

    All threads must call it. ``like`` is an array of the sum's dtype, which shared memory must
    know.
    """
    tile = cuda.shared.array((ROWS, COLUMNS), like.dtype)
    cuda.syncthreads()  # other threads may still read the tile of a call before this one
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = tile[0, cuda.threadIdx.x]
    for row in range(1, ROWS):
        total += tile[row, cuda.threadIdx.x]
    return total


@device
def over_lanes(value, like):
    """Return the sum of `value` over this thread's row of threads in the block.

    All threads must call it. ``like`` is as in :func:`over_rows`.
    """
    tile = cuda.shared.array((ROWS, COLUMNS), like.dtype)
    cuda.syncthreads()
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = tile[cuda.threadIdx.y, 0]
    for lane in range(1, COLUMNS):
        total += tile[cuda.threadIdx.y, lane]
    return total


@device
def over_block(value):
    """Return the sum of `value`, float64, over all threads of the block, which must all call it."""
    tile = cuda.shared.array((ROWS, COLUMNS), np.float64)
    cuda.syncthreads()
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        for lane in range(1, COLUMNS):
            value += tile[cuda.threadIdx.y, lane]
        tile[cuda.threadIdx.y, 0] = value
    cuda.syncthreads()
    total = tile[0, 0]
    for row in range(1, ROWS):
        total += tile[row, 0]
    return total


@device
def is_last(arrived):
    """Return whether this block is the last one of its `cuda.blockIdx.x` to come here.

    All threads must call it, after they have written to global memory what the last block is to
    read. ``arrived`` (:func:`counters`) is all 0 before the kernel, and after it.
    """
    last = cuda.shared.array(1, np.int32)
    cuda.threadfence()  # what this thread has written comes before the count below
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        before = cuda.atomic.add(arrived, cuda.blockIdx.x, 1)
        last[0] = before == cuda.gridDim.y - 1
        if last[0]:
            arrived[cuda.blockIdx.x] = 0  # for the next kernel
    cuda.syncthreads()
    cuda.threadfence()  # and what is read from here on comes after it
    return last[0] != 0


@device
def add_stripes(partial, column, inside, out):
    """Write to out[column] the sum of that column of `partial`; all threads of `is_last` call it.

    A thread for which ``inside`` is false has no column. (The sum is not over_rows': NVVM refuses a
    kernel that calls a function with a shared array both itself and through another function.)
    """
    tile = cuda.shared.array((ROWS, COLUMNS), partial.dtype)
    total = partial.dtype.type(0)
    if inside:
        for stripe in range(cuda.threadIdx.y, partial.shape[0], ROWS):
            total += partial[stripe, column]
    cuda.syncthreads()  # other threads may still read the tile of a call before this one
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = total
    cuda.syncthreads()
    if inside and cuda.threadIdx.y == 0:
        for row in range(1, ROWS):
            total += tile[row, cuda.threadIdx.x]
        out[column] = total


_counters: dict = {}  # (library, stream, size): zeros, kept because recorded graphs hold addresses


def counters(like, across):
    """Return ``across`` zeros or more, for :func:`is_last` in one kernel on the current stream.

    Kernels on a stream follow each other, and each leaves zeros behind. So all of them share these.
    """
    size = max(FEWEST_COUNTERS, 1 << (across - 1).bit_length())
    key = (xp := array_module(like)).__name__, stream(), size
    if key not in _counters:
        _counters[key] = xp.zeros(size, np.int32)
    return _counters[key]
