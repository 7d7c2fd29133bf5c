"""Self-attention as a memory core: a causal pre-norm transformer over a bounded past.

    x = u + sinusoids of the step's number in its episode, then in each layer
    n = LayerNorm(x);   q, k, v = n W_qkv
    x += [softmax(q kᵀ/√d) v of every head] W_out + b_out
    x += MLP(LayerNorm(x)),   MLP(m) = gelu(m W_up + b_up) W_down + b_down
    and after the last layer another LayerNorm, if wanted

Step t sees the steps of its own episode, at most ``window`` of them, itself included. These are the
steps t - past[t] ... t, with past[t] = min(number of the step in its episode, window - 1). The
loops (attention_loops.py) read nothing else: time is O(T·window), memory O(T + window), and there
is no matrix of scores.

State, (n_layers·(window - 1) + 1, B, H): for each layer the last window - 1 inputs n of its
attention, oldest first, zeros where the episode has fewer. In the row after these, the first number
is the number of the next step in its episode. Inputs are half as many as keys and values. When the
agent learns, the present weights make the keys and values of the stored inputs.

Leaves out: dropout; biases of q, k and v, as the source does.
Source: 1706.03762, sections 3.2, 3.3, 3.5; the norm before each part instead of after: 2002.04745.
Specification: reference.attention. GPU form: cuda/minis5_cuda/nn/attention.py.
Tests: tests/nn/test_attention.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module, on_gpu
from minis5.checks import check_fields, check_layers
from minis5.nn.attention_loops import attend_backward, attend_forward, number_steps
from minis5.nn.doors import checked
from minis5.nn.layers import (
    dense_backward,
    dense_forward,
    gate_backward,
    gate_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from minis5.nn.parameters import flatten_tree, lecun_normal, unflatten_tree
from minis5.ops import array_operation, matmul


@dataclass(frozen=True)
class AttentionConfig:
    """The transformer. Defaults are the laptop preset's: as many parameters as its S5 core has."""

    n_layers: int = 1  # layers, each of attention and MLP
    n_heads: int = 4  # heads of each layer's attention; a divisor of the core's width
    window: int = 128  # most steps that a step sees, itself included
    mlp_width: int = 128  # width of the hidden layer of each MLP
    final_norm: bool = True  # LayerNorm after the last layer

    def __post_init__(self):
        check_fields(self)
        for name in ("n_layers", "n_heads", "window", "mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        check_layers(self.n_layers)


@checked
class AttentionCore:
    """A stack of transformer layers of width ``d_model``.

    State: (n_layers·(window - 1) + 1, B, d_model).
    """

    devices, config_type = ("cpu", "cuda"), AttentionConfig

    def __init__(self, config, d_model):
        if d_model % config.n_heads:
            wanted = f"a divisor of the core's width {d_model}"
            raise ValueError(f"n_heads: expected {wanted}, got {config.n_heads}")
        self.config, self.d_model = config, d_model

    def shapes(self):
        """Return the shapes of the parameters, nested as they are.

        "layers/0/..." has "norm1", "qkv/kernel", "out", "norm2", "up" and "down"; "norm" is the
        LayerNorm after the last layer.
        """
        H, M = self.d_model, self.config.mlp_width
        norm = {"scale": (H,), "bias": (H,)}

        def dense(rows, columns):
            return {"kernel": (rows, columns), "bias": (columns,)}

        attention = {"norm1": norm, "qkv": {"kernel": (H, 3 * H)}, "out": dense(H, H)}
        layer = attention | {"norm2": norm, "up": dense(H, M), "down": dense(M, H)}
        layers = {str(i): layer for i in range(self.config.n_layers)}
        return {"layers": layers} | ({"norm": norm} if self.config.final_norm else {})

    def init(self, rng):
        """Return nested parameters: kernels lecun-normal, scales 1, biases 0."""
        fill = {
            "kernel": lambda shape: lecun_normal(rng, shape, shape[0]),
            "scale": np.ones,
            "bias": np.zeros,
        }
        shapes = flatten_tree(self.shapes()).items()
        return unflatten_tree({name: fill[name.rpartition("/")[2]](s) for name, s in shapes})

    def initial_state(self, batch, dtype=np.float32):
        """Return zeros: nothing seen, step 0."""
        rows = self.config.n_layers * (self.config.window - 1) + 1
        return np.zeros((rows, batch, self.d_model), dtype)

    def _rows(self, i):
        """Return the slice of the state that has layer i's inputs."""
        return slice(i * (self.config.window - 1), (i + 1) * (self.config.window - 1))

    def forward(self, params, u, reset, state):
        """Return y, last state, cache.  (T, B, H) → (T, B, H)."""
        c, T, xp = self.config, len(u), array_module(u)
        position, step = positions(reset, xp.rint(state[-1, :, 0]))
        past, kept = (at_most(n, c.window - 1) for n in (position, step))
        x, last = u + sinusoids(position, self.d_model), xp.zeros_like(state)
        caches, norm = [], None
        for i in range(c.n_layers):
            p, rows = params["layers"][str(i)], self._rows(i)
            x, cache = layer_forward(p, x, state[rows], past, c.n_heads)
            last[rows] = newest(cache.attention.rows[T:], kept)
            caches.append(cache)
        last[-1, :, 0] = step
        if c.final_norm:
            x, norm = layer_norm_forward(params["norm"], x)
        return x, last, (caches, norm, kept)

    def backward(self, dy, cache, dlast=None):
        """Return du, dstate, gradients; ``dlast`` is the last state's gradient, None for zero.

        The step's number, in the state's last row, has no gradient.
        """
        caches, norm, kept = cache
        grads = {"layers": {}}
        shape = self._rows(len(caches)).start + 1, *dy.shape[1:]
        dstate = array_module(dy).zeros(shape, dy.dtype)
        if norm is not None:
            dy, grads["norm"] = layer_norm_backward(dy, norm)
        for i in reversed(range(len(caches))):
            rows = self._rows(i)
            # in the forward pass last = newest(rows, kept), so only the rows kept have a gradient
            dkept = None if dlast is None else newest(dlast[rows], kept)
            dy, dstate[rows], grads["layers"][str(i)] = layer_backward(dy, dkept, caches[i])
        return dy, dstate, grads

    def stepper(self, params):
        """Return step(u (B, H), reset (B,), state) → y (B, H), state.

        Two products of weights, made once, spare the keys and values of the stored inputs. A head's
        queries, keys and values are n W_q, n W_k and n W_v. So its score is (n_t W_q W_kᵀ)·n_s, and
        its part of the output is (Σ_s weight_s n_s) W_v W_out.
        """
        c, W = self.config, self.config.window
        layers = [params["layers"][str(i)] for i in range(c.n_layers)]
        weights = [
            merged_weights(p["qkv"]["kernel"], p["out"]["kernel"], c.n_heads) for p in layers
        ]

        def step(u, reset, state):
            xp = array_module(u)
            position, number = positions(reset[None], xp.rint(state[-1, :, 0]))
            past = at_most(position[0], W - 1)
            # no environment sees further back; the host does not wait to learn it from a GPU
            reach = W - 1 if on_gpu(u) else int(past.max(initial=0))
            stored = min(reach + 1, W - 1)
            x, after = u + sinusoids(position[0], self.d_model), xp.zeros_like(state)
            for i, p in enumerate(layers):
                n, _ = layer_norm_forward(p["norm1"], x)
                seen = newest(state[self._rows(i)][W - 1 - reach :], past)
                rows = xp.concatenate([seen, n[None]])  # (reach + 1, B, H)
                x = x + (attention_step(weights[i], n, rows, past) + p["out"]["bias"])
                x = x + mlp_forward(p, x)[0]
                after[self._rows(i)][W - 1 - stored :] = rows[reach + 1 - stored :]
            after[-1, :, 0] = number
            return (layer_norm_forward(params["norm"], x)[0] if c.final_norm else x), after

        return step


# Which steps are seen


def positions(reset, step):
    """Return the number of each step in its episode (T, B), and of the step that follows (B,).

    ``step`` (B,) is the number of the first one. All are floats.
    """
    xp = array_module(step)
    position, after = xp.empty(reset.shape, step.dtype), xp.empty_like(step)
    number_steps(reset, step, position, after)
    return position, after


def at_most(steps, limit):
    """Return min(steps, limit) as integers; 0 for NaN."""
    xp = array_module(steps)
    return xp.where(steps >= 1, xp.minimum(steps, limit), 0).astype(np.int64)


def newest(rows, count):
    """Return rows (N, B, H) with zeros instead of all but the last count[b] of each b."""
    xp, zero = array_module(rows), rows.dtype.type(0)
    return xp.where((xp.arange(len(rows))[:, None] >= len(rows) - count)[..., None], rows, zero)


@array_operation
def sinusoids(position, H):
    """Return sin(position/10000^(2i/H)) at 2i, the cosine at 2i + 1.  1706.03762, section 3.5.

    (...,) → (..., H).
    """
    different, index = np.unique(position, return_inverse=True)
    angle = different[:, None].astype(np.float64) / 10000 ** (np.arange(0, H, 2) / H)
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(different), -1)[:, :H]
    return table.astype(position.dtype)[index.reshape(position.shape)]


