"""Long short-term memory with forget gate and resets. Forward and backward by hand.

    i, f, o = σ(W x + U h + b), each with its own kernels and bias        g = tanh(Wg x + Ug h + bg)
    c' = f·c + i·g        h' = o·tanh(c')                                 h, c: before the step, 0 where it is reset

The forget gate's bias starts at ``forget_bias``, 1 by default: with 0, as in flax, a cell forgets half of its content at each step
before it has been trained, and learns nothing of what lies far back (Gers, Schmidhuber and Cummins, 2000;
Jozefowicz, Zaremba and Sutskever, 2015, section 3.1). It is trained like any other.
# differs from flax: there the forget gate's bias starts at 0.

Backward, with dh the gradient of h', dc that of c'; a prime at a gate is the gradient before its nonlinearity:
    dc += dh·o·(1 - tanh²c')    o' = dh·tanh(c')·o·(1 - o)    i' = dc·g·i·(1 - i)    f' = dc·c·f·(1 - f)    g' = dc·i·(1 - g²)
    to the step before: dc·f and Uᵀ(i', f', g', o'), 0 where the step is reset.

Left out: peepholes, and what rnn.py says. Source: Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000; in this form
1402.1128 without peepholes and projection. Specification: reference_cores.lstm.
Kernels for GPUs: cuda/minis5_cuda/nn/lstm.py. Tests: tests/nn/test_lstm.py, tests/nn/test_jax.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module, concatenate
from minis5.nn.rnn import RNNCore, check_hidden, entering
from minis5.nn.scalars import sigmoid, tanh
from minis5.ops import fast, matmul, operation


@dataclass(frozen=True)
class LSTMConfig:
    """One LSTM layer."""

    # units; none: as many as the encoder's last width. minis5 train: as many as S5's parameters
    # allow
    hidden: int | None = None
    forget_bias: float = 1.0  # initial bias of the forget gate; 0 in flax

    def __post_init__(self):
        check_hidden(self.hidden)
        if not math.isfinite(self.forget_bias):
            raise ValueError(f"forget_bias: expected a finite number, got {self.forget_bias}")


@fast
def _sigmoid_row(x):
    for k in range(x.size):
        x[k] = sigmoid(x[k])


@fast
def _tanh_row(x, y):
    for k in range(x.size):
        y[k] = tanh(x[k])


@operation
def lstm_forward(gates, product, bias, c, reset_next, tanh_c, y, after_h, after_c):
    """One step: gates (B, 4K) Wx → i, f, g, o; product (B, 4K): Uh; y (B, K) ← h'; after_h, after_c ← h', c', or 0: reset_next.

    Several short loops over a row, because LLVM turns a loop over many arrays into no vector instructions.
    """
    K = y.shape[1]
    for b in range(y.shape[0]):
        row, p = gates[b], product[b]
        i, f, g, o = row[:K], row[K : 2 * K], row[2 * K : 3 * K], row[3 * K :]
        before, squashed, out, then, cell = c[b], tanh_c[b], y[b], after_h[b], after_c[b]
        for k in range(4 * K):
            row[k] += p[k] + bias[k]
        _sigmoid_row(row[: 2 * K])
        _tanh_row(g, g)
        _sigmoid_row(o)
        for k in range(K):
            cell[k] = f[k] * before[k] + i[k] * g[k]
        _tanh_row(cell, squashed)
        for k in range(K):
            out[k] = o[k] * squashed[k]
        if reset_next[b]:
            then[:] = 0
            cell[:] = 0
        else:
            then[:] = out


@operation
def lstm_backward(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """One step back. dh (B, K): Uᵀ(i', f', g', o') of the step after, dc (B, K): dc·f of it; both left out where it was reset.

    dgates (B, 4K) ← i', f', g', o'; dc ← dc·f; dh is overwritten.
    """
    K = dh.shape[1]
    one = dh.dtype.type(1)
    for b in range(dh.shape[0]):
        i, f, g, o = gates[b, :K], gates[b, K : 2 * K], gates[b, 2 * K : 3 * K], gates[b, 3 * K :]
        di, df, dg, do = (
            dgates[b, :K],
            dgates[b, K : 2 * K],
            dgates[b, 2 * K : 3 * K],
            dgates[b, 3 * K :],
        )
        total, cell, out, squashed, before = dh[b], dc[b], dy[b], tanh_c[b], c[b]
        if reset_next[b]:
            total[:] = out
            cell[:] = 0
        else:
            for k in range(K):
                total[k] += out[k]
        for k in range(K):
            cell[k] += total[k] * o[k] * (one - squashed[k] * squashed[k])
        for k in range(K):
            do[k] = total[k] * squashed[k] * o[k] * (one - o[k])
        for k in range(K):
            di[k] = cell[k] * g[k] * i[k] * (one - i[k])
        for k in range(K):
            df[k] = cell[k] * before[k] * f[k] * (one - f[k])
        for k in range(K):
            dg[k] = cell[k] * i[k] * (one - g[k] * g[k])
        for k in range(K):
            cell[k] *= f[k]


class LSTMCache(NamedTuple):
    params: dict
    u: np.ndarray  # (T·B, H)
    reset: np.ndarray  # (T, B)
    reset_next: np.ndarray  # (T, B): reset[t + 1]
    gates: np.ndarray  # (T, B, 4K): i, f, g, o
    tanh_c: np.ndarray  # (T, B, K)
    h: np.ndarray  # (T + 1, B, K): before each step, after the reset
    c: np.ndarray  # (T + 1, B, K)


class LSTMCore(RNNCore):
    """One layer of LSTM cells. State: (2, B, K), h and c."""

    gates, states = 4, 2

    def init(self, rng):
        params = super().init(rng)
        params["input"]["bias"][self.hidden : 2 * self.hidden] = self.config.forget_bias
        return params

    def steps(self, params, u, reset, state):
        """u (T, B, H), reset (T, B), state (2, B, K) → h (T, B, K), last state, cache."""
        xp, (T, B, H) = array_module(u), u.shape
        kernel, bias = params["recurrent"]["kernel"], params["input"]["bias"]
        flat = xp.ascontiguousarray(u).reshape(-1, H)
        gates = matmul(flat, params["input"]["kernel"]).reshape(T, B, -1)
        (h, reset_next), (c, _) = (entering(reset, part, T) for part in (state[0], state[1]))
        tanh_c, y = xp.empty((T, B, self.hidden), u.dtype), xp.empty((T, B, self.hidden), u.dtype)
        for t in range(T):
            lstm_forward(
                gates[t],
                matmul(h[t], kernel),
                bias,
                c[t],
                reset_next[t],
                tanh_c[t],
                y[t],
                h[t + 1],
                c[t + 1],
            )
        last = concatenate([h[T:], c[T:]], axis=0)
        return y, last, LSTMCache(params, flat, reset, reset_next, gates, tanh_c, h, c)

    def steps_backward(self, dy, dlast, cache):
        """Gradients of :meth:`steps` from those of h (T, B, K) and the last state (2, B, K) or None."""
        params, u, reset, reset_next, gates, tanh_c, h, c = cache
        xp, (T, B, K) = array_module(dy), dy.shape
        kernel, dgates = params["recurrent"]["kernel"], xp.empty_like(gates)
        dh, dc = xp.zeros((2, B, K), dy.dtype) if dlast is None else dlast.copy()
        for t in reversed(range(T)):
            lstm_backward(dy[t], dh, dc, reset_next[t], gates[t], tanh_c[t], c[t], dgates[t])
            dh = matmul(dgates[t], kernel.T)
        dstate = xp.where(
            reset[0][:, None], dy.dtype.type(0), concatenate([dh[None], dc[None]], axis=0)
        )
        dgates = dgates.reshape(T * B, -1)
        grads = {
            "input": {"kernel": matmul(u.T, dgates), "bias": dgates.sum(axis=0)},
            "recurrent": {"kernel": matmul(h[:T].reshape(T * B, -1).T, dgates)},
        }
        return matmul(dgates, params["input"]["kernel"].T).reshape(T, B, -1), dstate, grads
