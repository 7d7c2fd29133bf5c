"""Kernels of the discretisation: Λ̄ and w, the matrices made with them, and w·B̃u.

w·B̃u is for steps that differ in time. The launchers at the end take the arguments of the
operations of the same names in minis5/nn/discretize.py. The kernels call `zoh`, `bilinear` and
`bounded` of that file: no formula is written twice. Complex numbers are planar; arrays are on the
GPU and C-contiguous. With a constant step (N = 1, float64) these kernels are small. With a step for
each input they are bound by memory.

Leaves out: matrix products (blas.py); the scan (scan.py).
Source: 2208.04933, irregular steps too. Specification: discretize in minis5/reference/s5_ppo.py.
CPU form: minis5/nn/discretize.py. Tests: tests/nn/test_discretize.py, tests/gpu/test_kernels.py.
"""

import math

from minis5.nn import discretize as cpu
from minis5.nn.discretize import bilinear, bounded, times, zoh
from minis5.ops import form_of
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import (
    add_stripes,
    counters,
    flat,
    is_last,
    over_lanes,
    over_rows,
    rows,
    scratch,
    tiles,
    walk,
)


@kernel
def discretize_forward_kernel(spectrum, step, a, w):
    """Write a = Λ̄ and w = Δ·ψ at z = Δ·Λ, with Re Λ <= clip.

    A thread has one state and walks over the inputs.
    """
    p, first = cuda.grid(2)
    P = spectrum.lam_re.size
    if p < P:
        re = step.clip if step.clip < spectrum.lam_re[p] else spectrum.lam_re[p]
        im = spectrum.lam_im[p]
        scale = step.rescale * type(step.one)(math.exp(step.one * spectrum.log_step[p, 0]))
        for n in range(first, a.shape[0], cuda.gridsize(2)[1]):
            # Δ = rescale·exp(log_step)·dt
            delta = bounded(scale * step.dt[n], re, im, step.tustin)
            x, y = delta * re, delta * im  # z = Δ·Λ
            e_re, e_im, psi_re, psi_im, _, _, _, _ = bilinear(x, y) if step.tustin else zoh(x, y)
            a[n, p], a[n, P + p] = e_re, e_im
            w[n, p], w[n, P + p] = delta * psi_re, delta * psi_im


@kernel
def discretize_backward_kernel(spectrum, step, da, dw, partial, arrived, out):
    """Write to out (3P,) sums over inputs, [dRe Λ | dIm Λ | dlog_step], in float64.

    dΛ = dz·Δ (the real part only where it is not clipped), dlog_step = dΔ·Δ, with
    dz = dΛ̄·conj(Λ̄'(z)) + dw·conj(Δ·ψ'(z)), dΔ = Re(dz·conj(Λ)) + Re(dw·conj(ψ)).
    """
    p, first = cuda.grid(2)
    P = spectrum.lam_re.size
    total_re = total_im = total_step = partial.dtype.type(0)
    if p < P:
        re = step.clip if step.clip < spectrum.lam_re[p] else spectrum.lam_re[p]
        im = spectrum.lam_im[p]
        scale = step.rescale * type(step.one)(math.exp(step.one * spectrum.log_step[p, 0]))
        for n in range(first, da.shape[0], cuda.gridsize(2)[1]):
            delta = bounded(scale * step.dt[n], re, im, step.tustin)
            x, y = delta * re, delta * im
            method = bilinear(x, y) if step.tustin else zoh(x, y)
            _, _, psi_re, psi_im, de_re, de_im, dpsi_re, dpsi_im = method
            # in the forward pass a = Λ̄(z) and w = Δ·ψ(z), so here
            # dz = dΛ̄·conj(Λ̄'(z)) + dw·conj(Δ·ψ'(z))
            g_re, g_im = times(da[n, p], da[n, P + p], de_re, -de_im)
            h_re, h_im = times(dw[n, p], dw[n, P + p], delta * dpsi_re, -delta * dpsi_im)
            dz_re, dz_im = g_re + h_re, g_im + h_im
            # in the forward pass z = Δ·Λ with Re Λ <= clip, so here dΛ = dz·Δ
            if spectrum.lam_re[p] <= step.clip:
                total_re += dz_re * delta
            total_im += dz_im * delta
            # Δ is in z and in w, and dΔ/dlog_step = Δ:
            # dlog_step = (Re(dz·conj(Λ)) + Re(dw·conj(ψ)))·Δ
            total_step += (
                dz_re * re + dz_im * im + dw[n, p] * psi_re + dw[n, P + p] * psi_im
            ) * delta
    total_re, total_im = over_rows(total_re, partial), over_rows(total_im, partial)
    total_step = over_rows(total_step, partial)
    if p < P and cuda.threadIdx.y == 0:
        k = cuda.blockIdx.y
        partial[k, p], partial[k, P + p], partial[k, 2 * P + p] = total_re, total_im, total_step
    if is_last(arrived):
        for k in range(3):
            add_stripes(partial, k * P + p, p < P, out)


@kernel
def weights_forward_kernel(w, B, C, factor, Wb, Wc):
    """Write Wb = [Re wB̃; Im wB̃], then Wc = factor·[Re C̃, -Im C̃], each in its order in memory."""
    P, H, _ = B.shape
    first, step = walk()
    for i in range(first, P * H, step):
        p, h = i // H, i % H
        Wb[p, h], Wb[P + p, h] = times(w[p], w[P + p], B[p, h, 0], B[p, h, 1])
    for i in range(first, P * H, step):
        h, p = i // P, i % P
        Wc[h, p], Wc[h, P + p] = factor * C[h, p, 0], -factor * C[h, p, 1]


