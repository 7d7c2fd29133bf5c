"""A scan in one pass: every tile has a block of its own, which looks back for the state before it.

Windows are `slots` · `chunks` tiles; here of 4. A tile publishes one thing: s, its (A, B, C), which
waits for nobody; or, if it is the last of its window, x, the state after it.

    tile               0    1    2    3 │  4    5    6    7 │  8
    publishes          s    s    s    x │  s    s    s    x │  s
    tile 6 reads                      x    s    s
    tile 7 reads                      x    s    s    s           and then publishes its x

So a tile reads the state before its window and (A, B, C) of those before it in the window. A state
is a stretch with C set, and x0 is that before tile 0. Each thread takes `slots` neighbours of its
column, and an up-sweep joins them. Merrill and Garland's tiles publish first s, then x, and take x
where it is there already. That is fewer reads, but the order of sums, and so the last bits, change
from run to run. Here which sums are made is fixed, and only their time is not. Tiles still wait for
each other in a chain, but only once a window.

Progress: a block takes its tile by counting up, not by its number. Whoever waits, waits for smaller
counts, whose blocks are running already. The smallest of these waits for nobody.

Memory order: one instruction cannot write a flag together with its numbers. So
    the writer, a thread, writes A and B (1), fences (2), and writes the flag by an atomic (3);
    the reader, a thread, reads the flag by an atomic until it is set (4), fences (5), and reads A
    and B (6).
In the terms of PTX's memory consistency model, (2) and (3) are a release pattern, (4) and (5) an
acquire pattern. Atomics are strong operations, here of scope gpu (sys, for sm_100), and so are
fences: cuda.threadfence() is membar.gl, which is fence.sc.gpu. (4) reads what (3) wrote, so that
the release synchronises with the acquire: (1) happens before (6), and is seen. No other thread's
writes, and so no barrier of a block, are part of this. A flag is written once a launch, and
numbers are not read without it. Flags begin as 0, by work queued before the kernel (scan.py); a
graph records both. tests/test_ptx.py looks for this order in the compiled code.

Leaves out: waiting less eagerly (nanosleep, which the simulator lacks).
Source: Merrill and Garland, "Single-pass Parallel Prefix Scan with Decoupled Look-back", NVIDIA
NVR-2016-002; PTX ISA, "Memory Consistency Model", release and acquire patterns. Specification: the
three passes of scan.py. Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py.
"""

import numpy as np

from minis5_cuda.launch import cuda, device

STRETCH = np.int32(1)  # what a flag says has been published; 0 is nothing
STATE = np.int32(2)  # a stretch with C set


def make_look_back(functions, backward, lanes, chunks, slots):
    """Return the device functions `take` and `state_before` for a block of ``lanes`` x ``chunks``.

    ``functions``: the Steps of the kernel (scan_steps.py).
    """
    number, load, store = functions.number, functions.load, functions.store
    up_sweep = functions.up_sweep
    zero, one = number(0), number(1)
    window, threads = slots * chunks, lanes * chunks

    @device
    def take(flags, taken):
        """Write to taken[0], shared by the block, how many blocks came before it."""
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            taken[0] = cuda.atomic.add(flags, flags.size - 1, 1)
        cuda.syncthreads()

    @device
    def publish(A_all, B_all, flags, n, P, A, B, C):
        """Write A, B and then the flag of number n: STATE where C is set."""
        store(A_all, n, P, A)
        store(B_all, n, P, B)
        cuda.threadfence()
        cuda.atomic.exch(flags, np.int64(n), STRETCH + np.int32(C != 0))

    @device
    def wait(flags, n):
        """Return the flag of number n once it is set; then A and B may be read."""
        flag = 0
        while flag == 0:
            flag = cuda.atomic.add(flags, np.int64(n), 0)
        cuda.threadfence()
        return flag

    @device
    def state_before(A, B, C, tile, inside, P, row, origin, x0, A_all, B_all, flags):
        """Publish what ``tile`` has to; return the state before it to threads of the last chunk.

        A, B, C: after the tile's up-sweep. A_all, B_all, flags: of (tiles, B, W) numbers; the last
        flag is one more, and counts blocks.
        """
        A_seen = cuda.shared.array(threads, number)
        B_seen = cuda.shared.array(threads, number)
        C_seen = cuda.shared.array(threads, np.uint8)
        chunk = cuda.threadIdx.y
        here = np.uint64(chunk * lanes + cuda.threadIdx.x)
        own, first = np.uint64(tile) * row + origin, tile // window * window
        publishes, closes = inside and chunk == chunks - 1, tile + 1 == first + window
        if publishes and not closes:
            publish(A_all, B_all, flags, own, P, A[here], B[here], C[here])
        some_A, some_B, some_C = one, zero, np.uint8(0)
        for s in range(slots):
            k = first - 1 + chunk * slots + s
            if k < 0:
                some_B, some_C = zero if backward else load(x0, origin, P), np.uint8(1)
            elif k < tile:
                n = np.uint64(k) * row + origin
                if wait(flags, n) == STATE:
                    some_B, some_C = load(B_all, n, P), np.uint8(1)
                else:
                    A_k = load(A_all, n, P)
                    some_A, some_B = A_k * some_A, A_k * some_B + load(B_all, n, P)
        A_seen[here], B_seen[here], C_seen[here] = some_A, some_B, some_C
        up_sweep(A_seen, B_seen, C_seen, here, chunk)
        state = B_seen[here]
        if publishes and closes:
            after = B[here] if C[here] else A[here] * state + B[here]
            publish(A_all, B_all, flags, own, P, one, after, np.uint8(1))
        return state

    return take, state_before
