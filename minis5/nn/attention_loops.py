"""The loops of attention: what each step takes from the steps that it sees, and the gradients.

For each head of width d, with q the query of a step and the sum over the steps s that it sees:

    score_s = q·k_s/√d        w = softmax(score)        mixed = Σ_s w_s v_s

Keys and values, kv (N + T, B, 2H), are those of N stored steps and of the T present ones. Query t
sees the rows N + t - past[t] ... N + t. Nothing else is read: there are no masks, and no NaN of a
step that is not seen can pass. The loops take time O(T·(N + 1)), less where episodes are short, and
memory O(T + N): the backward pass makes the weights anew from log Σ exp(score), as 2205.14135 does.

Backward, with dmixed_t the gradient of mixed_t:
    dv_s = Σ_t w_s dmixed_t        dw_s = dmixed_t·v_s
    dscore_s = w_s (dw_s - Σ_r w_r dw_r), where Σ_r w_r dw_r = dmixed_t·mixed_t
    dq_t = Σ_s dscore_s k_s/√d     dk_s = Σ_t dscore_s q_t/√d

Leaves out: tiles of queries, so that each query reads its keys again.
Source: 1706.03762, eq. 1. Specification: reference.self_attention.
GPU form: cuda/minis5_cuda/nn/attention.py. Tests: tests/nn/test_attention.py.
"""

import math

import numpy as np
from numba import njit

from minis5.nn.scalars import exp
from minis5.ops import fast, operation

# reassoc: sums are vectorised, so their terms are added in another order
sums = njit(nogil=True, cache=True, fastmath={"contract", "reassoc"}, error_model="numpy")


@fast
def _columns(x, b, begin, d):
    """Return x[:, b, begin : begin + d] transposed, (d, rows).

    In this order the inner loops below run over steps, and are vectorised.
    """
    y = np.empty((d, x.shape[0]), x.dtype)
    for s in range(x.shape[0]):
        for i in range(d):
            y[i, s] = x[s, b, begin + i]
    return y


@fast
def _add_products(a, x, first, y):
    """Add aᵀ x[:, first : first + len(y)] to y; a: (d,)."""
    for i in range(a.size):
        scale, row = a[i], x[i, first : first + y.size]
        for s in range(y.size):
            y[s] += scale * row[s]


@sums
def _products(x, first, a, factor, y):
    """Write y (d,) = factor·x[:, first : first + len(a)] a."""
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


@operation
def number_steps(reset, step, position, after):
    """Write position (T, B), each step's number in its episode, and after (B,), that of the next.

    step (B,) is the number of the first step, unless it is reset. reset: (T, B) bool; the others
    have one float dtype.
    """
    one = step.dtype.type(1)
    after[:] = step
    for t in range(reset.shape[0]):
        for b in range(reset.shape[1]):
            if reset[t, b]:  # a reset selects zero
                after[b] = 0
            position[t, b] = after[b]
            after[b] += one


@operation
def attend_forward(q, kv, past, mixed, log_sum):
    """Write mixed, and log_sum = log Σ_s exp(score_s).

    q, mixed: (T, B, H), heads side by side; kv: (N + T, B, 2H), [keys | values]; past: (T, B);
    log_sum: (T, B, heads).
    """
    T, B, H = q.shape
    heads = log_sum.shape[2]
    d, stored = H // heads, kv.shape[0] - T
    one, root = q.dtype.type(1), q.dtype.type(1 / math.sqrt(d))
    scores, query = np.empty(stored + 1, q.dtype), np.empty(d, q.dtype)
    for b in range(B):
        for h in range(heads):
            keys, values = _columns(kv, b, h * d, d), _columns(kv, b, H + h * d, d)
            part = slice(h * d, (h + 1) * d)
            for t in range(T):
                first, w = stored + t - past[t, b], scores[: past[t, b] + 1]
                query[:] = q[t, b, part]  # score_s = q·k_s/√d
                query *= root
                w[:] = 0
                _add_products(query, keys, first, w)
                top = w[0]
                for s in range(w.size):
                    top = max(top, w[s])
                for s in range(w.size):  # w = softmax(score): exp(score - top)/total
                    w[s] = exp(w[s] - top)
                total = _total(w)
                _products(values, first, w, one / total, mixed[t, b, part])  # Σ_s w_s v_s
                log_sum[t, b, h] = top + math.log(total)


@operation
def attend_backward(dmixed, q, kv, past, mixed, log_sum, dq, dkv):
    """Write dq and dkv, of the shapes of q and kv, from dmixed (T, B, H)."""
    T, B, H = q.shape
    heads = log_sum.shape[2]
    d, stored = H // heads, kv.shape[0] - T
    root = q.dtype.type(1 / math.sqrt(d))
    buffers, query = np.empty((2, stored + 1), q.dtype), np.empty(d, q.dtype)
    for b in range(B):
        for h in range(heads):
            keys, values = _columns(kv, b, h * d, d), _columns(kv, b, H + h * d, d)
            dkeys, dvalues = np.zeros_like(keys), np.zeros_like(values)
            part = slice(h * d, (h + 1) * d)
            for t in range(T):
                first, size = stored + t - past[t, b], past[t, b] + 1
                w, dscore = buffers[0, :size], buffers[1, :size]
                d_out, out = dmixed[t, b, part], mixed[t, b, part]
                mean = root * 0  # Σ_r w_r dw_r = dmixed·mixed
                for i in range(d):
                    query[i] = q[t, b, h * d + i] * root
                    mean += d_out[i] * out[i]
                w[:] = -log_sum[t, b, h]
                dscore[:] = -mean
                # in the forward pass w = softmax(q·k_s/√d), so again w_s = exp(score_s - log_sum)
                _add_products(query, keys, first, w)
                # mixed = Σ_s w_s v_s, so dw_s = dmixed·v_s
                _add_products(d_out, values, first, dscore)
                for s in range(size):  # w = softmax(score), so dscore_s = w_s (dw_s - Σ_r w_r dw_r)
                    w[s] = exp(w[s])
                    dscore[s] *= w[s]
                # score_s = q·k_s/√d, so dq = Σ_s dscore_s k_s/√d
                _products(keys, first, dscore, root, dq[t, b, part])
                for i in range(d):
                    dkey, dvalue = dkeys[i, first : first + size], dvalues[i, first : first + size]
                    for s in range(size):  # dk_s += dscore_s q/√d; dv_s += w_s dmixed
                        dkey[s] += query[i] * dscore[s]
                        dvalue[s] += d_out[i] * w[s]
            for s in range(kv.shape[0]):  # from columns back to rows
                for i in range(d):
                    dkv[s, b, h * d + i] = dkeys[i, s]
                    dkv[s, b, H + h * d + i] = dvalues[i, s]
