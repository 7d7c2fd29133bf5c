"""Sums over rows, columns and whole arrays in a fixed order, and the blocks of threads of the kernels that use them.

Every such kernel runs in blocks of COLUMNS x ROWS threads: COLUMNS neighbours in memory side by side, so that a warp reads one
line of it. Over a matrix (N, W), a thread walks down one column in steps of the grid's height (`tiles`); over a flat array, in
steps of all threads (`flat` and `walk`).

A sum has two stages and no atomics, so that its order, and with it the last bit, is the same in every run: threads add up what they
pass in registers, the block adds its threads' totals in shared memory (`over_rows`, `over_lanes`) and writes them to its row of a
scratch array, and `add_stripes` adds up these rows.

Leaves out: warp shuffles, which Numba's simulator lacks; sums over 32 values in shared memory cost little beside the reads of the
values. Tested in tests/nn/test_cuda_layers.py and tests/gpu/test_kernels.py through the kernels that call it.
"""

from numba import cuda

from minis5.arrays import array_module
from minis5_cuda.launch import blocks, device, kernel, launch

COLUMNS, ROWS = 32, 8  # of a block: a warp wide
STRIPES = 256  # at most so many blocks one below the other, and so many partial sums of a column


def tiles(N, W):
    """(grid, block) for an (N, W) array: `cuda.grid(2)` is (column, first row), `cuda.gridsize(2)[1]` the step between rows."""
    return (max(1, blocks(W, COLUMNS)), max(1, min(blocks(N, ROWS), STRIPES))), (COLUMNS, ROWS)


def flat(size, high=8):
    """(grid, block) for `size` elements in a row, to be used with `walk`; `high` * STRIPES blocks at most."""
    return (1, max(1, min(blocks(size, COLUMNS * ROWS), high * STRIPES))), (COLUMNS, ROWS)


def rows(N):
    """(grid, block) with a row of threads for each of N rows: `cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y`."""
    return (max(1, blocks(N, ROWS)), 1), (COLUMNS, ROWS)


def scratch(like, stripes, W):
    """An array for partial sums of W columns, of the dtype of ``like`` and where it lives."""
    return array_module(like).empty((stripes, W), like.dtype)


@device
def walk():
    """(first, step): the elements first, first + step, ... of a flat array are this thread's."""
    x, y = cuda.grid(2)
    width, height = cuda.gridsize(2)
    return y * width + x, width * height


@device
def over_rows(value, like):
    """Sum of `value` over the threads above and below one another in a block. All threads must call it; each gets its column's.

    ``like`` is an array of the sum's dtype: shared memory has to know it.
    """
    tile = cuda.shared.array((ROWS, COLUMNS), like.dtype)
    cuda.syncthreads()  # of a call before this one, the tile may still be read
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = tile[0, cuda.threadIdx.x]
    for row in range(1, ROWS):
        total += tile[row, cuda.threadIdx.x]
    return total


@device
def over_lanes(value, like):
    """Sum of `value` over the threads side by side in a block. All threads must call it; each gets its row's."""
    tile = cuda.shared.array((ROWS, COLUMNS), like.dtype)
    cuda.syncthreads()
    tile[cuda.threadIdx.y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    total = tile[cuda.threadIdx.y, 0]
    for lane in range(1, COLUMNS):
        total += tile[cuda.threadIdx.y, lane]
    return total


@kernel
def add_stripes_kernel(partial, out):
    """One block below COLUMNS columns of `partial`."""
    c, y = cuda.grid(2)
    total = partial.dtype.type(0)
    if c < out.size:
        for stripe in range(y, partial.shape[0], ROWS):
            total += partial[stripe, c]
    total = over_rows(total, partial)
    if c < out.size and y == 0:
        out[c] += total


def add_stripes(partial, out):
    """out += Σ of the rows of ``partial``: (stripes, W), (W,), one dtype."""
    (across, _), block = tiles(1, out.size)
    launch(add_stripes_kernel, (across, 1), block, partial, out)
