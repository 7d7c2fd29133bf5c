"""The resettable recurrence and its adjoint on a GPU: a chunked Blelloch scan along time.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

A stretch of time takes the state before it to the state after it by x → A·x + B. Where an episode
begins in it, which the flag C tells, it does so by x → B. Two stretches make one by the associative
⊕, the earlier one to the left:

    (A, B, C) ⊕ (A', B', 0) = (A'·A, A'·B + B', C)        (A, B, C) ⊕ (A', B', 1) = (A', B', 1)

so threads can sum up different stretches at the same time. C selects and never multiplies: NaN
before a reset stays there. Where C is set, A is not used.

A column is one (b, p). A block of threads has 32 columns, which are neighbours in memory. It goes
along time by tiles. A thread has one column, and of each tile one chunk of a few steps:

           columns c, c+1, …    One column of a tile; here of 4 chunks, with (A, B, C) = s0 … s3:
           ┌─────────────┐
           │ chunk 0     │      1. a thread loads its chunk    s0      s1       s2        s3
    tile 0 │ chunk 1     │         and folds it by ⊕
           │ …           │      2. up-sweep in shared memory   s0     s0⊕s1     s2    s0⊕s1⊕s2⊕s3
           │ chunk 15    │
           ├─────────────┤      3. down-sweep, from the        ·       ·        ·         x
    tile 1 │ …           │         state x before the tile     ·       x        ·      (s0⊕s1)x
           │             │         to that before each chunk   x      s0·x  (s0⊕s1)x (s0⊕s1⊕s2)x
     time ↓               │      4. a thread runs through its chunk again, from its true state,
                                   and writes x

So each number is read once and written once. The last state of a tile is the first of the next.
With too few columns to fill the GPU, every tile has a block, and looks back for the state before it
(scan_look_back.py): still one pass. The specification of this is three passes. Time is cut into
segments; one kernel sums up each as (A, B, C); a scan of these gives the state that each segment
begins with; then all segments run at the same time. MINIS5_LOOK_BACK=0 in the environment makes
three passes the default.

The adjoint is the same scan backwards in time. Its state v[t] = conj(k[t]·a[t])·g[t], with k[t] = 0
where reset[t], else 1, is what goes one step back:
    g[t] = dx[t] + v[t+1],  v[T] = 0      da[t] = k[t]·g[t]·conj(x[t-1])      db = g      dx0 = v[0]

One thread computes each number, in a fixed order. Sums go over a thread's steps, then over chunks,
segments and the batch. Repeated runs therefore agree to the last bit.

Leaves out: |a| > 1 for so long that the product A overflows where the states need not. Complex
numbers are planar, as in minis5/nn/scan.py. The kernels are in scan_kernels.py, their steps in
scan_steps.py; a simpler version, to be read first, is in scan_textbook.py.
Source: 2303.03982, section 4.1 and appendix A; Blelloch, "Prefix sums and their applications",
1990. Specification: scan and scan_vjp in minis5/reference/s5_ppo.py. CPU form: minis5/nn/scan.py.
Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py.
"""

import os
from functools import cache
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.nn import scan as cpu
from minis5.ops import form_of
from minis5_cuda.launch import SIMULATED, blocks, cuda, launch
from minis5_cuda.nn.scan_kernels import Kernels, make_kernels

LANES, CHUNKS = 32, 16  # 512 threads a block
STEPS = 8  # of a chunk, or half of that where a thread holds more of a step
SEQUENTIAL = 8  # up to so many steps, a thread takes a column alone
FULL = 2  # blocks for each multiprocessor fill the GPU
MIN_TILES = 4  # of a segment: shorter ones are not worth two more kernels
SLOTS = 2  # tiles that a thread looks back at; a window is CHUNKS times that
SWITCH = "MINIS5_LOOK_BACK"


class Plan(NamedTuple):
    """How one direction of a recurrence runs."""

    kernels: Kernels
    sizes: tuple  # T, batch, P, row: the first arguments of every kernel
    varying: bool  # whether a differs in time
    columns: int
    groups: int  # of LANES columns
    sequential: bool  # one thread takes a column, step by step
    looks_back: bool  # each segment is a tile, and finds the state before it
    segments: int
    length: int  # steps of a segment

    @property
    def blocks(self):
        """How many blocks of threads the chunked kernel has."""
        return self.groups * self.segments


@cache
def multiprocessors():
    """Return how many the current GPU has; a few if kernels are simulated or only compiled."""
    return (
        4
        if SIMULATED or not cuda.is_available()
        else cuda.get_current_device().MULTIPROCESSOR_COUNT
    )


def prepare(a, b, is_complex, backward, sequential=None, segments=None, look_back=None):
    """Return the Plan for arrays like ``a`` and ``b``; the options are scan_forward's."""
    T, batch, width = b.shape
    P, varying = width // (2 if is_complex else 1), a.shape[:2] == (T, batch)
    steps = STEPS // 2 if varying or backward else STEPS
    kernels = make_kernels(b.dtype, is_complex, varying, backward, LANES, CHUNKS, steps, SLOTS)
    sizes, columns = (T, np.uint32(batch), np.uint32(P), np.uint32(batch * width)), batch * P
    if sequential is None:
        sequential = T <= SEQUENTIAL
    count, length = (1, T) if sequential else split(T, columns, kernels.tile, segments)
    if look_back is None:
        look_back = segments is None and count > 1 and os.environ.get(SWITCH) != "0"
    if look_back and not sequential:
        count, length = blocks(T, kernels.tile), kernels.tile
    groups = blocks(columns, LANES)
    return Plan(kernels, sizes, varying, columns, groups, sequential, look_back, count, length)


