"""The kernels of the scan on a GPU: forward and backward, each chunked and sequential.

scan.py explains and launches them. They take T, the batch size, P and row (the numbers of one
step), and flat arrays. Of an array (T, B, W), number n belongs to (t, b, p) if n = t·row + b·W + p;
number n + P is its imaginary part. Counts of numbers are unsigned, because Numba asks of a signed
index whether it counts from the end. They are 32 bits wide where that is enough, because such a
product takes one instruction.

Kernels and device functions take many arguments one by one, not in a NamedTuple. A thread of the
chunked float32 scan has no more than 64 registers, and with these lists it needs no more (ptx.py).

Leaves out: warp shuffles, which Numba's simulator lacks; loading a tile while the one before is
computed, which another block of the multiprocessor does.
Source: 2303.03982, section 4.1 and appendix A; Blelloch 1990. Specification: scan and scan_vjp in
minis5/reference/s5_ppo.py. CPU form: minis5/nn/scan.py.
Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py; registers and spills: tests/test_ptx.py.
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np

from minis5_cuda.launch import cuda, device, kernel


class Kernels(NamedTuple):
    """The kernels of one direction, one dtype and one kind of a."""

    scan: object  # chunked
    summary: object  # of each segment, for the chunked one
    sequential: object
    tile: int  # steps of a tile
    is_complex: bool


def bounded(threads, resident):
    """Return a decorator for kernels whose blocks have ``threads`` threads.

    They get so few registers that ``resident`` blocks fit a multiprocessor.
    """
    return partial(kernel, launch_bounds=(threads, resident))


@cache
def make_kernels(dtype, is_complex, varying, backward, lanes, chunks, steps):
    """Return the Kernels of a direction for arrays of ``dtype``.

    Numbers are complex or real; a varies in time or is constant. A tile has ``lanes`` columns and
    ``chunks`` (a power of 2) of ``steps`` steps. Each shared array has a line of its own, because
    Numba's simulator tells shared arrays apart by their lines.
    """
    number = np.result_type(dtype, np.complex64 if is_complex else dtype).type
    zero, one, parts = number(0), number(1), np.uint64(2 if is_complex else 1)
    tile, threads = chunks * steps, chunks * lanes
    scan_kernel = bounded(threads, resident=2 if dtype == np.float32 else 1)
    # CUDA 13.5 would spill registers of this one on sm_100 if two blocks had to fit
    crowded = varying and backward and is_complex
    summary_kernel = bounded(threads, resident=1) if crowded else scan_kernel

    @device
    def load(array, n, P):
        """Return number n of ``array``."""
        return number(complex(array[n], array[n + P])) if is_complex else array[n]

    @device
    def store(array, n, P, value):
        """Write number n of ``array``."""
        if is_complex:
            array[n] = value.real
            array[n + P] = value.imag
        else:
            array[n] = value

    @device
    def place(column, batch, P):
        """Return b, p, and the number of (0, b, p).

        Threads beyond the last column repeat that column, and store nothing.
        """
        column = np.uint64(min(column, np.int64(batch) * np.int64(P) - 1))
        b, p = column // P, column % P
        return b, p, b * parts * P + p

    @device
    def at(n, s, stride):
        """Return the number s steps on from n, in the direction of the scan."""
        return n - np.uint64(s) * stride if backward else n + np.uint64(s) * stride

    @device
    def step(a, value, forget, state):
        """Return the next state. value: b[t], in the backward scan dx[t]; forget: reset[t].

        In the forward scan it is x[t] = k·a·x[t-1] + b, with k = 0 where ``forget``, else 1. So in
        the backward scan it is v[t] = k·conj(a)·g[t], with g[t] = dx[t] + v[t+1].
        """
        if backward:
            return zero if forget else a.conjugate() * (value + state)
        return value if forget else a * state + value

    @device
    def fetch(a, values, reset, n, m, batch, P, row, reach, some_a, some_values, some_resets):
        """Load the steps of a chunk, from n (in reset: m) on.

        Time ends at step ``reach``: beyond it, this step is loaded again.
        """
        for s in range(steps):
            k = min(np.uint32(s), reach)
            some_values[s] = load(values, at(n, k, row), P)
            if varying:
                some_a[s] = load(a, at(n, k, row), P)
            some_resets[s] = reset[at(m, k, batch)]

    @device
    def fold(a, some_a, some_values, some_resets, A, B, C):
        """Return (A, B, C) ⊕ each step of a chunk."""
        for s in range(steps):
            if varying:
                a = some_a[s]
            # A is not used where C is set: it may go on through a reset
            A = (a.conjugate() if backward else a) * A
            B = step(a, some_values[s], some_resets[s], B)
            C |= some_resets[s]
        return A, B, C

    @device
    def up_sweep(A, B, C, here, chunk):
        """Give chunk 2d·j + 2d - 1, for d = 1, 2, 4, …, the ⊕ of the 2d chunks that end with it."""
        d = 1
        while d < chunks:
            cuda.syncthreads()
            if (chunk + 1) & (2 * d - 1) == 0 and not C[here]:
                # (A, B, C) of the left ⊕ (A', B', 0) = (A'·A, A'·B + B', C); with C' set, nothing
                left = here - np.uint64(d * lanes)
                B[here] += A[here] * B[left]
                A[here] *= A[left]
                C[here] = C[left]
            d *= 2

    @device
    def down_sweep(A, B, C, here, chunk, state):
        """Return the state before this thread's chunk.

        ``state`` is that before the tile, in the threads of the last chunk.
        Of 2d chunks, the left half begins with the state that the whole begins with. The right half
        begins with the state after the left.
        """
        if chunk == chunks - 1:
            B[here] = state
        d = chunks // 2
        while d > 0:
            cuda.syncthreads()
            if (chunk + 1) & (2 * d - 1) == 0:
                left = here - np.uint64(d * lanes)
                state = B[here]  # before the 2d chunks
                B[here] = B[left] if C[left] else A[left] * state + B[left]
                B[left] = state
            d //= 2
        cuda.syncthreads()
        return B[here]

    @device
    def scan_tile(a, some_a, some_values, some_resets, A, B, C, state):
        """Return the state before this thread's chunk, from the loaded steps of the tile."""
        chunk = cuda.threadIdx.y
        here = np.uint64(chunk * lanes + cuda.threadIdx.x)
        A[here], B[here], C[here] = fold(
            a, some_a, some_values, some_resets, one, zero, np.uint8(0)
        )
        up_sweep(A, B, C, here, chunk)
        return down_sweep(A, B, C, here, chunk, state)

    @scan_kernel
    def forward_scan(T, batch, P, row, a, b, reset, x0, ends, length, x):
        """Write x in segment blockIdx.y, of ``length`` steps.

        ends: (segments - 1, B, W), the last state of each segment.
        """
        A = cuda.shared.array(threads, number)
        B = cuda.shared.array(threads, number)
        C = cuda.shared.array(threads, np.uint8)
        some_a, some_b = cuda.local.array(steps, number), cuda.local.array(steps, number)
        some_resets = cuda.local.array(steps, np.uint8)
        segment, column = cuda.blockIdx.y, cuda.blockIdx.x * lanes + cuda.threadIdx.x
        i, p, origin = place(column, batch, P)
        inside, end = column < np.int64(batch) * np.int64(P), min((segment + 1) * length, T)
        constant_a = zero if varying else load(a, p, P)
        state = (
            load(x0, origin, P)
            if segment == 0
            else load(ends, np.uint64(segment - 1) * row + origin, P)
        )
        for start in range(segment * length, end, tile):
            first = start + cuda.threadIdx.y * steps
            count = np.int32(
                end - first
            )  # steps before the end; none or fewer in a chunk beyond it
            reach = np.uint32(max(count - 1, 0))
            t = np.uint64(min(first, end - 1))
            n = t * row + origin
            fetch(a, b, reset, n, t * batch + i, batch, P, row, reach, some_a, some_b, some_resets)
            state = scan_tile(constant_a, some_a, some_b, some_resets, A, B, C, state)
            for s in range(steps):
                # x[t] = a[t]·x[t-1] + b[t], from the state before the chunk on
                state = step(some_a[s] if varying else constant_a, some_b[s], some_resets[s], state)
                if inside and s < count:
                    store(x, at(n, s, row), P, state)

    @scan_kernel
    def backward_scan(T, batch, P, row, a, dx, reset, x0, ends, length, x, g, da, dx0):
        """Write g, da and dx0. Segments, tiles and chunks count from the end of time.

        da: (T, B, W); where a is constant a sum for each segment, (segments, B, W).
        """
        A = cuda.shared.array(threads, number)
        B = cuda.shared.array(threads, number)
        C = cuda.shared.array(threads, np.uint8)
        some_a, some_dx = cuda.local.array(steps, number), cuda.local.array(steps, number)
        some_x, some_resets = cuda.local.array(steps, number), cuda.local.array(steps, np.uint8)
        segment, column = cuda.blockIdx.y, cuda.blockIdx.x * lanes + cuda.threadIdx.x
        i, p, origin = place(column, batch, P)
        inside, end = column < np.int64(batch) * np.int64(P), min((segment + 1) * length, T)
        constant_a = zero if varying else load(a, p, P)
        before = load(x0, origin, P)
        state = zero if segment == 0 else load(ends, np.uint64(segment - 1) * row + origin, P)
        total = zero
        for start in range(segment * length, end, tile):
            first = start + cuda.threadIdx.y * steps
            count = np.int32(end - first)
            reach = np.uint32(max(count - 1, 0))
            t = np.uint64(T - 1 - min(first, end - 1))
            n = t * row + origin
            fetch(
                a, dx, reset, n, t * batch + i, batch, P, row, reach, some_a, some_dx, some_resets
            )
            for s in range(steps):  # x[t-1]
                k = min(np.uint32(s), reach)
                some_x[s] = load(x, at(n, k, row) - row, P) if k < t else before
            state = scan_tile(constant_a, some_a, some_dx, some_resets, A, B, C, state)
            for s in range(steps):
                # in the forward scan x[t] = k·a·x[t-1] + b, so here g[t] = dx[t] + v[t+1], db = g,
                # da = k·g·conj(x[t-1]), and v[t] = k·conj(a)·g goes on to t-1
                g_t = some_dx[s] + state
                state = step(
                    some_a[s] if varying else constant_a, some_dx[s], some_resets[s], state
                )
                if inside and s < count:
                    store(g, at(n, s, row), P, g_t)
                    da_t = zero if some_resets[s] else g_t * some_x[s].conjugate()
                    if varying:
                        store(da, at(n, s, row), P, da_t)
                    else:
                        total += da_t
                    if np.uint64(s) == t:  # at time 0: dx0 = v[0]
                        store(dx0, origin, P, state)
        if not varying:  # da: the chunks' sums, in a fixed order
            here = np.uint64(cuda.threadIdx.x)
            B[here + np.uint64(cuda.threadIdx.y * lanes)] = total
            cuda.syncthreads()
            if cuda.threadIdx.y == 0 and inside:
                for k in range(1, chunks):
                    total += B[here + np.uint64(k * lanes)]
                store(da, np.uint64(segment) * row + origin, P, total)

    @summary_kernel
    def summary(T, batch, P, row, a, values, reset, length, A_out, B_out, C_out):
        """Write (A, B, C) of segment blockIdx.y, which is whole: (segments - 1, B, W), C without W.

        Here a thread's chunk has all of length / chunks steps, and there is one up-sweep.
        """
        A = cuda.shared.array(threads, number)
        B = cuda.shared.array(threads, number)
        C = cuda.shared.array(threads, np.uint8)
        some_a, some_values = cuda.local.array(steps, number), cuda.local.array(steps, number)
        some_resets = cuda.local.array(steps, np.uint8)
        segment, column = cuda.blockIdx.y, cuda.blockIdx.x * lanes + cuda.threadIdx.x
        chunk = cuda.threadIdx.y
        i, p, origin = place(column, batch, P)
        constant_a = zero if varying else load(a, p, P)
        product, total, seen = one, zero, np.uint8(0)
        begin = segment * length + chunk * (length // chunks)
        for start in range(begin, begin + length // chunks, steps):
            t = np.uint64(T - 1 - start if backward else start)
            n, m = t * row + origin, t * batch + i
            reach = np.uint32(steps)
            fetch(a, values, reset, n, m, batch, P, row, reach, some_a, some_values, some_resets)
            product, total, seen = fold(
                constant_a, some_a, some_values, some_resets, product, total, seen
            )
        here = np.uint64(chunk * lanes + cuda.threadIdx.x)
        A[here], B[here], C[here] = product, total, seen
        up_sweep(A, B, C, here, chunk)
        if chunk == chunks - 1 and column < np.int64(batch) * np.int64(P):
            n = np.uint64(segment) * row + origin
            store(A_out, n, P, A[here])
            store(B_out, n, P, B[here])
            if p == 0:
                C_out[np.uint64(segment) * batch + i] = C[here]

    @kernel
    def forward_sequential(T, batch, P, row, a, b, reset, x0, x):
        """Write x; a thread has a column, and takes one step after the other."""
        column = cuda.grid(1)
        if column < np.int64(batch) * np.int64(P):
            i, p, origin = place(column, batch, P)
            state = load(x0, origin, P)
            for k in range(T):
                t = np.uint64(k)
                n = t * row + origin
                state = step(
                    load(a, n if varying else p, P), load(b, n, P), reset[t * batch + i], state
                )
                store(x, n, P, state)

    @kernel
    def backward_sequential(T, batch, P, row, a, dx, reset, x0, x, g, da, dx0):
        """Write g, da and dx0 likewise, from the end of time on.

        da: (T, B, W); where a is constant its sum over time, (B, W).
        """
        column = cuda.grid(1)
        if column < np.int64(batch) * np.int64(P):
            i, p, origin = place(column, batch, P)
            state, total = zero, zero
            for k in range(T - 1, -1, -1):
                t = np.uint64(k)
                n, forget = t * row + origin, reset[t * batch + i]
                before = load(x, n - row, P) if k > 0 else load(x0, origin, P)
                dx_t = load(dx, n, P)
                # da = k·g·conj(x[t-1]), db = g[t] = dx[t] + v[t+1], as in backward_scan
                da_t = zero if forget else (dx_t + state) * before.conjugate()
                store(g, n, P, dx_t + state)
                state = step(load(a, n if varying else p, P), dx_t, forget, state)
                if varying:
                    store(da, n, P, da_t)
                else:
                    total += da_t
            store(dx0, origin, P, state)
            if not varying:
                store(da, origin, P, total)

    if backward:
        return Kernels(backward_scan, summary, backward_sequential, tile, is_complex)
    return Kernels(forward_scan, summary, forward_sequential, tile, is_complex)
