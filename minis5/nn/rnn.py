"""What GRU and LSTM share: parameters, their initial values, the layer behind hidden units of another number, the one-step mode.

Their steps cannot be computed at once, as S5's can: h[t] depends on h[t-1] through a matrix and a nonlinearity. What can is: the
products with the inputs, one matrix product over all T·B rows, and behind the backward pass all gradients of parameters and inputs.
What remains for each step is one product (B, K) @ (K, gates·K) and one fused loop.

The state before each step is kept, with zeros where the step begins an episode: `entering` makes it. A reset selects there.

Left out: several layers, which the paper's baselines do not have.
Sources: gru.py, lstm.py. Specification: reference_cores.py. Tests: tests/nn/test_gru.py, tests/nn/test_lstm.py.
"""

import numpy as np

from minis5.arrays import array_module
from minis5.nn.layers import dense_backward, dense_forward
from minis5.nn.parameters import lecun_normal, orthogonal


def check_hidden(hidden):
    """A configuration's number of hidden units: None or positive."""
    if hidden is not None and hidden < 1:
        raise ValueError(f"hidden: expected at least 1, or None for the core's width, got {hidden}")


def entering(reset, state, T):
    """An array (T + 1, B, K) whose row t is for the state before step t, with row 0 filled in, and reset[t + 1] for each t (T, B).

    Row T is for the last state; nothing resets it. ``state``: (B, K).
    """
    xp = array_module(state)
    before, reset_next = xp.empty((T + 1, *state.shape), state.dtype), xp.zeros(reset.shape, bool)
    before[0] = xp.where(reset[0][:, None], state.dtype.type(0), state)
    reset_next[:-1] = reset[1:]
    return before, reset_next


class RNNCore:
    """A layer of ``config.hidden`` units K, and a dense layer back to ``d_model`` where K is another number.

    A subclass has `gates` and `states` (how many), and two methods for the layer: ``steps(params, u, reset, state)`` → h (T, B, K),
    last state, cache; and ``steps_backward(dh, dlast, cache)`` → du, dstate, gradients. State: (states, B, K).
    """

    devices = ("cpu", "cuda")
    gates = states = 0

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model
        self.hidden = d_model if config.hidden is None else config.hidden

    def shapes(self):
        """Nested shapes of the parameters; the gates' columns stand side by side."""
        D, K, G = self.d_model, self.hidden, self.gates
        shapes = {
            "input": {"kernel": (D, G * K), "bias": (G * K,)},
            "recurrent": {"kernel": (K, G * K)},
        }
        return shapes | ({"out": {"kernel": (K, D), "bias": (D,)}} if K != D else {})

    def init(self, rng):
        """Input kernels lecun-normal, the recurrent one orthogonal for each gate, biases 0: flax's initial values."""
        D, K, G = self.d_model, self.hidden, self.gates
        params = {
            layer: {name: np.zeros(s) for name, s in shapes.items()}
            for layer, shapes in self.shapes().items()
        }
        params["input"]["kernel"] = lecun_normal(rng, (D, G * K), D)
        params["recurrent"]["kernel"] = np.concatenate(
            [orthogonal(rng, (K, K), 1.0) for _ in range(G)], axis=1
        )
        if "out" in params:
            params["out"]["kernel"] = lecun_normal(rng, (K, D), K)
        return params

    def initial_state(self, batch, dtype=np.float32):
        """Zeros (states, batch, K)."""
        return np.zeros((self.states, batch, self.hidden), dtype)

    def forward(self, params, u, reset, state):
        """(T, B, H) → (T, B, H), last state, cache."""
        y, last, steps = self.steps(params, u, reset, state)
        y, out = dense_forward(params["out"], y) if "out" in params else (y, None)
        return y, last, (steps, out)

    def backward(self, dy, cache, dlast=None):
        """Gradients of :meth:`forward`; ``dlast`` is the gradient of the last state, None for zero."""
        steps, out = cache
        dh, grads = (
            dense_backward(dy, out)
            if out is not None
            else (array_module(dy).ascontiguousarray(dy), None)
        )
        du, dstate, layer = self.steps_backward(dh, dlast, steps)
        return du, dstate, layer | ({} if out is None else {"out": grads})

    def stepper(self, params):
        """One-step mode: step(u (B, H), reset (B,), state) → y (B, H), state. There is nothing to prepare."""

        def step(u, reset, state):
            y, state, _ = self.forward(params, u[None], reset[None], state)
            return y[0], state

        return step
