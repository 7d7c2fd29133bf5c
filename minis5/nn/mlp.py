"""A core without memory: dense layers only.

    u ← leaky ReLU(kernel u + bias), for each width of ``widths`` and then for the core's own

A comparison with a core of equal size that has a memory shows what memory adds.

Leaves out: everything between steps.
Differs from the authors' code (popjaxrl): presets.py gives this core as many weights as S5 has; the
authors chose another number.
Source: the MLP of 2303.03982, section 5. Specification: reference.mlp.
GPU form: that of layers.py. Tests: tests/nn/test_mlp.py.
"""

import math
from dataclasses import dataclass

import numpy as np

from minis5.arrays import array_module
from minis5.checks import check_fields
from minis5.nn.doors import checked
from minis5.nn.layers import dense_backward, dense_forward
from minis5.nn.parameters import orthogonal


@dataclass(frozen=True)
class MLPConfig:
    """Dense layers, without memory."""

    # widths of the layers before the last. minis5 train: two, so wide that the core has as many
    # parameters as S5
    widths: tuple[int, ...] = (256, 256)

    def __post_init__(self):
        check_fields(self)
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths: expected positive widths, got {self.widths}")


@checked
class MLPCore:
    """Dense layers and leaky ReLU. State: (0, B, 0)."""

    devices, config_type = ("cpu", "cuda"), MLPConfig

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model

    def shapes(self):
        """Return the shapes of the parameters, nested as they are: "0/kernel", "0/bias", ..."""
        widths = (self.d_model, *self.config.widths, self.d_model)
        pairs = zip(widths, widths[1:], strict=False)
        return {str(i): {"kernel": (m, n), "bias": (n,)} for i, (m, n) in enumerate(pairs)}

    def init(self, rng):
        """Return the encoder's initial values: kernels orthogonal with gain √2, biases 0."""
        params = {}
        for i, layer in self.shapes().items():
            kernel = orthogonal(rng, layer["kernel"], math.sqrt(2))
            params[i] = {"kernel": kernel, "bias": np.zeros(layer["bias"])}
        return params

    def initial_state(self, batch, dtype=np.float32):
        """Return the empty state (0, batch, 0)."""
        return np.zeros((0, batch, 0), dtype)

    def forward(self, params, u, reset, state):
        """Return y, ``state`` unchanged, cache.  (T, B, H) → (T, B, H). Resets change nothing."""
        u, caches = mlp_forward(params, u)
        return u, state, (caches, state)

    def backward(self, dy, cache, dlast=None):
        """Return du, dstate (empty), gradients."""
        caches, state = cache
        grads = {}
        for i in reversed(range(len(caches))):
            dy, grads[str(i)] = dense_backward(dy, caches[i])
        return dy, array_module(state).zeros_like(state), grads

    def stepper(self, params):
        """Return step(u (B, H), reset (B,), state) → y (B, H), state."""
        return lambda u, reset, state: (mlp_forward(params, u)[0], state)


def mlp_forward(params, u):
    """Return the output of all layers, and their caches.  (..., H) → (..., H)."""
    caches = []
    for i in range(len(params)):
        u, cache = dense_forward(params[str(i)], u, "leaky_relu")
        caches.append(cache)
    return u, caches
