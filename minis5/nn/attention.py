"""Self-attention as a memory core: causal pre-norm transformer blocks that see a bounded number of past steps.

    x = u + sinusoids of the step's number in its episode; then, in each block,
    n = LayerNorm(x);  x += [softmax(q kᵀ/√d) v of every head] W_out + b_out,  with q, k, v = n W_qkv;  x += MLP(LayerNorm(x))
    MLP(m) = gelu(m W_up + b_up) W_down + b_down; at the very end, if wanted, another LayerNorm

Step t sees the steps of its own episode, at most ``window`` of them, itself included: that is steps t - past[t] ... t with
past[t] = min(number of the step in its episode, window - 1). The loops (attend.py) read nothing else; they take time O(T·window)
and memory O(T + window): there is no matrix of scores.

Memory between calls, (n_layers·(window - 1) + 1, B, H): for each block the last window - 1 inputs n of its attention, oldest first,
zeros where the episode has fewer; then a row whose first number is the number of the next step in its episode. Inputs, not keys and
values: they are half as many, and in learning the keys and values of what was seen before are made with the present weights.

Leaves out: dropout; biases of q, k and v, as the source does; a GPU (no kernels yet: an agent with this core is refused there).
Source: 1706.03762, sections 3.2, 3.3, 3.5; the norm before each part instead of after: 2002.04745.
Specification: reference_attention.attention. Tests: tests/nn/test_attention.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.nn.attention_loops import attend_backward, attend_forward
from minis5.nn.layers import (
    dense_backward,
    dense_forward,
    gate_backward,
    gate_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from minis5.nn.parameters import flatten_tree, lecun_normal, unflatten_tree
from minis5.ops import matmul


@dataclass(frozen=True)
class AttentionConfig:
    """The transformer. Defaults are the laptop preset's: as many parameters as its S5 core has."""

    n_layers: int = 1  # blocks
    n_heads: int = 4  # heads of each block's attention; a divisor of the core's width
    window: int = 128  # most steps that a step sees, itself included
    mlp_width: int = 128  # width of the hidden layer of each block's MLP
    final_norm: bool = True  # LayerNorm after the last block

    def __post_init__(self):
        for name in ("n_layers", "n_heads", "window", "mlp_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")


