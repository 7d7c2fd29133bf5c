"""Memory cores: the part between encoder and heads, behind one small protocol.

A core is an object that holds only its configuration. Parameters and states are passed in and
handed back:

    shapes() → the shapes of the parameters, nested as they are
    init(rng) → nested parameters
    initial_state(batch, dtype) → state, batch on axis 1
    forward(params, u, reset, state) → y, state, cache         u, y: (T, B, H); reset: (T, B) bool
    backward(dy, cache) → du, dstate, gradients (nested as the parameters)
    stepper(params) → step(u, reset, state) → y, state         u, y: (B, H)

``reset[t]`` means that nothing before step t may reach it. A stepper prepares its parameters once,
for many steps. ``devices`` names where the core runs. A new core is a class with these methods and
a row in CORES. The decorator `checked` (doors.py) lets in only what the methods take, because
compiled loops do not look at sizes.

Specification: reference.CORES. Tests: tests/nn/test_cores.py, minis5/verify/memory_core.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minis5.arrays import array_module
from minis5.nn.attention import AttentionConfig, AttentionCore
from minis5.nn.doors import checked
from minis5.nn.gru import GRUConfig, GRUCore
from minis5.nn.lstm import LSTMConfig, LSTMCore
from minis5.nn.mlp import MLPConfig, MLPCore
from minis5.nn.s5_core import S5Config, S5Core


@dataclass(frozen=True)
class NoConfig:
    """A core without parameters and without memory."""


@checked
class NoCore:
    """y = u: the agent with its memory taken out. State: (0, B, 0)."""

    devices, config_type = ("cpu", "cuda"), NoConfig

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model

    def shapes(self):
        return {}

    def init(self, rng):
        return {}

    def initial_state(self, batch, dtype=np.float32):
        return np.zeros((0, batch, 0), dtype)

    def forward(self, params, u, reset, state):
        return u, state, state

    def backward(self, dy, state, dlast=None):
        return dy, array_module(state).zeros_like(state), {}

    def stepper(self, params):
        return lambda u, reset, state: (u, state)


CORES: dict[str, tuple[type, Any]] = {  # name: its configuration, its class
    "s5": (S5Config, S5Core),
    "gru": (GRUConfig, GRUCore),
    "lstm": (LSTMConfig, LSTMCore),
    "mlp": (MLPConfig, MLPCore),
    "attention": (AttentionConfig, AttentionCore),
    "none": (NoConfig, NoCore),
}
