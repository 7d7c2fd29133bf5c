"""The layers around the recurrence: dense, layer normalisation, gates; forward above backward.

A forward takes its parameters (a dict) and an input (..., features), and returns the output and a
cache. The backward takes the output's gradient and the cache, and returns the input's gradient and
a dict of gradients with the parameters' keys. BLAS computes matrix products; one fused loop, bound
by memory, computes everything between two of them.

Leaves out: dropout and batch normalisation, which the paper's agents do not use.
Source: 2303.03982, appendix B. Specification: reference.dense, .layer_norm, .gate.
GPU form: cuda/minis5_cuda/nn/layers.py. Tests: tests/nn/test_layers.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module, concatenate
from minis5.nn.layer_doors import refuse_dense, refuse_gate, refuse_norm
from minis5.nn.parameters import lecun_normal
from minis5.nn.scalars import dgelu, gelu, sigmoid
from minis5.ops import matmul, operation

# --- dense ---

SLOPES = {"linear": 1.0, "leaky_relu": 0.01, "relu": 0.0}  # activation: x if x > 0 else slope·x


class DenseCache(NamedTuple):
    kernel: np.ndarray  # (in, out)
    x: np.ndarray  # (N, in)
    y: np.ndarray  # (N, out)
    slope: float
    shape: tuple


@operation
def bias_act_forward(y, bias, slope):
    """Write y (N, H) ← act(y + bias), in place."""
    for n in range(y.shape[0]):
        row = y[n]
        for h in range(row.size):
            z = row[h] + bias[h]
            row[h] = z if z > 0 else slope * z  # y = act(z)


@operation
def bias_act_backward(dy, y, slope, dz, dbias):
    """Write dz (N, H) and dbias (H,). slope >= 0, so that y > 0 just where z > 0."""
    dbias[:] = 0
    for n in range(y.shape[0]):
        row, drow, out = y[n], dy[n], dz[n]
        for h in range(row.size):
            d = drow[h] if row[h] > 0 else slope * drow[h]  # dz = dy·act'(z)
            out[h] = d
            dbias[h] += d


def dense_weights(p, activation="linear"):
    """Return kernel, bias and the slope of ``activation``: "linear", "leaky_relu" or "relu"."""
    if p["bias"].shape != p["kernel"].shape[1:] or activation not in SLOPES:
        refuse_dense(p, activation, SLOPES)
    return p["kernel"], p["bias"], p["kernel"].dtype.type(SLOPES[activation])


def dense_apply(kernel, bias, slope, x):
    """Return act(x @ kernel + bias).  x: (N, in) → (N, out)."""
    y = matmul(x, kernel)
    bias_act_forward(y, bias, slope)
    return y


def dense_forward(p, x, activation="linear"):
    """Return act(x @ kernel + bias) and the cache.  x: (..., in) → (..., out)."""
    kernel, bias, slope = dense_weights(p, activation)
    flat = array_module(x).ascontiguousarray(x).reshape(-1, x.shape[-1])
    y = dense_apply(kernel, bias, slope, flat)
    return y.reshape(*x.shape[:-1], -1), DenseCache(kernel, flat, y, slope, x.shape)


def dense_backward(dy, cache, need_dx=True):
    """Return dx (None unless ``need_dx``) and the gradients of kernel and bias."""
    kernel, x, y, slope, shape = cache
    xp = array_module(y)
    dz, dbias = xp.empty_like(y), xp.empty(y.shape[1], y.dtype)
    bias_act_backward(xp.ascontiguousarray(dy).reshape(y.shape), y, slope, dz, dbias)
    dx = matmul(dz, kernel.T).reshape(shape) if need_dx else None  # z = x @ kernel + bias
    return dx, {"kernel": matmul(x.T, dz), "bias": dbias}


# --- layer normalisation ---


class LayerNormCache(NamedTuple):
    scale: np.ndarray  # (H,)
    normal: np.ndarray  # (N, H): (x - mean)/deviation
    deviation: np.ndarray  # (N,)


@operation
def norm_forward(x, scale, bias, eps, y, normal, deviation):
    """Write y, normal (N, H) and deviation (N,) of x (N, H)."""
    for n in range(x.shape[0]):
        row, out, kept = x[n], y[n], normal[n]
        mean, square = eps * 0, eps * 0  # 0 in the dtype of the arrays
        for h in range(row.size):
            mean += row[h]
        mean /= x.dtype.type(row.size)
        for h in range(row.size):
            kept[h] = row[h] - mean
            square += kept[h] * kept[h]
        deviation[n] = math.sqrt(square / x.dtype.type(row.size) + eps)
        for h in range(row.size):
            kept[h] /= deviation[n]
            out[h] = kept[h] * scale[h] + bias[h]


@operation
def norm_backward(dy, scale, normal, deviation, dx, dscale, dbias):
    """Write dx (N, H), dscale and dbias (H,)."""
    dscale[:], dbias[:] = 0, 0
    for n in range(dy.shape[0]):
        d, kept, out = dy[n], normal[n], dx[n]
        mean, slope = deviation[n] * 0, deviation[n] * 0
        for h in range(d.size):
            dn = d[h] * scale[h]
            mean += dn  # mean(dn)
            slope += dn * kept[h]  # mean(dn·normal)
            dscale[h] += d[h] * kept[h]
            dbias[h] += d[h]
        mean /= dy.dtype.type(d.size)
        slope /= dy.dtype.type(d.size)
        for h in range(d.size):  # dx = (dn - mean(dn) - normal·mean(dn·normal))/deviation
            out[h] = (d[h] * scale[h] - mean - kept[h] * slope) / deviation[n]


def layer_norm_forward(p, x, eps=1e-6):
    """Return (x - mean)/√(var + eps)·scale + bias over the last axis, and the cache.

    Source: 1607.06450, eq. 4; eps as in flax.
    """
    if not p["scale"].shape == p["bias"].shape == x.shape[-1:]:
        refuse_norm(p, x)
    xp = array_module(x)
    flat = xp.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y, normal, deviation = xp.empty_like(flat), xp.empty_like(flat), xp.empty(len(flat), x.dtype)
    norm_forward(flat, p["scale"], p["bias"], x.dtype.type(eps), y, normal, deviation)
    return y.reshape(x.shape), LayerNormCache(p["scale"], normal, deviation)


def layer_norm_backward(dy, cache):
    """Return dx and the gradients of scale and bias."""
    scale, normal, deviation = cache
    xp = array_module(dy)
    dx, grads = xp.empty_like(normal), {"scale": xp.empty_like(scale), "bias": xp.empty_like(scale)}
    flat = xp.ascontiguousarray(dy).reshape(normal.shape)
    norm_backward(flat, scale, normal, deviation, dx, *grads.values())
    return dx.reshape(dy.shape), grads


# --- gates ---


@operation
def gelu_forward(s, h):
    """Write h = gelu(s)."""
    for i in range(s.size):
        h[i] = gelu(s[i])


@operation
def gelu_backward(dh, s, ds):
    """Write ds = dh·gelu'(s)."""
    for i in range(s.size):
        ds[i] = dh[i] * dgelu(s[i])


