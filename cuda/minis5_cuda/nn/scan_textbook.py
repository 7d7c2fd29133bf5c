"""Blelloch's scan as in the textbook, for the resettable recurrence. Read it before scan.py.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

A step takes the state before it to the state after it. So does a stretch of steps. Whatever its
length, three numbers (A, B, C) say how: x → A·x + B, or x → B where C is set, which means that an
episode begins in the stretch. A step by itself is (a[t], b[t], reset[t]). Stretch e followed by
stretch f is again a stretch, e ⊕ f (``join`` below). ⊕ is associative: of e ⊕ f ⊕ g ⊕ h, two
threads can compute e ⊕ f and g ⊕ h at the same time. A parallel scan needs nothing else.

A block of threads has one column (b, p); a thread has one step. With 8 steps e0 … e7, and e0‥3 for
e0 ⊕ e1 ⊕ e2 ⊕ e3:

    up-sweep: join neighbours, then        e0   e1     e2   e3     e4   e5     e6   e7
    neighbouring pairs, … (a tree, from    e0   e0‥1   e2   e2‥3   e4   e4‥5   e6   e6‥7
    its leaves to its root; each slot      e0   e0‥1   e2   e0‥3   e4   e4‥5   e6   e4‥7
    keeps what the left half of its
    parent needs later)

    down-sweep: what comes before each     e0   e0‥1   e2   e0‥3   e4   e4‥5   e6   1
    node. Nothing is before the root:      e0   e0‥1   e2   1      e4   e4‥5   e6   e0‥3
    1 = (1, 0, False). Before a left       e0   1      e2   e0‥1   e4   e0‥3   e6   e0‥5
    child is what is before its parent;    1    e0     e0‥1 e0‥2   e0‥3 e0‥4   e0‥5 e0‥6
    before a right child that and its
    sibling, which its slot still has

Then thread t joins its own step and has the stretch from the first step to step t. Applied to the
state before the first step, this stretch gives x[t]. All this takes 2·log2(8) rounds, and about 3·8
joins in all, where a loop takes 8 steps. If there are more steps than threads, the block takes one
tile after the other. Each tile begins with the last state of the one before.

Leaves out: speed. Neighbouring threads read numbers that are far apart in memory, most threads idle
in most rounds, and every step goes through shared memory. scan.py avoids all three, with several
steps for each thread and several columns for each block.
Source: Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990; ⊕ with resets:
2303.03982, appendix A. Specification: scan and scan_vjp in minis5/reference/s5_ppo.py. CPU form:
minis5/nn/scan.py. Tests: tests/nn/test_scan.py, tests/gpu/test_scan.py.
"""

from functools import cache

import numpy as np

from minis5.arrays import array_module
from minis5.nn.scan import from_planar, planar
from minis5_cuda.launch import cuda, device, kernel, launch

THREADS = 256  # of a block, and steps of a tile: a power of 2


@cache
def make_kernel(dtype, threads):
    """Return the kernel for arrays of ``dtype``, float or complex."""
    number = dtype.type

    @device
    def join(e, f):
        """Return e ⊕ f. A reset selects: what is before it, NaN included, is not touched."""
        A_e, B_e, C_e = e
        A_f, B_f, C_f = f
        if C_f:
            return f
        # x → A_f·(A_e·x + B_e) + B_f
        return A_f * A_e, A_f * B_e + B_f, C_e

    @kernel
    def scan_kernel(a, b, reset, x0, x):
        """Write x of column blockIdx.x, tile by tile; a thread has one step of each tile."""
        A = cuda.shared.array(threads, number)
        B = cuda.shared.array(threads, number)
        C = cuda.shared.array(threads, np.bool_)
        last = cuda.shared.array(1, number)
        T, P, k = b.shape[0], b.shape[2], cuda.threadIdx.x
        i, p = cuda.blockIdx.x // P, cuda.blockIdx.x % P
        state = x0[i, p]
        for start in range(0, T, threads):
            t = start + k
            own = number(1), number(0), False  # beyond the end: 1
            if t < T:
                own = a[t % a.shape[0], i % a.shape[1], p], b[t, i, p], reset[t, i]
            A[k], B[k], C[k] = own
            cuda.syncthreads()

            half = 1  # up-sweep: slot k ← the stretch of 2·half steps that ends with step k
            while half < threads:
                if (k + 1) % (2 * half) == 0:
                    left = k - half
                    A[k], B[k], C[k] = join((A[left], B[left], C[left]), (A[k], B[k], C[k]))
                half *= 2
                cuda.syncthreads()

            if k == threads - 1:  # the root
                A[k], B[k], C[k] = number(1), number(0), False
            cuda.syncthreads()
            while half > 1:  # down-sweep: slot k ← what is before the stretch that it had
                half //= 2
                if (k + 1) % (2 * half) == 0:
                    left = k - half
                    before, sibling = (A[k], B[k], C[k]), (A[left], B[left], C[left])
                    A[left], B[left], C[left] = before
                    A[k], B[k], C[k] = join(before, sibling)
                cuda.syncthreads()

            # the stretch from the first step of the tile to step t, and the state after it
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
    """Return x, (T, B, P).

    All arrays are float or complex, of one dtype: a (1, 1, P) or (T, B, P), b (T, B, P), x0 (B, P);
    reset (T, B) is bool.
    """
    x = array_module(b).empty_like(b)
    launch(make_kernel(b.dtype, THREADS), b.shape[1] * b.shape[2], THREADS, a, b, reset, x0, x)
    return x


def scan_vjp(a, reset, x0, x, dx):
    """Return da, db, dx0 for the arrays of :func:`scan`: the scan again, in reversed time.

    In the forward scan x[t] = a[t]·x[t-1] + b[t]. So here, with k[t] = 0 where reset[t], else 1,
    g[t] = dx[t] + conj(k[t+1]·a[t+1])·g[t+1], which is the same recurrence with t+1 before t.
    Multipliers and resets are shifted by one step. The last step, which nothing follows, forgets.
    """
    xp, varying = array_module(x), a.shape[:2] == x.shape[:2]
    a_next = xp.concatenate([a[1:], a[:1]]).conj()[::-1] if varying else a.conj()
    forget = xp.concatenate([reset[1:], xp.ones_like(reset[:1])])[::-1]
    arrays = map(xp.ascontiguousarray, (a_next, dx[::-1], forget))
    g = scan(*arrays, xp.zeros_like(x0))[::-1]
    before = xp.concatenate([x0[None], x[:-1]])  # x[t-1]
    zero = x.dtype.type(0)
    # x[t] = k[t]·a[t]·x[t-1] + b[t]: da = k·g·conj(x[t-1]), db = g, dx0 = conj(k[0]·a[0])·g[0]
    da = xp.where(reset[:, :, None], zero, g * before.conj())
    dx0 = xp.where(reset[0, :, None], zero, a[0].conj() * g[0])
    return da if varying else da.sum(axis=(0, 1)).reshape(a.shape), g, dx0


def scan_forward(a, b, reset, x0, *, is_complex=True):
    """Return x as scan.scan_forward does, from planar arrays: real parts, then imaginary parts."""
    a, b, x0 = (from_planar(z) if is_complex else z for z in (a, b, x0))
    return planar(scan(a, b, reset, x0))


def scan_backward(a, reset, x0, x, dx, *, is_complex=True):
    """Return da, db, dx0 as scan.scan_backward does, from planar arrays."""
    a, x0, x, dx = (from_planar(z) if is_complex else z for z in (a, x0, x, dx))
    return tuple(planar(z) for z in scan_vjp(a, reset, x0, x, dx))
