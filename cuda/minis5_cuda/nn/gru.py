"""Kernels of one step of the gated recurrent unit, between its matrix products.

The forward kernel is above the backward kernel. The launchers at the end take the arguments of the
operations of the same names in minis5/nn/gru.py: arrays on the GPU, C-contiguous, of one float
dtype (reset_next: bool). Their argument lists, and so the kernels', are the operations' own. A
thread computes some units (b, k). It reads and writes each number of a unit once.

Leaves out: matrix products (blas.py); sums of gradients over time, which are matrix products and
CuPy's sums.
Source: 1406.1078, section 2.3, in the form of minis5/nn/gru.py. Specification: gru in
minis5/reference/cores.py. CPU form: minis5/nn/gru.py.
Tests: tests/nn/test_gru.py, tests/rl/test_cuda_training.py, tests/gpu/test_training.py.
"""

import math

from minis5.nn import gru as cpu
from minis5.ops import form_of
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.nn.layers import sigmoid
from minis5_cuda.reduce import tiles


@kernel
def gru_forward_kernel(gates, product, bias, recurrent_bias, h, reset_next, q, y, after):
    """Write gates ← r, z, n; q, y; after = y, or 0 where the next step is reset.

    r, z = σ(·), n = tanh(· + r·q), y = (1 - z)·n + z·h.
    """
    k, first = cuda.grid(2)
    K, one = y.shape[1], y.dtype.type(1)
    if k < K:
        for b in range(first, y.shape[0], cuda.gridsize(2)[1]):
            r = sigmoid(gates[b, k] + bias[k] + product[b, k])
            z = sigmoid(gates[b, K + k] + bias[K + k] + product[b, K + k])
            kept = product[b, 2 * K + k] + recurrent_bias[k]  # q = Un h + cn
            n = y.dtype.type(math.tanh(gates[b, 2 * K + k] + bias[2 * K + k] + r * kept))
            gates[b, k], gates[b, K + k], gates[b, 2 * K + k], q[b, k] = r, z, n, kept
            out = (one - z) * n + z * h[b, k]
            y[b, k] = out
            after[b, k] = y.dtype.type(0) if reset_next[b] else out


@kernel
def gru_backward_kernel(dy, d, direct, reset_next, gates, q, h, dgates, dproduct):
    """Write dgates ← r', z', n'; dproduct ← r', z', q'; direct ← d·z; d ← the gradient of y.

    A prime at a gate is the gradient before its nonlinearity. On entry, d = Uᵀ(r', z', q') and
    direct = d·z are those of the step after.
    """
    k, first = cuda.grid(2)
    K, one = d.shape[1], d.dtype.type(1)
    if k < K:
        for b in range(first, d.shape[0], cuda.gridsize(2)[1]):
            r, z, n = gates[b, k], gates[b, K + k], gates[b, 2 * K + k]
            # in the forward pass y went on to the step after, unless that is reset
            total = dy[b, k] if reset_next[b] else dy[b, k] + d[b, k] + direct[b, k]
            # y = (1 - z)·n + z·h and z = σ(·), so here z' = d·(h - n)·z·(1 - z)
            dz = total * (h[b, k] - n) * z * (one - z)
            # n = tanh(·), so here n' = d·(1 - z)·(1 - n²)
            dn = total * (one - z) * (one - n * n)
            # n = tanh(· + r·q) and r = σ(·), so here r' = n'·q·r·(1 - r) and q' = n'·r
            dr = dn * q[b, k] * r * (one - r)
            dgates[b, k], dgates[b, K + k], dgates[b, 2 * K + k] = dr, dz, dn
            dproduct[b, k], dproduct[b, K + k], dproduct[b, 2 * K + k] = dr, dz, dn * r
            direct[b, k] = total * z  # y = … + z·h
            d[b, k] = total


@form_of(cpu.gru_forward)
def gru_forward(gates, product, bias, recurrent_bias, h, reset_next, q, y, after):
    """Take one step forward.

    gates, product (B, 3K), bias (3K,), recurrent_bias (K,), reset_next (B,), the others (B, K).
    """
    arguments = gates, product, bias, recurrent_bias, h, reset_next, q, y, after
    launch(gru_forward_kernel, *tiles(*y.shape), *arguments)


@form_of(cpu.gru_backward)
def gru_backward(dy, d, direct, reset_next, gates, q, h, dgates, dproduct):
    """Take one step backward.

    gates, dgates, dproduct (B, 3K), reset_next (B,), the others (B, K).
    """
    arguments = dy, d, direct, reset_next, gates, q, h, dgates, dproduct
    launch(gru_backward_kernel, *tiles(*d.shape), *arguments)
