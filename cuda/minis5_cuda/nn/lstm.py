"""Kernels of one step of the LSTM, between its matrix products. Forward above backward.

The functions at the end take the arguments of the loops of the same names in minis5/nn/lstm.py: arrays on the GPU, C-contiguous, of
one float dtype (reset_next: bool). A thread has some units (b, k): it reads all that belongs to a unit and writes it, once.

Leaves out: matrix products (blas.py), sums of gradients over time, which are matrix products and CuPy's sums.
Source: 1402.1128, as minis5/nn/lstm.py has it. Tests: tests/nn/test_lstm.py, tests/rl/test_cuda_training.py, tests/gpu.
"""

import math

from numba import cuda

from minis5.nn import lstm as cpu
from minis5.ops import form_of
from minis5_cuda.launch import kernel, launch
from minis5_cuda.nn.layers import sigmoid
from minis5_cuda.reduce import tiles


@kernel
def lstm_forward_kernel(gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c):
    """i, f, o = σ, g = tanh; c' = f·c + i·g, y = o·tanh(c'); after_h, after_c = y, c', or 0 where the next step is reset."""
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
            cell = f * c[b, k] + i * g
            squashed = y.dtype.type(math.tanh(cell))
            tanh_c[b, k], y[b, k] = squashed, o * squashed
            after_h[b, k], after_c[b, k] = (
                zero if reset_next[b] else o * squashed,
                zero if reset_next[b] else cell,
            )


@kernel
def lstm_backward_kernel(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """With dh and dc of h' and c': o' = dh·tanh c'·o·(1 - o), i' = dc·g·i·(1 - i), f' = dc·c·f·(1 - f), g' = dc·i·(1 - g²)."""
    k, first = cuda.grid(2)
    K, one, zero = dh.shape[1], dh.dtype.type(1), dh.dtype.type(0)
    if k < K:
        for b in range(first, dh.shape[0], cuda.gridsize(2)[1]):
            i, f, g, o, s = (
                gates[b, k],
                gates[b, K + k],
                gates[b, 2 * K + k],
                gates[b, 3 * K + k],
                tanh_c[b, k],
            )
            total = dy[b, k] if reset_next[b] else dy[b, k] + dh[b, k]
            cell = (zero if reset_next[b] else dc[b, k]) + total * o * (one - s * s)
            dgates[b, k] = cell * g * i * (one - i)
            dgates[b, K + k] = cell * c[b, k] * f * (one - f)
            dgates[b, 2 * K + k] = cell * i * (one - g * g)
            dgates[b, 3 * K + k] = total * s * o * (one - o)
            dh[b, k], dc[b, k] = total, cell * f


@form_of(cpu.lstm_forward)
def lstm_forward(gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c):
    """gates, product (B, 4K), bias (4K,), reset_next (B,), the others (B, K)."""
    launch(
        lstm_forward_kernel,
        *tiles(*y.shape),
        gates,
        product,
        bias,
        c,
        reset_next,
        tanh_c,
        y,
        after_h,
        after_c,
    )


@form_of(cpu.lstm_backward)
def lstm_backward(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """gates, dgates (B, 4K), reset_next (B,), the others (B, K)."""
    launch(
        lstm_backward_kernel, *tiles(*dh.shape), dy, dh, dc, reset_next, gates, tanh_c, c, dgates
    )
