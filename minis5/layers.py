"""The layers around the recurrence: dense, layer normalisation, gates. Each forward stands above its backward.

A forward takes its parameters (a dict) and an input of shape (..., features), and returns the output and a cache; the backward
takes the output's gradient and the cache, and returns the input's gradient and a dict of gradients with the parameters' keys.
Matrix products are BLAS's; what lies between them is fused into one loop each, bound by memory (arrays.py says where loops run).

Left out: dropout and batch normalisation, which the paper's agents do not use.
Source: 2303.03982, appendix B. Specification: reference.py (dense, layer_norm, gate). Tests: tests/test_layers.py.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from .arrays import array_module, concatenate, loop, matmul

GELU = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def flatten(nested, prefix=""):
    """{"a": {"b": x}} → {"a/b": x}."""
    flat = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return flat


def unflatten(flat):
    """{"a/b": x} → {"a": {"b": x}}."""
    nested = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = nested
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return nested


def lecun_normal(rng, shape, fan_in):
    """Truncated normal (at two deviations) rescaled to standard deviation 1/√fan_in, as JAX's initialiser of this name."""
    x = rng.standard_normal(shape)
    while (far := np.abs(x) > 2).any():
        x[far] = rng.standard_normal(far.sum())
    return x / (0.87962566103423978 * math.sqrt(fan_in))  # the deviation of a normal truncated at ±2


def orthogonal(rng, shape, gain):
    """Matrix with orthonormal rows or columns, times ``gain``."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T)


def _tanh(x):
    return math.tanh(x)


@overload(_tanh, inline="always")
def _tanh_compiled(x):
    """float32: the rational minimax approximation of degree 13/6 that Eigen uses (within 4 ulp), because LLVM turns it into vector
    instructions, which it does not do for a call of libm. float64: libm."""
    if x != types.float32:
        return lambda x: math.tanh(x)
    f = np.float32
    edge = f(7.90531110763549805)
    n1, n3, n5, n7 = f(4.89352455891786e-03), f(6.37261928875436e-04), f(1.48572235717979e-05), f(5.12229709037114e-08)
    n9, n11, n13 = f(-8.60467152213735e-11), f(2.00018790482477e-13), f(-2.76076847742355e-16)
    d0, d2, d4, d6 = f(4.89352518554385e-03), f(2.26843463243900e-03), f(1.18534705686654e-04), f(1.19825839466702e-06)

    one = f(1)

    def rational(x):
        s = x * x
        y = x * ((((((n13 * s + n11) * s + n9) * s + n7) * s + n5) * s + n3) * s + n1) / (((d6 * s + d4) * s + d2) * s + d0)
        y = one if x > edge else y  # exactly ±1 outside; NaN compares false and goes through
        return -one if x < -edge else y

    return rational


def _sigmoid(x):
    return 1 / (1 + math.exp(-x))


@overload(_sigmoid, inline="always")
def _sigmoid_compiled(x):
    half = x(0.5)
    return lambda x: half + half * _tanh(half * x)


# --- dense -----------------------------------------------------------------------------------------------------------------------


SLOPES = {"linear": 1.0, "leaky_relu": 0.01, "relu": 0.0}  # activation: x if x > 0 else slope·x


class DenseCache(NamedTuple):
    kernel: np.ndarray  # (in, out)
    x: np.ndarray  # (N, in)
    y: np.ndarray  # (N, out)
    slope: float
    shape: tuple


@loop
def _bias_act(y, bias, slope):
    for n in range(y.shape[0]):
        row = y[n]
        for h in range(row.size):
            v = row[h] + bias[h]
            row[h] = v if v > 0 else slope * v


@loop
def _bias_act_backward(dy, y, slope, dz, dbias):
    for n in range(y.shape[0]):
        row, drow, out = y[n], dy[n], dz[n]
        for h in range(row.size):
            d = drow[h] if row[h] > 0 else slope * drow[h]
            out[h] = d
            dbias[h] += d


def dense_forward(p, x, activation="linear"):
    """act(x @ kernel + bias).  x: (..., in) → (..., out).

    ``activation``: "linear", "leaky_relu" (slope 0.01) or "relu"; all three are x if x > 0 else slope·x.
    """
    slope = p["kernel"].dtype.type(SLOPES[activation])
    flat = array_module(x).ascontiguousarray(x).reshape(-1, x.shape[-1])
    y = matmul(flat, p["kernel"])
    _bias_act(y, p["bias"], slope)
    return y.reshape(*x.shape[:-1], -1), DenseCache(p["kernel"], flat, y, slope, x.shape)


def dense_backward(dy, cache, need_dx=True):
    """With z = x @ kernel + bias: dz = dy·act'(z), dkernel = xᵀ dz, dbias = Σ dz, dx = dz kernelᵀ (None unless ``need_dx``)."""
    kernel, x, y, slope, shape = cache
    xp = array_module(y)
    dz, dbias = xp.empty_like(y), xp.zeros(y.shape[1], y.dtype)
    _bias_act_backward(xp.ascontiguousarray(dy).reshape(y.shape), y, slope, dz, dbias)
    dx = matmul(dz, kernel.T).reshape(shape) if need_dx else None
    return dx, {"kernel": matmul(x.T, dz), "bias": dbias}


