"""The kernels of the scan on a GPU: forward and backward, each chunked and sequential.

scan.py explains and launches them. They take T, the batch size, P and row (the numbers of one
step), and flat arrays, as scan_steps.py has them.

Kernels and device functions take many arguments one by one, not in a NamedTuple. A thread of the
chunked float32 scan has no more than 64 registers, and with these lists it needs no more (ptx.py).

Leaves out: loading a tile while the one before is computed, which another block of the
multiprocessor does.
Source: 2303.03982, section 4.1 and appendix A; Blelloch 1990. Specification: scan and scan_vjp in
minis5/reference/s5_ppo.py. CPU form: minis5/nn/scan.py.
Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py; registers and spills: tests/test_ptx.py.
"""

from functools import cache, partial
from typing import NamedTuple

import numpy as np

from minis5_cuda.launch import cuda, device, kernel
from minis5_cuda.nn.scan_look_back import make_look_back
from minis5_cuda.nn.scan_steps import make_steps


class Kernels(NamedTuple):
    """The kernels of one direction, one dtype and one kind of a."""

    scan: object  # chunked, of segments whose states before them are known
    look_back: object  # the same, of segments of one tile, which find these states
    summary: object  # of each segment, for the first
    sequential: object
    tile: int  # steps of a tile
    is_complex: bool


def bounded(threads, resident):
    """Return a decorator for kernels whose blocks have ``threads`` threads.

    They get so few registers that ``resident`` blocks fit a multiprocessor.
    """
    return partial(kernel, launch_bounds=(threads, resident))


