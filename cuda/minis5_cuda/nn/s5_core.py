"""The GPU form of the S5 stack: the steps of minis5/nn/s5_core.py, in fewer launches.

    all layers   Λ̄, Wᵦ and W꜀ in one launch (matrices.py), [W₁ | W₂] in one (columns.py)
    a layer      b = u Wᵦᵀ · scan · s = x W꜀ᵀ · s += D·u and h = gelu(s) · z = h [W₁ | W₂]
                 · y = value·sigmoid(gate) + u
    backward     dz and db · dh · ds · dx · scan · dWᵦ, dW꜀, du · du += D·ds + dy, and dD
    all layers   the gradients of their parameters but D and the gate's in one launch

Dots separate launches; the scan may take several. Norms and the other gates use the launches of
layers.py as they are. With steps that differ in time, the CPU form's code runs.

Source: 2303.03982, appendix B. Specification: s5_layer and stack in minis5/reference/s5_ppo.py.
CPU form: minis5/nn/s5_core.py.
Tests: tests/nn/test_s5_core.py (simulator), tests/rl/test_cuda_training.py.
"""

from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.nn import s5_core as cpu
from minis5.nn.discretize import CLIP
from minis5.nn.doors import CoreCache, checked
from minis5.nn.layers import (
    GATES,
    GateCache,
    gate_backward,
    gelu_backward,
    gelu_forward,
    glu_backward,
    layer_norm_backward,
    sigmoid_gate_forward,
)
from minis5.nn.s5_core import norm_if_any
from minis5.ops import form_of
from minis5_cuda.blas import matmul, matmul_batch
from minis5_cuda.columns import join_columns
from minis5_cuda.nn.layers import glu_forward
from minis5_cuda.nn.matrices import NAMES, Layer, Settings, matrices_backward, matrices_forward
from minis5_cuda.nn.s5 import skip_backward, skip_forward
from minis5_cuda.nn.scan import scan_backward, scan_forward
from minis5_cuda.pack import concatenate_vectors


class Made(NamedTuple):
    """A layer ready to run."""

    p: dict  # its parameters
    a: object  # (1, 1, 2P)
    Wb: object  # (2P, H)
    Wc: object  # (H, 2P)
    D: object  # (H,)
    kernel: object  # of the gate, (H, H) or (H, 2H); None
    bias: object


class LayerCache(NamedTuple):
    """What the backward pass of a layer needs; matrices have T·B rows."""

    made: Made
    norm: object
    u: object  # (N, H), the SSM's input
    x0: object  # (B, 2P)
    x: object  # (T, B, 2P)
    gtrxl: object
    gate: GateCache
    post: object


class Cache(NamedTuple):
    """What the backward pass of the stack needs."""

    layers: list
    w: object  # (L, 2P)
    reset: object  # (T, B)