class AttentionCore:
    """A stack of transformer blocks of width ``d_model``. State: (n_layers·(window - 1) + 1, B, d_model)."""

    devices = ("cpu",)

    def __init__(self, config, d_model):
        if d_model % config.n_heads:
            raise ValueError(
                f"n_heads: expected a divisor of the core's width {d_model}, got {config.n_heads}"
            )
        self.config, self.d_model = config, d_model

    def shapes(self):
        """Nested shapes: "layers/0/norm1/...", ".../qkv/kernel", "out", "norm2", "up", "down"; "norm" after the last."""
        H, M = self.d_model, self.config.mlp_width
        norm = {"scale": (H,), "bias": (H,)}

        def dense(rows, columns):
            return {"kernel": (rows, columns), "bias": (columns,)}

        attention = {"norm1": norm, "qkv": {"kernel": (H, 3 * H)}, "out": dense(H, H)}
        layer = attention | {"norm2": norm, "up": dense(H, M), "down": dense(M, H)}
        layers = {str(i): layer for i in range(self.config.n_layers)}
        return {"layers": layers} | ({"norm": norm} if self.config.final_norm else {})

    def init(self, rng):
        """Nested parameters: kernels lecun-normal, scales 1, biases 0."""
        fill = {
            "kernel": lambda shape: lecun_normal(rng, shape, shape[0]),
            "scale": np.ones,
            "bias": np.zeros,
        }
        return unflatten_tree(
            {
                name: fill[name.rpartition("/")[2]](shape)
                for name, shape in flatten_tree(self.shapes()).items()
            }
        )

    def initial_state(self, batch, dtype=np.float32):
        """Zeros: nothing seen, step 0."""
        return np.zeros(
            (self.config.n_layers * (self.config.window - 1) + 1, batch, self.d_model), dtype
        )

    def _rows(self, i):
        """Where block i's inputs are in the state."""
        return slice(i * (self.config.window - 1), (i + 1) * (self.config.window - 1))

    def forward(self, params, u, reset, state):
        """(T, B, H) → (T, B, H), last state, cache."""
        c, T = self.config, len(u)
        position, step = positions(reset, np.rint(state[-1, :, 0]))
        past, kept = (at_most(n, c.window - 1) for n in (position, step))
        x, last, caches, norm = (
            u + sinusoids(position, self.d_model),
            np.zeros_like(state),
            [],
            None,
        )
        for i in range(c.n_layers):
            x, cache = layer_forward(
                params["layers"][str(i)], x, state[self._rows(i)], past, c.n_heads
            )
            last[self._rows(i)] = newest(cache.attention.rows[T:], kept)
            caches.append(cache)
        last[-1, :, 0] = step
        if c.final_norm:
            x, norm = layer_norm_forward(params["norm"], x)
        return x, last, (caches, norm, kept)

    def backward(self, dy, cache, dlast=None):
        """Gradients of :meth:`forward`; ``dlast`` is the gradient of the last state, None for zero. The step's number has none."""
        caches, norm, kept = cache
        grads, dstate = (
            {"layers": {}},
            np.zeros((self._rows(len(caches)).start + 1, *dy.shape[1:]), dy.dtype),
        )
        if norm is not None:
            dy, grads["norm"] = layer_norm_backward(dy, norm)
        for i in reversed(range(len(caches))):
            rows = self._rows(i)
            dkept = None if dlast is None else newest(dlast[rows], kept)
            dy, dstate[rows], grads["layers"][str(i)] = layer_backward(dy, dkept, caches[i])
        return dy, dstate, grads

    def stepper(self, params):
        """One-step mode: step(u (B, H), reset (B,), state) → y (B, H), state.

        Two products of weights, made once, spare the keys and values of the context: with queries, keys, values of one head
        n W_q, n W_k, n W_v, a score is (n_t W_q W_kᵀ)·n_s, and the head's part of the output (Σ_s weight_s n_s) W_v W_out.
        """
        c, H, W = self.config, self.d_model, self.config.window
        layers = [params["layers"][str(i)] for i in range(c.n_layers)]
        weights = [merged_weights(p, c.n_heads) for p in layers]

        def step(u, reset, state):
            position, number = positions(reset[None], np.rint(state[-1, :, 0]))
            past = at_most(position[0], W - 1)
            reach = int(past.max(initial=0))  # no environment sees further back
            shown = (np.arange(reach + 1)[:, None] >= reach - past).T[:, None]  # (B, 1, reach + 1)
            x, after = u + sinusoids(position[0], H), np.zeros_like(state)
            for i, p in enumerate(layers):
                to_scores, to_out = weights[i]
                n, _ = layer_norm_forward(p["norm1"], x)
                # (reach + 1, B, H)
                rows = np.concatenate(
                    [newest(state[self._rows(i)][W - 1 - reach :], past), n[None]]
                )
                scores = (n @ to_scores).reshape(len(n), c.n_heads, H) @ rows.transpose(1, 2, 0)
                scores = np.where(shown, scores, -np.inf)
                scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
                scores /= scores.sum(axis=-1, keepdims=True)
                x = x + (
                    (scores @ rows.transpose(1, 0, 2)).reshape(len(n), -1) @ to_out
                    + p["out"]["bias"]
                )
                x = x + mlp_forward(p, x)[0]
                stored = min(reach + 1, W - 1)
                after[self._rows(i)][W - 1 - stored :] = rows[reach + 1 - stored :]
            after[-1, :, 0] = number
            return (layer_norm_forward(params["norm"], x)[0] if c.final_norm else x), after

        return step


# --- which steps are seen ---


def positions(reset, step):
    """The number of each step in its episode (T, B), floats, and of the step that follows (B,); ``step``: of the first one (B,)."""
    position = np.empty(reset.shape, step.dtype)
    for t in range(len(reset)):
        position[t] = np.where(reset[t], 0, step)
        step = position[t] + 1
    return position, step


def at_most(steps, limit):
    """min(steps, limit) as integers; 0 for NaN."""
    return np.where(steps >= 1, np.minimum(steps, limit), 0).astype(np.int64)


def newest(rows, count):
    """rows (N, B, H) with zeros in the place of all but the last count[b] of each b."""
    return np.where((np.arange(len(rows))[:, None] >= len(rows) - count)[..., None], rows, 0)


def sinusoids(position, H):
    """(...,) → (..., H): sin(position/10000^(2i/H)) in places 2i, the cosine in places 2i + 1.  1706.03762, section 3.5."""
    different, index = np.unique(position, return_inverse=True)
    angle = different[:, None].astype(np.float64) / 10000 ** (np.arange(0, H, 2) / H)
    table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(len(different), -1)[:, :H]
    return table.astype(position.dtype)[index.reshape(position.shape)]


# --- a block ---


class LayerCache(NamedTuple):
    norm1: tuple
    attention: tuple
    mlp: tuple


def layer_forward(p, x, memory, past, heads):
    """x + attention(norm1(x)), then + MLP of that.  x: (T, B, H), memory: (window - 1, B, H), past: (T, B)."""
    n, norm1 = layer_norm_forward(p["norm1"], x)
    a, attention = attention_forward(p, n, memory, past, heads)
    x = x + a
    m, mlp = mlp_forward(p, x)
    return x + m, LayerCache(norm1, attention, mlp)