# One layer


class LayerCache(NamedTuple):
    norm1: tuple
    attention: tuple
    mlp: tuple


def layer_forward(p, x, state, past, heads):
    """Return z + MLP(norm2(z)) with z = x + attention(norm1(x)), and the cache.

    x: (T, B, H); state: (window - 1, B, H); past: (T, B).
    """
    n, norm1 = layer_norm_forward(p["norm1"], x)
    a, attention = attention_forward(p, n, state, past, heads)
    x = x + a
    m, mlp = mlp_forward(p, x)
    return x + m, LayerCache(norm1, attention, mlp)


def layer_backward(dy, dkept, cache):
    """Return dx, dstate and the gradients with the layer's keys.

    ``dkept`` is the gradient of the attention's inputs that the last state keeps, or None.
    """
    dx, grads = mlp_backward(dy, cache.mlp)
    dx += dy  # y = z + MLP(z)
    dn, dstate, more = attention_backward(dx, dkept, cache.attention)
    dn, norm1 = layer_norm_backward(dn, cache.norm1)
    return dx + dn, dstate, grads | more | {"norm1": norm1}  # z = x + attention(norm1(x))


def mlp_forward(p, x):
    """Return dense(gelu(dense(norm2(x)))) and the cache.  (..., H) → (..., H)."""
    m, norm2 = layer_norm_forward(p["norm2"], x)
    z, up = dense_forward(p["up"], m)
    h, gelu = gate_forward({}, z, "gelu")
    y, down = dense_forward(p["down"], h)
    return y, (norm2, up, gelu, down)


