"""The S5 layer: a diagonal complex state space model, discretised, run by the resettable scan. Forward and backward by hand.

    x[t] = Λ̄ x[t-1] + w·(B̃ u[t])           x[t-1] forgotten where reset[t]
    y[t] = 2·Re(C̃ x[t]) + D·u[t]           (Re(C̃ x[t]) + D·u[t] without conjugate symmetry)

Λ̄ and w come from Λ and the step (discretize.py). The step is constant, or differs in time (``dt``, the paper's future work).

States are planar inside (scan.py), so that B̄u and 2·Re(C̃x) are one real matrix product each: with u as rows, u @ Wᵦᵀ where
Wᵦ = [Re B̄; Im B̄] is (2P, H), and x @ W꜀ᵀ where W꜀ = [2·Re C̃, -2·Im C̃] is (H, 2P).

Left out: learning the initial state; several inputs with different steps in one layer.
Source: S5, 2208.04933; resets: 2303.03982, section 4.1. Parameter names and shapes are those of the authors' code, so that weights
cross over unchanged. Specification: reference.ssm. Tests: tests/nn/test_s5.py, tests/nn/test_jax.py.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from minis5.arrays import array_module
from minis5.checks import COMPLEXES, FLOATS, check_array
from minis5.nn.discretize import (
    CLIP,
    DISCRETIZATIONS,
    Spectrum,
    Step,
    discretize_backward,
    discretize_forward,
    gain_backward,
    gain_forward,
    weights_backward,
    weights_forward,
)
from minis5.nn.hippo import hippo_eigen
from minis5.nn.parameters import lecun_normal
from minis5.nn.scan import from_planar, planar, scan_backward, scan_forward
from minis5.ops import matmul, operation

SPECTRUM = ("Lambda_re", "Lambda_im", "log_step")


def init_ssm(
    rng, H, ssm_size, *, blocks=1, dt_min=0.001, dt_max=0.1, conj_sym=True, dtype=np.float32
):
    """Parameters of one layer, as S5 starts: HiPPO-N eigenvalues, B̃ = V⁻¹B, C̃ = CV, D ~ N(0, 1).

    Parameters
    ----------
    rng : numpy.random.Generator
    H : int
        Features.
    ssm_size : int
        States before conjugate symmetry; P = ssm_size/2 are kept with it, all without.
    blocks : int
        Number of equal HiPPO blocks.
    dt_min, dt_max : float
        Range of the step Δ, log-uniform, one for each state; in units of the time between inputs.
    conj_sym : bool
        Keep one of each conjugate pair.
    dtype : numpy dtype
        float32 or float64.

    Returns
    -------
    dict
        Lambda_re (P,), Lambda_im (P,), B (P, H, 2), C (H, P, 2), D (H,), log_step (P, 1); the last axis of B and C holds the real
        and the imaginary part.

    Raises
    ------
    ValueError
        ``ssm_size`` does not divide into ``blocks`` (and halves), or not 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ValueError(f"dt_min, dt_max: expected 0 < dt_min <= dt_max, got {dt_min}, {dt_max}")
    lam, V = hippo_eigen(ssm_size, blocks, conj_sym)
    P = lam.size
    # V has orthonormal columns: V⁻¹ = Vᴴ
    B = V.conj().T @ lecun_normal(rng, (ssm_size, H), ssm_size)
    C = lecun_normal(rng, (H, ssm_size, 2), H * ssm_size) @ np.array([1, 1j]) @ V
    layer = {
        "Lambda_re": lam.real,
        "Lambda_im": lam.imag,
        "B": np.stack([B.real, B.imag], axis=-1),
        "C": np.stack([C.real, C.imag], axis=-1),
        "D": rng.standard_normal(H),
        "log_step": rng.uniform(math.log(dt_min), math.log(dt_max), (P, 1)),
    }
    return {name: value.astype(dtype) for name, value in layer.items()}


# --- the layer ------------------------------------------------------------------------------------
# -------------------------------


class Weights(NamedTuple):
    """One layer ready to run, in its dtype."""

    a: np.ndarray  # (1, 1, 2P) or (T, B, 2P): planar Λ̄
    w: np.ndarray | None  # (T·B, 2P) planar where the step differs in time
    # (2P,) planar: what B̃ was multiplied with: w, or 1 where the step differs in time
    gain: np.ndarray
    Wb: np.ndarray  # (2P, H)
    Wc: np.ndarray  # (H, 2P)
    D: np.ndarray  # (H,)


