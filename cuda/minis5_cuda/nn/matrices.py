"""The matrices of all S5 layers of a stack in one launch, and all their gradients in another.

For a constant step: with `layers` as in `Layer`, they compute what discretize_forward and
weights_forward do one after the other in minis5/nn/discretize.py, and what weights_backward and
discretize_backward do. These are small, so that eight launches cost more than their work. Kernels
get the layers as a tuple, of which a block picks its own.

Leaves out: steps that differ in time, for which the launchers of discretize.py remain.
Source: 2208.04933. Specification: discretize in minis5/reference/s5_ppo.py. CPU form: the loops of
minis5/nn/discretize.py, layer by layer, to which tests/test_kernels.py holds each kernel by itself.
Tests: it, tests/nn/test_s5_core.py, tests/gpu/test_kernels.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.nn.discretize import bilinear, bounded, times, zoh
from minis5_cuda import reduce
from minis5_cuda.launch import blocks, cuda, device, kernel, launch
from minis5_cuda.reduce import over_block

NAMES = ("Lambda_re", "Lambda_im", "log_step", "B", "C")  # of a layer's parameters: Layer
MOST = 6  # layers of a launch, whose arguments take 432 bytes each of the 4 KB that there are


class Layer(NamedTuple):
    """The parameters that the matrices are made of."""

    lam_re: object  # (P,)
    lam_im: object  # (P,)
    log_step: object  # (P, 1)
    B: object  # (P, H, 2)
    C: object  # (H, P, 2)


class Settings(NamedTuple):
    """How layers are discretised: minis5.nn.discretize.Step, and the factor of C̃."""

    clip: np.float64
    rescale: np.float64
    tustin: bool
    factor: np.floating  # of the dtype of the parameters


class Matrices(NamedTuple):
    """What is made of L layers; its gradients with da in parts."""

    a: object  # (L, 2P): planar Λ̄
    w: object  # (L, 2P): planar w
    Wb: object  # (L, 2P, H) = [Re wB̃; Im wB̃]
    Wc: object  # (L, H, 2P) = factor·[Re C̃, -Im C̃]


@device
def step_of(layer, p, settings):
    """Return Δ and Λ of state p, real and imaginary part, in float64."""
    re, im = np.float64(layer.lam_re[p]), np.float64(layer.lam_im[p])
    re = settings.clip if settings.clip < re else re
    delta = settings.rescale * math.exp(np.float64(layer.log_step[p, 0]))
    return bounded(delta, re, im, settings.tustin), re, im


@kernel
def matrices_forward_kernel(layers, settings, made):
    """Write the Matrices of layer blockIdx.y; a row of threads has a state."""
    k = cuda.blockIdx.y
    layer = layers[k]
    P, H, _ = layer.B.shape
    i, p = cuda.threadIdx.x, cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    real, factor = made.Wb.dtype.type, settings.factor
    if p < P:
        delta, re, im = step_of(layer, p, settings)
        x, y = delta * re, delta * im  # z = Δ·Λ
        e_re, e_im, psi_re, psi_im, _, _, _, _ = bilinear(x, y) if settings.tustin else zoh(x, y)
        w_re, w_im = real(delta * psi_re), real(delta * psi_im)  # w = Δ·ψ
        if i == 0:
            made.a[k, p], made.a[k, P + p] = real(e_re), real(e_im)  # Λ̄
            made.w[k, p], made.w[k, P + p] = w_re, w_im
        for h in range(i, H, cuda.blockDim.x):
            b_re, b_im = times(w_re, w_im, layer.B[p, h, 0], layer.B[p, h, 1])
            made.Wb[k, p, h], made.Wb[k, P + p, h] = b_re, b_im
    threads = cuda.blockDim.x * cuda.blockDim.y
    first = cuda.blockIdx.x * threads + cuda.threadIdx.y * cuda.blockDim.x + i
    for n in range(first, P * H, cuda.gridDim.x * threads):
        h, q = n // P, n % P
        c_re, c_im = layer.C[h, q, 0], layer.C[h, q, 1]
        made.Wc[k, h, q], made.Wc[k, h, P + q] = factor * c_re, -factor * c_im


@kernel
def matrices_backward_kernel(layers, settings, w, das, dWb, dWc, dspectrum, dB, dC):
    """Write the gradients of layer blockIdx.y; a block has state blockIdx.x, and a part of dC.

    das: for each layer da in parts, (n, 2P), which are added up here. dspectrum: (L, 3, P).
    """
    p, k = cuda.blockIdx.x, cuda.blockIdx.y
    layer, da = layers[k], das[k]
    P, H, _ = layer.B.shape
    i, threads = cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x, cuda.blockDim.x
    threads *= cuda.blockDim.y
    a_re = a_im = w_re = w_im = np.float64(0)
    for n in range(i, da.shape[0], threads):
        a_re += np.float64(da[n, p])
        a_im += np.float64(da[n, P + p])
    for h in range(i, H, threads):
        # in the forward pass Wb = w·B̃, so here dB̃ = dWᵦ·conj(w) and dw = Σ_h dWᵦ·conj(B̃)
        d_re, d_im = dWb[k, p, h], dWb[k, P + p, h]
        b_re, b_im = times(d_re, d_im, w[k, p], -w[k, P + p])
        dB[k, p, h, 0], dB[k, p, h, 1] = b_re, b_im
        t_re, t_im = times(d_re, d_im, layer.B[p, h, 0], -layer.B[p, h, 1])
        w_re += np.float64(t_re)
        w_im += np.float64(t_im)
    a_re, a_im = over_block(a_re), over_block(a_im)
    w_re, w_im = over_block(w_re), over_block(w_im)
    if i == 0:
        delta, re, im = step_of(layer, p, settings)
        x, y = delta * re, delta * im
        method = bilinear(x, y) if settings.tustin else zoh(x, y)
        _, _, psi_re, psi_im, de_re, de_im, dpsi_re, dpsi_im = method
        # as in discretize.py: dz = dΛ̄·conj(Λ̄'(z)) + dw·conj(Δ·ψ'(z)), dΛ = dz·Δ,
        # dlog_step = (Re(dz·conj(Λ)) + Re(dw·conj(ψ)))·Δ
        g_re, g_im = times(a_re, a_im, de_re, -de_im)
        h_re, h_im = times(w_re, w_im, delta * dpsi_re, -delta * dpsi_im)
        z_re, z_im = g_re + h_re, g_im + h_im
        real, held = dspectrum.dtype.type, np.float64(layer.lam_re[p]) > settings.clip
        dspectrum[k, 0, p] = real(np.float64(0) if held else z_re * delta)
        dspectrum[k, 1, p] = real(z_im * delta)
        dspectrum[k, 2, p] = real((z_re * re + z_im * im + w_re * psi_re + w_im * psi_im) * delta)
    for n in range(p * threads + i, P * H, P * threads):
        h, q = n // P, n % P  # in the forward pass Wc = factor·[Re C̃, -Im C̃]
        dC[k, h, q, 0] = settings.factor * dWc[k, h, q]
        dC[k, h, q, 1] = -settings.factor * dWc[k, h, P + q]


def matrices_forward(layers, settings):
    """Return the Matrices of ``layers``, a list of Layer, all of one size."""
    (P, H, _), xp, dtype = layers[0].B.shape, array_module(layers[0].B), layers[0].B.dtype
    shapes = (2 * P,), (2 * P,), (2 * P, H), (H, 2 * P)
    made = Matrices(*(xp.empty((len(layers), *shape), dtype) for shape in shapes))
    block = reduce.COLUMNS, reduce.ROWS
    for i in range(0, len(layers), MOST):
        some = tuple(layers[i : i + MOST])
        grid = blocks(P, reduce.ROWS), len(some)
        mine = Matrices(*(z[i : i + MOST] for z in made))
        launch(matrices_forward_kernel, grid, block, some, settings, mine)
    return made


def matrices_backward(layers, settings, w, das, dWb, dWc):
    """Return the gradients of ``layers``: a dict of their names for each.

    w, dWb, dWc: Matrices.w and the gradients of the others; das: each layer's da, (n, 2P) in parts.
    """
    (P, H, _), xp, dtype, L = layers[0].B.shape, array_module(w), w.dtype, len(layers)
    shapes = (3, P), (P, H, 2), (H, P, 2)
    out = [xp.empty((L, *shape), dtype) for shape in shapes]
    for i in range(0, L, MOST):
        these = slice(i, i + MOST)
        some, parts = tuple(layers[these]), tuple(das[these])
        arrays = (z[these] for z in (dWb, dWc, *out))
        grid, block = (P, len(some)), (reduce.COLUMNS, reduce.ROWS)
        launch(matrices_backward_kernel, grid, block, some, settings, w[these], parts, *arrays)
    found = []
    for i in range(L):
        dspectrum, dB, dC = (z[i] for z in out)
        values = dspectrum[0], dspectrum[1], dspectrum[2].reshape(P, 1), dB, dC
        found.append(dict(zip(NAMES, values, strict=True)))
    return found