def mlp_backward(dy, cache):
    """Return dx and the gradients of "norm2", "up" and "down"."""
    norm2, up, gelu, down = cache
    grads = {}
    dh, grads["down"] = dense_backward(dy, down)
    dz, _ = gate_backward(dh, gelu)
    dm, grads["up"] = dense_backward(dz, up)
    dx, grads["norm2"] = layer_norm_backward(dm, norm2)
    return dx, grads


# Attention


class AttentionCache(NamedTuple):
    kernel: np.ndarray  # (H, 3H): [queries | keys | values], each the heads side by side
    rows: np.ndarray  # (window - 1 + T, B, H): stored inputs, zeros where not seen; present inputs
    q: np.ndarray  # (T, B, H)
    kv: np.ndarray  # (window - 1 + T, B, 2H)
    past: np.ndarray  # (T, B)
    mixed: np.ndarray  # (T, B, H): each head's weighted mean of values
    log_sum: np.ndarray  # (T, B, heads): log Σ exp(score)
    out: tuple


def attention_forward(p, n, state, past, heads):
    """Return dense(softmax(q kᵀ/√d) v of each head), and the cache.  1706.03762, eq. 1.

    n: (T, B, H) → (T, B, H). Each step's softmax is over the steps that it sees.
    """
    (T, B, H), kernel = n.shape, p["qkv"]["kernel"]
    xp = array_module(n)
    rows = xp.concatenate([newest(state, past[0]), n])
    q = matmul(n.reshape(-1, H), kernel[:, :H]).reshape(T, B, H)
    kv = matmul(rows.reshape(-1, H), kernel[:, H:]).reshape(-1, B, 2 * H)
    mixed, log_sum = xp.empty_like(q), xp.empty((T, B, heads), n.dtype)
    attend_forward(q, kv, past, mixed, log_sum)
    y, out = dense_forward(p["out"], mixed)
    return y, AttentionCache(kernel, rows, q, kv, past, mixed, log_sum, out)