# --- layer normalisation ---------------------------------------------------------------------------------------------------------


class LayerNormCache(NamedTuple):
    scale: np.ndarray  # (H,)
    normal: np.ndarray  # (N, H): (x - mean)/deviation
    deviation: np.ndarray  # (N,)


@loop
def _norm_forward(x, scale, bias, eps, y, normal, deviation):
    """x, y, normal: (N, H); deviation: (N,)."""
    for n in range(x.shape[0]):
        row, out, kept = x[n], y[n], normal[n]
        mean, square = eps * 0, eps * 0
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


@loop
def _norm_backward(dy, scale, normal, deviation, dx, dscale, dbias):
    for n in range(dy.shape[0]):
        d, kept, out = dy[n], normal[n], dx[n]
        mean, slope = deviation[n] * 0, deviation[n] * 0
        for h in range(d.size):
            dn = d[h] * scale[h]
            mean += dn
            slope += dn * kept[h]
            dscale[h] += d[h] * kept[h]
            dbias[h] += d[h]
        mean /= dy.dtype.type(d.size)
        slope /= dy.dtype.type(d.size)
        for h in range(d.size):
            out[h] = (d[h] * scale[h] - mean - kept[h] * slope) / deviation[n]


def layer_norm_forward(p, x, eps=1e-6):
    """(x - mean)/√(var + eps)·scale + bias over the last axis.  1607.06450, eq. 4; eps as in flax."""
    xp = array_module(x)
    flat = xp.ascontiguousarray(x).reshape(-1, x.shape[-1])
    y, normal, deviation = xp.empty_like(flat), xp.empty_like(flat), xp.empty(flat.shape[0], x.dtype)
    _norm_forward(flat, p["scale"], p["bias"], x.dtype.type(eps), y, normal, deviation)
    return y.reshape(x.shape), LayerNormCache(p["scale"], normal, deviation)


def layer_norm_backward(dy, cache):
    """With n = normal and dn = dy·scale: dx = (dn - mean(dn) - n·mean(dn·n))/deviation."""
    scale, normal, deviation = cache
    xp = array_module(dy)
    dx, grads = xp.empty_like(normal), {"scale": xp.zeros_like(scale), "bias": xp.zeros_like(scale)}
    _norm_backward(xp.ascontiguousarray(dy).reshape(normal.shape), scale, normal, deviation, dx, *grads.values())
    return dx.reshape(dy.shape), grads


# --- gates -----------------------------------------------------------------------------------------------------------------------


def _gelu(x):
    return 0.5 * x * (1 + math.tanh(GELU * (x + CUBIC * x * x * x)))


@overload(_gelu, inline="always")
def _gelu_compiled(x):
    half, one, k, c = x(0.5), x(1), x(GELU), x(CUBIC)
    return lambda x: half * x * (one + _tanh(k * (x + c * x * x * x)))