@form_of(cpu.S5Core)
@checked
class S5Core(cpu.S5Core):
    """The stack of S5 layers on a GPU."""

    def make(self, params):
        """Return the layers, ready to run, and w (L, 2P): two launches."""
        layers = [params["layers"][str(i)] for i in range(self.config.n_layers)]
        inputs = [Layer(*(p["ssm"][name] for name in NAMES)) for p in layers]
        made, names = matrices_forward(inputs, self._settings(inputs)), GATES[self.config.gate]
        parts = [[p[name][x] for p in layers for x in ("kernel", "bias")] for name in names]
        if len(parts) > 1:
            parts = [join_columns(*parts)]
        flat = parts[0] if parts else [None] * 2 * len(layers)
        return [
            Made(
                p,
                made.a[i].reshape(1, 1, -1),
                made.Wb[i],
                made.Wc[i],
                p["ssm"]["D"],
                *flat[2 * i : 2 * i + 2],
            )
            for i, p in enumerate(layers)
        ], made.w

    def _settings(self, layers):
        c, dtype = self.config, layers[0].B.dtype.type
        clip, tustin = CLIP if c.clip_eigs else np.inf, c.discretization == "bilinear"
        factor = dtype(2 if c.conj_sym else 1)
        return Settings(np.float64(clip), np.float64(c.step_rescale), tustin, factor)

    def forward(self, params, u, reset, state, dt=None):
        """Return y, last state, caches.  (T, B, H) → (T, B, H)."""
        if dt is not None:
            return super().forward(params, u, reset, state, dt)
        xp, shape, caches = array_module(u), u.shape, []
        layers, w = self.make(params)
        reset = xp.ascontiguousarray(self._resets(reset))
        u = xp.ascontiguousarray(u).reshape(-1, self.d_model)
        for i, made in enumerate(layers):
            u, cache = self._layer_forward(made, u, reset, xp.ascontiguousarray(state[i]))
            caches.append(cache)
        last = concatenate_vectors([cache.x[-1] for cache in caches]).reshape(state.shape)
        return u.reshape(shape), last, Cache(caches, w, reset)

    def _layer_forward(self, made, u, reset, x0):
        """Return y and the cache for u, both (N, H)."""
        v, norm = norm_if_any(made.p, "norm", u)
        b = matmul(v, made.Wb.T).reshape(*reset.shape, -1)
        x = scan_forward(made.a, b, reset, x0, out=b)
        s = matmul(x.reshape(len(u), -1), made.Wc.T)
        s, h, gtrxl = self._skip(made, s, v)
        z, y = self._gate(made, s, h, u)
        y, post = norm_if_any(made.p, "postnorm", y)
        gate = GateCache(self.config.gate, made.kernel, s, h, z)
        return y, LayerCache(made, norm, v, x0, x, gtrxl, gate, post)

    def _skip(self, made, s, u):
        """Return [gtrxl norm of] s + D·u, gelu of it, and the norm's cache; s is written to."""
        h = array_module(s).empty_like(s)
        if "gtrxl_norm" not in made.p:
            skip_forward(s, made.D, u, h)
            return s, h, None
        skip_forward(s, made.D, u)
        s, gtrxl = norm_if_any(made.p, "gtrxl_norm", s)
        gelu_forward(s.ravel(), h.ravel())
        return s, h, gtrxl

    def _gate(self, made, s, h, u):
        """Return z and gate + u."""
        kind, y = self.config.gate, array_module(s).empty_like(s)
        if kind == "gelu":
            return None, h + u
        z = matmul(h, made.kernel)
        if kind == "full_glu":
            glu_forward(z, made.bias, y, u)
        else:
            sigmoid_gate_forward(h if kind == "half_glu1" else s, z, made.bias, y)
            y += u
        return z, y

    def backward(self, dy, cache, dlast=None):
        """Return du, dstate, gradients; ``dlast`` is the last state's gradient, None for zero."""
        if isinstance(cache, CoreCache):  # of the CPU form's code
            return super().backward(dy, cache, dlast)
        xp, shape, L = array_module(dy), dy.shape, len(cache.layers)
        P2, H = cache.w.shape[1], self.d_model
        dWb, dWc = xp.empty((L, P2, H), dy.dtype), xp.empty((L, H, P2), dy.dtype)
        grads, das, dstates = [None] * L, [None] * L, [None] * L
        dy = xp.ascontiguousarray(dy).reshape(-1, H)
        for i in reversed(range(L)):
            one, dx_last = cache.layers[i], None if dlast is None else dlast[i]
            products = dWb[i], dWc[i]
            dy, grads[i], das[i], dstates[i] = self._layer_backward(
                one, dy, cache.reset, dx_last, products
            )
        inputs = [Layer(*(one.made.p["ssm"][name] for name in NAMES)) for one in cache.layers]
        found = matrices_backward(inputs, self._settings(inputs), cache.w, das, dWb, dWc)
        for own, ssm in zip(grads, found, strict=True):
            own["ssm"] |= ssm
        dstate = concatenate_vectors(dstates).reshape(L, *dstates[0].shape)
        return dy.reshape(shape), dstate, {"layers": {str(i): g for i, g in enumerate(grads)}}

    def _layer_backward(self, one, dy, reset, dx_last, products):
        """Return du, gradients, da in parts, dx0; write dWᵦ and dW꜀ to ``products``."""
        xp, made, grads = array_module(dy), one.made, {}
        if one.post is not None:
            dy, grads["postnorm"] = layer_norm_backward(dy, one.post)
        ds = self._gate_backward(dy, one.gate, grads)
        if one.gtrxl is not None:
            ds, grads["gtrxl_norm"] = layer_norm_backward(ds, one.gtrxl)
        dx = matmul(ds, made.Wc).reshape(one.x.shape)
        if dx_last is not None:
            dx[-1] += dx_last
        da, g, dx0 = scan_backward(made.a, reset, one.x0, one.x, dx, out=dx, parts=True)
        g, (dWb, dWc) = g.reshape(len(dy), -1), products
        matmul(g.T, one.u, dWb)
        matmul(ds.T, one.x.reshape(len(dy), -1), dWc)
        du, dD = matmul(g, made.Wb), xp.empty_like(made.D)
        skip_backward(ds, made.D, one.u, du, dD, dy if one.norm is None else None)
        if one.norm is not None:
            du, grads["norm"] = layer_norm_backward(du, one.norm)
            du += dy  # u goes through the SSM and around it
        return du, grads | {"ssm": {"D": dD}}, da.reshape(-1, g.shape[1]), dx0

    def _gate_backward(self, dy, gate, grads):
        """Return ds; add the gradients of the gate's dense layers to ``grads``."""
        if gate.kind != "full_glu":
            ds, more = gate_backward(dy, gate)
            grads |= more
            return ds
        xp, (_, kernel, s, h, z) = array_module(dy), gate
        ds, dz, dbias = xp.empty_like(s), xp.empty_like(z), xp.empty(z.shape[1], z.dtype)
        glu_backward(dy, z, dz, dbias)
        gelu_backward(matmul(dz, kernel.T).ravel(), s.ravel(), ds.ravel())
        H, halves = s.shape[1], dbias.reshape(2, -1)
        dkernels = matmul_batch([h.T, h.T], [dz[:, :H], dz[:, H:]])
        for i, name in enumerate(GATES["full_glu"]):
            grads[name] = {"kernel": dkernels[i], "bias": halves[i]}
        return ds

    def stepper(self, params):
        """Return step(u (B, H), reset (B,), state) → y (B, H), state; prepares the weights once."""
        layers, _ = self.make(params)

        def step(u, reset, state):
            reset, after = self._resets(reset), array_module(state).empty_like(state)
            for i, made in enumerate(layers):
                v, _ = norm_if_any(made.p, "norm", u)
                b = matmul(v, made.Wb.T)
                scan_forward(made.a, b[None], reset[None], state[i], out=after[i][None])
                s, h, _ = self._skip(made, matmul(after[i], made.Wc.T), v)
                _, y = self._gate(made, s, h, u)
                u, _ = norm_if_any(made.p, "postnorm", y)
            return u, after

        return step
