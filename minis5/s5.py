"""The S5 layer: a diagonal complex state space model, discretised, run by the resettable scan. Forward and backward by hand.

    z = Λ·Δ                     Δ = step_rescale·exp(log_step)·dt
    zoh:       Λ̄ = exp(z)                  w = Δ·(exp(z) - 1)/z
    bilinear:  Λ̄ = (1 + z/2)/(1 - z/2)     w = Δ/(1 - z/2)
    x[t] = Λ̄ x[t-1] + w·(B̃ u[t])           x[t-1] forgotten where reset[t]
    y[t] = 2·Re(C̃ x[t]) + D·u[t]           (Re(C̃ x[t]) + D·u[t] without conjugate symmetry)

With a constant step w is multiplied into B̃ once (B̄ = w·B̃). With a step that differs in time (``dt``, the paper's future work)
Λ̄ and w are (T, B, P), and no (T, B, P, H) array is made.

States are planar inside (scan.py), so that B̄u and 2·Re(C̃x) are one real matrix product each: with u as rows, u @ Wᵦᵀ where
Wᵦ = [Re B̄; Im B̄] is (2P, H), and x @ W꜀ᵀ where W꜀ = [2·Re C̃, -2·Im C̃] is (H, 2P).

Left out: learning the initial state; several inputs with different steps in one layer.
Source: S5, 2208.04933; resets: 2303.03982, section 4.1. Parameter names and shapes are those of the authors' code, so that weights
cross over unchanged. Specification: reference.ssm. Tests: tests/test_s5.py, tests/test_jax.py.
"""

import math
from typing import NamedTuple

import numpy as np

from .checks import COMPLEXES, FLOATS, check_array
from .hippo import hippo_eigen
from .layers import lecun_normal
from .scan import fast, from_planar, planar, scan_planar, scan_planar_vjp

CLIP = -1e-4  # with clip_eigs, the real part of Λ stays at or below this


def init_ssm(rng, H, ssm_size, *, blocks=1, dt_min=0.001, dt_max=0.1, conj_sym=True, dtype=np.float32):
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
    B = V.conj().T @ lecun_normal(rng, (ssm_size, H), ssm_size)  # V has orthonormal columns: V⁻¹ = Vᴴ
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


# --- discretisation: Λ̄ and w = Δ·ψ(z) as functions of z, with their derivatives -------------------------------------------------


def zoh(z):
    """Zero-order hold: (Λ̄, ψ, dΛ̄/dz, dψ/dz) with Λ̄ = e^z and ψ = (e^z - 1)/z, by their series around z = 0."""
    small = np.abs(z) < np.finfo(z.dtype).eps ** 0.25  # where the quotients lose more than a short series does
    far = np.where(small, 1, z)
    e = np.exp(z)
    psi = np.where(small, 1 + z / 2 + z * z / 6, np.expm1(far) / far)
    dpsi = np.where(small, 0.5 + z / 3 + z * z / 8, (e - psi) / far)
    return e, psi, e, dpsi


def bilinear(z):
    """Bilinear (Tustin): (Λ̄, ψ, dΛ̄/dz, dψ/dz) with ψ = 1/(1 - z/2) and Λ̄ = (1 + z/2)·ψ."""
    psi = 1 / (1 - z / 2)
    return (1 + z / 2) * psi, psi, psi * psi, psi * psi / 2


DISCRETIZATIONS = {"zoh": zoh, "bilinear": bilinear}


class Discretized(NamedTuple):
    """Λ̄ and w for a layer, with what their backward needs. Leading axes (): constant step; (T, B): a step for each input."""

    lam_bar: np.ndarray  # (..., P) complex
    w: np.ndarray  # (..., P) complex
    lam: np.ndarray  # (P,) complex
    delta: np.ndarray  # (..., P) real
    psi: np.ndarray
    dlam_bar: np.ndarray  # dΛ̄/dz
    dpsi: np.ndarray
    unclipped: np.ndarray | bool  # (P,): where Lambda_re has a gradient


