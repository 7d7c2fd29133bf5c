"""Kernels that make columns of images, and images' gradients of columns' gradients.

A thread has one number of the output after another. In the backward pass that is a pixel: it
gathers the windows that the pixel is in, in the order of the CPU's loop, so that no two threads
write to the same place and nothing is atomic. The matrix product between the two is blas.py's.

Leaves out: half precision; products without columns (implicit ones).
Source: minis5's own. Specification: conv in minis5/reference/images.py. CPU form:
minis5/nn/conv.py. Tests: tests/nn/test_conv.py, tests/gpu/test_kernels.py.
"""

from minis5.nn import conv as cpu
from minis5.ops import form_of
from minis5_cuda.launch import kernel, launch
from minis5_cuda.reduce import flat, walk


@kernel
def im2col_forward_kernel(x, stride, scale, columns):
    """Write columns[n, i, j, a, u] = scale·x[n, i·stride + a, j·stride + b, c], u = b·C + c."""
    C = x.shape[3]
    _, rows, across, k, width = columns.shape
    first, step = walk()
    for at in range(first, columns.size, step):
        u, rest = at % width, at // width
        a, rest = rest % k, rest // k
        j, rest = rest % across, rest // across
        i, n = rest % rows, rest // rows
        pixel = x[n, i * stride + a, j * stride + u // C, u % C]
        columns[n, i, j, a, u] = scale * columns.dtype.type(pixel)


@kernel
def im2col_backward_kernel(dcolumns, stride, scale, dx):
    """Write dx[n, h, w, c] = scale·Σ dcolumns over the windows (i, j) that hold the pixel."""
    _, H, W, C = dx.shape
    _, rows, across, k, width = dcolumns.shape
    window = width // C
    first, step = walk()
    for at in range(first, dx.size, step):
        c, rest = at % C, at // C
        w, rest = rest % W, rest // W
        h, n = rest % H, rest // H
        total = dx.dtype.type(0)
        # i·stride <= h < i·stride + k
        for i in range(max(0, (h - k) // stride + 1), min(rows, h // stride + 1)):
            for j in range(max(0, (w - window) // stride + 1), min(across, w // stride + 1)):
                u = (w - j * stride) * C + c
                total += scale * dcolumns[n, i, j, h - i * stride, u]
        dx[n, h, w, c] = total


@form_of(cpu.im2col_forward)
def im2col_forward(x, stride, scale, columns):
    """Write columns (N, rows, across, k, l·C) of x (N, H, W, C), floats or bytes."""
    launch(
        im2col_forward_kernel, *flat(columns.size), x, stride, columns.dtype.type(scale), columns
    )


@form_of(cpu.im2col_backward)
def im2col_backward(dcolumns, stride, scale, dx):
    """Write dx (N, H, W, C) of dcolumns (N, rows, across, k, l·C)."""
    launch(im2col_backward_kernel, *flat(dx.size), dcolumns, stride, dx.dtype.type(scale), dx)
