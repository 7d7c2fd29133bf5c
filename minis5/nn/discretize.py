"""Discretisation of a continuous state space model: Λ̄ and w of the S5 layer, and its matrices.

    z = Λ·Δ       w = Δ·ψ       Δ = step_rescale·exp(log_step)·dt
    zoh:          Λ̄ = exp(z)                  ψ = (exp(z) - 1)/z
    bilinear:     Λ̄ = (1 + z/2)/(1 - z/2)     ψ = 1/(1 - z/2)

With a constant step there is one row of P numbers, computed in double precision, and w multiplies B̃
once: B̄ = w·B̃. If the step differs in time there are T·B rows, and w multiplies B̃u, so that no array
(T, B, P, H) is made. Complex numbers are planar (scan.py).

Source: S5, 2208.04933, irregular steps too. Specification: reference.discretize.
GPU form: cuda/minis5_cuda/nn/discretize.py. Tests: tests/nn/test_discretize.py.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from minis5.ops import operation

CLIP = -1e-4  # with clip_eigs, the real part of Λ stays at or below this
# Constants that are exact in float32, so that arithmetic keeps the dtype of the other operand.
HALF, ONE, TWO, THREE, NINE = map(np.float32, (0.5, 1, 2, 3, 9))
NEAR = np.float32(1 / 256)  # |z|² below which quotients lose more than their series
FAR, FARTHEST = np.float32(1000), np.float32(1e17)  # exp(-FAR) is 0; FARTHEST² does not overflow


@njit(nogil=True)
def times(a, b, c, d):
    """Return (a + bi)·(c + di)."""
    return a * c - b * d, a * d + b * c


@njit(nogil=True, error_model="numpy")
def bounded(delta, re, im, tustin):
    """Return Δ, or a shorter step with the same Λ̄ and w if z = Λ·Δ is so large that it has none.

    Λ̄ and w have limits for Re Λ < 0: 0 and -1/Λ (zoh), -1 and -2/Λ (bilinear).
    """
    if tustin:
        near = abs(delta * re) <= FARTHEST and abs(delta * im) <= FARTHEST
        return delta if near else FARTHEST / max(abs(re), abs(im))
    return FAR / -re if delta * re < -FAR else delta


@njit(nogil=True)
def series(x, y):
    """Return φ = (exp(z) - 1 - z)/z² at z = x + iy, |z| < 1/16.

    φ = ½ (1 + z/3 (1 + z/4 (… (1 + z/9)))); what is left out is below 2e-16.
    """
    re, im, k = ONE + x / NINE, y / NINE, NINE
    while k > THREE:
        k -= ONE
        re, im = times(x, y, re, im)
        re, im = ONE + re / k, im / k
    return HALF * re, HALF * im


@njit(nogil=True)
def zoh(x, y):
    """Return Λ̄, ψ, dΛ̄/dz, dψ/dz of the zero-order hold at z = x + iy, real and imaginary parts."""
    size = x * x + y * y
    growth, c, s = math.exp(x), math.cos(y), math.sin(y)
    e_re, e_im = growth * c, growth * s
    if size < NEAR:  # with φ: ψ = 1 + zφ, dψ/dz = ψ - φ
        phi_re, phi_im = series(x, y)
        psi_re, psi_im = times(x, y, phi_re, phi_im)
        psi_re = ONE + psi_re
        dpsi_re, dpsi_im = psi_re - phi_re, psi_im - phi_im
    else:
        h = math.sin(y / TWO)
        inv_re, inv_im = x / size, -y / size
        # exp(z) - 1 without cancellation
        psi_re, psi_im = times(math.expm1(x) * c - (h + h) * h, e_im, inv_re, inv_im)
        dpsi_re, dpsi_im = times(e_re - psi_re, e_im - psi_im, inv_re, inv_im)
    return e_re, e_im, psi_re, psi_im, e_re, e_im, dpsi_re, dpsi_im


@njit(nogil=True)
def bilinear(x, y):
    """Return the same as :func:`zoh` for the bilinear (Tustin) method, which needs no series."""
    u, v = ONE - HALF * x, -HALF * y
    size = u * u + v * v
    psi_re, psi_im = u / size, -v / size
    lam_re, lam_im = times(ONE + HALF * x, HALF * y, psi_re, psi_im)
    sq_re, sq_im = times(psi_re, psi_im, psi_re, psi_im)
    return lam_re, lam_im, psi_re, psi_im, sq_re, sq_im, HALF * sq_re, HALF * sq_im


DISCRETIZATIONS = {"zoh": zoh, "bilinear": bilinear}


class Spectrum(NamedTuple):
    """The parameters of a layer that are discretised."""

    lam_re: np.ndarray  # (P,)
    lam_im: np.ndarray  # (P,)
    log_step: np.ndarray  # (P, 1)


class Step(NamedTuple):
    """How a layer is discretised; the scalars have the dtype to compute in."""

    dt: np.ndarray  # (N,): time between inputs; N = 1 for a constant step, else T·B
    one: np.floating  # 1: float64 for a constant step, where there are only P numbers
    clip: np.floating  # largest Re Λ
    rescale: np.floating  # multiplies every Δ
    tustin: bool  # bilinear


@operation
def discretize_forward(spectrum, step, a, w):
    """Write Λ̄ to ``a`` and w to ``w``, both (N, 2P) planar."""
    P = spectrum.lam_re.size
    for n in range(a.shape[0]):
        for p in range(P):
            delta = step.rescale * math.exp(step.one * spectrum.log_step[p, 0]) * step.dt[n]  # Δ
            re, im = min(spectrum.lam_re[p], step.clip), spectrum.lam_im[p]
            delta = bounded(delta, re, im, step.tustin)
            x, y = delta * re, delta * im  # z = Λ·Δ
            method = bilinear(x, y) if step.tustin else zoh(x, y)
            e_re, e_im, psi_re, psi_im, _, _, _, _ = method
            a[n, p], a[n, P + p] = e_re, e_im  # Λ̄
            w[n, p], w[n, P + p] = delta * psi_re, delta * psi_im  # w = Δ·ψ


@operation
def discretize_backward(spectrum, step, da, dw, dspectrum):
    """Write dRe Λ, dIm Λ, dlog_step, summed over n: dspectrum, float64 (3, P). da, dw: (N, 2P)."""
    dspectrum[:] = 0
    P = spectrum.lam_re.size
    for n in range(da.shape[0]):
        for p in range(P):
            delta = step.rescale * math.exp(step.one * spectrum.log_step[p, 0]) * step.dt[n]
            re, im = min(spectrum.lam_re[p], step.clip), spectrum.lam_im[p]
            delta = bounded(delta, re, im, step.tustin)
            x, y = delta * re, delta * im
            method = bilinear(x, y) if step.tustin else zoh(x, y)
            _, _, psi_re, psi_im, de_re, de_im, dpsi_re, dpsi_im = method
            g_re, g_im = times(da[n, p], da[n, P + p], de_re, -de_im)  # dΛ̄·conj(Λ̄'(z))
            # dw·conj(Δ·ψ'(z))
            h_re, h_im = times(dw[n, p], dw[n, P + p], delta * dpsi_re, -delta * dpsi_im)
            dz_re, dz_im = g_re + h_re, g_im + h_im
            if spectrum.lam_re[p] <= step.clip:  # dΛ = dz·Δ
                dspectrum[0, p] += dz_re * delta
            dspectrum[1, p] += dz_im * delta
            # dlog_step = dΔ·Δ, with dΔ = Re(dz·conj(Λ)) + Re(dw·conj(ψ))
            dstep = dz_re * re + dz_im * im + dw[n, p] * psi_re + dw[n, P + p] * psi_im
            dspectrum[2, p] += dstep * delta


@operation
def weights_forward(w, B, C, factor, Wb, Wc):
    """Write Wb (2P, H) = [Re wB̃; Im wB̃] and Wc (H, 2P) = factor·[Re C̃, -Im C̃].

    w: (2P,) planar; B: (P, H, 2); C: (H, P, 2).
    """
    P, H, _ = B.shape
    for p in range(P):
        for h in range(H):
            Wb[p, h], Wb[P + p, h] = times(w[p], w[P + p], B[p, h, 0], B[p, h, 1])
    for h in range(H):
        for p in range(P):
            Wc[h, p], Wc[h, P + p] = factor * C[h, p, 0], -factor * C[h, p, 1]


@operation
def weights_backward(dWb, dWc, w, B, factor, dB, dC, dw):
    """Write dB (P, H, 2), dC (H, P, 2) and dw (2P,)."""
    dw[:] = 0
    P, H, _ = B.shape
    for p in range(P):
        for h in range(H):
            d_re, d_im = dWb[p, h], dWb[P + p, h]
            dB[p, h, 0], dB[p, h, 1] = times(d_re, d_im, w[p], -w[P + p])  # dB̃ = dWᵦ·conj(w)
            t_re, t_im = times(d_re, d_im, B[p, h, 0], -B[p, h, 1])  # dw = Σ_h dWᵦ·conj(B̃)
            dw[p] += t_re
            dw[P + p] += t_im
    for h in range(H):
        for p in range(P):
            dC[h, p, 0], dC[h, p, 1] = factor * dWc[h, p], -factor * dWc[h, P + p]


@operation
def gain_forward(w, v, b):
    """Write b = w·v, planar (N, 2P)."""
    P = w.shape[1] // 2
    for n in range(w.shape[0]):
        for p in range(P):
            b[n, p], b[n, P + p] = times(w[n, p], w[n, P + p], v[n, p], v[n, P + p])


@operation
def gain_backward(db, w, v, dw, dv):
    """Write dw = db·conj(v), dv = db·conj(w), planar (N, 2P); dv may be db."""
    P = w.shape[1] // 2
    for n in range(w.shape[0]):
        for p in range(P):
            re, im = db[n, p], db[n, P + p]
            dw[n, p], dw[n, P + p] = times(re, im, v[n, p], -v[n, P + p])
            dv[n, p], dv[n, P + p] = times(re, im, w[n, p], -w[n, P + p])