def discretize_forward(layer, discretization="zoh", clip_eigs=False, step_rescale=1.0, dt=None):
    """Λ̄ and w of one layer; in double precision for a constant step, where there are only P numbers."""
    real = np.float64 if dt is None else layer["D"].dtype
    re = layer["Lambda_re"].astype(real)
    unclipped = re <= CLIP if clip_eigs else True
    lam = np.where(unclipped, re, CLIP).astype(real) + 1j * layer["Lambda_im"].astype(real)
    delta = (step_rescale * np.exp(layer["log_step"][:, 0].astype(real))).astype(real)
    delta = delta if dt is None else dt[..., None] * delta
    lam_bar, psi, dlam_bar, dpsi = DISCRETIZATIONS[discretization](lam * delta)
    return Discretized(lam_bar, delta * psi, lam, delta, psi, dlam_bar, dpsi, unclipped)


def discretize_backward(dlam_bar, dw, d):
    """dΛ̄, dw → gradients of Lambda_re, Lambda_im, log_step.

    dz = dΛ̄·conj(Λ̄'(z)) + dw·conj(Δ·ψ'(z)); dΛ = dz·Δ; dΔ = Re(dz·conj(Λ)) + Re(dw·conj(ψ)); dlog_step = dΔ·Δ.
    """
    dz = dlam_bar * d.dlam_bar.conj() + dw * (d.delta * d.dpsi).conj()
    dlog_step = ((dz * d.lam.conj()).real + (dw * d.psi.conj()).real) * d.delta
    dlam, dlog_step = ((dz * d.delta).reshape(-1, d.lam.size).sum(axis=0), dlog_step.reshape(-1, d.lam.size).sum(axis=0))
    return {"Lambda_re": dlam.real * d.unclipped, "Lambda_im": dlam.imag, "log_step": dlog_step[:, None]}


# --- the layer -------------------------------------------------------------------------------------------------------------------


class Weights(NamedTuple):
    """One layer ready to run, in its dtype."""

    a: np.ndarray  # (1, 1, 2P) or (T, B, 2P) planar Λ̄
    w: np.ndarray | None  # (T, B, P) complex when the step differs in time, else multiplied into Wb
    Wb: np.ndarray  # (2P, H)
    Wc: np.ndarray  # (H, 2P)
    D: np.ndarray  # (H,)


def as_complex(pairs):
    """Real (..., 2) → complex (...): the same numbers, not copied."""
    return np.ascontiguousarray(pairs).view(np.result_type(pairs.dtype, np.complex64))[..., 0]


def ssm_weights(layer, conj_sym, d):
    """A layer's Weights from its parameters and their discretisation ``d``."""
    dtype = layer["D"].dtype
    factor = 2 if conj_sym else 1
    B, C = as_complex(layer["B"]), layer["C"]
    if not (varying := d.lam_bar.ndim == 3):
        B = d.w[:, None].astype(B.dtype) * B
    Wb = np.concatenate([B.real, B.imag])
    Wc = np.concatenate([factor * C[..., 0], -factor * C[..., 1]], axis=1)
    a = planar(d.lam_bar).astype(dtype)
    return Weights(a if varying else a[None, None], d.w if varying else None, Wb, Wc, layer["D"])


@fast
def _add_skip(y, D, u):
    """y += D·u, rows of H."""
    for n in range(y.shape[0]):
        yn, un = y[n], u[n]
        for h in range(D.size):
            yn[h] += D[h] * un[h]


@fast
def _skip_backward(dy, D, u, du, dD):
    """du += D·dy; dD += Σ dy·u."""
    for n in range(dy.shape[0]):
        dn, un, out = dy[n], u[n], du[n]
        for h in range(D.size):
            out[h] += D[h] * dn[h]
            dD[h] += dn[h] * un[h]


def ssm_apply(weights, u, reset, x0):
    """Run a layer: u (T, B, H), reset (T, B), planar x0 (B, 2P) → y (T, B, H), the states x (T, B, 2P), v = B̃u or None."""
    T, B, H = u.shape
    flat = u.reshape(-1, H)
    b = (flat @ weights.Wb.T).reshape(T, B, -1)
    v = None
    if weights.w is not None:
        v = from_planar(b)
        b = planar(weights.w * v)
    x = scan_planar(weights.a, b, reset, x0, out=b)
    y = x.reshape(T * B, -1) @ weights.Wc.T
    _add_skip(y, weights.D, flat)
    return y.reshape(T, B, H), x, v