def attention_backward(dy, dkept, cache):
    """Return dn, dstate and the gradients of "qkv" and "out".

    ``dkept`` is the gradient of the last window - 1 rows, or None.
    """
    kernel, rows, q, kv, past, mixed, log_sum, out = cache
    (T, B, H), xp, grads = q.shape, array_module(q), {}
    dmixed, grads["out"] = dense_backward(dy, out)
    dq, dkv = xp.empty_like(q), xp.empty_like(kv)
    attend_backward(dmixed, q, kv, past, mixed, log_sum, dq, dkv)
    dq, dkv, inputs = dq.reshape(-1, H), dkv.reshape(-1, 2 * H), rows.reshape(-1, H)
    # in the forward pass kv = rows @ W_kv and q = n @ W_q, with n the last T rows
    drows = matmul(dkv, kernel[:, H:].T).reshape(rows.shape)
    if dkept is not None:
        drows[T:] += dkept
    dstate, dn = drows[:-T], drows[-T:]
    dn += matmul(dq, kernel[:, :H].T).reshape(dn.shape)
    dkernel = [matmul(inputs[-T * B :].T, dq), matmul(inputs.T, dkv)]
    grads["qkv"] = {"kernel": xp.concatenate(dkernel, axis=1)}
    return dn, dstate, grads


@array_operation
def merged_weights(qkv, out, heads):
    """Return two products of weights of each head, for :func:`attention_step`.

    W_q W_kᵀ/√d side by side (H, heads·H), and W_v W_out below each other (heads·H, H), from the
    kernels "qkv" (H, 3H) and "out" (H, H).
    """
    thirds = np.split(qkv, 3, axis=1)
    q, k, v = (w.reshape(len(w), heads, -1).transpose(1, 0, 2) for w in thirds)  # (heads, H, d)
    H, d = q.shape[1:]
    to_scores = q @ k.transpose(0, 2, 1) / q.dtype.type(math.sqrt(d))
    to_out = v @ out.reshape(heads, d, H)
    return np.ascontiguousarray(to_scores.transpose(1, 0, 2)).reshape(H, -1), to_out.reshape(-1, H)


@array_operation
def attention_step(weights, n, rows, past):
    """Return one step's attention (B, H), without the bias b_out, from :func:`merged_weights`.

    n: (B, H), the step's input; rows: (R, B, H), the inputs that may be seen, n the last;
    past: (B,), how many of those before n are seen.
    """
    (to_scores, to_out), (B, H), R = weights, n.shape, len(rows)
    shown = (np.arange(R)[:, None] >= R - 1 - past).T[:, None]  # (B, 1, R)
    scores = (n @ to_scores).reshape(B, -1, H) @ rows.transpose(1, 2, 0)  # (B, heads, R)
    scores = np.where(shown, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))  # the softmax
    scores /= scores.sum(axis=-1, keepdims=True)
    return (scores @ rows.transpose(1, 0, 2)).reshape(B, -1) @ to_out