@cache
def make_kernels(dtype, is_complex, varying, backward, lanes, chunks, steps, slots):
    """Return the Kernels of a direction for arrays of ``dtype``.

    Numbers are complex or real; a varies in time or is constant. A tile has ``lanes`` columns and
    ``chunks`` (a power of 2) of ``steps`` steps; it looks back at ``slots`` · ``chunks`` tiles.
    Each shared array has a line of its own, because Numba's simulator tells shared arrays apart by
    their lines.
    """
    functions = make_steps(dtype, is_complex, varying, backward, lanes, chunks, steps)
    number, load, store, place, at, step, fetch, fold, sum_up, up_sweep, down_sweep = functions
    zero, one = number(0), number(1)
    tile, threads = chunks * steps, chunks * lanes
    scan_kernel = bounded(threads, resident=2 if dtype == np.float32 else 1)
    # CUDA 13.5 would spill registers of this one on sm_100 if two blocks had to fit
    crowded = varying and backward and is_complex
    summary_kernel = bounded(threads, resident=1) if crowded else scan_kernel

    def make_scan(looks_back):
        """Return the chunked kernel.

        The state before segment 0 is x0, backwards v[T] = 0. That before segment k is number k - 1
        of ``ends``, (segments - 1, B, W). A kernel that looks back has segments of one tile, and
        uses A_all, ends and flags as scan_look_back.py says. The other one only reads ends.
        """
        take, state_before = make_look_back(functions, backward, lanes, chunks, slots)

        @device
        def part(taken, batch, P):
            """Return the segment of this thread, whether it has a column, and b, p, and (0, b, p).

            taken: in shared memory, how many blocks have begun before this one.
            """
            segment, group = np.int64(cuda.blockIdx.y), np.int64(cuda.blockIdx.x)
            if looks_back:
                segment, group = taken[0] // cuda.gridDim.y, taken[0] % cuda.gridDim.y
            column = group * lanes + cuda.threadIdx.x
            i, p, origin = place(column, batch, P)
            return segment, column < np.int64(batch) * np.int64(P), i, p, origin

        @device
        def chunk_of(start, end, T, row, origin):
            """Return of this thread's chunk of the tile at ``start`` count, t and number (t, b, p).

            It has ``count`` steps before the end, which may be none or fewer, and the first is t.
            """
            first = start + cuda.threadIdx.y * steps
            count, k = np.int32(end - first), min(first, end - 1)
            t = np.uint64(T - 1 - k if backward else k)
            return count, t, t * row + origin

        def forward_scan(T, batch, P, row, a, b, reset, x0, A_all, ends, flags, length, x):
            """Write x."""
            A = cuda.shared.array(threads, number)
            B = cuda.shared.array(threads, number)
            C = cuda.shared.array(threads, np.uint8)
            some_a, some_b = cuda.local.array(steps, number), cuda.local.array(steps, number)
            some_resets, taken = cuda.local.array(steps, np.uint8), cuda.shared.array(1, np.int32)
            if looks_back:
                take(flags, taken)
            segment, inside, i, p, origin = part(taken, batch, P)
            constant_a = zero if varying else load(a, p, P)
            end, state = min((segment + 1) * length, T), zero
            if not looks_back:
                if segment == 0:
                    state = load(x0, origin, P)
                else:
                    state = load(ends, np.uint64(segment - 1) * row + origin, P)
            for start in range(segment * length, end, tile):
                count, t, n = chunk_of(start, end, T, row, origin)
                m, reach = t * batch + i, np.uint32(max(count - 1, 0))
                fetch(a, b, reset, n, m, batch, P, row, reach, some_a, some_b, some_resets)
                sum_up(constant_a, some_a, some_b, some_resets, A, B, C)
                if looks_back:
                    state = state_before(
                        A, B, C, segment, inside, P, row, origin, x0, A_all, ends, flags
                    )
                    # all this again, so that no register has to keep it meanwhile
                    segment, inside, i, p, origin = part(taken, batch, P)
                    end = min((segment + 1) * length, T)
                    count, t, n = chunk_of(segment * length, end, T, row, origin)
                    constant_a = zero if varying else load(a, p, P)
                state = down_sweep(A, B, C, state)
                for s in range(steps):
                    # x[t] = a[t]·x[t-1] + b[t], from the state before the chunk on
                    a_t = some_a[s] if varying else constant_a
                    state = step(a_t, some_b[s], some_resets[s], state)
                    if inside and s < count:
                        store(x, at(n, s, row), P, state)

        def backward_scan(
            T, batch, P, row, a, dx, reset, x0, A_all, ends, flags, length, x, g, da, dx0
        ):
            """Write g, da and dx0. Segments, tiles and chunks count from the end of time.

            da: (T, B, W); where a is constant a sum for each segment, (segments, B, W).
            """
            A = cuda.shared.array(threads, number)
            B = cuda.shared.array(threads, number)
            C = cuda.shared.array(threads, np.uint8)
            some_a, some_dx = cuda.local.array(steps, number), cuda.local.array(steps, number)
            some_x, taken = cuda.local.array(steps, number), cuda.shared.array(1, np.int32)
            some_resets = cuda.local.array(steps, np.uint8)
            if looks_back:
                take(flags, taken)
            segment, inside, i, p, origin = part(taken, batch, P)
            constant_a = zero if varying else load(a, p, P)
            end, before, state, total = (
                min((segment + 1) * length, T),
                load(x0, origin, P),
                zero,
                zero,
            )
            if not looks_back and segment > 0:
                state = load(ends, np.uint64(segment - 1) * row + origin, P)
            for start in range(segment * length, end, tile):
                count, t, n = chunk_of(start, end, T, row, origin)
                m, reach = t * batch + i, np.uint32(max(count - 1, 0))
                fetch(a, dx, reset, n, m, batch, P, row, reach, some_a, some_dx, some_resets)
                for s in range(steps):  # x[t-1]
                    k = min(np.uint32(s), reach)
                    some_x[s] = load(x, at(n, k, row) - row, P) if k < t else before
                sum_up(constant_a, some_a, some_dx, some_resets, A, B, C)
                if looks_back:
                    state = state_before(
                        A, B, C, segment, inside, P, row, origin, x0, A_all, ends, flags
                    )
                    segment, inside, i, p, origin = part(taken, batch, P)  # as in forward_scan
                    end = min((segment + 1) * length, T)
                    count, t, n = chunk_of(segment * length, end, T, row, origin)
                    constant_a = zero if varying else load(a, p, P)
                state = down_sweep(A, B, C, state)
                for s in range(steps):
                    # in the forward scan x[t] = k·a·x[t-1] + b, so here g[t] = dx[t] + v[t+1],
                    # db = g, da = k·g·conj(x[t-1]), and v[t] = k·conj(a)·g goes on to t-1
                    g_t, a_t = some_dx[s] + state, some_a[s] if varying else constant_a
                    state = step(a_t, some_dx[s], some_resets[s], state)
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

        scan = backward_scan if backward else forward_scan
        if looks_back:
            scan.__name__ = scan.__name__.replace("scan", "look_back")
        return scan_kernel(scan)

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

    sequential = backward_sequential if backward else forward_sequential
    return Kernels(make_scan(False), make_scan(True), summary, sequential, tile, is_complex)
