"""Code that GRU and LSTM share.

It makes their parameters and their initial state, and takes single steps. If the recurrent layer's
width differs from the core's, a dense layer follows.

S5 computes all steps at once. Here h[t] depends on h[t-1] through a matrix and a nonlinearity, so
the steps are taken one after the other. The products with the inputs are one matrix product over
all T·B rows. So are the gradients of parameters and inputs, after the backward pass. Each step is
left with one product (B, K) @ (K, gates·K) and one fused loop.

The state before each step is kept, with zeros where the step begins an episode: a reset selects.

Leaves out: several layers, which the paper's baselines do not have.
Source: those of gru.py and lstm.py; flax's initial values. Specification: recurrent in
minis5/reference/cores.py. Tests: tests/nn/test_gru.py, tests/nn/test_lstm.py.
"""

import numpy as np

from minis5.arrays import array_module
from minis5.nn.layers import dense_backward, dense_forward
from minis5.nn.parameters import lecun_normal, orthogonal


def check_hidden(hidden):
    """Check a configuration's number of hidden units: None or positive."""
    if hidden is not None and hidden < 1:
        raise ValueError(f"hidden: expected at least 1, or None for the core's width, got {hidden}")


def prepare_states(reset, state):
    """Return the array of states (T + 1, B, K), and reset[t + 1] for each t (T, B).

    Row t is the state before step t: row 0 is filled from ``state`` (B, K), the others are empty.
    Row T is the last state, which nothing resets.
    """
    xp, T = array_module(state), len(reset)
    states, reset_next = xp.empty((T + 1, *state.shape), state.dtype), xp.zeros(reset.shape, bool)
    states[0] = xp.where(reset[0][:, None], state.dtype.type(0), state)
    reset_next[:-1] = reset[1:]
    return states, reset_next


class RNNCore:
    """A layer of ``config.hidden`` units K, and a dense layer back to ``d_model`` if K differs.

    A subclass says how many gates and state vectors it has, and has two methods for its layer:

        steps_forward(params, u, reset, state) → h (T, B, K), last state, cache
        steps_backward(dh, dlast, cache) → du, dstate, gradients

    State: (n_states, B, K).
    """

    devices = ("cpu", "cuda")
    n_gates = n_states = 0

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model
        self.hidden = d_model if config.hidden is None else config.hidden

    def shapes(self):
        """Return the shapes of the parameters, nested as they are; gates are side by side."""
        D, K, G = self.d_model, self.hidden, self.n_gates
        shapes = {
            "input": {"kernel": (D, G * K), "bias": (G * K,)},
            "recurrent": {"kernel": (K, G * K)},
        }
        return shapes | ({"out": {"kernel": (K, D), "bias": (D,)}} if K != D else {})

    def init(self, rng):
        """Return flax's initial values.

        Input kernels are lecun-normal, each gate's recurrent kernel is orthogonal, biases are 0.
        """
        D, K, G = self.d_model, self.hidden, self.n_gates
        params = {
            layer: {name: np.zeros(shape) for name, shape in shapes.items()}
            for layer, shapes in self.shapes().items()
        }
        params["input"]["kernel"] = lecun_normal(rng, (D, G * K), D)
        gates = [orthogonal(rng, (K, K), 1.0) for _ in range(G)]
        params["recurrent"]["kernel"] = np.concatenate(gates, axis=1)
        if "out" in params:
            params["out"]["kernel"] = lecun_normal(rng, (K, D), K)
        return params

    def initial_state(self, batch, dtype=np.float32):
        """Return zeros (n_states, batch, K)."""
        return np.zeros((self.n_states, batch, self.hidden), dtype)

    def forward(self, params, u, reset, state):
        """Return y, last state, cache.  (T, B, H) → (T, B, H)."""
        y, last, steps = self.steps_forward(params, u, reset, state)
        y, out = dense_forward(params["out"], y) if "out" in params else (y, None)
        return y, last, (steps, out)

    def backward(self, dy, cache, dlast=None):
        """Return du, dstate, gradients; ``dlast`` is the last state's gradient, None for zero."""
        steps, out = cache
        if out is None:
            dh, dout = array_module(dy).ascontiguousarray(dy), {}
        else:
            dh, dense = dense_backward(dy, out)
            dout = {"out": dense}
        du, dstate, grads = self.steps_backward(dh, dlast, steps)
        return du, dstate, grads | dout

    def stepper(self, params):
        """Return step(u (B, H), reset (B,), state) → y (B, H), state; it prepares nothing."""

        def step(u, reset, state):
            y, state, _ = RNNCore.forward(self, params, u[None], reset[None], state)
            return y[0], state

        return step
