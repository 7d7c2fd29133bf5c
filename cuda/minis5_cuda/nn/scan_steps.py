"""The steps that the kernels of the scan are made of: loads, ⊕ within a chunk, the two sweeps.

scan.py explains them. Of an array (T, B, W), number n belongs to (t, b, p) if n = t·row + b·W + p;
number n + P is its imaginary part. Counts of numbers are unsigned, because Numba asks of a signed
index whether it counts from the end. They are 32 bits wide where that is enough, because such a
product takes one instruction.

Leaves out: warp shuffles, which Numba's simulator lacks.
Source: 2303.03982, section 4.1 and appendix A; Blelloch 1990. Specification: combine, scan and
scan_vjp in minis5/reference/s5_ppo.py. Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from minis5_cuda.launch import cuda, device


class Steps(NamedTuple):
    """Device functions of one direction, one dtype and one kind of a, and the type of a number."""

    number: type
    load: object
    store: object
    place: object
    at: object
    step: object
    fetch: object
    fold: object
    sum_up: object
    up_sweep: object
    down_sweep: object


@cache
def make_steps(dtype, is_complex, varying, backward, lanes, chunks, steps):
    """Return the Steps for the arguments of scan_kernels.make_kernels."""
    number = np.result_type(dtype, np.complex64 if is_complex else dtype).type
    zero, one, parts = number(0), number(1), np.uint64(2 if is_complex else 1)

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
    def sum_up(a, some_a, some_values, some_resets, A, B, C):
        """Write (A, B, C) of this thread's chunk, and sum the chunks up."""
        chunk = cuda.threadIdx.y
        here = np.uint64(chunk * lanes + cuda.threadIdx.x)
        A[here], B[here], C[here] = fold(
            a, some_a, some_values, some_resets, one, zero, np.uint8(0)
        )
        up_sweep(A, B, C, here, chunk)

    @device
    def down_sweep(A, B, C, state):
        """Return the state before this thread's chunk.

        ``state`` is that before the tile, in the threads of the last chunk.
        Of 2d chunks, the left half begins with the state that the whole begins with. The right half
        begins with the state after the left.
        """
        chunk = cuda.threadIdx.y
        here = np.uint64(chunk * lanes + cuda.threadIdx.x)
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

    return Steps(*(number, load, store, place, at, step, fetch, fold, sum_up, up_sweep, down_sweep))
