"""Convolutions of images as one matrix product for each layer; forward above backward.

    columns = im2col(x)        every window of the images as a row of numbers
    y = act(columns @ kernel + bias)

An image is (H, W, C): rows, columns, channels. A kernel is (k, l, C, F) for F filters, as in flax.
Windows are `stride` apart and lie within the image ("valid": no padding), so that an output has
(H - k) // stride + 1 rows. `scale` multiplies the image on its way into the columns: images of
bytes need no copy of floats.

Leaves out: padding, dilation, groups, pooling.
Source: Chellapilla, Puri & Simard 2006 (convolutions as matrix products). Specification:
reference.conv. GPU form: cuda/minis5_cuda/nn/conv.py. Tests: tests/nn/test_conv.py.
"""

from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.checks import FLOATS, check_array, check_integer, check_number, take_array
from minis5.nn.layers import DenseCache, dense_backward, dense_forward
from minis5.nn.parameters import orthogonal
from minis5.ops import operation

PIXELS = (*FLOATS, np.uint8)  # what an image may be made of


class ConvCache(NamedTuple):
    dense: DenseCache  # of the product
    shape: tuple  # of the images
    window: tuple  # (k, l)
    stride: int
    scale: float


@operation
def im2col_forward(x, stride, scale, columns):
    """Write each window of x, times ``scale``, to a row of columns.

    x: (N, H, W, C); columns: (N, rows, windows in a row, k, l·C).
    """
    N, _, _, C = x.shape
    images = x.reshape(N, x.shape[1], x.shape[2] * C)
    _, rows, across, k, width = columns.shape
    for n in range(N):
        for i in range(rows):
            for j in range(across):
                for a in range(k):
                    source, out = images[n, i * stride + a, j * stride * C :], columns[n, i, j, a]
                    for u in range(width):
                        out[u] = scale * source[u]


@operation
def im2col_backward(dcolumns, stride, scale, dx):
    """Write dx (N, H, W, C): a pixel's gradient is the sum over the windows that it is in."""
    N, _, _, C = dx.shape
    images = dx.reshape(N, dx.shape[1], dx.shape[2] * C)
    _, rows, across, k, width = dcolumns.shape
    images[:] = 0
    for n in range(N):
        for i in range(rows):
            for j in range(across):
                for a in range(k):
                    d, out = dcolumns[n, i, j, a], images[n, i * stride + a, j * stride * C :]
                    for u in range(width):
                        out[u] += scale * d[u]  # in the forward pass column = scale·pixel


def conv_init(rng, shape, gain):
    """Return the parameters of a layer: an orthogonal kernel (k, l, C, F) and a bias of 0."""
    k, width, C, F = shape
    kernel = orthogonal(rng, (k * width * C, F), gain)
    return {"kernel": kernel.reshape(shape), "bias": np.zeros(F)}


def conv_size(size, k, stride):
    """Return how many windows of k pixels, ``stride`` apart, lie within ``size`` pixels."""
    return (size - k) // stride + 1


def conv_forward(p, x, stride=1, activation="linear", scale=1.0):
    """Return act(conv(scale·x, kernel) + bias) and the cache.

    Parameters
    ----------
    p : dict
        "kernel": float (k, l, C, F); "bias": (F,) of its dtype.
    x : (N, H, W, C)
        Of the kernel's dtype, or uint8.
    stride : int
        Pixels from window to window, along both axes.
    activation : {"linear", "leaky_relu", "relu"}
    scale : float
        Multiplies the images.

    Returns
    -------
    y : (N, (H - k) // stride + 1, (W - l) // stride + 1, F)
    cache : ConvCache
        For :func:`conv_backward`.

    Raises
    ------
    TypeError, ValueError
        An array has another shape or dtype, or the images are smaller than a window.
    """
    kernel, x, stride, scale = _take(p, x, stride, scale)
    (N, H, W, C), (k, width, _, F), xp = x.shape, kernel.shape, array_module(x)
    shape = N, conv_size(H, k, stride), conv_size(W, width, stride)
    columns = xp.empty((*shape, k, width * C), kernel.dtype)
    im2col_forward(x, stride, kernel.dtype.type(scale), columns)
    flat = {"kernel": kernel.reshape(-1, F), "bias": p["bias"]}
    y, dense = dense_forward(flat, columns.reshape(-1, k * width * C), activation)
    return y.reshape(*shape, F), ConvCache(dense, x.shape, (k, width), stride, scale)


def conv_backward(dy, cache, need_dx=True):
    """Return dx (None unless ``need_dx``) and the gradients of kernel and bias.

    Raises
    ------
    TypeError, ValueError
        ``dy`` has not the shape and dtype of the output.
    """
    dense, (N, H, W, C), (k, width), stride, scale = cache
    dtype, F, xp = dense.y.dtype, dense.y.shape[1], array_module(dense.y)
    shape = N, conv_size(H, k, stride), conv_size(W, width, stride)
    dy = take_array("dy", dy, (*shape, F), dtype, "it has the shape and dtype of y", xp)
    dcolumns, grads = dense_backward(dy.reshape(-1, F), dense, need_dx)
    dx = None
    if need_dx:
        dx = xp.empty((N, H, W, C), dtype)
        dcolumns = dcolumns.reshape(*shape, k, width * C)
        im2col_backward(dcolumns, stride, dtype.type(scale), dx)
    return dx, {"kernel": grads["kernel"].reshape(k, width, C, F), "bias": grads["bias"]}


def _take(p, x, stride, scale):
    """Return kernel, images, stride and scale, checked, the arrays in C order."""
    xp = array_module(x)
    stride = check_integer("stride", stride, 1, 2**20, "windows are at least a pixel apart")
    scale = check_number("scale", scale, -1e30, 1e30, "1 leaves the images as they are")
    sizes = ("k", "l", "C", "F")
    kernel = check_array("kernel", p["kernel"], sizes, FLOATS, "see conv_init", xp)
    k, width, C, F = kernel.shape
    if 0 in kernel.shape:
        raise ValueError(f"kernel: expected no empty axis, got {kernel.shape}; see conv_init")
    remedy = f"order the axes images, rows, columns, channels; the kernel has {C} channels"
    x = check_array("x", x, ("N", "H", "W", C), PIXELS, remedy, xp)
    if x.dtype not in (kernel.dtype, np.uint8):
        wanted = f"{kernel.dtype} as the kernel, or uint8"
        raise ValueError(f"x: expected {wanted}, got {x.dtype}; cast one of them")
    if len(x) == 0 or x.shape[1] < k or x.shape[2] < width:
        wanted = f"at least one image of at least {k} x {width} pixels"
        raise ValueError(f"x: expected {wanted}, got {x.shape}; take a smaller kernel")
    remedy = "one number for each filter"
    check_array("bias", p["bias"], (F,), (kernel.dtype.type,), remedy, xp)
    return xp.ascontiguousarray(kernel), xp.ascontiguousarray(x), stride, scale