def split(T, columns, tile, segments=None):
    """Return the number of segments and their length in steps, which is whole tiles.

    ``segments`` is about how many are wanted; by default as many as fill the GPU once.
    """
    tiles = blocks(T, tile)
    if segments is None:
        segments = min(FULL * multiprocessors() // blocks(columns, LANES), tiles // MIN_TILES)
    length = blocks(tiles, max(1, segments)) * tile
    return blocks(T, length), length


def flat(*arrays):
    """Return each array as a vector, the form in which the kernels take it."""
    return [z.reshape(-1) for z in arrays]


def segment_ends(plan, a, b, reset, before):
    """Return the state after each segment but the last, (segments - 1, B, W), in two passes.

    ``before`` (B, W) is the state before the first segment; None is 0.
    """
    xp, shape = array_module(b), (plan.segments - 1, *b.shape[1:])
    A, B, C = xp.empty(shape, b.dtype), xp.empty(shape, b.dtype), xp.empty(shape[:2], np.bool_)
    arrays, results = flat(a, b, reset.view(np.uint8)), flat(A, B, C.view(np.uint8))
    grid = plan.groups, plan.segments - 1
    launch(plan.kernels.summary, grid, (LANES, CHUNKS), *plan.sizes, *arrays, plan.length, *results)
    before = xp.zeros_like(b[0]) if before is None else before
    return scan_forward(A, B, C, before, is_complex=plan.kernels.is_complex, out=B, segments=1)


def launch_plan(plan, a, b, reset, x0, before, results):
    """Queue the plan's kernels for vectors ``results``; ``before`` as in :func:`segment_ends`."""
    kernels, sizes, arrays = plan.kernels, plan.sizes, flat(a, b, reset.view(np.uint8), x0)
    block, xp = (LANES, CHUNKS), array_module(b)
    if plan.sequential:
        threads = 2 * LANES
        grid = blocks(plan.columns, threads)
        launch(kernels.sequential, grid, threads, *sizes, *arrays, *results)
    elif plan.looks_back:
        shape = plan.segments, *b.shape[1:]
        A, ends = xp.empty(shape, b.dtype), xp.empty(shape, b.dtype)
        # nothing is published yet; a graph records this too, and replays it
        flags = xp.zeros(A.size + 1, np.int32)
        arguments = *arrays, *flat(A, ends), flags, plan.length, *results
        launch(kernels.look_back, (plan.segments, plan.groups), block, *sizes, *arguments)
    else:
        ends = nothing = x0.reshape(-1)  # what is not read
        if plan.segments > 1:
            (ends,) = flat(segment_ends(plan, a, b, reset, before))
        arguments = *arrays, nothing, ends, nothing, plan.length, *results
        launch(kernels.scan, (plan.groups, plan.segments), block, *sizes, *arguments)


@form_of(cpu.scan_forward)
def scan_forward(
    a, b, reset, x0, *, is_complex=True, out=None, sequential=None, segments=None, look_back=None
):
    """Return x of the recurrence on planar arrays, unchecked, as minis5.nn.scan.scan_forward.

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
        Into about how many parts time is cut, in three passes. Default: by the shapes and the GPU.
    look_back : bool, optional
        Whether every tile has a block, in one pass. Default: where time would be cut in parts.

    Returns
    -------
    x : (T, B, W) array
    """
    x = array_module(b).empty_like(b) if out is None else out
    plan = prepare(a, b, is_complex, False, sequential, segments, look_back)
    launch_plan(plan, a, b, reset, x0, x0, flat(x))
    return x


@form_of(cpu.scan_backward)
def scan_backward(
    a,
    reset,
    x0,
    x,
    dx,
    *,
    is_complex=True,
    out=None,
    sequential=None,
    segments=None,
    look_back=None,
    parts=False,
):
    """Return the gradients of :func:`scan_forward`, as minis5.nn.scan.scan_backward.

    Parameters
    ----------
    a, reset, x0, x
        Arguments and result of :func:`scan_forward`.
    dx : (T, B, W) array
        Gradient of x.
    out : (T, B, W) array, optional
        Where db is written; may be ``dx`` itself.
    sequential, segments, look_back : optional
        As in :func:`scan_forward`.
    parts : bool
        Leave da of a constant a in parts, (n, B, W), for another kernel to add up.

    Returns
    -------
    da : array shaped like ``a``
        Summed over T and B where a is constant.
    db : (T, B, W) array
    dx0 : (B, W) array
    """
    xp = array_module(x)
    plan = prepare(a, x, is_complex, True, sequential, segments, look_back)
    g, dx0 = xp.empty_like(dx) if out is None else out, xp.empty_like(x0)
    # where a is constant, da has a sum for each segment
    da = xp.empty(x.shape if plan.varying else (plan.segments, *x0.shape), x.dtype)
    launch_plan(plan, a, dx, reset, x0, None, flat(x, g, da, dx0))  # None: v[T] = 0
    return da if plan.varying or parts else da.sum(axis=(0, 1)).reshape(a.shape), g, dx0
