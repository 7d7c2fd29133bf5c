"""The resettable linear recurrence and its adjoint.

    x[t] = a[t]·x[t-1] + b[t]        x[t] = b[t] where reset[t]        x[-1] = x0

On the CPU the loops are sequential in t, which is O(T) work and optimal there. They are vectorised
over the columns (b, p), which are neighbours in memory, and threads share the columns. On a GPU the
scan is chunked (cuda/minis5_cuda/nn/scan.py). A reset selects and never multiplies by zero: NaN or
Inf before a reset cannot pass it.

Complex numbers are planar inside: a real array (T, B, 2P) holds the P real parts, then the P
imaginary parts. The gradient of a complex z is dz = ∂L/∂Re z + i ∂L/∂Im z, here and everywhere.

Adjoint, with k[t] = 0 where reset[t], else 1:

    g[t] = dx[t] + conj(k[t+1]·a[t+1])·g[t+1],   g[T] = 0
    da[t] = k[t]·g[t]·conj(x[t-1]),   db = g,   dx0 = conj(k[0]·a[0])·g[0]

Source: 2303.03982, section 4.1 and appendix A. Specification: reference.scan, reference.scan_vjp.
GPU form: cuda/minis5_cuda/nn/scan.py. Tests: tests/nn/test_scan.py.
"""

import os

import numpy as np

from minis5.arrays import Array, array_module, as_array
from minis5.checks import COMPLEXES, FLOATS, check_array, check_integer
from minis5.ops import array_operation, fast
from minis5.processes import thread_pool

__all__ = ["scan", "scan_vjp", "set_num_threads"]
_threads = os.cpu_count() or 1
_SMALL = 1 << 18  # below so many numbers a second thread costs more than it saves


def set_num_threads(n: int) -> int:
    """Use ``n`` threads (1 to 1024) for each scan, at first one for each core; return the old."""
    global _threads
    before, _threads = _threads, check_integer("n", n, 1, 1024, "1 is this thread alone")
    return before


@fast
def _complex_forward(a, b, reset, x0, x, columns):
    """Write x for a part of the columns: b_lo <= b < b_hi, p_lo <= p < p_hi.

    a: (1, 1, 2P) or (T, B, 2P); b, x: (T, B, 2P), x may be b; reset: (T, B); x0: (B, 2P); columns:
    (b_lo, b_hi, p_lo, p_hi). p and P are unsigned: Numba then need not ask whether an index counts
    from the end. x[t] = b[t] comes first: LLVM vectorises no loop whose input may be its output.
    """
    b_lo, b_hi = columns[:2]
    P, p_lo, p_hi = np.uint64(b.shape[2] // 2), np.uint64(columns[2]), np.uint64(columns[3])
    elsewhere = b.ctypes.data != x.ctypes.data
    for t in range(b.shape[0]):
        for i in range(b_lo, b_hi):
            bt, xt = b[t, i], x[t, i]
            if elsewhere:
                for p in range(p_lo, p_hi):
                    xt[p], xt[P + p] = bt[p], bt[P + p]
            if not reset[t, i]:  # x[t] = a[t]·x[t-1] + b[t]; else x[t-1] is not read
                at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0]
                last = x[t - 1, i] if t > 0 else x0[i]
                for p in range(p_lo, p_hi):
                    re, im = last[p], last[P + p]
                    xt[p] = at[p] * re - at[P + p] * im + xt[p]
                    xt[P + p] = at[p] * im + at[P + p] * re + xt[P + p]


@fast
def _complex_backward(a, reset, x0, x, g, da, dx0, columns):
    """Turn g, which is dx on entry, into db, and add to da and dx0, for a part of the columns.

    dx0: zeros, (B, 2P); da: zeros, (T, B, 2P), or (1, B, 2P) if a is constant (the caller sums it
    over B).
    """
    T, B, width = x.shape
    b_lo, b_hi = columns[:2]
    P, p_lo, p_hi = np.uint64(width // 2), np.uint64(columns[2]), np.uint64(columns[3])
    for t in range(T - 1, -1, -1):
        for i in range(b_lo, b_hi):
            if reset[t, i]:  # x[t-1] was not read: nothing goes back to it, nor to a[t]
                continue
            at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0]
            gt, dat = g[t, i], da[t if da.shape[0] > 1 else 0, i]
            last = x[t - 1, i] if t > 0 else x0[i]
            to = g[t - 1, i] if t > 0 else dx0[i]
            for p in range(p_lo, p_hi):
                re, im = gt[p], gt[P + p]
                dat[p] += re * last[p] + im * last[P + p]  # da[t] = g[t]·conj(x[t-1])
                dat[P + p] += im * last[p] - re * last[P + p]
                to[p] += at[p] * re + at[P + p] * im  # g[t-1] += conj(a[t])·g[t]
                to[P + p] += at[p] * im - at[P + p] * re


