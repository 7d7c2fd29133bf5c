"""The two heads of the agent side by side: actor and critic differ in their last layer alone.

Each hidden layer of both is one batch of two products (blas.py) and one kernel, which adds the
biases and applies the activation. Pairs are arrays (2, N, W): the actor's, then the critic's. The
last layers have different widths; a kernel takes the columns of both.

Source: 2303.03982, appendix B. Specification: agent in minis5/reference/s5_ppo.py. CPU form:
heads_forward, heads_backward in minis5/rl/agent.py. A kernel by itself is held to bias_act_forward
and bias_act_backward of each head (minis5/nn/layers.py).
Tests: tests/test_kernels.py, tests/gpu/test_kernels.py.
"""

from typing import NamedTuple

from minis5.arrays import array_module
from minis5.nn.layers import SLOPES
from minis5.ops import form_of
from minis5.rl import agent as cpu
from minis5_cuda.blas import matmul, matmul_batch
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import add_stripes, counters, is_last, over_rows, scratch, tiles

SLOPE = SLOPES["leaky_relu"]


class Hidden(NamedTuple):
    """A hidden layer of both heads."""

    name: str
    kernels: list  # two of (K, W)
    inputs: object  # two of (N, K)
    y: object  # (2, N, W)


class Cache(NamedTuple):
    """What the backward pass of both heads needs."""

    hidden: list
    kernels: list  # of the last layers, (K, n) and (K, 1)
    inputs: object  # two of (N, K)
    shape: tuple  # of the features


@kernel
def pair_act_forward_kernel(y, bias, other, slope):
    """Write y ← act(y + bias), y (2, N, W); ``other`` is the bias of the second half."""
    q, first = cuda.grid(2)
    W = y.shape[2]
    if q < 2 * W:
        half, c = q // W, q % W
        b = bias[c] if half == 0 else other[c]
        for n in range(first, y.shape[1], cuda.gridsize(2)[1]):
            v = y[half, n, c] + b
            y[half, n, c] = v if v > y.dtype.type(0) else slope * v


@kernel
def pair_act_backward_kernel(dy, y, slope, dz, partial, arrived, dbias):
    """Write dz = dy where y > 0, else slope·dy, all (2, N, W); dbias (2W,) = its sums over rows."""
    q, first = cuda.grid(2)
    W, total = y.shape[2], dz.dtype.type(0)
    if q < 2 * W:
        half, c = q // W, q % W
        for n in range(first, y.shape[1], cuda.gridsize(2)[1]):
            d = dy[half, n, c]  # in the forward pass y = v if v > 0 else slope·v
            d = d if y[half, n, c] > dz.dtype.type(0) else slope * d
            dz[half, n, c] = d
            total += d
    total = over_rows(total, partial)
    if q < 2 * W and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, q] = total
    if is_last(arrived):
        add_stripes(partial, q, q < 2 * W, dbias)


@kernel
def last_forward_kernel(out, value, bias, other):
    """Add the biases to out (N, n) and value (N, 1)."""
    q, first = cuda.grid(2)
    n = out.shape[1]
    if q <= n:
        for row in range(first, out.shape[0], cuda.gridsize(2)[1]):
            if q < n:
                out[row, q] += bias[q]
            else:
                value[row, 0] += other[0]


@kernel
def last_backward_kernel(d_out, d_value, partial, arrived, dbias):
    """Write dbias (n + 1,), the sums over rows of d_out (N, n) and d_value (N, 1)."""
    q, first = cuda.grid(2)
    n, total = d_out.shape[1], d_out.dtype.type(0)
    if q <= n:
        for row in range(first, d_out.shape[0], cuda.gridsize(2)[1]):
            total += d_out[row, q] if q < n else d_value[row, 0]
    total = over_rows(total, partial)
    if q <= n and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y, q] = total
    if is_last(arrived):
        add_stripes(partial, q, q <= n, dbias)