@kernel
def weights_backward_kernel(dWb, dWc, w, B, factor, dB, dC, dw):
    """Write dB̃ = dWᵦ·conj(w), dw = Σ_h dWᵦ·conj(B̃); then dC̃ = factor·[dRe, -dIm].

    For dB̃ and dw, a row of threads has a state.
    """
    P, H, _ = B.shape
    i, p = cuda.threadIdx.x, cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    total_re = total_im = dw.dtype.type(0)
    if p < P:
        for h in range(i, H, cuda.blockDim.x):
            # in the forward pass Wb = w·B̃, so here dB̃ = dWᵦ·conj(w) and dw = Σ_h dWᵦ·conj(B̃)
            d_re, d_im = dWb[p, h], dWb[P + p, h]
            dB[p, h, 0], dB[p, h, 1] = times(d_re, d_im, w[p], -w[P + p])
            t_re, t_im = times(d_re, d_im, B[p, h, 0], -B[p, h, 1])
            total_re += t_re
            total_im += t_im
    total_re, total_im = over_lanes(total_re, dw), over_lanes(total_im, dw)
    if p < P and i == 0:
        dw[p], dw[P + p] = total_re, total_im
    first, step = walk()
    for k in range(first, P * H, step):
        h, p = k // P, k % P
        # in the forward pass Wc = factor·[Re C̃, -Im C̃]
        dC[h, p, 0], dC[h, p, 1] = factor * dWc[h, p], -factor * dWc[h, P + p]


@kernel
def gain_forward_kernel(w, v, b):
    """Write b = w·v."""
    p, first = cuda.grid(2)
    P = w.shape[1] // 2
    if p < P:
        for n in range(first, w.shape[0], cuda.gridsize(2)[1]):
            b[n, p], b[n, P + p] = times(w[n, p], w[n, P + p], v[n, p], v[n, P + p])


@kernel
def gain_backward_kernel(db, w, v, dw, dv):
    """Write dw = db·conj(v), dv = db·conj(w)."""
    p, first = cuda.grid(2)
    P = w.shape[1] // 2
    if p < P:
        for n in range(first, w.shape[0], cuda.gridsize(2)[1]):
            # in the forward pass b = w·v, so here dw = db·conj(v) and dv = db·conj(w)
            re, im = db[n, p], db[n, P + p]
            dw[n, p], dw[n, P + p] = times(re, im, v[n, p], -v[n, P + p])
            dv[n, p], dv[n, P + p] = times(re, im, w[n, p], -w[n, P + p])


def typed(step):
    """Return ``step`` with scalars of dt's dtype, in which the kernels then compute."""
    scalars = map(step.dt.dtype.type, (step.one, step.clip, step.rescale))
    return cpu.Step(step.dt, *scalars, bool(step.tustin))


@form_of(cpu.discretize_forward)
def discretize_forward(spectrum, step, a, w):
    """Write a = Λ̄ and w, planar (N, 2P)."""
    grid, block = tiles(a.shape[0], spectrum.lam_re.size)
    launch(discretize_forward_kernel, grid, block, spectrum, typed(step), a, w)


@form_of(cpu.discretize_backward)
def discretize_backward(spectrum, step, da, dw, dspectrum):
    """Write the gradients of Re Λ, Im Λ, log_step to dspectrum, float64 (3, P); da, dw (N, 2P)."""
    grid, block = tiles(da.shape[0], spectrum.lam_re.size)
    sums = scratch(dspectrum, grid[1], dspectrum.size), counters(dspectrum, grid[0])
    arguments = spectrum, typed(step), da, dw, *sums, dspectrum.reshape(-1)
    launch(discretize_backward_kernel, grid, block, *arguments)


@form_of(cpu.weights_forward)
def weights_forward(w, B, C, factor, Wb, Wc):
    """Write Wb (2P, H), Wc (H, 2P) from w (2P,), B (P, H, 2), C (H, P, 2)."""
    launch(weights_forward_kernel, *flat(Wb.size // 2), w, B, C, C.dtype.type(factor), Wb, Wc)


@form_of(cpu.weights_backward)
def weights_backward(dWb, dWc, w, B, factor, dB, dC, dw):
    """Write dB (P, H, 2), dC (H, P, 2), dw (2P,) from dWb (2P, H), dWc (H, 2P), w (2P,), B."""
    arguments = dWb, dWc, w, B, dC.dtype.type(factor), dB, dC, dw
    launch(weights_backward_kernel, *rows(B.shape[0]), *arguments)


@form_of(cpu.gain_forward)
def gain_forward(w, v, b):
    """Write b = w·v, all planar (N, 2P)."""
    launch(gain_forward_kernel, *tiles(w.shape[0], w.shape[1] // 2), w, v, b)


@form_of(cpu.gain_backward)
def gain_backward(db, w, v, dw, dv):
    """Write dw = db·conj(v), dv = db·conj(w), all planar (N, 2P); dv may be db."""
    launch(gain_backward_kernel, *tiles(w.shape[0], w.shape[1] // 2), db, w, v, dw, dv)
