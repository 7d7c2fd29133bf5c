"""Sums over rows, columns and whole arrays in a fixed order, and the blocks of their kernels.

Every kernel that uses them runs in blocks of COLUMNS x ROWS threads. COLUMNS threads are neighbours
in memory, so that a warp reads one line of it. Over a matrix (N, W), a thread walks down one column
in steps of the grid's height (`tiles`). Over a flat array, it walks in steps of all threads (`flat`
and `walk`).

A sum has two stages and no atomics. Its order, and so its last bit, is the same in every run.
First, each thread adds up its numbers in registers. The block adds its threads' totals in shared
memory (`over_rows`, `over_lanes`) and writes them to its row of a scratch array. Then `sum_stripes`
adds up these rows.

Leaves out: warp shuffles, which Numba's simulator lacks. Sums over 32 values in shared memory cost
little beside the reads of the values.
Source: minis5's own. Specification: NumPy's sums.
Tests: tests/nn/test_layers.py and tests/gpu/test_kernels.py, through the kernels that call it.
"""

from minis5.arrays import array_module
from minis5_cuda.launch import blocks, cuda, device, kernel, launch

COLUMNS, ROWS = 32, 8  # of a block: a warp wide
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


@kernel
def sum_stripes_kernel(partial, out):
    """Write to out the sums of `partial` over its rows; a block has COLUMNS columns."""
    c, y = cuda.grid(2)
    total = partial.dtype.type(0)
    if c < out.size:
        for stripe in range(y, partial.shape[0], ROWS):
            total += partial[stripe, c]
    total = over_rows(total, partial)
    if c < out.size and y == 0:
        out[c] = total


def sum_stripes(partial, out):
    """Write to out (W,) the sum of the rows of ``partial``, (stripes, W), of one dtype."""
    (across, _), block = tiles(1, out.size)
    launch(sum_stripes_kernel, (across, 1), block, partial, out)
