"""The resettable linear recurrence and its adjoint: on the CPU here, on a GPU in cuda/minis5_cuda/nn/scan.py.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

Sequential in t, which is O(T) work and optimal on a CPU; vectorised over the columns (b, p), which lie side by side in memory;
spread over threads by columns. A reset selects, it never multiplies by zero: NaN or Inf before a reset stay there.

Complex numbers are planar inside: a real array (T, B, 2P) holds the P real parts, then the P imaginary parts. The gradient of a
complex z is dz = ∂L/∂Re z + i ∂L/∂Im z, here and everywhere in minis5.

Adjoint, with k[t] = 0 where reset[t], else 1:
    g[t] = dx[t] + conj(k[t+1]·a[t+1])·g[t+1],   g[T] = 0
    da[t] = k[t]·g[t]·conj(x[t-1]),   db = g,   dx0 = conj(k[0]·a[0])·g[0]

Source: 2303.03982, section 4.1 and appendix A. Specification: reference.scan, reference.scan_vjp. Tests: tests/nn/test_scan.py.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module, as_array
from minis5.checks import COMPLEXES, FLOATS, check_array
from minis5.ops import array_operation, fast

_threads = os.cpu_count() or 1
_pool = None
_SMALL = 1 << 18  # below so many numbers a second thread costs more than it saves


def set_num_threads(n):
    """Use ``n`` threads for each scan from now on (default: one for each core)."""
    global _threads, _pool
    _threads, _pool = n, None


class Columns(NamedTuple):
    """The part of the columns (b, p) that a call computes: b_lo <= b < b_hi, p_lo <= p < p_hi."""

    b_lo: int
    b_hi: int
    p_lo: int
    p_hi: int


@fast
def _complex_forward(a, b, reset, x0, x, columns):
    """a: (1, 1, 2P) or (T, B, 2P); b, x: (T, B, 2P), x may be b; reset: (T, B); x0: (B, 2P).

    p and P are unsigned in these loops: of an unsigned index Numba need not ask whether it counts from the end.
    """
    T, B, width = b.shape
    P, p_lo, p_hi = np.uint64(width // 2), np.uint64(columns.p_lo), np.uint64(columns.p_hi)
    for t in range(T):
        for i in range(columns.b_lo, columns.b_hi):
            bt, xt = b[t, i], x[t, i]
            if reset[t, i]:
                for p in range(p_lo, p_hi):
                    xt[p] = bt[p]
                    xt[P + p] = bt[P + p]
            else:
                at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0]
                before = x[t - 1, i] if t > 0 else x0[i]
                for p in range(p_lo, p_hi):
                    re, im = before[p], before[P + p]
                    xt[p] = at[p] * re - at[P + p] * im + bt[p]
                    xt[P + p] = at[p] * im + at[P + p] * re + bt[P + p]


@fast
def _complex_backward(a, reset, x0, x, g, da, dx0, columns):
    """g: dx on entry, db on return. da: zeros, (1, B, 2P) when a is constant (sum it over B) or (T, B, 2P). dx0: zeros, (B, 2P)."""
    T, B, width = x.shape
    P, p_lo, p_hi = np.uint64(width // 2), np.uint64(columns.p_lo), np.uint64(columns.p_hi)
    for t in range(T - 1, -1, -1):
        for i in range(columns.b_lo, columns.b_hi):
            if reset[t, i]:
                continue
            at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0]
            gt, dat = g[t, i], da[t if da.shape[0] > 1 else 0, i]
            before = x[t - 1, i] if t > 0 else x0[i]
            to = g[t - 1, i] if t > 0 else dx0[i]  # conj(k[t]·a[t])·g[t] goes one step back
            for p in range(p_lo, p_hi):
                re, im = gt[p], gt[P + p]
                dat[p] += re * before[p] + im * before[P + p]
                dat[P + p] += im * before[p] - re * before[P + p]
                to[p] += at[p] * re + at[P + p] * im
                to[P + p] += at[p] * im - at[P + p] * re


@fast
def _real_forward(a, b, reset, x0, x, columns):
    """As _complex_forward with width P instead of 2P."""
    p_lo, p_hi = columns.p_lo, columns.p_hi
    for t in range(b.shape[0]):
        for i in range(columns.b_lo, columns.b_hi):
            bt, xt = b[t, i, p_lo:p_hi], x[t, i, p_lo:p_hi]
            if reset[t, i]:
                for p in range(p_hi - p_lo):
                    xt[p] = bt[p]
            else:
                at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0, p_lo:p_hi]
                before = x[t - 1, i, p_lo:p_hi] if t > 0 else x0[i, p_lo:p_hi]
                for p in range(p_hi - p_lo):
                    xt[p] = at[p] * before[p] + bt[p]


@fast
def _real_backward(a, reset, x0, x, g, da, dx0, columns):
    """As _complex_backward with width P instead of 2P."""
    p_lo, p_hi = columns.p_lo, columns.p_hi
    for t in range(x.shape[0] - 1, -1, -1):
        for i in range(columns.b_lo, columns.b_hi):
            if reset[t, i]:
                continue
            at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0, p_lo:p_hi]
            gt = g[t, i, p_lo:p_hi]
            to = g[t - 1, i, p_lo:p_hi] if t > 0 else dx0[i, p_lo:p_hi]
            before = x[t - 1, i, p_lo:p_hi] if t > 0 else x0[i, p_lo:p_hi]
            dat = da[t if da.shape[0] > 1 else 0, i, p_lo:p_hi]
            for p in range(p_hi - p_lo):
                dat[p] += gt[p] * before[p]
                to[p] += at[p] * gt[p]


def _by_columns(loop, args, B, P):
    """Run a loop over all columns, in one piece or split over the threads along the longer of B and P."""
    global _pool
    n = min(_threads, max(B, P))
    if n <= 1 or max(a.size for a in args) < _SMALL:
        loop(*args, Columns(0, B, 0, P))
        return
    _pool = _pool or ThreadPoolExecutor(_threads)
    if n <= B:
        edges = np.linspace(0, B, n + 1).astype(int).tolist()
        jobs = [Columns(lo, hi, 0, P) for lo, hi in zip(edges, edges[1:], strict=False)]
    else:
        edges = np.linspace(0, P, n + 1).astype(int).tolist()
        jobs = [Columns(0, B, lo, hi) for lo, hi in zip(edges, edges[1:], strict=False)]
    for job in [_pool.submit(loop, *args, columns) for columns in jobs]:
        job.result()


def planar(z):
    """Complex (..., P) → real (..., 2P): real parts, then imaginary parts. Real arrays pass through."""
    return array_module(z).concatenate([z.real, z.imag], axis=-1) if z.dtype.kind == "c" else z


def from_planar(z):
    """Real (..., 2P) → complex (..., P)."""
    P = z.shape[-1] // 2
    out = array_module(z).empty((*z.shape[:-1], P), np.result_type(z.dtype, np.complex64))
    out.real, out.imag = z[..., :P], z[..., P:]
    return out


@array_operation
def scan_forward(a, b, reset, x0, *, is_complex=True, out=None):
    """The recurrence on planar arrays, unchecked: a (1, 1, W) or (T, B, W), b (T, B, W), reset (T, B), x0 (B, W) → x.

    W is 2P (complex) or P (real). ``out`` may be ``b`` itself.
    """
    x = np.empty_like(b) if out is None else out
    columns = b.shape[2] // 2 if is_complex else b.shape[2]
    _by_columns(
        _complex_forward if is_complex else _real_forward, (a, b, reset, x0, x), b.shape[1], columns
    )
    return x


@array_operation
def scan_backward(a, reset, x0, x, dx, *, is_complex=True, out=None):
    """Adjoint of :func:`scan_forward` → da (shaped like a), db, dx0. ``out`` may be ``dx`` itself; db is written there."""
    T, B, width = x.shape
    if out is not dx:
        out = dx.copy()
    varying = a.shape[:2] == (T, B)
    da = np.zeros((T, B, width) if varying else (1, B, width), x.dtype)
    dx0 = np.zeros_like(x0)
    columns = width // 2 if is_complex else width
    _by_columns(
        _complex_backward if is_complex else _real_backward,
        (a, reset, x0, x, out, da, dx0),
        B,
        columns,
    )
    return da if varying else da.sum(axis=1, keepdims=True), out, dx0


def _checked(a, b, reset, x0):
    """Validate the arguments of the public scan; fill in the defaults; planar forms. Arrays stay on their device."""
    a, b, reset, x0 = (z if z is None else as_array(z) for z in (a, b, reset, x0))
    xp = array_module(b)
    check_array(
        "b", b, ("T", "B", "P"), FLOATS + COMPLEXES, "order the axes time, batch, state", xp
    )
    T, B, P = b.shape
    if 0 in b.shape:
        raise ValueError(
            f"b: expected at least one step, one sequence and one state, got {b.shape}; leave out empty batches"
        )
    shape = (P,) if np.ndim(a) == 1 else (T, B, P)
    check_array(
        "a", a, shape, (b.dtype.type,), "give a and b one dtype; a is (P,) or (T, B, P)", xp
    )
    reset = (
        xp.zeros((T, B), bool)
        if reset is None
        else check_array("reset", reset, (T, B), (np.bool_,), "transpose and cast", xp)
    )
    x0 = (
        xp.zeros((B, P), b.dtype)
        if x0 is None
        else check_array("x0", x0, (B, P), (b.dtype.type,), "give x0 the dtype of b", xp)
    )
    a = a[None, None] if a.ndim == 1 else a
    return [xp.ascontiguousarray(z) for z in (planar(a), planar(b), reset, planar(x0))]


def scan(a, b, reset=None, x0=None):
    """x[t] = a[t]·x[t-1] + b[t], with x[t-1] forgotten where reset[t].  2303.03982, section 4.1.

    Parameters
    ----------
    a : (P,) or (T, B, P) array
        Multiplier, constant or different at every step; float32, float64, complex64 or complex128.
    b : (T, B, P) array, dtype of ``a``
        Input.
    reset : (T, B) bool array, optional
        True where an episode begins: x[t-1] is forgotten before step t. Default: nowhere.
    x0 : (B, P) array, dtype of ``a``, optional
        State before the first step. Default: zero.

    Returns
    -------
    x : (T, B, P) array, dtype of ``a``

    Raises
    ------
    TypeError, ValueError
        An argument is not an array, or has another shape or dtype than the above, or lives on another device than ``b``.

    Notes
    -----
    NumPy arrays are computed with on the CPU. Arrays on a GPU (CuPy's, or any with ``__cuda_array_interface__`` or DLPack) are
    taken where they are, computed with there on CuPy's current stream, and the result is a CuPy array. (Complex arrays are split
    into planes and joined again, on either device; `scan_forward` spares that.)
    """
    planes = _checked(a, b, reset, x0)
    is_complex = planes[1].shape[2] != b.shape[2]  # two planes
    x = scan_forward(*planes, is_complex=is_complex)
    return from_planar(x) if is_complex else x


def scan_vjp(a, b, reset, x0, x, dx):
    """Gradients of :func:`scan` (the adjoint at the top of this file).

    Parameters
    ----------
    a, b, reset, x0
        The arguments of :func:`scan`; ``reset`` and ``x0`` may be None.
    x : (T, B, P) array
        What :func:`scan` returned.
    dx : (T, B, P) array
        Gradient of x, ∂L/∂Re x + i ∂L/∂Im x when complex. Add the gradient of the last state to ``dx[-1]``.

    Returns
    -------
    da : array shaped like ``a`` (summed over T and B when ``a`` is constant)
    db : (T, B, P) array
    dx0 : (B, P) array, returned also when ``x0`` is None

    Raises
    ------
    TypeError, ValueError
        As :func:`scan`.
    """
    planes, shape, constant = _checked(a, b, reset, x0), b.shape, a.ndim == 1
    a, b, reset, x0 = planes
    xp, is_complex = array_module(b), b.shape[2] != shape[2]
    dtype = np.result_type(b.dtype, np.complex64) if is_complex else b.dtype
    x, dx = as_array(x), as_array(dx)
    for name, value in (("x", x), ("dx", dx)):
        check_array(name, value, shape, (dtype.type,), "it has the shape and dtype of b", xp)
    x, dx = (xp.ascontiguousarray(planar(z)) for z in (x, dx))
    grads = scan_backward(a, reset, x0, x, dx, is_complex=is_complex)
    da, db, dx0 = (from_planar(z) for z in grads) if is_complex else grads
    return (da[0, 0] if constant else da), db, dx0
