"""The S5 layer: a diagonal complex state space model, discretised, run by the resettable scan.

    x[t] = Λ̄ x[t-1] + w·(B̃ u[t])           x[t-1] forgotten where reset[t]
    y[t] = 2·Re(C̃ x[t]) + D·u[t]           (Re(C̃ x[t]) + D·u[t] without conjugate symmetry)

Λ̄ and w come from Λ and the step (discretize.py). The step is constant, or differs in time (``dt``,
the paper's future work).

States are planar inside (scan.py), so that B̄u and 2·Re(C̃x) are one real matrix product each. With
u as rows they are u @ Wᵦᵀ, where Wᵦ = [Re B̄; Im B̄] is (2P, H), and x @ W꜀ᵀ, where
W꜀ = [2·Re C̃, -2·Im C̃] is (H, 2P).

Leaves out: learning the initial state; several inputs with different steps in one layer.
Source: S5, 2208.04933; resets: 2303.03982, section 4.1. Parameters have the names and shapes of the
authors' code, so that weights cross over unchanged; hippo.py makes the initial ones.
Specification: reference.ssm. GPU form: cuda/minis5_cuda/nn/s5.py.
Tests: tests/nn/test_s5.py, tests/nn/test_jax.py.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from minis5.arrays import Array, array_module
from minis5.nn import discretize
from minis5.nn.discretize import DISCRETIZATIONS, Spectrum, Step
from minis5.nn.hippo import init_ssm
from minis5.nn.layer_doors import check_options, take_gradients, take_ssm
from minis5.nn.scan import from_planar, planar, scan_backward, scan_forward
from minis5.ops import matmul, operation

__all__ = ["init_ssm", "ssm_backward", "ssm_forward"]
SPECTRUM = ("Lambda_re", "Lambda_im", "log_step")


class Weights(NamedTuple):
    """One layer ready to run, in its dtype."""

    a: Array  # (1, 1, 2P) or (T, B, 2P): planar Λ̄
    w: Array | None  # (T·B, 2P) planar if the step differs in time
    gain: Array  # (2P,) planar: the factor of B̃, which is w, or 1 if the step differs in time
    Wb: Array  # (2P, H)
    Wc: Array  # (H, 2P)
    D: Array  # (H,)


@cache
def _one(xp):
    return xp.ones(1)


def _step(xp, dtype, discretization, clip_eigs, step_rescale, dt):
    real = np.float64 if dt is None else dtype
    dt, clip = _one(xp) if dt is None else dt.reshape(-1), discretize.CLIP if clip_eigs else np.inf
    return Step(dt, *map(real, (1, clip, step_rescale)), discretization == "bilinear")


def ssm_weights(
    layer, *, discretization="zoh", conj_sym=True, clip_eigs=False, step_rescale=1.0, dt=None
):
    """Return a layer's Weights, and the Step that they were made with."""
    xp, dtype, (P, H, _) = array_module(layer["D"]), layer["D"].dtype.type, layer["B"].shape
    step = _step(xp, dtype, discretization, clip_eigs, step_rescale, dt)
    a, w = xp.empty((step.dt.size, 2 * P), dtype), xp.empty((step.dt.size, 2 * P), dtype)
    discretize.discretize_forward(Spectrum(*(layer[name] for name in SPECTRUM)), step, a, w)
    Wb, Wc = xp.empty((2 * P, H), dtype), xp.empty((H, 2 * P), dtype)
    if dt is None:  # B̄ = w·B̃
        a, gain, w = a[None], w[0], None
    else:
        a, gain = a.reshape(*dt.shape, 2 * P), xp.zeros(2 * P, dtype)
        gain[:P] = 1
    discretize.weights_forward(gain, layer["B"], layer["C"], dtype(2 if conj_sym else 1), Wb, Wc)
    return Weights(a, w, gain, Wb, Wc, layer["D"]), step


