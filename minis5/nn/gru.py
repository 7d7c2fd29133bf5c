"""The gated recurrent unit with resets. Forward and backward by hand.

    r = σ(Wr x + Ur h + br)        z = σ(Wz x + Uz h + bz)        h: the state before the step, 0 where it is reset
    n = tanh(Wn x + bn + r·(Un h + cn))
    h' = (1 - z)·n + z·h

The reset gate r acts behind the recurrent product (cuDNN's and flax's GRUCell, which the paper's code runs), not before it as in
1406.1078, eq. 8, U(r·h): so the three products of a step are one, U h, and its gradient is one too. 1406.1078's reset gate has
nothing to do with the episodes' resets. Biases are flax's: one for each gate, and cn, which r scales.

Backward, with d the gradient of h' and q = Un h + cn; a prime at a gate is the gradient before its nonlinearity:
    z' = d·(h - n)·z·(1 - z)    n' = d·(1 - z)·(1 - n²)    r' = n'·q·r·(1 - r)    q' = n'·r
    dh = d·z + Ur'r' + Uz'z' + Un'q' (transposed kernels), 0 where the step is reset.

Left out: what rnn.py says. Source: 1406.1078, section 2.3; 2303.03982, appendix B. Specification: reference_cores.gru.
Kernels for GPUs: cuda/minis5_cuda/nn/gru.py. Tests: tests/nn/test_gru.py, tests/nn/test_jax.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.nn.rnn import RNNCore, check_hidden, entering
from minis5.nn.scalars import sigmoid, tanh
from minis5.ops import matmul, operation


@dataclass(frozen=True)
class GRUConfig:
    """One GRU layer."""

    # units; none: as many as the encoder's last width. minis5 train: as many as S5's parameters
    # allow
    hidden: int | None = None

    def __post_init__(self):
        check_hidden(self.hidden)


@operation
def gru_forward(gates, product, bias, recurrent_bias, h, reset_next, q, y, after):
    """One step: gates (B, 3K) Wx → r, z, n; product (B, 3K): Uh; y (B, K) ← h'; after ← y, or 0 where reset_next.

    Several short loops over a row, because LLVM turns a loop over many arrays into no vector instructions.
    """
    K = y.shape[1]
    one = y.dtype.type(1)
    for b in range(y.shape[0]):
        rz, n, p, pn = (
            gates[b, : 2 * K],
            gates[b, 2 * K :],
            product[b, : 2 * K],
            product[b, 2 * K :],
        )
        brz, bn, row, out, before, then = bias[: 2 * K], bias[2 * K :], q[b], y[b], h[b], after[b]
        r, z = rz[:K], rz[K:]
        for k in range(2 * K):
            rz[k] = sigmoid(rz[k] + brz[k] + p[k])
        for k in range(K):
            row[k] = pn[k] + recurrent_bias[k]
        for k in range(K):
            n[k] = tanh(n[k] + bn[k] + r[k] * row[k])
        for k in range(K):
            out[k] = (one - z[k]) * n[k] + z[k] * before[k]
        if reset_next[b]:
            then[:] = 0
        else:
            then[:] = out


@operation
def gru_backward(dy, d, direct, reset_next, gates, q, h, dgates, dproduct):
    """One step back. d (B, K): Uᵀ(r', z', q') of the step after, direct (B, K): d·z of it; both left out where it was reset.

    dgates (B, 3K) ← r', z', n'; dproduct (B, 3K) ← r', z', q'; direct ← d·z; d is overwritten.
    """
    K = d.shape[1]
    one = d.dtype.type(1)
    for b in range(d.shape[0]):
        r, z, n = gates[b, :K], gates[b, K : 2 * K], gates[b, 2 * K :]
        dr, dz, dn, dq = (
            dgates[b, :K],
            dgates[b, K : 2 * K],
            dgates[b, 2 * K :],
            dproduct[b, 2 * K :],
        )
        total, kept, out, row, before = d[b], direct[b], dy[b], q[b], h[b]
        if reset_next[b]:
            total[:] = out
        else:
            for k in range(K):
                total[k] += out[k] + kept[k]
        for k in range(K):
            dz[k] = total[k] * (before[k] - n[k]) * z[k] * (one - z[k])
        for k in range(K):
            dn[k] = total[k] * (one - z[k]) * (one - n[k] * n[k])
        for k in range(K):
            dr[k] = dn[k] * row[k] * r[k] * (one - r[k])
        for k in range(K):
            dq[k] = dn[k] * r[k]
        for k in range(K):
            kept[k] = total[k] * z[k]
        dproduct[b, : 2 * K] = dgates[b, : 2 * K]


class GRUCache(NamedTuple):
    params: dict
    u: np.ndarray  # (T·B, H)
    reset: np.ndarray  # (T, B)
    reset_next: np.ndarray  # (T, B): reset[t + 1]
    gates: np.ndarray  # (T, B, 3K): r, z, n
    q: np.ndarray  # (T, B, K): Un h + cn
    before: np.ndarray  # (T + 1, B, K): the state before each step, after the reset


class GRUCore(RNNCore):
    """One layer of gated recurrent units. State: (1, B, K)."""

    gates, states = 3, 1

    def shapes(self):
        shapes = super().shapes()
        shapes["recurrent"]["bias"] = (self.hidden,)
        return shapes

    def steps(self, params, u, reset, state):
        """u (T, B, H), reset (T, B), state (1, B, K) → h (T, B, K), last state, cache."""
        xp, (T, B, H) = array_module(u), u.shape
        wx, uh = params["input"], params["recurrent"]
        flat = xp.ascontiguousarray(u).reshape(-1, H)
        gates = matmul(flat, wx["kernel"]).reshape(T, B, -1)
        before, reset_next = entering(reset, state[0], T)
        q, y = xp.empty((T, B, self.hidden), u.dtype), xp.empty((T, B, self.hidden), u.dtype)
        for t in range(T):
            product = matmul(before[t], uh["kernel"])
            gru_forward(
                gates[t],
                product,
                wx["bias"],
                uh["bias"],
                before[t],
                reset_next[t],
                q[t],
                y[t],
                before[t + 1],
            )
        return y, before[T:].copy(), GRUCache(params, flat, reset, reset_next, gates, q, before)

    def steps_backward(self, dh, dlast, cache):
        """Gradients of :meth:`steps` from those of h (T, B, K) and the last state (1, B, K) or None."""
        params, u, reset, reset_next, gates, q, before = cache
        xp, (T, B, K) = array_module(dh), dh.shape
        kernel = params["recurrent"]["kernel"]
        dgates, dproduct = xp.empty_like(gates), xp.empty_like(gates)
        direct = xp.zeros((B, K), dh.dtype)
        d = xp.zeros_like(direct) if dlast is None else dlast[0].copy()
        for t in reversed(range(T)):
            gru_backward(
                dh[t], d, direct, reset_next[t], gates[t], q[t], before[t], dgates[t], dproduct[t]
            )
            d = matmul(dproduct[t], kernel.T)
        dstate = xp.where(reset[0][:, None], dh.dtype.type(0), d + direct)[None]
        dgates, dproduct = dgates.reshape(T * B, -1), dproduct.reshape(T * B, -1)
        grads = {
            "input": {"kernel": matmul(u.T, dgates), "bias": dgates.sum(axis=0)},
            "recurrent": {
                "kernel": matmul(before[:T].reshape(T * B, -1).T, dproduct),
                "bias": dproduct[:, 2 * K :].sum(axis=0),
            },
        }
        return matmul(dgates, params["input"]["kernel"].T).reshape(T, B, -1), dstate, grads
