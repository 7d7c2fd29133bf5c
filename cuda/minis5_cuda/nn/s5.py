"""Kernels of the S5 layer's skip connection D·u. The forward kernel is above the backward kernel.

The launchers at the end take the arguments of the operations of the same names in minis5/nn/s5.py:
arrays on the GPU, C-contiguous, of one float dtype. They are bound by memory: each array is read
and written once. A last argument, which has a default, adds the operation that follows in the S5
stack: gelu (forward), the gradient that goes around the layer (backward).

Leaves out: the scan (scan.py); the discretisation (discretize.py); matrix products (blas.py).
Source: 2208.04933, section 3. Specification: ssm in minis5/reference/s5_ppo.py. CPU form:
minis5/nn/s5.py. Tests: tests/nn/test_s5.py, tests/test_kernels.py, tests/gpu/test_kernels.py.
"""

from minis5.nn import s5 as cpu
from minis5.nn.scalars import CUBIC, GELU
from minis5.ops import form_of
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.nn.layers import gelu
from minis5_cuda.reduce import add_stripes, counters, is_last, over_rows, scratch, tiles


@kernel
def skip_forward_kernel(y, D, u):
    """Add D·u to y."""
    c, first = cuda.grid(2)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            y[n, c] += D[c] * u[n, c]


@kernel
def skip_gelu_forward_kernel(y, D, u, h):
    """Add D·u to y; write h = gelu(y)."""
    c, first = cuda.grid(2)
    half, one, k = y.dtype.type(0.5), y.dtype.type(1), y.dtype.type(GELU)
    cubic = y.dtype.type(CUBIC)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            x = y[n, c] + D[c] * u[n, c]
            y[n, c] = x
            h[n, c] = gelu(x, half, one, k, cubic)


@kernel
def skip_backward_kernel(dy, D, u, around, has_around, du, partial, arrived, dD):
    """Add D·dy to du, and ``around`` if there is any; write dD = the sum of dy·u over rows."""
    c, first = cuda.grid(2)
    total = du.dtype.type(0)
    if c < dy.shape[1]:
        for n in range(first, dy.shape[0], cuda.gridsize(2)[1]):
            # in the forward pass y += D·u in every row, so here du += D·dy and dD = Σ dy·u
            d = du[n, c] + D[c] * dy[n, c]
            du[n, c] = d + around[n, c] if has_around else d
            total += dy[n, c] * u[n, c]
    total = over_rows(total, du)
    if c < dy.shape[1] and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, c] = total
    if is_last(arrived):
        add_stripes(partial, c, c < dy.shape[1], dD)


@form_of(cpu.skip_forward)
def skip_forward(y, D, u, h=None):
    """Add D·u to y: y, u (N, H), D (H,); write gelu of the sum to ``h`` (N, H) too, if given."""
    if h is None:
        launch(skip_forward_kernel, *tiles(*y.shape), y, D, u)
    else:
        launch(skip_gelu_forward_kernel, *tiles(*y.shape), y, D, u, h)


@form_of(cpu.skip_backward)
def skip_backward(dy, D, u, du, dD, around=None):
    """Add D·dy to du (N, H), and ``around`` too; write dD = Σ dy·u (H,)."""
    grid, block = tiles(*dy.shape)
    sums = scratch(du, grid[1], D.size), counters(du, grid[0]), dD
    more = (du, False) if around is None else (around, True)
    launch(skip_backward_kernel, grid, block, dy, D, u, *more, du, *sums)