@operation
def skip_forward(y, D, u):
    """Add D·u to y (N, H)."""
    for n in range(y.shape[0]):
        yn, un = y[n], u[n]
        for h in range(D.size):
            yn[h] += D[h] * un[h]


@operation
def skip_backward(dy, D, u, du, dD):
    """Add D·dy to du (N, H); write dD = Σ dy·u (H,)."""
    dD[:] = 0
    for n in range(dy.shape[0]):
        dn, un, out = dy[n], u[n], du[n]
        for h in range(D.size):
            out[h] += D[h] * dn[h]
            dD[h] += dn[h] * un[h]


def ssm_apply(weights, u, reset, x0):
    """Return y (T, B, H), the states x (T, B, 2P), and v = B̃u or None.

    u: (T, B, H); reset: (T, B); x0: (B, 2P) planar.
    """
    T, B, H = u.shape
    flat, v = u.reshape(-1, H), None
    b = matmul(flat, weights.Wb.T)
    if weights.w is not None:  # b = w·(B̃u)
        v, b = b, array_module(b).empty_like(b)
        discretize.gain_forward(weights.w, v, b)
    b = b.reshape(T, B, -1)
    x = scan_forward(weights.a, b, reset, x0, out=b)
    y = matmul(x.reshape(T * B, -1), weights.Wc.T)  # 2·Re(C̃x)
    skip_forward(y, weights.D, flat)
    return y.reshape(T, B, H), x, v


def ssm_step(weights, u, reset, state, after):
    """Return y (B, H) of one step, u (B, H); write the next state to ``after`` (B, 2P)."""
    b = matmul(u, weights.Wb.T)
    scan_forward(weights.a, b[None], reset[None], state, out=after[None])
    y = matmul(after, weights.Wc.T)
    skip_forward(y, weights.D, u)
    return y


class SSMCache(NamedTuple):
    layer: dict
    step: Step
    weights: Weights
    conj_sym: bool
    u: Array  # (T, B, H)
    reset: Array  # (T, B)
    x0: Array  # (B, 2P)
    x: Array  # (T, B, 2P)
    v: Array | None  # (T·B, 2P) planar
    complex_state: bool


def ssm_forward(
    layer: dict[str, Array],
    u: Array,
    reset: Array | None,
    x0: Array | None,
    *,
    discretization: str = "zoh",
    conj_sym: bool = True,
    clip_eigs: bool = False,
    step_rescale: float = 1.0,
    dt: Array | None = None,
) -> tuple[Array, Array, SSMCache]:
    """Run one S5 layer over a batch of sequences.  2208.04933, section 3; resets: 2303.03982, 4.1.

    Parameters
    ----------
    layer : dict
        Parameters as from :func:`init_ssm`, float32 or float64.
    u : (T, B, H) array of the layer's dtype
        Input.
    reset : (T, B) bool array or None
        True where an episode begins: the state is forgotten before that step.
    x0 : (B, P) complex array, (B, 2P) planar real array, or None
        State before the first step; None is zero.
    discretization : {"zoh", "bilinear"}
    conj_sym : bool
        The layer keeps one of each conjugate pair.
    clip_eigs : bool
        Re Λ is at most -1e-4.
    step_rescale : float
        Multiplies every step Δ.
    dt : (T, B) array of the layer's dtype, or None
        Time between the previous input and this one, positive, in units of Δ; None is 1 everywhere.
        Infinity forgets the state, if all Re Λ are negative.

    Returns
    -------
    y : (T, B, H) array
    x_last : state after the last step, in the form of ``x0`` (complex for None)
    cache : SSMCache, for :func:`ssm_backward`

    Raises
    ------
    TypeError, ValueError
        Wrong shape, dtype or device, an unknown discretisation, or ``dt`` not positive.
    """
    options = {"discretization": discretization, "conj_sym": conj_sym, "clip_eigs": clip_eigs}
    options["step_rescale"] = step_rescale
    check_options(DISCRETIZATIONS, **options)
    layer, u, reset, x0, dt = take_ssm(layer, u, reset, x0, dt, clip_eigs)
    return ssm_run(layer, u, reset, x0, dt=dt, **options)


