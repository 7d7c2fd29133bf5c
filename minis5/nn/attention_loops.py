"""The loops of attention: what each step takes from the steps that it sees, and the gradients. Forward above backward.

Keys and values kv (N + T, B, 2H) stand for N stored steps and the T present ones; query t sees the rows N + t - past[t] ... N + t,
and nothing else is read: there are no masks, and no NaN of a step that is not seen can pass. Time is O(T·(N + 1)), less where
episodes are short; memory O(T + N), for the backward pass makes the weights anew from log Σ exp(score), as 2205.14135 does.

Left out: GPUs; tiles of queries, which would spare reading the keys for every one of them.
Source: 1706.03762, eq. 1. Specification: reference_attention.self_attention. Tests: tests/nn/test_attention.py.
"""

import math

import numpy as np
from numba import njit

from minis5.nn.scalars import exp
from minis5.ops import fast

# reassoc: sums as vectors, in any order
sums = njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")


@fast
def _columns(x, b, begin, d):
    """x[:, b, begin : begin + d] transposed, (d, rows): in this order the inner loops below run over steps, as vectors."""
    y = np.empty((d, x.shape[0]), x.dtype)
    for s in range(x.shape[0]):
        for i in range(d):
            y[i, s] = x[s, b, begin + i]
    return y


@fast
def _add_products(a, x, first, y):
    """y += aᵀ x[:, first : first + len(y)], a: (d,)."""
    for i in range(a.size):
        scale, row = a[i], x[i, first : first + y.size]
        for s in range(y.size):
            y[s] += scale * row[s]


@sums
def _products(x, first, a, factor, y):
    """y = factor·x[:, first : first + len(a)] a, y: (d,)."""
    for i in range(y.size):
        row, total = x[i, first : first + a.size], factor * 0
        for s in range(a.size):
            total += row[s] * a[s]
        y[i] = factor * total


@sums
def _total(w):
    total = w[0] * 0
    for s in range(w.size):
        total += w[s]
    return total


@fast
def attend_forward(q, kv, past, mixed, log_sum):
    """mixed = Σ_s w_s value_s over the steps s that are seen, w = softmax(q·k_s/√d) for each head of width d.

    q, mixed: (T, B, H), heads side by side; kv: (N + T, B, 2H) = [keys | values]; past: (T, B); log_sum: (T, B, heads).
    """
    T, B, H = q.shape
    heads = log_sum.shape[2]
    d, before = H // heads, kv.shape[0] - T
    one, root = q.dtype.type(1), q.dtype.type(1 / math.sqrt(d))
    scores, query = np.empty(before + 1, q.dtype), np.empty(d, q.dtype)
    for b in range(B):
        for h in range(heads):
            keys, values, part = (
                _columns(kv, b, h * d, d),
                _columns(kv, b, H + h * d, d),
                slice(h * d, (h + 1) * d),
            )
            for t in range(T):
                first, w = before + t - past[t, b], scores[: past[t, b] + 1]
                query[:] = q[t, b, part]
                query *= root
                w[:] = 0
                _add_products(query, keys, first, w)
                top = w[0]
                for s in range(w.size):
                    top = max(top, w[s])
                for s in range(w.size):
                    w[s] = exp(w[s] - top)
                total = _total(w)
                _products(values, first, w, one / total, mixed[t, b, part])
                log_sum[t, b, h] = top + math.log(total)


@fast
def attend_backward(dmixed, q, kv, past, mixed, log_sum, dq, dkv):
    """With weights w = exp(score - log_sum), scores q·k/√d: dvalue_s = Σ_t w dmixed_t; dw = dmixed_t·value_s;
    dscore = w (dw - Σ_s w dw), where Σ_s w dw = dmixed_t·mixed_t; dq_t = Σ_s dscore k_s/√d, dk_s = Σ_t dscore q_t/√d.
    """
    T, B, H = q.shape
    heads = log_sum.shape[2]
    d, before = H // heads, kv.shape[0] - T
    root = q.dtype.type(1 / math.sqrt(d))
    buffers, query = np.empty((2, before + 1), q.dtype), np.empty(d, q.dtype)
    for b in range(B):
        for h in range(heads):
            keys, values, part = (
                _columns(kv, b, h * d, d),
                _columns(kv, b, H + h * d, d),
                slice(h * d, (h + 1) * d),
            )
            dkeys, dvalues = np.zeros_like(keys), np.zeros_like(values)
            for t in range(T):
                first, size = before + t - past[t, b], past[t, b] + 1
                w, dscore, d_out, out = (
                    buffers[0, :size],
                    buffers[1, :size],
                    dmixed[t, b, part],
                    mixed[t, b, part],
                )
                mean = root * 0
                for i in range(d):
                    query[i] = q[t, b, h * d + i] * root
                    mean += d_out[i] * out[i]
                w[:] = -log_sum[t, b, h]
                dscore[:] = -mean
                _add_products(query, keys, first, w)
                _add_products(d_out, values, first, dscore)
                for s in range(size):
                    w[s] = exp(w[s])
                    dscore[s] *= w[s]
                _products(keys, first, dscore, root, dq[t, b, part])
                for i in range(d):
                    dkey, dvalue = dkeys[i, first : first + size], dvalues[i, first : first + size]
                    for s in range(size):
                        dkey[s] += query[i] * dscore[s]
                        dvalue[s] += d_out[i] * w[s]
            for s in range(kv.shape[0]):
                for i in range(d):
                    dkv[s, b, h * d + i] = dkeys[i, s]
                    dkv[s, b, H + h * d + i] = dvalues[i, s]
