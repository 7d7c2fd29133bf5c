"""Long short-term memory (LSTM) with forget gate and resets.

    i, f, o = σ(W x + U h + b), each with its own kernels and bias
    g = tanh(Wg x + Ug h + bg)
    c' = f·c + i·g
    h' = o·tanh(c')

h and c are the state before the step, 0 where the step is reset.

The forget gate's bias begins at ``forget_bias``, 1 by default, and is trained like any other. With
0 an untrained cell forgets half of its content at each step. It then learns nothing of what lies
far back (Gers, Schmidhuber and Cummins, 2000; Jozefowicz, Zaremba and Sutskever, 2015, section
3.1).
# differs from flax: there the forget gate's bias begins at 0.

Backward, with dh the gradient of h' and dc that of c'. A prime at a gate is the gradient before its
nonlinearity:
    dc += dh·o·(1 - tanh²c')        o' = dh·tanh(c')·o·(1 - o)
    i' = dc·g·i·(1 - i)             f' = dc·c·f·(1 - f)             g' = dc·i·(1 - g²)
    to the step before: dc·f for c and Uᵀ(i', f', g', o') for h, 0 where the step is reset

Leaves out: peepholes; projection; several layers (rnn.py).
Source: Hochreiter and Schmidhuber, 1997; forget gate: Gers et al., 2000; in the form of 1402.1128
without peepholes and projection. Specification: reference.lstm.
GPU form: cuda/minis5_cuda/nn/lstm.py. Tests: tests/nn/test_lstm.py, tests/nn/test_jax.py.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from minis5.arrays import Array, array_module, concatenate
from minis5.checks import check_fields
from minis5.nn.doors import checked
from minis5.nn.rnn import RNNCore, check_hidden, prepare_states
from minis5.nn.scalars import sigmoid, tanh
from minis5.ops import fast, matmul, operation


@dataclass(frozen=True)
class LSTMConfig:
    """One LSTM layer."""

    # units; None: as many as the encoder's last layer. minis5 train: so many that the core has as
    # many parameters as S5
    hidden: int | None = None
    forget_bias: float = 1.0  # initial bias of the forget gate; 0 in flax

    def __post_init__(self):
        check_fields(self)
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
    """Take one step: write y ← h', tanh_c ← tanh(c'), and the state before the next step.

    gates (B, 4K): W x on entry, i, f, g, o on return; product (B, 4K): U h; bias (4K,); the others
    (B, K). after_h, after_c ← h', c', or 0 where reset_next (B,).

    A row has several short loops, because LLVM does not vectorise one loop over many arrays.
    """
    K = y.shape[1]
    for b in range(y.shape[0]):
        row, uh, state_c = gates[b], product[b], c[b]
        i, f, g, o = row[:K], row[K : 2 * K], row[2 * K : 3 * K], row[3 * K :]
        squashed, out, following, cell = tanh_c[b], y[b], after_h[b], after_c[b]
        for k in range(4 * K):  # W x + U h + b
            row[k] += uh[k] + bias[k]
        _sigmoid_row(row[: 2 * K])  # i, f
        _tanh_row(g, g)
        _sigmoid_row(o)
        for k in range(K):  # c' = f·c + i·g
            cell[k] = f[k] * state_c[k] + i[k] * g[k]
        _tanh_row(cell, squashed)
        for k in range(K):  # h' = o·tanh(c')
            out[k] = o[k] * squashed[k]
        if reset_next[b]:  # a reset selects zero
            following[:] = 0
            cell[:] = 0
        else:
            following[:] = out


@operation
def lstm_backward(dy, dh, dc, reset_next, gates, tanh_c, c, dgates):
    """Take one step back: write dgates (B, 4K) ← i', f', g', o', and dc ← dc·f.

    On entry dh (B, K) = Uᵀ(i', f', g', o') and dc (B, K) = dc·f are those of the step after. Where
    that step is reset they are not read. dh becomes the gradient of h'.
    """
    K = dh.shape[1]
    one = dh.dtype.type(1)
    for b in range(dh.shape[0]):
        i, f, g, o = gates[b, :K], gates[b, K : 2 * K], gates[b, 2 * K : 3 * K], gates[b, 3 * K :]
        di, df, dg = dgates[b, :K], dgates[b, K : 2 * K], dgates[b, 2 * K : 3 * K]
        do, total, cell, out = dgates[b, 3 * K :], dh[b], dc[b], dy[b]
        squashed, state_c = tanh_c[b], c[b]
        # in the forward pass h' was the output and, unless a reset came, h' and c' the next state
        if reset_next[b]:
            total[:] = out
            cell[:] = 0
        else:
            for k in range(K):  # so dh = dy + Uᵀ(i', f', g', o') of the next step
                total[k] += out[k]
        # in the forward pass h' = o·tanh(c'), so dc += dh·o·(1 - tanh²c')
        for k in range(K):
            cell[k] += total[k] * o[k] * (one - squashed[k] * squashed[k])
        # h' = o·tanh(c') and o = σ(·), so o' = dh·tanh(c')·o·(1 - o)
        for k in range(K):
            do[k] = total[k] * squashed[k] * o[k] * (one - o[k])
        # c' = f·c + i·g and i = σ(·), so i' = dc·g·i·(1 - i)
        for k in range(K):
            di[k] = cell[k] * g[k] * i[k] * (one - i[k])
        # c' = f·c + … and f = σ(·), so f' = dc·c·f·(1 - f)
        for k in range(K):
            df[k] = cell[k] * state_c[k] * f[k] * (one - f[k])
        # c' = … + i·g and g = tanh(·), so g' = dc·i·(1 - g²)
        for k in range(K):
            dg[k] = cell[k] * i[k] * (one - g[k] * g[k])
        # c' = f·c + …, so c gets dc·f
        for k in range(K):
            cell[k] *= f[k]


class LSTMCache(NamedTuple):
    params: dict
    u: Array  # (T·B, H)
    reset: Array  # (T, B)
    reset_next: Array  # (T, B): reset[t + 1]
    gates: Array  # (T, B, 4K): i, f, g, o
    tanh_c: Array  # (T, B, K): tanh(c')
    h: Array  # (T + 1, B, K): the state before each step, after the reset
    c: Array  # (T + 1, B, K): the same for c


@checked
class LSTMCore(RNNCore):
    """One layer of LSTM cells. State: (2, B, K), h and c."""

    n_gates, n_states, config_type = 4, 2, LSTMConfig

    def init(self, rng):
        """Return RNNCore's initial parameters, with ``forget_bias`` at the forget gates."""
        params = super().init(rng)
        params["input"]["bias"][self.hidden : 2 * self.hidden] = self.config.forget_bias
        return params

    def steps_forward(self, params, u, reset, state):
        """Return h (T, B, K), the last state (2, B, K) and the cache.

        u: (T, B, H); reset: (T, B); state: (2, B, K).
        """
        xp, (T, B, H), K = array_module(u), u.shape, self.hidden
        kernel, bias = params["recurrent"]["kernel"], params["input"]["bias"]
        rows = xp.ascontiguousarray(u).reshape(-1, H)
        gates = matmul(rows, params["input"]["kernel"]).reshape(T, B, -1)  # W x of all steps
        (h, reset_next), (c, _) = (prepare_states(reset, part) for part in (state[0], state[1]))
        tanh_c, y = xp.empty((T, B, K), u.dtype), xp.empty((T, B, K), u.dtype)
        for t in range(T):
            step = c[t], reset_next[t], tanh_c[t], y[t], h[t + 1], c[t + 1]
            lstm_forward(gates[t], matmul(h[t], kernel), bias, *step)
        last = concatenate([h[T:], c[T:]], axis=0)
        return y, last, LSTMCache(params, rows, reset, reset_next, gates, tanh_c, h, c)

    def steps_backward(self, dy, dlast, cache):
        """Return du (T, B, H), dstate (2, B, K) and the gradients of the parameters.

        dy: (T, B, K); dlast: (2, B, K) or None.
        """
        params, u, reset, reset_next, gates, tanh_c, h, c = cache
        xp, (T, B, K) = array_module(dy), dy.shape
        kernel, dgates = params["recurrent"]["kernel"], xp.empty_like(gates)
        dh, dc = xp.zeros((2, B, K), dy.dtype) if dlast is None else dlast.copy()
        for t in reversed(range(T)):
            lstm_backward(dy[t], dh, dc, reset_next[t], gates[t], tanh_c[t], c[t], dgates[t])
            dh = matmul(dgates[t], kernel.T)  # product = h @ U, so dh = dgates @ Uᵀ
        dstate = concatenate([dh[None], dc[None]], axis=0)
        dstate = xp.where(reset[0][:, None], dy.dtype.type(0), dstate)
        dgates = dgates.reshape(T * B, -1)
        grads = {  # gates = u @ W + h @ U + b, over all steps at once
            "input": {"kernel": matmul(u.T, dgates), "bias": dgates.sum(axis=0)},
            "recurrent": {"kernel": matmul(h[:T].reshape(T * B, -1).T, dgates)},
        }
        return matmul(dgates, params["input"]["kernel"].T).reshape(T, B, -1), dstate, grads