def ssm_run(layer, u, reset, x0, *, conj_sym=True, **options):
    """Do what :func:`ssm_forward` does, unchecked: for cores, whose own arguments are checked."""
    weights, step = ssm_weights(layer, conj_sym=conj_sym, **options)
    xp, complex_state = array_module(u), x0.dtype.kind == "c"
    u, x0 = xp.ascontiguousarray(u), xp.ascontiguousarray(planar(x0), u.dtype)
    y, x, v = ssm_apply(weights, u, xp.ascontiguousarray(reset), x0)
    cache = SSMCache(layer, step, weights, conj_sym, u, reset, x0, x, v, complex_state)
    return y, from_planar(x[-1]) if complex_state else x[-1].copy(), cache


def ssm_backward(
    dy: Array, dx_last: Array | None, cache: SSMCache
) -> tuple[Array, Array, dict[str, Array]]:
    """Return the gradients of one S5 layer.

    Parameters
    ----------
    dy : (T, B, H) array
        Gradient of y.
    dx_last : array in the form of ``x_last``, or None
        Gradient of the last state; None is zero.
    cache : SSMCache

    Returns
    -------
    du : (T, B, H) array
    dx0 : array in the form of ``x0`` (complex if it was None)
    grads : dict with the layer's keys and shapes

    Raises
    ------
    TypeError, ValueError
        ``cache`` is none, ``dy`` has another shape or dtype than y, or ``dx_last`` than x_last.
    """
    dy, dx_last = take_gradients(dy, dx_last, cache, SSMCache)
    return ssm_run_backward(dy, dx_last, cache)


def ssm_run_backward(dy, dx_last, cache):
    """Do what :func:`ssm_backward` does, unchecked."""
    layer, step, weights, conj_sym, u, reset, x0, x, v, complex_state = cache
    xp, P, dtype, (T, B, H) = array_module(u), layer["B"].shape[0], u.dtype, u.shape
    dy, u, states = xp.ascontiguousarray(dy).reshape(-1, H), u.reshape(-1, H), x.reshape(-1, 2 * P)
    dx = matmul(dy, weights.Wc).reshape(x.shape)  # y = x @ W꜀ᵀ + D·u, so dx = dy @ W꜀
    if dx_last is not None:
        dx[-1] += planar(dx_last)
    da, g, dx0 = scan_backward(weights.a, reset, x0, x, dx, out=dx)
    g = g.reshape(-1, 2 * P)
    if v is not None:  # b = w·v, so dw = g·conj(v), dv = g·conj(w)
        dw = xp.empty_like(v)
        discretize.gain_backward(g, weights.w, v, dw, g)
    dWb, dWc = matmul(g.T, u), matmul(dy.T, states)
    du = matmul(g, weights.Wb)  # b = u @ Wᵦᵀ, so du = g @ Wᵦ, to which the skip adds D·dy
    dB, dC, dD = (xp.empty(layer[name].shape, dtype) for name in ("B", "C", "D"))
    skip_backward(dy, weights.D, u, du, dD)
    factor, dgain = dtype.type(2 if conj_sym else 1), xp.empty(2 * P)
    discretize.weights_backward(dWb, dWc, weights.gain, layer["B"], factor, dB, dC, dgain)
    spectrum, dspectrum = Spectrum(*(layer[name] for name in SPECTRUM)), xp.empty((3, P))
    dw = dgain[None] if v is None else dw
    discretize.discretize_backward(spectrum, step, da.reshape(-1, 2 * P), dw, dspectrum)
    dspectrum = dspectrum.astype(dtype)
    grads = {name: dspectrum[i].reshape(layer[name].shape) for i, name in enumerate(SPECTRUM)}
    grads |= {"B": dB, "C": dC, "D": dD}
    dx0 = from_planar(dx0) if complex_state else dx0
    return du.reshape(T, B, H), dx0, {name: grads[name] for name in layer}