@cache
def _one(xp):
    return xp.ones(1)


def _step(xp, dtype, discretization, clip_eigs, step_rescale, dt):
    real = np.float64 if dt is None else dtype
    dt = _one(xp) if dt is None else dt.reshape(-1)
    small = real(math.sqrt(np.finfo(real).eps))
    return Step(
        dt,
        real(1),
        real(CLIP if clip_eigs else np.inf),
        real(step_rescale),
        small,
        discretization == "bilinear",
    )


def ssm_weights(
    layer, *, discretization="zoh", conj_sym=True, clip_eigs=False, step_rescale=1.0, dt=None
):
    """A layer's Weights from its parameters, and the Step that they were made with."""
    xp, dtype, (P, H, _) = array_module(layer["D"]), layer["D"].dtype.type, layer["B"].shape
    step = _step(xp, dtype, discretization, clip_eigs, step_rescale, dt)
    a, w = xp.empty((step.dt.size, 2 * P), dtype), xp.empty((step.dt.size, 2 * P), dtype)
    discretize_forward(Spectrum(*(layer[name] for name in SPECTRUM)), step, a, w)
    Wb, Wc = xp.empty((2 * P, H), dtype), xp.empty((H, 2 * P), dtype)
    if dt is None:
        gain, w = w[0], None
    else:
        gain = xp.zeros(2 * P, dtype)
        gain[:P] = 1
    weights_forward(gain, layer["B"], layer["C"], dtype(2 if conj_sym else 1), Wb, Wc)
    return Weights(
        a.reshape(*((1, 1) if dt is None else dt.shape), 2 * P), w, gain, Wb, Wc, layer["D"]
    ), step


@operation
def skip_forward(y, D, u):
    """y += D·u, rows of H."""
    for n in range(y.shape[0]):
        yn, un = y[n], u[n]
        for h in range(D.size):
            yn[h] += D[h] * un[h]


@operation
def skip_backward(dy, D, u, du, dD):
    """du += D·dy; dD += Σ dy·u."""
    for n in range(dy.shape[0]):
        dn, un, out = dy[n], u[n], du[n]
        for h in range(D.size):
            out[h] += D[h] * dn[h]
            dD[h] += dn[h] * un[h]


def ssm_apply(weights, u, reset, x0):
    """Run a layer: u (T, B, H), reset (T, B), planar x0 (B, 2P) → y (T, B, H), the states x (T, B, 2P), v = B̃u or None."""
    T, B, H = u.shape
    flat, v = u.reshape(-1, H), None
    b = matmul(flat, weights.Wb.T)
    if weights.w is not None:
        v, b = b, array_module(b).empty_like(b)
        gain_forward(weights.w, v, b)
    b = b.reshape(T, B, -1)
    x = scan_forward(weights.a, b, reset, x0, out=b)
    y = matmul(x.reshape(T * B, -1), weights.Wc.T)
    skip_forward(y, weights.D, flat)
    return y.reshape(T, B, H), x, v


class SSMCache(NamedTuple):
    layer: dict
    step: Step
    weights: Weights
    conj_sym: bool
    u: np.ndarray  # (T, B, H)
    reset: np.ndarray  # (T, B)
    x0: np.ndarray  # (B, 2P)
    x: np.ndarray  # (T, B, 2P)
    v: np.ndarray | None  # (T·B, 2P) planar
    complex_state: bool