@fast
def _real_forward(a, b, reset, x0, x, columns):
    """Do the same as _complex_forward with width P instead of 2P."""
    b_lo, b_hi, p_lo, p_hi = columns[0], columns[1], np.uint64(columns[2]), np.uint64(columns[3])
    elsewhere = b.ctypes.data != x.ctypes.data
    for t in range(b.shape[0]):
        for i in range(b_lo, b_hi):
            bt, xt = b[t, i], x[t, i]
            if elsewhere:
                for p in range(p_lo, p_hi):
                    xt[p] = bt[p]
            if not reset[t, i]:
                at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0]
                last = x[t - 1, i] if t > 0 else x0[i]
                for p in range(p_lo, p_hi):
                    xt[p] = at[p] * last[p] + xt[p]


@fast
def _real_backward(a, reset, x0, x, g, da, dx0, columns):
    """Do the same as _complex_backward with width P instead of 2P."""
    b_lo, b_hi, p_lo, p_hi = columns
    for t in range(x.shape[0] - 1, -1, -1):
        for i in range(b_lo, b_hi):
            if reset[t, i]:
                continue
            at = a[t if a.shape[0] > 1 else 0, i if a.shape[1] > 1 else 0, p_lo:p_hi]
            gt, dat = g[t, i, p_lo:p_hi], da[t if da.shape[0] > 1 else 0, i, p_lo:p_hi]
            last = x[t - 1, i, p_lo:p_hi] if t > 0 else x0[i, p_lo:p_hi]
            to = g[t - 1, i, p_lo:p_hi] if t > 0 else dx0[i, p_lo:p_hi]
            for p in range(p_hi - p_lo):
                dat[p] += gt[p] * last[p]
                to[p] += at[p] * gt[p]


def _by_columns(loop, args, B, P):
    """Run a loop over all columns; threads share large work along B, or along P if B is small."""
    threads, n = _threads, min(_threads, max(B, P))
    if n <= 1 or max(a.size for a in args) < _SMALL:
        loop(*args, (0, B, 0, P))
        return
    edges = np.linspace(0, B if n <= B else P, n + 1).astype(int).tolist()
    pairs = zip(edges, edges[1:], strict=False)
    parts = [(lo, hi, 0, P) if n <= B else (0, B, lo, hi) for lo, hi in pairs]
    for job in [thread_pool(threads).submit(loop, *args, columns) for columns in parts]:
        job.result()


def planar(z):
    """Return complex (..., P) as real (..., 2P), real parts first; real arrays as they are."""
    return array_module(z).concatenate([z.real, z.imag], axis=-1) if z.dtype.kind == "c" else z


def from_planar(z):
    """Return real (..., 2P) as complex (..., P)."""
    P = z.shape[-1] // 2
    out = array_module(z).empty((*z.shape[:-1], P), np.result_type(z.dtype, np.complex64))
    out.real, out.imag = z[..., :P], z[..., P:]
    return out


@array_operation
def scan_forward(a, b, reset, x0, *, is_complex=True, out=None):
    """Return x (T, B, W) of the recurrence on planar arrays, unchecked.

    a: (1, 1, W) or (T, B, W); b: (T, B, W); reset: (T, B); x0: (B, W). W is 2P (complex) or P.
    ``out`` may be ``b`` itself.
    """
    x = np.empty_like(b) if out is None else out
    columns = b.shape[2] // 2 if is_complex else b.shape[2]
    loop = _complex_forward if is_complex else _real_forward
    _by_columns(loop, (a, b, reset, x0, x), b.shape[1], columns)
    return x