class SSMCache(NamedTuple):
    layer: dict
    d: Discretized
    weights: Weights
    conj_sym: bool
    u: np.ndarray  # (T, B, H)
    reset: np.ndarray  # (T, B)
    x0: np.ndarray  # (B, 2P)
    x: np.ndarray  # (T, B, 2P)
    v: np.ndarray | None  # (T, B, P) complex
    complex_state: bool


def ssm_forward(layer, u, reset, x0, *, discretization="zoh", conj_sym=True, clip_eigs=False, step_rescale=1.0, dt=None):
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
        raise ValueError(f"discretization: expected one of {sorted(DISCRETIZATIONS)}, got {discretization!r}")
    dtype, (P, H, _) = layer["D"].dtype.type, layer["B"].shape
    check_array("u", u, ("T", "B", H), (dtype,), "order the axes time, batch, features and cast to the layer's dtype")
    T, B, _ = u.shape
    if 0 in u.shape:
        raise ValueError(f"u: expected at least one step, one sequence and one feature, got {u.shape}; leave out empty batches")
    reset = np.zeros((T, B), bool) if reset is None else check_array("reset", reset, (T, B), (np.bool_,), "transpose and cast")
    complex_state = x0 is None or np.iscomplexobj(x0)
    if x0 is None:
        x0 = np.zeros((B, 2 * P), dtype)
    check_array("x0", x0, (B, P if np.iscomplexobj(x0) else 2 * P), FLOATS + COMPLEXES, "(B, P) complex or (B, 2P) planar")
    if dt is not None:
        check_array("dt", dt, (T, B), (dtype,), "one step for each input")
        if not (dt > 0).all():
            raise ValueError(f"dt: expected positive steps, got a minimum of {dt.min()}; give the time since the previous input")
    d = discretize_forward(layer, discretization, clip_eigs, step_rescale, dt)
    weights = ssm_weights(layer, conj_sym, d)
    u, x0 = np.ascontiguousarray(u), np.ascontiguousarray(planar(x0), dtype)
    y, x, v = ssm_apply(weights, u, np.ascontiguousarray(reset), x0)
    cache = SSMCache(layer, d, weights, conj_sym, u, reset, x0, x, v, complex_state)
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
    layer, d, weights, conj_sym, u, reset, x0, x, v, complex_state = cache
    T, B, H = check_array("dy", dy, u.shape, (u.dtype.type,), "it has the shape and dtype of y").shape
    P, dtype = layer["B"].shape[0], u.dtype
    dy_flat, u_flat, x_flat = np.ascontiguousarray(dy).reshape(-1, H), u.reshape(-1, H), x.reshape(-1, 2 * P)
    dx = (dy_flat @ weights.Wc).reshape(x.shape)
    if dx_last is not None:
        dx[-1] += planar(dx_last)
    da, g, dx0 = scan_planar_vjp(weights.a, reset, x0, x, dx, out=dx)
    Btilde = as_complex(layer["B"])
    if v is not None:  # through b = w·v
        g = from_planar(g)
        dw = g * v.conj()
        g = planar(g * weights.w.conj())
    dWb = g.reshape(-1, 2 * P).T @ u_flat
    dBtilde = np.empty_like(Btilde)
    dBtilde.real, dBtilde.imag = dWb[:P], dWb[P:]
    if v is None:  # through B̄ = w·B̃
        dw = (dBtilde * Btilde.conj()).sum(axis=1)
        dBtilde *= d.w[:, None].conj().astype(Btilde.dtype)
        da = da[0, 0]
    du = g.reshape(-1, 2 * P) @ weights.Wb
    dD = np.zeros_like(weights.D)
    _skip_backward(dy_flat, weights.D, u_flat, du, dD)
    dWc, dC = dy_flat.T @ x_flat, np.empty_like(layer["C"])
    factor = 2 if conj_sym else 1
    dC[..., 0], dC[..., 1] = factor * dWc[:, :P], -factor * dWc[:, P:]
    grads = discretize_backward(from_planar(da), dw, d) | {"B": dBtilde.view(dtype).reshape(P, H, 2), "C": dC, "D": dD}
    grads = {name: grads[name].astype(dtype, copy=False) for name in layer}
    return du.reshape(T, B, H), from_planar(dx0) if complex_state else dx0, grads