def layer_backward(dy, dkept, cache):
    """dx, dmemory, gradients; ``dkept``: gradient of what the state keeps of the attention's inputs, or None."""
    dx, grads = mlp_backward(dy, cache.mlp)
    dx += dy
    dn, dmemory, more = attention_backward(dx, dkept, cache.attention)
    dn, norm1 = layer_norm_backward(dn, cache.norm1)
    return dx + dn, dmemory, grads | more | {"norm1": norm1}


def mlp_forward(p, x):
    """dense(gelu(dense(norm2(x)))).  (..., H) → (..., H)."""
    m, norm2 = layer_norm_forward(p["norm2"], x)
    z, up = dense_forward(p["up"], m)
    h, gelu = gate_forward({}, z, "gelu")
    y, down = dense_forward(p["down"], h)
    return y, (norm2, up, gelu, down)


def mlp_backward(dy, cache):
    norm2, up, gelu, down = cache
    grads = {}
    dh, grads["down"] = dense_backward(dy, down)
    dz, _ = gate_backward(dh, gelu)
    dm, grads["up"] = dense_backward(dz, up)
    dx, grads["norm2"] = layer_norm_backward(dm, norm2)
    return dx, grads


# --- attention ---


class AttentionCache(NamedTuple):
    kernel: np.ndarray  # (H, 3H): [queries | keys | values], each the heads side by side
    # (window - 1 + T, B, H): stored inputs, zeros where not seen, then the present ones
    rows: np.ndarray
    q: np.ndarray  # (T, B, H)
    kv: np.ndarray  # (window - 1 + T, B, 2H)
    past: np.ndarray  # (T, B)
    mixed: np.ndarray  # (T, B, H): each head's weighted mean of values
    log_sum: np.ndarray  # (T, B, heads): log Σ exp(score)
    out: tuple


def attention_forward(p, n, memory, past, heads):
    """softmax(q kᵀ/√d) v of each head over the steps seen, then dense.  n: (T, B, H) → (T, B, H).  1706.03762, eq. 1."""
    (T, B, H), kernel = n.shape, p["qkv"]["kernel"]
    rows = np.concatenate([newest(memory, past[0]), n])
    q = matmul(n.reshape(-1, H), kernel[:, :H]).reshape(T, B, H)
    kv = matmul(rows.reshape(-1, H), kernel[:, H:]).reshape(-1, B, 2 * H)
    mixed, log_sum = np.empty_like(q), np.empty((T, B, heads), n.dtype)
    attend_forward(q, kv, past, mixed, log_sum)
    y, out = dense_forward(p["out"], mixed)
    return y, AttentionCache(kernel, rows, q, kv, past, mixed, log_sum, out)


def attention_backward(dy, dkept, cache):
    """dn, dmemory, gradients of qkv and out. ``dkept``: gradient of the last rows, or None."""
    kernel, rows, q, kv, past, mixed, log_sum, out = cache
    (T, B, H), grads = q.shape, {}
    dmixed, grads["out"] = dense_backward(dy, out)
    dq, dkv = np.empty_like(q), np.empty_like(kv)
    attend_backward(dmixed, q, kv, past, mixed, log_sum, dq, dkv)
    dq, dkv, flat = dq.reshape(-1, H), dkv.reshape(-1, 2 * H), rows.reshape(-1, H)
    drows = matmul(dkv, kernel[:, H:].T).reshape(rows.shape)
    if dkept is not None:
        drows[T:] += dkept
    dmemory, dn = drows[:-T], drows[-T:]
    dn += matmul(dq, kernel[:, :H].T).reshape(dn.shape)
    grads["qkv"] = {
        "kernel": np.concatenate([matmul(flat[-T * B :].T, dq), matmul(flat.T, dkv)], axis=1)
    }
    return dn, dmemory, grads


def merged_weights(p, heads):
    """Of each head W_q W_kᵀ/√d, side by side (H, heads·H), and W_v W_out, below each other (heads·H, H)."""
    # (heads, H, d)
    q, k, v = (
        w.reshape(len(w), heads, -1).transpose(1, 0, 2)
        for w in np.split(p["qkv"]["kernel"], 3, axis=1)
    )
    H, d = q.shape[1:]
    to_scores = q @ k.transpose(0, 2, 1) / q.dtype.type(math.sqrt(d))
    to_out = v @ p["out"]["kernel"].reshape(heads, d, H)
    return np.ascontiguousarray(to_scores.transpose(1, 0, 2)).reshape(H, -1), to_out.reshape(-1, H)