def ssm_forward(
    layer,
    u,
    reset,
    x0,
    *,
    discretization="zoh",
    conj_sym=True,
    clip_eigs=False,
    step_rescale=1.0,
    dt=None,
):
    """One S5 layer over a batch of sequences.  2208.04933, section 3; resets: 2303.03982, section 4.1.

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

    Returns
    -------
    y : (T, B, H) array
    x_last : state after the last step, in the form of ``x0`` (complex when None)
    cache : SSMCache, for :func:`ssm_backward`

    Raises
    ------
    TypeError, ValueError
        Wrong shape or dtype, an unknown discretisation, or ``dt`` not positive.
    """
    if discretization not in DISCRETIZATIONS:
        raise ValueError(
            f"discretization: expected one of {sorted(DISCRETIZATIONS)}, got {discretization!r}"
        )
    xp, dtype, (P, H, _) = array_module(layer["D"]), layer["D"].dtype.type, layer["B"].shape
    check_array(
        "u",
        u,
        ("T", "B", H),
        (dtype,),
        "order the axes time, batch, features and cast to the layer's dtype",
        xp,
    )
    T, B, _ = u.shape
    if 0 in u.shape:
        raise ValueError(
            f"u: expected at least one step, one sequence and one feature, got {u.shape}; leave out empty batches"
        )
    reset = (
        xp.zeros((T, B), bool)
        if reset is None
        else check_array("reset", reset, (T, B), (np.bool_,), "transpose and cast", xp)
    )
    complex_state = x0 is None or x0.dtype.kind == "c"
    if x0 is None:
        x0 = xp.zeros((B, 2 * P), dtype)
    width = P if x0.dtype.kind == "c" else 2 * P
    check_array("x0", x0, (B, width), FLOATS + COMPLEXES, "(B, P) complex or (B, 2P) planar", xp)
    if dt is not None:
        check_array("dt", dt, (T, B), (dtype,), "one step for each input", xp)
        if xp is np and not (dt > 0).all():  # on a GPU, looking would mean waiting
            raise ValueError(
                f"dt: expected positive steps, got a minimum of {dt.min()}; give the time since the previous input"
            )
    options = {
        "discretization": discretization,
        "conj_sym": conj_sym,
        "clip_eigs": clip_eigs,
        "step_rescale": step_rescale,
    }
    weights, step = ssm_weights(layer, dt=dt, **options)
    u, x0 = xp.ascontiguousarray(u), xp.ascontiguousarray(planar(x0), dtype)
    y, x, v = ssm_apply(weights, u, xp.ascontiguousarray(reset), x0)
    cache = SSMCache(layer, step, weights, conj_sym, u, reset, x0, x, v, complex_state)
    return y, from_planar(x[-1]) if complex_state else x[-1].copy(), cache


def ssm_backward(dy, dx_last, cache):
    """Gradients of one S5 layer.

    Through y: dx = dy @ W꜀, dW꜀ = dyᵀ x, dD = Σ dy·u. Through the recurrence (scan.py): g, dΛ̄, dx0. Through its input:
    dWᵦ = gᵀ u and du = g @ Wᵦ + D·dy, with g·conj(w) in the place of g when the step differs in time. Then the discretisation.

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
    dx0 : array in the form of ``x0`` (complex when it was None)
    grads : dict with the layer's keys and shapes
    """
    layer, step, weights, conj_sym, u, reset, x0, x, v, complex_state = cache
    xp = array_module(u)
    T, B, H = check_array(
        "dy", dy, u.shape, (u.dtype.type,), "it has the shape and dtype of y", xp
    ).shape
    P, dtype = layer["B"].shape[0], u.dtype
    dy_flat, u_flat, x_flat = (
        xp.ascontiguousarray(dy).reshape(-1, H),
        u.reshape(-1, H),
        x.reshape(-1, 2 * P),
    )
    dx = matmul(dy_flat, weights.Wc).reshape(x.shape)
    if dx_last is not None:
        dx[-1] += planar(dx_last)
    da, g, dx0 = scan_backward(weights.a, reset, x0, x, dx, out=dx)
    g = g.reshape(-1, 2 * P)
    if v is not None:  # through b = w·v
        dw = xp.empty_like(v)
        gain_backward(g, weights.w, v, dw, g)
    dWb, dWc = matmul(g.T, u_flat), matmul(dy_flat.T, x_flat)
    du = matmul(g, weights.Wb)
    grads = {name: xp.empty(layer[name].shape, dtype) for name in ("B", "C")} | {
        "D": xp.zeros(H, dtype)
    }
    skip_backward(dy_flat, weights.D, u_flat, du, grads["D"])
    factor, dgain = dtype.type(2 if conj_sym else 1), xp.zeros(2 * P)
    weights_backward(dWb, dWc, weights.gain, layer["B"], factor, grads["B"], grads["C"], dgain)
    dspectrum, dw = xp.zeros((3, P)), dgain[None] if v is None else dw
    discretize_backward(
        Spectrum(*(layer[name] for name in SPECTRUM)), step, da.reshape(-1, 2 * P), dw, dspectrum
    )
    dspectrum = dspectrum.astype(dtype)
    grads |= {name: dspectrum[i].reshape(layer[name].shape) for i, name in enumerate(SPECTRUM)}
    return (
        du.reshape(T, B, H),
        from_planar(dx0) if complex_state else dx0,
        {name: grads[name] for name in layer},
    )
