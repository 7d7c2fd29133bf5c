"""Kernels between matrix products: bias and activation, layer normalisation, gates.

Each forward kernel is above its backward kernel. The launchers at the end of each section take the
arguments of the operations of the same names in minis5/nn/layers.py: arrays on the GPU,
C-contiguous, of one float dtype. They write to their outputs and do not wait. All of this is bound
by memory. Every array is read and written once, except in the row sums of layer normalisation,
which find their row in cache again. Gradients of biases are sums over rows, in a fixed order
(reduce.py).

Leaves out: half precision; matrix products (blas.py).
Source: 2303.03982, appendix B; 1607.06450, eq. 4. Specification: dense, layer_norm and gate in
minis5/reference/s5_ppo.py. CPU form: minis5/nn/layers.py.
Tests: tests/nn/test_layers.py, tests/gpu/test_kernels.py.
"""

import math

from minis5.nn import layers as cpu
from minis5.nn.scalars import CUBIC, FAR, GELU
from minis5.ops import form_of
from minis5_cuda.launch import cuda, device, kernel, launch
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


@device
def sigmoid(x):
    """Return 1/(1 + exp(-x)), with an exponent that is never positive: no overflow."""
    one, e = type(x)(1), type(x)(math.exp(-abs(x)))
    return (one if x >= type(x)(0) else e) / (one + e)


@device
def gelu(x, half, one, k, c):
    """Return ½·x·(1 + tanh u), u = k·(x + c·x³), with constants of the dtype of x."""
    return half * x * (one + math.tanh(k * (x + c * x * x * x)))


# --- bias and activation ---


@kernel
def bias_act_forward_kernel(y, bias, slope):
    """Write y ← v if v > 0 else slope·v, with v = y + bias."""
    c, first = cuda.grid(2)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            v = y[n, c] + bias[c]
            y[n, c] = v if v > y.dtype.type(0) else slope * v


@kernel
def bias_act_backward_kernel(dy, y, slope, dz, partial, arrived, dbias):
    """Write dz = dy where y > 0, else slope·dy; dbias = its sum over rows."""
    c, first = cuda.grid(2)
    total = dz.dtype.type(0)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            # in the forward pass y = v if v > 0 else slope·v, so here dv = dy or slope·dy;
            # y > 0 just where v > 0, because slope >= 0
            d = dy[n, c] if y[n, c] > dz.dtype.type(0) else slope * dy[n, c]
            dz[n, c] = d
            total += d  # v = z + bias in every row, so dbias = Σ dz
    total = over_rows(total, partial)
    if c < y.shape[1] and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, c] = total
    if is_last(arrived):
        add_stripes(partial, c, c < y.shape[1], dbias)


@form_of(cpu.bias_act_forward)
def bias_act_forward(y, bias, slope):
    """Write y (N, H) ← act(y + bias) in place; bias (H,)."""
    launch(bias_act_forward_kernel, *tiles(*y.shape), y, bias, y.dtype.type(slope))


@form_of(cpu.bias_act_backward)
def bias_act_backward(dy, y, slope, dz, dbias):
    """Write dz from dy and the outputs y, all (N, H); dbias (H,) = Σ dz."""
    grid, block = tiles(*y.shape)
    sums = scratch(y, grid[1], y.shape[1]), counters(y, grid[0]), dbias
    launch(bias_act_backward_kernel, grid, block, dy, y, y.dtype.type(slope), dz, *sums)


# --- layer normalisation ---


@kernel
def norm_forward_kernel(x, scale, bias, eps, y, normal, deviation):
    """Write deviation, normal and y, as norm_forward below.

    A row of threads has a row of x, thrice: for the mean, the variance and the result.
    """
    i, n = cuda.threadIdx.x, cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    # below the last row: no work, but the sums need every thread
    H = x.shape[1] if n < x.shape[0] else 0
    count = x.dtype.type(x.shape[1])
    total = x.dtype.type(0)
    for h in range(i, H, cuda.blockDim.x):
        total += x[n, h]
    mean = over_lanes(total, x) / count
    total = x.dtype.type(0)
    for h in range(i, H, cuda.blockDim.x):
        total += (x[n, h] - mean) * (x[n, h] - mean)
    width = x.dtype.type(math.sqrt(over_lanes(total, x) / count + eps))  # √(var + eps)
    for h in range(i, H, cuda.blockDim.x):
        v = (x[n, h] - mean) / width
        normal[n, h] = v
        y[n, h] = v * scale[h] + bias[h]
    if i == 0 and H > 0:
        deviation[n] = width


