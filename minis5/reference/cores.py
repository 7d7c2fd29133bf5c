"""The specification, continued: the memory cores beside S5, one vector at a time, in float64.

Each is f(params, u, reset, state, config) → y (T, B, H), last state. Parameters are nested as in
the library, u is (T, B, H), reset (T, B), and a state has the batch on axis 1. Kernels are
(in, out); the gates are side by side in their columns.

Leaves out: the same as s5_ppo.py. It imports nothing of minis5 outside this folder.
Source: [GRU] Cho et al., arXiv 1406.1078, with the reset gate after the recurrent product; [LSTM]
Hochreiter and Schmidhuber, 1997, with the forget gate of Gers, Schmidhuber and Cummins, 2000.
Tests: tests/nn/test_gru.py, tests/nn/test_lstm.py and tests/nn/test_mlp.py compare with numbers
worked by hand.
"""

import numpy as np

from minis5.reference.attention import attention
from minis5.reference.s5_ppo import dense, each, sigmoid, stack


def gru_step(p, x, h):
    """Return h' = (1 - z) ∘ n + z ∘ h of one vector.

    r, z = σ(W x + U h + b); n = tanh(Wn x + bn + r ∘ (Un h + cn)).
    """
    K = len(h)
    wx = x @ p["input"]["kernel"] + p["input"]["bias"]
    uh = h @ p["recurrent"]["kernel"]
    r = sigmoid(wx[:K] + uh[:K])
    z = sigmoid(wx[K : 2 * K] + uh[K : 2 * K])
    n = np.tanh(wx[2 * K :] + r * (uh[2 * K :] + p["recurrent"]["bias"]))
    return (1.0 - z) * n + z * h


def lstm_step(p, x, h, c):
    """Return h' = o ∘ tanh(c') and c' = f ∘ c + i ∘ g of one vector.

    i, f, o = σ(W x + U h + b); g = tanh(Wg x + Ug h + bg).
    """
    a = x @ p["input"]["kernel"] + p["input"]["bias"] + h @ p["recurrent"]["kernel"]
    i, f, g, o = np.split(a, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def recurrent(step, p, u, reset, state):
    """Run ``step(p, x, *state)`` → new state over all steps; return y and the last state.

    y[t] is the new state's first part, through the layer "out" if there is one.
    """
    T, B, _ = u.shape
    y = np.zeros((T, B, state.shape[-1]))
    last = np.zeros(state.shape)
    for n in range(B):
        parts = state[:, n]
        for t in range(T):
            if reset[t, n]:
                parts = np.zeros(parts.shape)
            parts = np.reshape(step(p, u[t, n], *parts), parts.shape)
            y[t, n] = parts[0]
        last[:, n] = parts
    return each(lambda h: dense(p["out"], h), y) if "out" in p else y, last


def gru(p, u, reset, state, config):
    """Run a GRU.  state: (1, B, K)."""
    del config
    return recurrent(gru_step, p, u, reset, state)


def lstm(p, u, reset, state, config):
    """Run an LSTM.  state: (2, B, K), h and c."""
    del config
    return recurrent(lstm_step, p, u, reset, state)


def mlp(p, u, reset, state, config):
    """Apply dense layers with leaky ReLU; the state is empty."""
    del reset, config
    for i in range(len(p)):
        u = each(lambda x, layer=p[str(i)]: dense(layer, x, "leaky_relu"), u)
    return u, state


def none(p, u, reset, state, config):
    """Return u: no core at all."""
    del p, reset, config
    return u, state


CORES = {"s5": stack, "gru": gru, "lstm": lstm, "mlp": mlp, "attention": attention, "none": none}
