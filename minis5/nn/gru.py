"""The gated recurrent unit (GRU) with resets.

    r = σ(Wr x + Ur h + br)        z = σ(Wz x + Uz h + bz)
    q = Un h + cn
    n = tanh(Wn x + bn + r·q)
    h' = (1 - z)·n + z·h

h is the state before the step, 0 where the step is reset.

The reset gate r scales the recurrent product, as in cuDNN and in flax's GRUCell, which the paper's
code runs. In 1406.1078, eq. 8, it scales h before the product: U(r·h). In the form used here the
three products of a step are one, U h, and so are their gradients. The biases are flax's: one for
each gate, and cn, which r scales. The reset gate has nothing to do with the resets of episodes.

Backward, with d the gradient of h'. A prime at a gate is the gradient before its nonlinearity:
    z' = d·(h - n)·z·(1 - z)        n' = d·(1 - z)·(1 - n²)
    r' = n'·q·r·(1 - r)             q' = n'·r
    dh = d·z + Urᵀr' + Uzᵀz' + Unᵀq', 0 where the step is reset

Leaves out: several layers (rnn.py).
Source: 1406.1078, section 2.3; 2303.03982, appendix B. Specification: reference.gru.
GPU form: cuda/minis5_cuda/nn/gru.py. Tests: tests/nn/test_gru.py, tests/nn/test_jax.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

from minis5.arrays import Array, array_module
from minis5.checks import check_fields
from minis5.nn.doors import checked
from minis5.nn.rnn import RNNCore, check_hidden, prepare_states
from minis5.nn.scalars import sigmoid, tanh
from minis5.ops import matmul, operation


@dataclass(frozen=True)
class GRUConfig:
    """One GRU layer."""

    # units; None: as many as the encoder's last layer. minis5 train: so many that the core has as
    # many parameters as S5
    hidden: int | None = None

    def __post_init__(self):
        check_fields(self)
        check_hidden(self.hidden)


@operation
def gru_forward(gates, product, bias, recurrent_bias, h, reset_next, q, y, after):
    """Take one step: write y (B, K) ← h', and after ← the state before the next step.

    gates (B, 3K): W x on entry, r, z, n on return; product (B, 3K): U h; q (B, K): written;
    bias (3K,); recurrent_bias (K,): cn; h (B, K); reset_next (B,) bool: where ``after`` is 0.

    A row has several short loops, because LLVM does not vectorise one loop over many arrays.
    """
    K = y.shape[1]
    one = y.dtype.type(1)
    for b in range(y.shape[0]):
        rz, n, product_rz = gates[b, : 2 * K], gates[b, 2 * K :], product[b, : 2 * K]
        product_n, bias_rz, bias_n = product[b, 2 * K :], bias[: 2 * K], bias[2 * K :]
        r, z, state, qb, out, following = rz[:K], rz[K:], h[b], q[b], y[b], after[b]
        for k in range(2 * K):  # r, z = σ(W x + b + U h)
            rz[k] = sigmoid(rz[k] + bias_rz[k] + product_rz[k])
        for k in range(K):  # q = Un h + cn
            qb[k] = product_n[k] + recurrent_bias[k]
        for k in range(K):  # n = tanh(Wn x + bn + r·q)
            n[k] = tanh(n[k] + bias_n[k] + r[k] * qb[k])
        for k in range(K):  # h' = (1 - z)·n + z·h
            out[k] = (one - z[k]) * n[k] + z[k] * state[k]
        if reset_next[b]:  # a reset selects zero
            following[:] = 0
        else:
            following[:] = out


@operation
def gru_backward(dy, d, direct, reset_next, gates, q, h, dgates, dproduct):
    """Take one step back: write dgates ← r', z', n'; dproduct ← r', z', q'; direct ← d·z.

    On entry d (B, K) = Uᵀ(r', z', q') and direct (B, K) = d·z are those of the step after. Where
    that step is reset they are not read. d becomes the gradient of h'. dgates, dproduct: (B, 3K).
    """
    K = d.shape[1]
    one = d.dtype.type(1)
    for b in range(d.shape[0]):
        r, z, n = gates[b, :K], gates[b, K : 2 * K], gates[b, 2 * K :]
        dr, dz, dn = dgates[b, :K], dgates[b, K : 2 * K], dgates[b, 2 * K :]
        dq, total, kept, out = dproduct[b, 2 * K :], d[b], direct[b], dy[b]
        qb, state = q[b], h[b]
        # in the forward pass h' was the output and, unless a reset came, the next step's state
        if reset_next[b]:
            total[:] = out
        else:
            for k in range(K):  # so d = dy + Uᵀ(r', z', q') + d·z, the last two of the next step
                total[k] += out[k] + kept[k]
        # in the forward pass h' = (1 - z)·n + z·h and z = σ(·), so z' = d·(h - n)·z·(1 - z)
        for k in range(K):
            dz[k] = total[k] * (state[k] - n[k]) * z[k] * (one - z[k])
        # h' = (1 - z)·n + … and n = tanh(·), so n' = d·(1 - z)·(1 - n²)
        for k in range(K):
            dn[k] = total[k] * (one - z[k]) * (one - n[k] * n[k])
        # n = tanh(… + r·q) and r = σ(·), so r' = n'·q·r·(1 - r)
        for k in range(K):
            dr[k] = dn[k] * qb[k] * r[k] * (one - r[k])
        # n = tanh(… + r·q), so q' = n'·r
        for k in range(K):
            dq[k] = dn[k] * r[k]
        # h' = … + z·h, so dh gets d·z, to which the caller adds Uᵀ(r', z', q')
        for k in range(K):
            kept[k] = total[k] * z[k]
        # r, z = σ(W x + b + U h): both products have the gradients r', z'
        dproduct[b, : 2 * K] = dgates[b, : 2 * K]


class GRUCache(NamedTuple):
    params: dict
    u: Array  # (T·B, H)
    reset: Array  # (T, B)
    reset_next: Array  # (T, B): reset[t + 1]
    gates: Array  # (T, B, 3K): r, z, n
    q: Array  # (T, B, K): Un h + cn
    states: Array  # (T + 1, B, K): the state before each step, after the reset


@checked
class GRUCore(RNNCore):
    """One layer of gated recurrent units. State: (1, B, K)."""

    n_gates, n_states, config_type = 3, 1, GRUConfig

    def shapes(self):
        """Return the shapes of the parameters, nested as they are; cn is "recurrent/bias"."""
        shapes = super().shapes()
        shapes["recurrent"]["bias"] = (self.hidden,)
        return shapes

    def steps_forward(self, params, u, reset, state):
        """Return h (T, B, K), the last state (1, B, K) and the cache.

        u: (T, B, H); reset: (T, B); state: (1, B, K).
        """
        xp, (T, B, H), K = array_module(u), u.shape, self.hidden
        kernel = params["recurrent"]["kernel"]
        biases = params["input"]["bias"], params["recurrent"]["bias"]
        rows = xp.ascontiguousarray(u).reshape(-1, H)
        gates = matmul(rows, params["input"]["kernel"]).reshape(T, B, -1)  # W x of all steps
        states, reset_next = prepare_states(reset, state[0])
        q, y = xp.empty((T, B, K), u.dtype), xp.empty((T, B, K), u.dtype)
        for t in range(T):
            step = states[t], reset_next[t], q[t], y[t], states[t + 1]
            gru_forward(gates[t], matmul(states[t], kernel), *biases, *step)
        cache = GRUCache(params, rows, reset, reset_next, gates, q, states)
        return y, states[T:].copy(), cache

    def steps_backward(self, dh, dlast, cache):
        """Return du (T, B, H), dstate (1, B, K) and the gradients of the parameters.

        dh: (T, B, K); dlast: (1, B, K) or None.
        """
        params, u, reset, reset_next, gates, q, states = cache
        xp, (T, B, K) = array_module(dh), dh.shape
        kernel = params["recurrent"]["kernel"]
        dgates, dproduct = xp.empty_like(gates), xp.empty_like(gates)
        direct = xp.zeros((B, K), dh.dtype)
        d = xp.zeros_like(direct) if dlast is None else dlast[0].copy()
        for t in reversed(range(T)):
            step = reset_next[t], gates[t], q[t], states[t], dgates[t], dproduct[t]
            gru_backward(dh[t], d, direct, *step)
            d = matmul(dproduct[t], kernel.T)  # product = h @ U, so dh gets dproduct @ Uᵀ
        dstate = xp.where(reset[0][:, None], dh.dtype.type(0), d + direct)[None]
        dgates, dproduct = dgates.reshape(T * B, -1), dproduct.reshape(T * B, -1)
        # gates = u @ W + b and product = h @ U, each over all steps at once
        dU = matmul(states[:T].reshape(T * B, -1).T, dproduct)
        dcn = dproduct[:, 2 * K :].sum(axis=0)
        grads = {
            "input": {"kernel": matmul(u.T, dgates), "bias": dgates.sum(axis=0)},
            "recurrent": {"kernel": dU, "bias": dcn},
        }
        return matmul(dgates, params["input"]["kernel"].T).reshape(T, B, -1), dstate, grads
