"""Memory cores: what stands between the encoder and the heads, behind one small protocol.

A core is an object that holds only its configuration; parameters and states are passed in and handed back:

    init(rng) → nested parameters                     initial_state(batch, dtype) → state, batch on axis 1
    forward(params, u, reset, state) → y, state, cache         u, y: (T, B, H); reset: (T, B) bool
    backward(dy, cache) → du, dstate, gradients (nested as the parameters)
    stepper(params) → step(u, reset, state) → y, state         u, y: (B, H); parameters are prepared once, then used for many steps

``reset[t]`` means that nothing before step t may reach it. A further core is a class with these methods and a row in CORES; one
that has no kernels for a GPU says so by ``devices = ("cpu",)``.

S5Core is the paper's stack of blocks: s = u; [LayerNorm]; SSM; [LayerNorm: "gtrxl norm"]; gate; + u; [LayerNorm].
NoCore passes features through: the ablation without memory. The other cores have files of their own.

Source: 2303.03982, appendix B. Specification: reference.layer, reference.stack. Tests: tests/nn/test_cores.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.nn.layers import (
    GATES,
    gate_backward,
    gate_forward,
    gate_init,
    gate_weights,
    layer_norm_backward,
    layer_norm_forward,
)
from minis5.nn.s5 import (
    DISCRETIZATIONS,
    init_ssm,
    ssm_apply,
    ssm_backward,
    ssm_forward,
    ssm_weights,
)


@dataclass(frozen=True)
class S5Config:
    """The S5 stack. Defaults are the laptop preset's; presets.py has the paper's."""

    n_layers: int = 2  # blocks
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

    def __post_init__(self):
        for name, table in (("discretization", DISCRETIZATIONS), ("gate", GATES)):
            if getattr(self, name) not in table:
                raise ValueError(
                    f"{name}: expected one of {', '.join(sorted(table))}, got {getattr(self, name)!r}"
                )
        if not 0 < self.step_rescale < np.inf:
            raise ValueError(f"step_rescale: expected a positive number, got {self.step_rescale}")
        if self.n_layers < 1:
            raise ValueError(
                f"n_layers: expected at least 1, got {self.n_layers}; for no memory at all choose the core 'none'"
            )


class S5Core:
    """The paper's stack of S5 blocks, all of width ``d_model``. State: (n_layers, B, 2P), planar."""

    devices = ("cpu", "cuda")

    def __init__(self, config, d_model):
        self.config, self.d_model = config, d_model
        self.ssm_options = {
            k: getattr(config, k)
            for k in ("discretization", "conj_sym", "clip_eigs", "step_rescale")
        }

    def init(self, rng):
        """Nested parameters "layers/0/ssm/...", "layers/0/out1/...", and "norm", "gtrxl_norm", "postnorm" where switched on."""
        c, H = self.config, self.d_model
        layers = {}
        for i in range(c.n_layers):
            ssm = init_ssm(
                rng,
                H,
                c.ssm_size,
                blocks=c.blocks,
                dt_min=c.dt_min,
                dt_max=c.dt_max,
                conj_sym=c.conj_sym,
                dtype=np.float64,
            )
            norms = {"norm": c.prenorm, "gtrxl_norm": c.gtrxl_norm, "postnorm": c.postnorm}
            layers[str(i)] = {"ssm": ssm, **gate_init(rng, H, c.gate)} | {
                name: {"scale": np.ones(H), "bias": np.zeros(H)}
                for name, wanted in norms.items()
                if wanted
            }
        return {"layers": layers}

    def initial_state(self, batch, dtype=np.float32):
        """Zeros (n_layers, batch, 2P)."""
        return np.zeros(
            (
                self.config.n_layers,
                batch,
                self.config.ssm_size * (1 if self.config.conj_sym else 2),
            ),
            dtype,
        )

    def _resets(self, reset):
        return reset if self.config.resets else array_module(reset).zeros_like(reset)

    def forward(self, params, u, reset, state, dt=None):
        """(T, B, H) → (T, B, H). ``dt`` (T, B): time between inputs, when it differs from step to step."""
        reset, last, caches = self._resets(reset), array_module(state).empty_like(state), []
        for i in range(self.config.n_layers):
            u, last[i], cache = layer_forward(
                params["layers"][str(i)], u, reset, state[i], self.config.gate, self.ssm_options, dt
            )
            caches.append(cache)
        return u, last, caches

    def backward(self, dy, caches, dlast=None):
        """Gradients of :meth:`forward`; ``dlast`` is the gradient of the last state, None for zero."""
        grads, dstate = {}, array_module(dy).empty((len(caches), *caches[0].ssm.x0.shape), dy.dtype)
        for i in reversed(range(len(caches))):
            dy, dstate[i], grads[str(i)] = layer_backward(
                dy, None if dlast is None else dlast[i], caches[i]
            )
        return dy, dstate, {"layers": grads}

    def stepper(self, params):
        """One-step mode: discretises once; step(u (B, H), reset (B,), state) → y (B, H), state."""
        c = self.config
        layers = [params["layers"][str(i)] for i in range(c.n_layers)]
        weights = [ssm_weights(p["ssm"], **self.ssm_options)[0] for p in layers]
        gates = [gate_weights(p, c.gate) for p in layers]

        def step(u, reset, state):
            u, reset, after = (
                u[None],
                self._resets(reset)[None],
                array_module(state).empty_like(state),
            )
            for i, p in enumerate(layers):
                s = layer_norm_forward(p["norm"], u)[0] if "norm" in p else u
                s, after[i], _ = ssm_apply(weights[i], s, reset, state[i])
                u, _ = after_ssm_forward(p, s, u, c.gate, gates[i])
            return u[0], after

        return step


