"""A core without memory: dense layers where the others have memory, so that a comparison of equal sizes tells what memory adds.

    u ← leaky ReLU(kernel u + bias), for each width of ``widths`` and then for the core's own.

Left out: everything between steps. # differs from popjaxrl: its MLP has as many weights as its authors chose; presets.py gives this
one as many as S5 has.
Source: the MLP of 2303.03982, section 5. Specification: reference_cores.mlp. Tests: tests/nn/test_mlp.py.
"""

import math
from dataclasses import dataclass

import numpy as np

from minis5.arrays import array_module
from minis5.nn.layers import dense_backward, dense_forward
from minis5.nn.parameters import orthogonal


@dataclass(frozen=True)
class MLPConfig:
    """Dense layers, without memory."""

    # of the layers before the last. minis5 train: two as wide as S5's parameters allow
    widths: tuple[int, ...] = (256, 256)

    def __post_init__(self):
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths: expected positive widths, got {self.widths}")


class MLPCore:
    """Dense layers and leaky ReLU. State: (0, B, 0)."""

    devices = ("cpu", "cuda")

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model

    def shapes(self):
        """Nested shapes of the parameters: "0/kernel", "0/bias", ..."""
        widths = (self.d_model, *self.config.widths, self.d_model)
        return {
            str(i): {"kernel": (m, n), "bias": (n,)}
            for i, (m, n) in enumerate(zip(widths, widths[1:], strict=False))
        }

    def init(self, rng):
        """Kernels orthogonal with gain √2, biases 0, as in the agent's encoder."""
        return {
            i: {
                "kernel": orthogonal(rng, layer["kernel"], math.sqrt(2)),
                "bias": np.zeros(layer["bias"]),
            }
            for i, layer in self.shapes().items()
        }

    def initial_state(self, batch, dtype=np.float32):
        return np.zeros((0, batch, 0), dtype)

    def forward(self, params, u, reset, state):
        """(..., H) → (..., H); ``reset`` has nothing to reset, ``state`` is handed on."""
        caches = []
        for i in range(len(params)):
            u, cache = dense_forward(params[str(i)], u, "leaky_relu")
            caches.append(cache)
        return u, state, (caches, state)

    def backward(self, dy, cache, dlast=None):
        """Gradients of :meth:`forward`."""
        caches, state = cache
        grads = {}
        for i in reversed(range(len(caches))):
            dy, grads[str(i)] = dense_backward(dy, caches[i])
        return dy, array_module(state).zeros_like(state), grads

    def stepper(self, params):
        """One-step mode: step(u (B, H), reset (B,), state) → y (B, H), state."""
        return lambda u, reset, state: self.forward(params, u, reset, state)[:2]
