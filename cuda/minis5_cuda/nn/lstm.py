"""Kernels of one step of the LSTM, between its matrix products.

The forward kernel is above the backward kernel. The launchers at the end take the arguments of the
operations of the same names in minis5/nn/lstm.py: arrays on the GPU, C-contiguous, of one float
dtype (reset_next: bool). Their argument lists, and so the kernels', are the operations' own. A
thread has some units (b, k). It reads all that belongs to a unit and writes it, once.

Leaves out: matrix products (blas.py); sums of gradients over time, which are matrix products and
CuPy's sums.
Source: 1402.1128, in the form of minis5/nn/lstm.py. Specification: lstm in
minis5/reference/cores.py. CPU form: minis5/nn/lstm.py.
Tests: tests/nn/test_lstm.py, tests/rl/test_cuda_training.py, tests/gpu/test_training.py.
"""

import math

from minis5.nn import lstm as cpu
from minis5.ops import form_of
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.nn.layers import sigmoid
from minis5_cuda.reduce import tiles


@kernel
def lstm_forward_kernel(gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c):
    """Write gates ← i, f, g, o; tanh_c; y; after_h, after_c = y, c', or 0 where reset_next.

    i, f, o = σ(·), g = tanh(·); c' = f·c + i·g, y = o·tanh(c').
    """
    k, first = cuda.grid(2)
    K, zero = y.shape[1], y.dtype.type(0)
    if k < K:
        for b in range(first, y.shape[0], cuda.gridsize(2)[1]):
            i = sigmoid(gates[b, k] + product[b, k] + bias[k])
            f = sigmoid(gates[b, K + k] + product[b, K + k] + bias[K + k])
            g = y.dtype.type(
                math.tanh(gates[b, 2 * K + k] + product[b, 2 * K + k] + bias[2 * K + k])
            )
            o = sigmoid(gates[b, 3 * K + k] + product[b, 3 * K + k] + bias[3 * K + k])
            gates[b, k], gates[b, K + k], gates[b, 2 * K + k], gates[b, 3 * K + k] = i, f, g, o
            cell = f * c[b, k] + i * g  # c'
            squashed = y.dtype.type(math.tanh(cell))
            out = o * squashed
            tanh_c[b, k], y[b, k] = squashed, out
            after_h[b, k] = zero if reset_next[b] else out
            after_c[b, k] = zero if reset_next[b] else cell


@kernel
def lstm_backward_kernel(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """Write dgates ← i', f', g', o'; dc ← dc·f; dh ← the gradient of y.

    A prime at a gate is the gradient before its nonlinearity. On entry, dh = Uᵀ(i', f', g', o') and
    dc·f are those of the step after.
    """
    k, first = cuda.grid(2)
    K, one, zero = dh.shape[1], dh.dtype.type(1), dh.dtype.type(0)
    if k < K:
        for b in range(first, dh.shape[0], cuda.gridsize(2)[1]):
            i, f = gates[b, k], gates[b, K + k]
            g, o = gates[b, 2 * K + k], gates[b, 3 * K + k]
            s = tanh_c[b, k]
            # in the forward pass y and c' went on to the step after, unless that is reset
            total = dy[b, k] if reset_next[b] else dy[b, k] + dh[b, k]
            # y = o·tanh(c'), so here dc += dh·o·(1 - tanh²c')
            cell = (zero if reset_next[b] else dc[b, k]) + total * o * (one - s * s)
            # c' = f·c + i·g with i, f = σ(·), g = tanh(·), so here
            # i' = dc·g·i·(1 - i), f' = dc·c·f·(1 - f), g' = dc·i·(1 - g²)
            dgates[b, k] = cell * g * i * (one - i)
            dgates[b, K + k] = cell * c[b, k] * f * (one - f)
            dgates[b, 2 * K + k] = cell * i * (one - g * g)
            # y = o·tanh(c') with o = σ(·), so here o' = dh·tanh(c')·o·(1 - o)
            dgates[b, 3 * K + k] = total * s * o * (one - o)
            dh[b, k], dc[b, k] = total, cell * f  # c' = f·c + …


@form_of(cpu.lstm_forward)
def lstm_forward(gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c):
    """Take one step forward.

    gates, product (B, 4K), bias (4K,), reset_next (B,), the others (B, K).
    """
    arguments = gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c
    launch(lstm_forward_kernel, *tiles(*y.shape), *arguments)


@form_of(cpu.lstm_backward)
def lstm_backward(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """Take one step backward.

    gates, dgates (B, 4K), reset_next (B,), the others (B, K).
    """
    arguments = dy, dh, dc, reset_next, gates, tanh_c, c, dgates
    launch(lstm_backward_kernel, *tiles(*dh.shape), *arguments)