class LayerCache(NamedTuple):
    norm: tuple | None
    ssm: tuple
    after: tuple


def layer_forward(p, u, reset, x0, gate, ssm_options, dt=None):
    """One S5 block: (T, B, H) → (T, B, H), its last state, its cache.  2303.03982, appendix B."""
    s, norm = layer_norm_forward(p["norm"], u) if "norm" in p else (u, None)
    s, x_last, ssm = ssm_forward(p["ssm"], s, reset, x0, dt=dt, **ssm_options)
    y, after = after_ssm_forward(p, s, u, gate)
    return y, x_last, LayerCache(norm, ssm, after)


def layer_backward(dy, dx_last, cache):
    """Gradients of :func:`layer_forward`: du, dx0, and a dict with the block's keys."""
    ds, du, grads = after_ssm_backward(dy, cache.after)
    ds, dx0, grads["ssm"] = ssm_backward(ds, dx_last, cache.ssm)
    if cache.norm is not None:
        ds, grads["norm"] = layer_norm_backward(ds, cache.norm)
    return ds + du, dx0, grads


def after_ssm_forward(p, s, skip, gate, weights=None):
    """[gtrxl norm], gate, skip connection, [post norm] → y, caches."""
    gtrxl = post = None
    if "gtrxl_norm" in p:
        s, gtrxl = layer_norm_forward(p["gtrxl_norm"], s)
    s, gated = gate_forward(p, s, gate, weights)
    s += skip
    if "postnorm" in p:
        s, post = layer_norm_forward(p["postnorm"], s)
    return s, (gtrxl, gated, post)


def after_ssm_backward(dy, caches):
    """→ gradient of the SSM's output, gradient of the skip connection, gradients of the parameters."""
    gtrxl, gated, post = caches
    norms = {}
    if post is not None:
        dy, norms["postnorm"] = layer_norm_backward(dy, post)
    ds, grads = gate_backward(dy, gated)
    if gtrxl is not None:
        ds, norms["gtrxl_norm"] = layer_norm_backward(ds, gtrxl)
    return ds, dy, grads | norms
