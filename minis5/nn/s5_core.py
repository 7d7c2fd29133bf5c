"""The paper's memory core: a stack of S5 layers, each with a gate and a skip connection.

    s = u;  [LayerNorm];  SSM;  [LayerNorm: "gtrxl norm"];  gate;  + u;  [LayerNorm]

Bracketed norms are optional. cores.py has the protocol that a core follows.

Source: 2303.03982, appendix B. Specification: reference.s5_layer, reference.stack.
Tests: tests/nn/test_s5_core.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.checks import check_fields, check_layers
from minis5.nn.discretize import DISCRETIZATIONS
from minis5.nn.doors import checked
from minis5.nn.hippo import init_ssm
from minis5.nn.layer_doors import layer_shapes
from minis5.nn.layers import (
    GATES,
    gate_apply,
    gate_backward,
    gate_forward,
    gate_init,
    gate_weights,
    layer_norm_backward,
    layer_norm_forward,
)
from minis5.nn.s5 import ssm_run, ssm_run_backward, ssm_step, ssm_weights


@dataclass(frozen=True)
class S5Config:
    """The S5 stack. Defaults are the laptop preset's; presets.py has the paper's."""

    n_layers: int = 2  # S5 layers
    ssm_size: int = 64  # states of each layer before conjugate symmetry
    blocks: int = 1  # HiPPO blocks on the diagonal of the initial state matrix
    discretization: str = "zoh"  # zoh or bilinear
    dt_min: float = 0.001  # smallest initial step Δ
    dt_max: float = 0.1  # largest initial step Δ
    conj_sym: bool = True  # keep one of each conjugate pair of states
    clip_eigs: bool = False  # keep Re Λ at or below -1e-4
    step_rescale: float = 1.0  # multiplies every Δ
    gate: str = "full_glu"  # full_glu, half_glu1, half_glu2 or gelu
    prenorm: bool = False  # LayerNorm before the SSM
    postnorm: bool = False  # LayerNorm after the skip connection
    gtrxl_norm: bool = False  # LayerNorm after the SSM
    resets: bool = True  # False: memory runs on across episodes (the paper's ablation)

    def __post_init__(self) -> None:
        check_fields(self)
        for name, table in (("discretization", DISCRETIZATIONS), ("gate", GATES)):
            if (got := getattr(self, name)) not in table:
                raise ValueError(f"{name}: expected one of {', '.join(sorted(table))}, got {got!r}")
        if not 0 < self.step_rescale < np.inf:
            raise ValueError(f"step_rescale: expected a positive number, got {self.step_rescale}")
        for name in ("n_layers", "ssm_size", "blocks"):
            if (got := getattr(self, name)) < 1:
                remedy = "for no memory at all choose the core 'none'"
                raise ValueError(f"{name}: expected at least 1, got {got}; {remedy}")
        check_layers(self.n_layers)


@checked
class S5Core:
    """The stack of S5 layers, all of width ``d_model``. State: (n_layers, B, 2P), planar."""

    devices, config_type = ("cpu", "cuda"), S5Config

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model
        names = ("discretization", "conj_sym", "clip_eigs", "step_rescale")
        self.ssm_options = {name: getattr(config, name) for name in names}

    def _norms(self):
        """Return the names of a layer's norms that are switched on."""
        c = self.config
        norms = {"norm": c.prenorm, "gtrxl_norm": c.gtrxl_norm, "postnorm": c.postnorm}
        return [name for name, wanted in norms.items() if wanted]

    def shapes(self):
        """Return the shapes of the parameters, nested as they are."""
        c, H = self.config, self.d_model
        layer = {"ssm": layer_shapes(c.ssm_size // (2 if c.conj_sym else 1), H)}
        layer |= {name: {"kernel": (H, H), "bias": (H,)} for name in GATES[c.gate]}
        layer |= {name: {"scale": (H,), "bias": (H,)} for name in self._norms()}
        return {"layers": {str(i): layer for i in range(c.n_layers)}}

    def init(self, rng):
        """Return nested parameters: "layers/0/ssm/...", ".../out1/...", and the norms switched on.

        The norms are "norm", "gtrxl_norm" and "postnorm".
        """
        c, H, layers = self.config, self.d_model, {}
        ssm = {name: getattr(c, name) for name in ("blocks", "dt_min", "dt_max", "conj_sym")}
        for i in range(c.n_layers):
            layer = {"ssm": init_ssm(rng, H, c.ssm_size, dtype=np.float64, **ssm)}
            layer |= gate_init(rng, H, c.gate)
            for name in self._norms():
                layer[name] = {"scale": np.ones(H), "bias": np.zeros(H)}
            layers[str(i)] = layer
        return {"layers": layers}

    def initial_state(self, batch, dtype=np.float32):
        """Return zeros (n_layers, batch, 2P)."""
        width = self.config.ssm_size * (1 if self.config.conj_sym else 2)
        return np.zeros((self.config.n_layers, batch, width), dtype)

    def _resets(self, reset):
        return reset if self.config.resets else array_module(reset).zeros_like(reset)

    def forward(self, params, u, reset, state, dt=None):
        """Return y, last state, caches.  (T, B, H) → (T, B, H).

        ``dt`` (T, B): time between inputs, if it differs from step to step.
        """
        c, last, caches = self.config, array_module(state).empty_like(state), []
        reset, options = self._resets(reset), {"dt": dt, **self.ssm_options}
        for i in range(c.n_layers):
            p = params["layers"][str(i)]
            u, last[i], cache = layer_forward(p, u, reset, state[i], c.gate, options)
            caches.append(cache)
        return u, last, caches

    def backward(self, dy, caches, dlast=None):
        """Return du, dstate, gradients; ``dlast`` is the last state's gradient, None for zero."""
        xp, grads = array_module(dy), {}
        dstate = xp.empty((len(caches), *caches[0].ssm.x0.shape), dy.dtype)
        for i in reversed(range(len(caches))):
            dx_last = None if dlast is None else dlast[i]
            dy, dstate[i], grads[str(i)] = layer_backward(dy, dx_last, caches[i])
        return dy, dstate, {"layers": grads}

    def stepper(self, params):
        """Return step(u (B, H), reset (B,), state) → y (B, H), state; discretises once."""
        c = self.config
        layers = [params["layers"][str(i)] for i in range(c.n_layers)]
        weights = [ssm_weights(p["ssm"], **self.ssm_options)[0] for p in layers]
        gates = [gate_weights(p, c.gate) for p in layers]

        def step(u, reset, state):
            reset, after = self._resets(reset), array_module(state).empty_like(state)
            for i, p in enumerate(layers):
                s = ssm_step(weights[i], norm_if_any(p, "norm", u)[0], reset, state[i], after[i])
                _, _, y = gate_apply(c.gate, *gates[i], norm_if_any(p, "gtrxl_norm", s)[0])
                y += u
                u, _ = norm_if_any(p, "postnorm", y)
            return u, after

        return step


class LayerCache(NamedTuple):
    norm: tuple | None
    ssm: tuple
    gtrxl: tuple | None
    gated: tuple
    post: tuple | None


def norm_if_any(p, name, x):
    """Return the layer's norm of that name of x, and its cache; x and None if it has none."""
    return layer_norm_forward(p[name], x) if name in p else (x, None)


def layer_forward(p, u, reset, state, gate, ssm_options):
    """Return y (T, B, H), the last state and the cache of one S5 layer.  2303.03982, appendix B."""
    s, norm = norm_if_any(p, "norm", u)
    s, last, ssm = ssm_run(p["ssm"], s, reset, state, **ssm_options)
    s, gtrxl = norm_if_any(p, "gtrxl_norm", s)
    s, gated = gate_forward(p, s, gate)
    s += u  # in place: gate_backward does not read its output
    s, post = norm_if_any(p, "postnorm", s)
    return s, last, LayerCache(norm, ssm, gtrxl, gated, post)


def layer_backward(dy, dlast, cache):
    """Return du, dstate, and the gradients with the layer's keys."""
    norms = {}
    if cache.post is not None:
        dy, norms["postnorm"] = layer_norm_backward(dy, cache.post)
    ds, grads = gate_backward(dy, cache.gated)
    if cache.gtrxl is not None:
        ds, norms["gtrxl_norm"] = layer_norm_backward(ds, cache.gtrxl)
    ds, dstate, grads["ssm"] = ssm_run_backward(ds, dlast, cache.ssm)
    if cache.norm is not None:
        ds, norms["norm"] = layer_norm_backward(ds, cache.norm)
    return ds + dy, dstate, grads | norms  # u goes through the SSM and the skip connection