@kernel
def norm_backward_kernel(dy, scale, normal, deviation, dx):
    """Write dx = (dn - mean(dn) - normal·mean(dn·normal))/deviation, with dn = dy·scale.

    A row of threads has a row of dy.
    """
    i, n = cuda.threadIdx.x, cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y
    H = dy.shape[1] if n < dy.shape[0] else 0
    count = dy.dtype.type(dy.shape[1])
    total = along = dy.dtype.type(0)
    for h in range(i, H, cuda.blockDim.x):
        dn = dy[n, h] * scale[h]  # in the forward pass y = normal·scale + bias
        total += dn
        along += dn * normal[n, h]
    mean, slope = over_lanes(total, dy) / count, over_lanes(along, dy) / count
    for h in range(i, H, cuda.blockDim.x):
        # in the forward pass normal = (x - mean(x))/deviation: mean(dn) comes back through the
        # mean, normal·mean(dn·normal) through the deviation
        dx[n, h] = (dy[n, h] * scale[h] - mean - normal[n, h] * slope) / deviation[n]


@kernel
def norm_parameters_kernel(dy, normal, partial_scale, partial_bias, arrived, scale_out, bias_out):
    """Write scale_out, bias_out = sums over rows of dy·normal and dy."""
    c, first = cuda.grid(2)
    dscale = dbias = dy.dtype.type(0)
    if c < dy.shape[1]:
        for n in range(first, dy.shape[0], cuda.gridsize(2)[1]):
            dscale += dy[n, c] * normal[n, c]  # in the forward pass y = normal·scale + bias
            dbias += dy[n, c]
    dscale, dbias = over_rows(dscale, dy), over_rows(dbias, dy)
    if c < dy.shape[1] and cuda.threadIdx.y == 0:
        partial_scale[cuda.blockIdx.y, c], partial_bias[cuda.blockIdx.y, c] = dscale, dbias
    if is_last(arrived):
        add_stripes(partial_scale, c, c < dy.shape[1], scale_out)
        add_stripes(partial_bias, c, c < dy.shape[1], bias_out)


@form_of(cpu.norm_forward)
def norm_forward(x, scale, bias, eps, y, normal, deviation):
    """Write deviation = √(var + eps), normal = (x - mean)/deviation, y = normal·scale + bias.

    x, y, normal (N, H), scale, bias (H,), deviation (N,).
    """
    arguments = x, scale, bias, x.dtype.type(eps), y, normal, deviation
    launch(norm_forward_kernel, *rows(x.shape[0]), *arguments)


@form_of(cpu.norm_backward)
def norm_backward(dy, scale, normal, deviation, dx, dscale, dbias):
    """Write dx (N, H), dscale and dbias (H,).

    dx may be dy, because the sums over rows come first.
    """
    grid, block = tiles(*dy.shape)
    partials = [scratch(dy, grid[1], dy.shape[1]) for _ in range(2)]
    sums = *partials, counters(dy, grid[0]), dscale, dbias
    launch(norm_parameters_kernel, grid, block, dy, normal, *sums)
    grid, block = rows(dy.shape[0])
    launch(norm_backward_kernel, grid, block, dy, scale, normal, deviation, dx)


# --- gates ---


@kernel
def gelu_forward_kernel(s, h):
    """Write h = gelu(s)."""
    half, one, k, c = s.dtype.type(0.5), s.dtype.type(1), s.dtype.type(GELU), s.dtype.type(CUBIC)
    first, step = walk()
    for i in range(first, s.size, step):
        h[i] = gelu(s[i], half, one, k, c)


@kernel
def gelu_backward_kernel(dh, s, ds):
    """Write ds = dh·(½·(1 + t) + ½·s·(1 - t²)·u'), with t = tanh u, u' = GELU·(1 + 3·CUBIC·s²)."""
    half, one, k = s.dtype.type(0.5), s.dtype.type(1), s.dtype.type(GELU)
    c, c3, far = s.dtype.type(CUBIC), s.dtype.type(3 * CUBIC), s.dtype.type(FAR)
    first, step = walk()
    for i in range(first, s.size, step):
        x = far if s[i] > far else -far if s[i] < -far else s[i]  # u' may overflow
        # in the forward pass h = ½·s·(1 + t), so here dh/ds = ½·(1 + t) + ½·s·dt/ds,
        # with dt/ds = (1 - t²)·u'
        t = s.dtype.type(math.tanh(k * (x + c * x * x * x)))
        ds[i] = dh[i] * (half * (one + t) + half * x * (one - t * t) * k * (one + c3 * x * x))


@kernel
def glu_forward_kernel(z, bias, skip, has_skip, y):
    """Write z ← z + bias = [value | gate]; y = value·sigmoid(gate), plus ``skip`` if there is."""
    c, first = cuda.grid(2)
    H = y.shape[1]
    if c < H:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            value, gate = z[n, c] + bias[c], z[n, H + c] + bias[H + c]
            z[n, c], z[n, H + c] = value, gate
            out = value * sigmoid(gate)
            y[n, c] = out + skip[n, c] if has_skip else out