@operation
def glu_forward(z, bias, y):
    """Write y = value·sigmoid(gate). z (N, 2H): [value | gate], on entry before the bias."""
    H = y.shape[1]
    for n in range(y.shape[0]):
        value, gate, out, b1, b2 = z[n, :H], z[n, H:], y[n], bias[:H], bias[H:]
        for i in range(out.size):
            value[i] += b1[i]
            gate[i] += b2[i]
            out[i] = value[i] * sigmoid(gate[i])


@operation
def glu_backward(dy, z, dz, dbias):
    """Write dz (N, 2H) = [dvalue | dgate], and its sum over rows, dbias (2H,)."""
    H = dy.shape[1]
    dbias[:] = 0
    for n in range(dy.shape[0]):
        value, gate, d, dvalue, dgate = z[n, :H], z[n, H:], dy[n], dz[n, :H], dz[n, H:]
        db1, db2 = dbias[:H], dbias[H:]
        for i in range(d.size):
            s = sigmoid(gate[i])
            dv = d[i] * s  # y = value·s, so dvalue = dy·s
            dg = dv * value[i]  # and dgate = dy·value·s·(1 - s)
            dg -= dg * s
            dvalue[i] = dv
            dgate[i] = dg
            db1[i] += dv
            db2[i] += dg


@operation
def sigmoid_gate_forward(x, z, bias, y):
    """Write y = x·sigmoid(z). z (N, H): on entry before the bias."""
    for n in range(y.shape[0]):
        value, gate, out = x[n], z[n], y[n]
        for i in range(out.size):
            gate[i] += bias[i]
            out[i] = value[i] * sigmoid(gate[i])


