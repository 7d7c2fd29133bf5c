"""Blelloch's scan as in the textbook, for the resettable recurrence on a GPU: to be read first, and to test scan.py against.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

Step t takes the state before it to the one after it. So does a stretch of steps; whatever its length, three numbers (A, B, C) say
how: x → A·x + B, or x → B where C, "an episode begins in it". A step by itself is (a[t], b[t], reset[t]). Stretch e followed by
stretch f is again a stretch, e ⊕ f (``join`` below). ⊕ is associative: of e ⊕ f ⊕ g ⊕ h, e ⊕ f and g ⊕ h can be found at
the same time, by two threads. That is all that a parallel scan needs.

One block of threads has one column (b, p), one thread one step. With 8 steps e0 … e7, and e0‥3 for e0 ⊕ e1 ⊕ e2 ⊕ e3:

    up-sweep: join neighbours, then neighbouring pairs, …         e0   e1     e2   e3     e4   e5     e6   e7
    (a tree, from its leaves to its root; each slot keeps         e0   e0‥1   e2   e2‥3   e4   e4‥5   e6   e6‥7
    what the left half of its parent needs later on)              e0   e0‥1   e2   e0‥3   e4   e4‥5   e6   e4‥7

    down-sweep: what comes before each node, from the root,       e0   e0‥1   e2   e0‥3   e4   e4‥5   e6   1
    before which there is nothing: 1 = (1, 0, False). A           e0   e0‥1   e2   1      e4   e4‥5   e6   e0‥3
    left child has before it what its parent has, a right         e0   1      e2   e0‥1   e4   e0‥3   e6   e0‥5
    child that and its sibling, which its slot still has          1    e0     e0‥1 e0‥2   e0‥3 e0‥4   e0‥5 e0‥6

Then thread t joins its own step, and has the stretch from the first step to step t; that, applied to the state before the first
step, is x[t]. This takes 2·log2(8) rounds, and about 3·8 joins in all, where a loop takes 8 steps. More steps than threads are
taken one tile after the other, each beginning with the last state of the one before.

Leaves out: speed. Neighbouring threads read numbers that are far apart in memory, most threads idle in most rounds, and every
step goes through shared memory. scan.py, with several steps a thread and several columns a block, is the remedy.
Source: Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990; ⊕ with resets: 2303.03982, appendix A.
Tested in tests/nn/test_cuda_scan.py, tests/gpu/test_scan.py.
"""

from functools import cache

import numpy as np
from numba import cuda

from minis5.arrays import array_module
from minis5.nn.scan import from_planar, planar
from minis5_cuda.launch import device, kernel, launch

THREADS = 256  # of a block, steps of a tile: a power of 2


@cache
def make_kernel(dtype, threads):
    """The kernel for arrays of ``dtype``, float or complex."""
    number = dtype.type

    @device
    def join(e, f):
        """e ⊕ f. A reset selects what is after it; nothing before it is touched, NaN included."""
        A_e, B_e, C_e = e
        A_f, B_f, C_f = f
        if C_f:
            return f
        return A_f * A_e, A_f * B_e + B_f, C_e

    @kernel
    def scan_kernel(a, b, reset, x0, x):
        A = cuda.shared.array(threads, number)
        B = cuda.shared.array(threads, number)
        C = cuda.shared.array(threads, np.bool_)
        last = cuda.shared.array(1, number)
        T, P, k = b.shape[0], b.shape[2], cuda.threadIdx.x
        i, p = cuda.blockIdx.x // P, cuda.blockIdx.x % P
        state = x0[i, p]
        for start in range(0, T, threads):
            t = start + k
            own = number(1), number(0), False  # beyond the end
            if t < T:
                own = a[t % a.shape[0], i % a.shape[1], p], b[t, i, p], reset[t, i]
            A[k], B[k], C[k] = own
            cuda.syncthreads()

            half = 1  # up-sweep
            while half < threads:
                if (k + 1) % (2 * half) == 0:
                    left = k - half
                    A[k], B[k], C[k] = join((A[left], B[left], C[left]), (A[k], B[k], C[k]))
                half *= 2
                cuda.syncthreads()

            if k == threads - 1:
                A[k], B[k], C[k] = number(1), number(0), False
            cuda.syncthreads()
            while half > 1:  # down-sweep
                half //= 2
                if (k + 1) % (2 * half) == 0:
                    left = k - half
                    before, sibling = (A[k], B[k], C[k]), (A[left], B[left], C[left])
                    A[left], B[left], C[left] = before
                    A[k], B[k], C[k] = join(before, sibling)
                cuda.syncthreads()

            A_t, B_t, C_t = join((A[k], B[k], C[k]), own)
            x_t = B_t if C_t else A_t * state + B_t
            if t < T:
                x[t, i, p] = x_t
            if k == threads - 1:
                last[0] = x_t
            cuda.syncthreads()
            state = last[0]

    return scan_kernel


def scan(a, b, reset, x0):
    """x of float or complex arrays: a (1, 1, P) or (T, B, P), b (T, B, P), reset (T, B) bool, x0 (B, P)."""
    x = array_module(b).empty_like(b)
    launch(make_kernel(b.dtype, THREADS), b.shape[1] * b.shape[2], THREADS, a, b, reset, x0, x)
    return x


def scan_vjp(a, reset, x0, x, dx):
    """da, db, dx0 for the same arrays: the scan again, on reversed time.

    g[t] = dx[t] + conj(k[t+1]·a[t+1])·g[t+1] is the recurrence with t+1 before t; what is multiplied and what forgets is shifted
    by one step, and the last step, which nothing follows, forgets.
    """
    xp, varying = array_module(x), a.shape[:2] == x.shape[:2]
    a_next = xp.concatenate([a[1:], a[:1]]).conj()[::-1] if varying else a.conj()
    forget = xp.concatenate([reset[1:], xp.ones_like(reset[:1])])[::-1]
    arrays = map(xp.ascontiguousarray, (a_next, dx[::-1], forget))
    g = scan(*arrays, xp.zeros_like(x0))[::-1]
    before = xp.concatenate([x0[None], x[:-1]])
    zero = x.dtype.type(0)
    da = xp.where(reset[:, :, None], zero, g * before.conj())
    dx0 = xp.where(reset[0, :, None], zero, a[0].conj() * g[0])
    return da if varying else da.sum(axis=(0, 1)).reshape(a.shape), g, dx0


def scan_forward(a, b, reset, x0, *, is_complex=True):
    """As scan.scan_forward: complex arrays as real ones, the real parts, then the imaginary ones."""
    a, b, x0 = (from_planar(z) if is_complex else z for z in (a, b, x0))
    return planar(scan(a, b, reset, x0))


def scan_backward(a, reset, x0, x, dx, *, is_complex=True):
    """As scan.scan_backward."""
    a, x0, x, dx = (from_planar(z) if is_complex else z for z in (a, x0, x, dx))
    return tuple(planar(z) for z in scan_vjp(a, reset, x0, x, dx))
