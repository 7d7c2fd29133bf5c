"""The resettable recurrence and its adjoint on a GPU: a chunked Blelloch scan along time.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

A stretch of time takes the state before it to the state after it by x → A·x + B, or, where an episode begins in it, by
x → B, which the flag C tells. Two stretches make one by the associative ⊕, the earlier one to the left:

    (A, B, C) ⊕ (A', B', 0) = (A'·A, A'·B + B', C)        (A, B, C) ⊕ (A', B', 1) = (A', B', 1)

so stretches can be summed up side by side. C selects and never multiplies: NaN before a reset stays there. Where C is set, A is
not used.

A column is one (b, p). A block of threads has 32 columns, which lie side by side in memory, and goes along time by tiles.
A thread has one column, and of a tile one chunk of a few steps:

           columns c, c+1, …
           ┌─────────────┐      One column of a tile; here of 4 chunks, with (A, B, C) = s0, s1, s2, s3:
           │ chunk 0     │
    tile 0 │ chunk 1     │      1. a thread loads its chunk into      s0       s1        s2         s3
           │ …           │         registers and folds it by ⊕
           │ chunk 15    │      2. up-sweep in shared memory          s0      s0⊕s1      s2     s0⊕s1⊕s2⊕s3
           ├─────────────┤      3. down-sweep of the state x that     ·        ·         ·          x
    tile 1 │ …           │         the tile begins with, to the       ·        x         ·       (s0⊕s1)x
           │             │         state that each chunk begins with  x       s0·x   (s0⊕s1)x  (s0⊕s1⊕s2)x
     time ↓               │      4. a thread runs through its chunk again, from its true state, and writes x

So a number is read once and written once, and the last state of a tile is the first of the next. With too few columns to fill
the GPU, time is cut into segments: one kernel sums up each of them as (A, B, C), a scan of these yields the state that each
begins with, and all run side by side.

The adjoint is the same scan backwards in time. Its state v[t] = conj(k[t]·a[t])·g[t], with k[t] = 0 where reset[t], else 1, is
what goes one step back:
    g[t] = dx[t] + v[t+1],  v[T] = 0        da[t] = k[t]·g[t]·conj(x[t-1])        db = g        dx0 = v[0]

Each number is computed by one thread in a fixed order, and sums are made by thread, chunk, segment, batch in turn: repeated runs
agree to the last bit. Leaves out: |a| > 1 for so long that the product A overflows, where the states need not. Complex numbers
are planar (minis5/nn/scan.py). Kernels: scan_kernels.py. A first version, to be read before: textbook.py.
Sources: 2303.03982, section 4.1 and appendix A; Blelloch, "Prefix sums and their applications", 1990.
Tests: tests/nn/test_cuda_scan.py, tests/gpu/test_scan.py.
"""

from functools import cache

import numpy as np
from numba import cuda

from minis5.arrays import array_module
from minis5.nn import scan as cpu
from minis5.ops import form_of
from minis5_cuda.launch import SIMULATED, blocks, launch
from minis5_cuda.nn.scan_kernels import make_kernels

LANES, CHUNKS = 32, 16  # 512 threads a block
STEPS = 8  # of a chunk, or half of that where a thread holds more of a step
SEQUENTIAL = 8  # up to so many steps a thread takes a column alone
FULL = 2  # blocks for each multiprocessor fill the GPU
MIN_TILES = 4  # of a segment: shorter ones are not worth two more kernels


@cache
def multiprocessors():
    """Of the current GPU; without one, where kernels are simulated or only compiled: a few."""
    return (
        4
        if SIMULATED or not cuda.is_available()
        else cuda.get_current_device().MULTIPROCESSOR_COUNT
    )