@operation
def sigmoid_gate_backward(dy, x, z, dx, dz, dbias):
    """Write dx and dz (N, H), and the sum of dz over rows, dbias (H,)."""
    dbias[:] = 0
    for n in range(dy.shape[0]):
        value, gate, d, dvalue, dgate = x[n], z[n], dy[n], dx[n], dz[n]
        for i in range(d.size):
            s = sigmoid(gate[i])
            dv = d[i] * s  # y = x·s, so dx = dy·s
            dg = dv * value[i]  # and dz = dy·x·s·(1 - s)
            dg -= dg * s
            dvalue[i] = dv
            dgate[i] = dg
            dbias[i] += dg


# kind: its dense layers
GATES = {"full_glu": ("out1", "out2"), "half_glu1": ("out2",), "half_glu2": ("out2",), "gelu": ()}


class GateCache(NamedTuple):
    kind: str
    kernel: np.ndarray | None  # (H, H), or (H, 2H) = [W1 | W2]
    s: np.ndarray  # (N, H)
    h: np.ndarray  # (N, H): gelu(s), as long as a dense layer reads it
    z: np.ndarray | None  # (N, H) or (N, 2H): h @ kernel + bias


def gate_init(rng, H, kind):
    """Return the parameters of a gate: kernels lecun-normal, biases 0."""
    return {
        name: {"kernel": lecun_normal(rng, (H, H), H), "bias": np.zeros(H)} for name in GATES[kind]
    }


def gate_weights(p, kind):
    """Return kernel and bias of the gate's dense layers side by side, [W1 | W2]; None for none."""
    layers = [p[name] for name in GATES[kind]]
    if len(layers) < 2:
        return (layers[0]["kernel"], layers[0]["bias"]) if layers else (None, None)
    return tuple(concatenate([layer[name] for layer in layers]) for name in ("kernel", "bias"))


def gate_apply(kind, kernel, bias, s):
    """Return h = gelu(s), z = h @ kernel + bias, and y, the nonlinearity after the SSM; s: (N, H).

    full_glu: (W1 h + b1)·sigmoid(W2 h + b2); half_glu1: h·sigmoid(W2 h + b2);
    half_glu2: s·sigmoid(W2 h + b2); gelu: h.  2303.03982, appendix B, and the authors' code.
    """
    h = array_module(s).empty_like(s)
    gelu_forward(s.ravel(), h.ravel())
    if kind == "gelu":
        return h, None, h
    z, y = matmul(h, kernel), array_module(s).empty_like(s)
    if z.shape[1] != len(GATES[kind]) * s.shape[1] or bias.shape != z.shape[1:]:
        refuse_gate(kind, kernel, bias, s)
    if kind == "full_glu":
        glu_forward(z, bias, y)
    else:
        sigmoid_gate_forward(h if kind == "half_glu1" else s, z, bias, y)
    return h, z, y


def gate_forward(p, s, kind):
    """Return gate_apply's y for s (..., H), and the cache."""
    flat = array_module(s).ascontiguousarray(s).reshape(-1, s.shape[-1])
    kernel, bias = gate_weights(p, kind)
    h, z, y = gate_apply(kind, kernel, bias, flat)
    return y.reshape(s.shape), GateCache(kind, kernel, flat, h, z)


def gate_backward(dy, cache):
    """Return ds and the gradients of the gate's dense layers."""
    kind, kernel, s, h, z = cache
    xp, shape = array_module(s), dy.shape
    dy, ds = xp.ascontiguousarray(dy).reshape(s.shape), xp.empty_like(s)
    if kind == "gelu":
        gelu_backward(dy.ravel(), s.ravel(), ds.ravel())
        return ds.reshape(shape), {}
    dz, dbias, dvalue = xp.empty_like(z), xp.empty(z.shape[1], z.dtype), None
    if kind == "full_glu":
        glu_backward(dy, z, dz, dbias)
    else:
        dvalue = xp.empty_like(s)
        sigmoid_gate_backward(dy, h if kind == "half_glu1" else s, z, dvalue, dz, dbias)
    dh = matmul(dz, kernel.T)
    if kind == "half_glu1":
        dh += dvalue
    gelu_backward(dh.ravel(), s.ravel(), ds.ravel())
    if kind == "half_glu2":
        ds += dvalue
    dkernel, H, grads = matmul(h.T, dz), s.shape[1], {}
    for i, name in enumerate(GATES[kind]):
        columns = slice(i * H, (i + 1) * H)
        grads[name] = {"kernel": dkernel[:, columns], "bias": dbias[columns]}
    return ds.reshape(shape), grads