def pair_act_forward(y, bias, other, slope):
    """Write y (2, N, W) ← act(y + bias) in place; the two biases are (W,)."""
    grid = tiles(y.shape[1], 2 * y.shape[2])
    launch(pair_act_forward_kernel, *grid, y, bias, other, y.dtype.type(slope))


def pair_act_backward(dy, y, slope, dz, dbias):
    """Write dz (2, N, W) from dy and the outputs y; dbias (2W,) = Σ dz."""
    grid, block = tiles(y.shape[1], 2 * y.shape[2])
    sums = scratch(y, grid[1], dbias.size), counters(y, grid[0]), dbias
    launch(pair_act_backward_kernel, grid, block, dy, y, y.dtype.type(slope), dz, *sums)


def last_forward(out, value, bias, other):
    """Add the biases (n,) and (1,) to out (N, n) and value (N, 1)."""
    launch(last_forward_kernel, *tiles(len(out), out.shape[1] + 1), out, value, bias, other)


def last_backward(d_out, d_value, dbias):
    """Write to dbias (n + 1,) the sums over rows of d_out (N, n) and d_value (N, 1)."""
    grid, block = tiles(len(d_out), dbias.size)
    sums = scratch(d_out, grid[1], dbias.size), counters(d_out, grid[0]), dbias
    launch(last_backward_kernel, grid, block, d_out, d_value, *sums)


@form_of(cpu.heads_forward)
def heads_forward(x, actor, critic):
    """Return the outputs of both heads, and a Cache."""
    shape, hidden = x.shape, []
    x = array_module(x).ascontiguousarray(x).reshape(-1, shape[-1])
    inputs = x, x
    *names, last = actor
    for name in names:
        kernels = [head[name]["kernel"] for head in (actor, critic)]
        y = matmul_batch(inputs, kernels)
        pair_act_forward(y, actor[name]["bias"], critic[name]["bias"], SLOPE)
        hidden.append(Hidden(name, kernels, inputs, y))
        inputs = y
    kernels = [head[last]["kernel"] for head in (actor, critic)]
    out, value = map(matmul, inputs, kernels)
    last_forward(out, value, actor[last]["bias"], critic[last]["bias"])
    cache = Cache(hidden, kernels, inputs, shape)
    return out.reshape(*shape[:-1], -1), value.reshape(shape[:-1]), cache


@form_of(cpu.heads_backward)
def heads_backward(d_out, d_value, caches):
    """Return dx and the gradients of both heads."""
    xp, (hidden, kernels, inputs, shape) = array_module(d_out), caches
    n, actor, critic = d_out.shape[-1], {}, {}
    d_out, d_value = (xp.ascontiguousarray(z).reshape(-1, m) for z, m in ((d_out, n), (d_value, 1)))
    dbias = xp.empty(n + 1, d_out.dtype)
    last_backward(d_out, d_value, dbias)
    pairs = [(actor, d_out, dbias[:n]), (critic, d_value, dbias[n:])]
    dy = xp.empty((2, len(d_out), kernels[0].shape[0]), d_out.dtype)
    for i, (grads, d, bias) in enumerate(pairs):
        grads["out"] = {"kernel": matmul(inputs[i].T, d), "bias": bias}
        matmul(d, kernels[i].T, dy[i])
    for layer in reversed(hidden):
        dz, dbias = xp.empty_like(layer.y), xp.empty(2 * layer.y.shape[2], d_out.dtype)
        pair_act_backward(dy, layer.y, SLOPE, dz, dbias)
        dkernels, halves = matmul_batch([z.T for z in layer.inputs], dz), dbias.reshape(2, -1)
        for i, grads in enumerate((actor, critic)):
            grads[layer.name] = {"kernel": dkernels[i], "bias": halves[i]}
        dy = matmul_batch(dz, [kernel.T for kernel in layer.kernels])
    dx = dy[0]
    dx += dy[1]
    return dx.reshape(shape), actor, critic