@kernel
def glu_backward_kernel(dy, z, dz, partial, arrived, dbias):
    """Write dz = [dvalue | dgate]; dbias = its sum over rows.

    dvalue = dy·s, dgate = dy·value·s·(1 - s), with s = sigmoid(gate).
    """
    c, first = cuda.grid(2)
    H = dy.shape[1]
    one, value_total, gate_total = dz.dtype.type(1), dz.dtype.type(0), dz.dtype.type(0)
    if c < H:
        for n in range(first, dy.shape[0], cuda.gridsize(2)[1]):
            s = sigmoid(z[n, H + c])
            dvalue = dy[n, c] * s  # in the forward pass y = value·s
            dgate = dvalue * z[n, c] * (one - s)  # ds/dgate = s·(1 - s)
            dz[n, c], dz[n, H + c] = dvalue, dgate
            value_total += dvalue
            gate_total += dgate
    value_total, gate_total = over_rows(value_total, dz), over_rows(gate_total, dz)
    if c < H and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, c], partial[cuda.blockIdx.y, H + c] = value_total, gate_total
    if is_last(arrived):
        add_stripes(partial, c, c < H, dbias)
        add_stripes(partial, H + c, c < H, dbias)


@kernel
def sigmoid_gate_forward_kernel(x, z, bias, y):
    """Write z ← z + bias; y = x·sigmoid(z)."""
    c, first = cuda.grid(2)
    if c < y.shape[1]:
        for n in range(first, y.shape[0], cuda.gridsize(2)[1]):
            gate = z[n, c] + bias[c]
            z[n, c] = gate
            y[n, c] = x[n, c] * sigmoid(gate)


@kernel
def sigmoid_gate_backward_kernel(dy, x, z, dx, dz, partial, arrived, dbias):
    """Write dx = dy·s, dz = dy·x·s·(1 - s), with s = sigmoid(z).

    dbias = the sum of dz over rows.
    """
    c, first = cuda.grid(2)
    one, total = dz.dtype.type(1), dz.dtype.type(0)
    if c < dy.shape[1]:
        for n in range(first, dy.shape[0], cuda.gridsize(2)[1]):
            s = sigmoid(z[n, c])
            dvalue = dy[n, c] * s  # in the forward pass y = x·s
            dgate = dvalue * x[n, c] * (one - s)  # ds/dz = s·(1 - s)
            dx[n, c], dz[n, c] = dvalue, dgate
            total += dgate
    total = over_rows(total, dz)
    if c < dy.shape[1] and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, c] = total
    if is_last(arrived):
        add_stripes(partial, c, c < dy.shape[1], dbias)


@form_of(cpu.gelu_forward)
def gelu_forward(s, h):
    """Write h = gelu(s), both (n,)."""
    launch(gelu_forward_kernel, *flat(s.size), s, h)


@form_of(cpu.gelu_backward)
def gelu_backward(dh, s, ds):
    """Write ds = dh·gelu'(s), all (n,)."""
    launch(gelu_backward_kernel, *flat(s.size), dh, s, ds)


@form_of(cpu.glu_forward)
def glu_forward(z, bias, y, skip=None):
    """Write y (N, H) = value·sigmoid(gate), plus ``skip`` (N, H).

    z (N, 2H) are the products before the bias (2H,), [value | gate]; it keeps the sums.
    """
    more = (y, False) if skip is None else (skip, True)
    launch(glu_forward_kernel, *tiles(*y.shape), z, bias, *more, y)


@form_of(cpu.glu_backward)
def glu_backward(dy, z, dz, dbias):
    """Write dz (N, 2H) from dy (N, H) and the sums z; dbias (2H,) = Σ dz."""
    grid, block = tiles(*dy.shape)
    sums = scratch(z, grid[1], z.shape[1]), counters(z, grid[0]), dbias
    launch(glu_backward_kernel, grid, block, dy, z, dz, *sums)


@form_of(cpu.sigmoid_gate_forward)
def sigmoid_gate_forward(x, z, bias, y):
    """Write y = x·sigmoid(z + bias), all (N, H) but bias (H,); z keeps the sum."""
    launch(sigmoid_gate_forward_kernel, *tiles(*y.shape), x, z, bias, y)


@form_of(cpu.sigmoid_gate_backward)
def sigmoid_gate_backward(dy, x, z, dx, dz, dbias):
    """Write dx, dz from dy and the sums z, all (N, H); dbias (H,) = Σ dz."""
    grid, block = tiles(*dy.shape)
    sums = scratch(z, grid[1], z.shape[1]), counters(z, grid[0]), dbias
    launch(sigmoid_gate_backward_kernel, grid, block, dy, x, z, dx, dz, *sums)
