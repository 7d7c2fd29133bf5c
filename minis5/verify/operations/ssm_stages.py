"""The S5 layer and its gradients as a list of stages, each of which a fault can replace.

With the stages as they are, the forward pass is minis5.reference.ssm, and the gradients are its
derivative (the tests compare both). The gradient of a complex z is ∂L/∂Re z + i ∂L/∂Im z.

    step    Δ = rescale · exp(log_step) · dt (T, B, P)
    lam     Λ (P,), clipped if asked for
    a, w    Λ̄ and w (T, B, P) of x[t] = a x[t-1] + w v[t]
    v       B̃ u (T, B, P)
    b       w v
    x       the recurrence (T, B, P)
    y       factor · Re(C̃ x) + D u (T, B, H)

Then backwards: dx, g (of b), da, dx0, dw, dv, dB, dC, dD, du, and those of Λ and Δ.

Source: 2208.04933, section 3; 2303.03982, section 4.1. Tests: tests/verify/test_ssm.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minis5.verify.case import Case
from minis5.verify.operations.scan_faults import right_step, states
from minis5.verify.operations.scan_vjp import backward_states

CLIP = -1e-4
DEFAULTS = {"discretization": "zoh", "conj_sym": True, "clip_eigs": False, "step_rescale": 1.0}
LAYER = ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step")


def options_of(case: Case) -> dict[str, Any]:
    """Return the options of a case's call, completed."""
    return DEFAULTS | {name: case.options[name] for name in DEFAULTS if name in case.options}


def psi(z):
    """Return ψ = (exp(z) - 1)/z and its derivative, from their series where |z| < 1."""
    near = np.abs(z) < 1.0
    series, slope, term = np.ones_like(z), np.zeros_like(z), np.ones_like(z)
    for k in range(1, 20):  # ψ is the sum of z^k / (k+1)!, its derivative of k z^(k-1) / (k+1)!
        slope = slope + k * term / (k + 1)
        term = np.where(near, term * z / (k + 1), 0.0)
        series = series + term
    far = np.where(near, 1.0, z)
    direct = np.expm1(far) / far
    return np.where(near, series, direct), np.where(near, slope, (np.exp(far) - direct) / far)


def zoh(lam, step):
    """Return Λ̄, w and their derivatives: by Λ, by Δ; zero-order hold."""
    z = lam * step
    value, slope = psi(z)
    a = np.exp(z)
    return a, step * value, (step * a, step**2 * slope), (lam * a, a)


def bilinear(lam, step):
    """Return the same of the bilinear method."""
    r = 1.0 / (1.0 - lam * step / 2.0)
    a = r * (1.0 + lam * step / 2.0)
    return a, r * step, (step * r**2, step**2 * r**2 / 2.0), (lam * r**2, r**2)


METHODS = {"zoh": zoh, "bilinear": bilinear}


class Stages(dict):
    """Values by name; setting one lets a fault replace it: fault(values) → other value."""

    def __init__(self, case: Case, faults: dict[str, Callable[["Stages"], Any]]) -> None:
        self.faults = faults
        super().__init__()
        for name, value in (case.inputs | options_of(case)).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name in self.faults:
            super().__setitem__(name, self.faults[name](self))


def forward(case: Case, **faults: Callable) -> Stages:
    """Return all stages of the forward pass; a fault replaces the stage of its name."""
    s = Stages(case, faults)
    T, B, _ = s["u"].shape
    P = s["Lambda_re"].size
    empty = {"reset": np.zeros((T, B), bool), "x0": np.zeros((B, P), complex)}
    for name, value in (empty | {"dt": np.ones((T, B))}).items():
        if name not in s:  # setting an input again would apply its fault twice
            s[name] = value
    s["exp_log_step"] = np.exp(s["log_step"][:, 0])
    s["step"] = s["step_rescale"] * s["exp_log_step"] * s["dt"][..., None]
    re = np.minimum(s["Lambda_re"], CLIP) if s["clip_eigs"] else s["Lambda_re"]
    s["lam"] = re + 1j * s["Lambda_im"]
    s["method"] = METHODS[s["discretization"]]
    a, w, by_lam, by_step = s["method"](s["lam"], s["step"])
    s["a"], s["w"], s["by_lam"], s["by_step"] = a, w, by_lam, by_step
    s["B_tilde"], s["C_tilde"] = (s[name][..., 0] + 1j * s[name][..., 1] for name in ("B", "C"))
    s["v"] = s["u"] @ s["B_tilde"].T
    s["b"] = s["w"] * s["v"]
    s["recurrence"] = right_step
    z = {"a": s["a"], "b": s["b"], "reset": s["reset"][..., None], "x0": s["x0"]}
    s["x"] = states(z, s["recurrence"])
    s["factor"] = 2.0 if s["conj_sym"] else 1.0
    s["skip"] = s["D"] * s["u"]
    s["y"] = s["factor"] * (s["x"] @ s["C_tilde"].T).real + s["skip"]
    s["x_last"] = s["x"][-1]
    return s


def backward(case: Case, **faults: Callable) -> Stages:
    """Return all stages of both passes; dy and dx_last are inputs of the case."""
    s = forward(case, **faults)
    u, x, dy = s["u"], s["x"], s["dy"]
    s["dC_tilde"] = s["factor"] * np.einsum("tnh,tnp->hp", dy, x.conj())
    s["dD"] = np.einsum("tnh,tnh->h", dy, u)
    dx = s["factor"] * dy @ s["C_tilde"].conj()
    dx[-1] += s.get("dx_last", 0.0)
    s["dx"] = dx
    z = {name: s[name] for name in ("a", "x0", "x", "dx")} | {"reset": s["reset"][..., None]}
    s["adjoint"] = backward_states
    s["da"], s["g"], s["dx0"] = s["adjoint"](z)
    s["dw"], s["dv"] = s["g"] * s["v"].conj(), s["g"] * s["w"].conj()
    s["dB_tilde"] = np.einsum("tnp,tnh->ph", s["dv"], u)
    s["du_skip"] = s["D"] * dy
    s["du"] = (s["dv"] @ s["B_tilde"].conj()).real + s["du_skip"]
    s["dlam_t"] = s["da"] * s["by_lam"][0].conj() + s["dw"] * s["by_lam"][1].conj()
    s["dlam"] = s["dlam_t"].sum(axis=(0, 1))
    s["dstep_t"] = (s["da"] * s["by_step"][0].conj() + s["dw"] * s["by_step"][1].conj()).real
    s["dlog_step"] = (s["dstep_t"] * s["step"]).sum(axis=(0, 1))[:, None]
    free = s["Lambda_re"] < CLIP if s["clip_eigs"] else True
    s["dLambda_re"], s["dLambda_im"] = np.where(free, s["dlam"].real, 0.0), s["dlam"].imag
    for name in ("B", "C"):
        dz = s[f"d{name}_tilde"]
        s[f"d{name}"] = np.stack([dz.real, dz.imag], axis=-1)
    return s


def cause(passes: Callable, outputs: tuple[str, ...], **faults: Callable) -> Callable:
    """Return a cause: the outputs of ``forward`` or ``backward`` with wrong stages."""

    def run(case):
        stages = passes(case, **faults)
        return {name: stages[name] for name in outputs}

    return run