def _dgelu(x):
    t = math.tanh(GELU * (x + CUBIC * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * GELU * (1 + 3 * CUBIC * x * x)


@overload(_dgelu, inline="always")
def _dgelu_compiled(x):
    half, one, k, c, c3 = x(0.5), x(1), x(GELU), x(CUBIC), x(3 * CUBIC)

    def dgelu(x):
        t = _tanh(k * (x + c * x * x * x))
        return half * (one + t) + half * x * (one - t * t) * k * (one + c3 * x * x)

    return dgelu


@loop
def _gelu_forward(s, h):
    for i in range(s.size):
        h[i] = _gelu(s[i])


@loop
def _gelu_backward(dh, s, ds):
    """ds = dh·gelu'(s)."""
    for i in range(s.size):
        ds[i] = dh[i] * _dgelu(s[i])


@loop
def _glu_forward(z, bias, y):
    """z: (N, 2H), products before the bias, [value | gate]; z keeps the sums. y = value·sigmoid(gate)."""
    H = y.shape[1]
    for n in range(y.shape[0]):
        value, gate, out, b1, b2 = z[n, :H], z[n, H:], y[n], bias[:H], bias[H:]
        for i in range(out.size):
            value[i] += b1[i]
            gate[i] += b2[i]
            out[i] = value[i] * _sigmoid(gate[i])


@loop
def _glu_backward(dy, z, dz, dbias):
    """With s = sigmoid(gate): dvalue = dy·s, dgate = dy·value·s·(1 - s)."""
    H = dy.shape[1]
    for n in range(dy.shape[0]):
        value, gate, d, dvalue, dgate = z[n, :H], z[n, H:], dy[n], dz[n, :H], dz[n, H:]
        db1, db2 = dbias[:H], dbias[H:]
        for i in range(d.size):
            s = _sigmoid(gate[i])
            dv = d[i] * s
            dg = dv * value[i]
            dg -= dg * s
            dvalue[i] = dv
            dgate[i] = dg
            db1[i] += dv
            db2[i] += dg


@loop
def _sigmoid_gate_forward(x, z, bias, y):
    """z: (N, H), products before the bias; z keeps the sum. y = x·sigmoid(z)."""
    for n in range(y.shape[0]):
        value, gate, out = x[n], z[n], y[n]
        for i in range(out.size):
            gate[i] += bias[i]
            out[i] = value[i] * _sigmoid(gate[i])


@loop
def _sigmoid_gate_backward(dy, x, z, dx, dz, dbias):
    for n in range(dy.shape[0]):
        value, gate, d, dvalue, dgate = x[n], z[n], dy[n], dx[n], dz[n]
        for i in range(d.size):
            s = _sigmoid(gate[i])
            dv = d[i] * s
            dg = dv * value[i]
            dg -= dg * s
            dvalue[i] = dv
            dgate[i] = dg
            dbias[i] += dg


GATES = {"full_glu": ("out1", "out2"), "half_glu1": ("out2",), "half_glu2": ("out2",), "gelu": ()}  # kind: its dense layers


class GateCache(NamedTuple):
    kind: str
    kernel: np.ndarray | None  # (H, H), or (H, 2H) = [W1 | W2]
    s: np.ndarray  # (N, H)
    h: np.ndarray  # (N, H): gelu(s)
    z: np.ndarray | None  # (N, H) or (N, 2H): h @ kernel + bias


def gate_init(rng, H, kind):
    """Parameters of a gate: kernels lecun-normal, biases 0."""
    return {name: {"kernel": lecun_normal(rng, (H, H), H), "bias": np.zeros(H)} for name in GATES[kind]}


def gate_weights(p, kind):
    """Kernel and bias of the gate's dense layers side by side: [W1 | W2], or the only one's; None where there is none."""
    layers = [p[name] for name in GATES[kind]]
    if len(layers) < 2:
        return (layers[0]["kernel"], layers[0]["bias"]) if layers else None
    return tuple(concatenate([layer[name] for layer in layers]) for name in ("kernel", "bias"))


def gate_forward(p, s, kind, weights=None):
    """The nonlinearity after the SSM, with h = gelu(s).  2303.03982, appendix B, and the authors' code.

    full_glu: (W1 h + b1)·sigmoid(W2 h + b2); half_glu1: h·sigmoid(W2 h + b2); half_glu2: s·sigmoid(W2 h + b2); gelu: h.
    ``weights``: gate_weights(p, kind), where they are at hand.
    """
    xp, shape = array_module(s), s.shape
    s = xp.ascontiguousarray(s).reshape(-1, shape[-1])
    h = xp.empty_like(s)
    _gelu_forward(s.ravel(), h.ravel())
    if kind == "gelu":
        return h.reshape(shape), GateCache(kind, None, s, h, None)
    kernel, bias = weights or gate_weights(p, kind)
    z, y = matmul(h, kernel), xp.empty_like(s)
    if kind == "full_glu":
        _glu_forward(z, bias, y)
    else:
        _sigmoid_gate_forward(h if kind == "half_glu1" else s, z, bias, y)
    return y.reshape(shape), GateCache(kind, kernel, s, h, z)


def gate_backward(dy, cache):
    """ds and the gradients of out1, out2 (as the kind has them)."""
    kind, kernel, s, h, z = cache
    xp, shape = array_module(s), dy.shape
    dy, ds = xp.ascontiguousarray(dy).reshape(s.shape), xp.empty_like(s)
    if kind == "gelu":
        _gelu_backward(dy.ravel(), s.ravel(), ds.ravel())
        return ds.reshape(shape), {}
    dz, dbias, dvalue = xp.empty_like(z), xp.zeros(z.shape[1], z.dtype), None
    if kind == "full_glu":
        _glu_backward(dy, z, dz, dbias)
    else:
        dvalue = xp.empty_like(s)
        _sigmoid_gate_backward(dy, h if kind == "half_glu1" else s, z, dvalue, dz, dbias)
    dh = matmul(dz, kernel.T)
    if kind == "half_glu1":
        dh += dvalue
    _gelu_backward(dh.ravel(), s.ravel(), ds.ravel())
    if kind == "half_glu2":
        ds += dvalue
    dkernel, H, names = matmul(h.T, dz), s.shape[1], GATES[kind]
    columns = [slice(i * H, (i + 1) * H) for i in range(len(names))]
    return ds.reshape(shape), {n: {"kernel": dkernel[:, c], "bias": dbias[c]} for n, c in zip(names, columns, strict=True)}
