"""Kernels of the S5 layer beside the scan: the skip connection D·u, forward above backward.

The functions at the end take the arguments of the loops of the same names in minis5/nn/s5.py: arrays on the GPU, C-contiguous, of
one float dtype. Bound by memory: each array is read and written once.

Leaves out: the scan (scan.py), the discretisation (discretize.py), matrix products (blas.py).
Source: 2208.04933, section 3. Tests: tests/nn/test_cuda_layers.py, tests/gpu/test_kernels.py.
"""

from numba import cuda

from minis5.nn import s5 as cpu
from minis5.ops import form_of
from minis5_cuda.launch import kernel, launch
from minis5_cuda.reduce import add_stripes, over_rows, scratch, tiles


@kernel
def skip_forward_kernel(y, D, u):
    """y += D·u."""
    c, first = cuda.grid(2)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            y[n, c] += D[c] * u[n, c]


@kernel
def skip_backward_kernel(dy, D, u, du, partial):
    """du += D·dy; and the sum of dy·u over this block's rows."""
    c, first = cuda.grid(2)
    total = du.dtype.type(0)
    if c < dy.shape[1]:
        for n in range(first, dy.shape[0], cuda.gridsize(2)[1]):
            du[n, c] += D[c] * dy[n, c]
            total += dy[n, c] * u[n, c]
    total = over_rows(total, du)
    if c < dy.shape[1] and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, c] = total


@form_of(cpu.skip_forward)
def skip_forward(y, D, u):
    """y += D·u: y, u (N, H), D (H,)."""
    launch(skip_forward_kernel, *tiles(*y.shape), y, D, u)


@form_of(cpu.skip_backward)
def skip_backward(dy, D, u, du, dD):
    """du (N, H) += D·dy; dD (H,) += Σ dy·u."""
    grid, block = tiles(*dy.shape)
    partial = scratch(du, grid[1], D.size)
    launch(skip_backward_kernel, grid, block, dy, D, u, du, partial)
    add_stripes(partial, dD)