def split(T, columns, tile, segments):
    """Number of segments and their length in steps, whole tiles: as many as fill the GPU once, or about as many as asked for."""
    tiles = blocks(T, tile)
    if segments is None:
        segments = min(FULL * multiprocessors() // blocks(columns, LANES), tiles // MIN_TILES)
    length = blocks(tiles, max(1, segments)) * tile
    return blocks(T, length), length


def prepare(a, b, is_complex, backward):
    """Kernels for these arrays, sizes as they take them, whether a varies, number of columns."""
    T, batch, width = b.shape
    P, varying = width // (2 if is_complex else 1), a.shape[:2] == (T, batch)
    steps = STEPS // 2 if varying or (is_complex and backward) else STEPS
    kernels = make_kernels(b.dtype, is_complex, varying, backward, LANES, CHUNKS, steps)
    return (
        kernels,
        (T, np.uint32(batch), np.uint32(P), np.uint32(batch * width)),
        varying,
        batch * P,
    )


def flat(*arrays):
    return [z.reshape(-1) for z in arrays]


def segment_ends(kernels, sizes, columns, a, b, reset, x0, is_complex, segments, length):
    """The state after each segment but the last, (segments - 1, B, W), ``x0`` being that before the first."""
    if segments == 1:
        return x0  # not read
    xp, shape = array_module(b), (segments - 1, *b.shape[1:])
    A, B, C = xp.empty(shape, b.dtype), xp.empty(shape, b.dtype), xp.empty(shape[:2], np.bool_)
    arrays, results = flat(a, b, reset.view(np.uint8)), flat(A, B, C.view(np.uint8))
    grid = blocks(columns, LANES), segments - 1
    launch(kernels.summary, grid, (LANES, CHUNKS), *sizes, *arrays, length, *results)
    return scan_forward(A, B, C, x0, is_complex=is_complex, out=B, segments=1)


@form_of(cpu.scan_forward)
def scan_forward(a, b, reset, x0, *, is_complex=True, out=None, sequential=None, segments=None):
    """The recurrence on planar arrays, unchecked, as minis5.scan.scan_forward.

    Parameters
    ----------
    a : (1, 1, W) or (T, B, W) array
        W is 2P (complex) or P (real); float32 or float64, as b and x0.
    b : (T, B, W) array
    reset : (T, B) bool array
    x0 : (B, W) array
    out : (T, B, W) array, optional
        Where x is written; may be ``b`` itself.
    sequential : bool, optional
        Whether one thread takes a column, step by step. Default: where T is at most SEQUENTIAL.
    segments : int, optional
        Into about how many parts time is cut. Default: by the shapes and the GPU.

    Returns
    -------
    x : (T, B, W) array
    """
    x = array_module(b).empty_like(b) if out is None else out
    kernels, sizes, _, columns = prepare(a, b, is_complex, backward=False)
    arrays = flat(a, b, reset.view(np.uint8), x0)
    if len(b) <= SEQUENTIAL if sequential is None else sequential:
        launch(kernels.sequential, blocks(columns, 2 * LANES), 2 * LANES, *sizes, *arrays, *flat(x))
    else:
        segments, length = split(len(b), columns, kernels.tile, segments)
        ends = segment_ends(kernels, sizes, columns, a, b, reset, x0, is_complex, segments, length)
        grid = blocks(columns, LANES), segments
        launch(kernels.scan, grid, (LANES, CHUNKS), *sizes, *arrays, *flat(ends), length, *flat(x))
    return x


@form_of(cpu.scan_backward)
def scan_backward(
    a, reset, x0, x, dx, *, is_complex=True, out=None, sequential=None, segments=None
):
    """Adjoint of :func:`scan_forward`, as minis5.scan.scan_backward.

    Parameters
    ----------
    a, reset, x0, x
        Arguments and result of :func:`scan_forward`.
    dx : (T, B, W) array
        Gradient of x.
    out : (T, B, W) array, optional
        Where db is written; may be ``dx`` itself.
    sequential, segments : optional
        As in :func:`scan_forward`.

    Returns
    -------
    da : array shaped like ``a``
        Summed over T and B where a is constant.
    db : (T, B, W) array
    dx0 : (B, W) array
    """
    xp = array_module(x)
    kernels, sizes, varying, columns = prepare(a, x, is_complex, backward=True)
    sequential = len(x) <= SEQUENTIAL if sequential is None else sequential
    segments, length = (1, len(x)) if sequential else split(len(x), columns, kernels.tile, segments)
    g, dx0 = xp.empty_like(dx) if out is None else out, xp.empty_like(x0)
    da = xp.empty(x.shape if varying else (segments, *x0.shape), x.dtype)
    arrays, results = flat(a, dx, reset.view(np.uint8), x0), flat(x, g, da, dx0)
    if sequential:
        launch(kernels.sequential, blocks(columns, 2 * LANES), 2 * LANES, *sizes, *arrays, *results)
    else:
        ends = segment_ends(
            kernels, sizes, columns, a, dx, reset, xp.zeros_like(x0), is_complex, segments, length
        )
        grid = blocks(columns, LANES), segments
        launch(kernels.scan, grid, (LANES, CHUNKS), *sizes, *arrays, *flat(ends), length, *results)
    return da if varying else da.sum(axis=(0, 1)).reshape(a.shape), g, dx0