@array_operation
def scan_backward(a, reset, x0, x, dx, *, is_complex=True, out=None):
    """Return da (shaped like a), db, dx0 of :func:`scan_forward`.

    db is written to ``out``, which may be ``dx`` itself.
    """
    T, B, width = x.shape
    out = np.empty_like(dx) if out is None else out
    if out is not dx:
        out[:] = dx
    varying = a.shape[:2] == (T, B)
    da, dx0 = np.zeros((T if varying else 1, B, width), x.dtype), np.zeros_like(x0)
    columns = width // 2 if is_complex else width
    loop = _complex_backward if is_complex else _real_backward
    _by_columns(loop, (a, reset, x0, x, out, da, dx0), B, columns)
    return da if varying else da.sum(axis=1, keepdims=True), out, dx0


def _checked(a, b, reset, x0):
    """Return the arguments of the public scan checked, completed and planar, on their device."""
    a, b, reset, x0 = map(as_array, (a, b, reset, x0), ("a", "b", "reset", "x0"))
    xp = array_module(b)
    remedy = "order the axes time, batch, state"
    T, B, P = check_array("b", b, ("T", "B", "P"), FLOATS + COMPLEXES, remedy, xp).shape
    if 0 in b.shape:
        wanted = "at least one step, one sequence and one state"
        raise ValueError(f"b: expected {wanted}, got {b.shape}; leave out empty batches")
    shape, dtypes = (P,) if getattr(a, "ndim", 3) == 1 else (T, B, P), (b.dtype.type,)
    check_array("a", a, shape, dtypes, "give a and b one dtype; a is (P,) or (T, B, P)", xp)
    if reset is None:
        reset = xp.zeros((T, B), bool)
    check_array("reset", reset, (T, B), (np.bool_,), "transpose and cast", xp)
    if x0 is None:
        x0 = xp.zeros((B, P), b.dtype)
    check_array("x0", x0, (B, P), dtypes, "give x0 the dtype of b", xp)
    a = a[None, None] if a.ndim == 1 else a
    return [xp.ascontiguousarray(z) for z in (planar(a), planar(b), reset, planar(x0))]


def scan(a: Array, b: Array, reset: Array | None = None, x0: Array | None = None) -> Array:
    """Return x[t] = a[t]·x[t-1] + b[t], x[t-1] forgotten where reset[t].  2303.03982, section 4.1.

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
        An argument is no array, has another shape or dtype, or is on another device than ``b``.

    Notes
    -----
    Arrays on a GPU (CuPy's, or any with ``__cuda_array_interface__`` or DLPack) are not copied: the
    GPU computes on CuPy's current stream, and the result is a CuPy array.
    """
    a, b = as_array(a, "a"), as_array(b, "b")
    planes = _checked(a, b, reset, x0)
    is_complex = planes[1].shape[2] != b.shape[2]  # two planes
    x = scan_forward(*planes, is_complex=is_complex)
    return from_planar(x) if is_complex else x


def scan_vjp(
    a: Array, b: Array, reset: Array | None, x0: Array | None, x: Array, dx: Array
) -> tuple[Array, Array, Array]:
    """Return the gradients of :func:`scan`: its adjoint.  2303.03982, appendix A.

    Parameters
    ----------
    a, b, reset, x0 : arrays
        The arguments of :func:`scan`; ``reset`` and ``x0`` may be None.
    x : (T, B, P) array
        The result of :func:`scan`.
    dx : (T, B, P) array
        Gradient of x, ∂L/∂Re x + i ∂L/∂Im x if complex. Add that of the last state to ``dx[-1]``.

    Returns
    -------
    da : array shaped like ``a`` (summed over T and B if ``a`` is constant)
    db : (T, B, P) array
    dx0 : (B, P) array, returned also if ``x0`` is None

    Raises
    ------
    TypeError, ValueError
        As :func:`scan`.
    """
    a, b, x, dx = map(as_array, (a, b, x, dx), ("a", "b", "x", "dx"))
    planes, shape, constant = _checked(a, b, reset, x0), b.shape, len(a.shape) == 1
    a, b, reset, x0 = planes
    xp, is_complex = array_module(b), b.shape[2] != shape[2]
    dtype = np.result_type(b.dtype, np.complex64) if is_complex else b.dtype
    for name, value in (("x", x), ("dx", dx)):
        check_array(name, value, shape, (dtype.type,), "it has the shape and dtype of b", xp)
    x, dx = (xp.ascontiguousarray(planar(z)) for z in (x, dx))
    grads = scan_backward(a, reset, x0, x, dx, is_complex=is_complex)
    da, db, dx0 = (from_planar(z) for z in grads) if is_complex else grads
    return (da[0, 0] if constant else da), db, dx0
