"""Wrong S5 layers: stages of ssm_stages.py that went wrong.

Tests: tests/verify/test_ssm.py.
"""

from collections.abc import Callable

import numpy as np

from minis5.verify.operations.scan_faults import later, right_step
from minis5.verify.operations.ssm_stages import CLIP, METHODS, cause, forward, zoh

OUTPUTS = ("y", "x_last")


def method_fault(change: Callable) -> Callable:
    """Return a fault of the discretisation: change(lam, step, (a, w, by_lam, by_step)) → same."""

    def fault(s):
        right = s["method"]
        return lambda lam, step: change(lam, step, right(lam, step))

    return fault


def _multiplied(s):
    return lambda z, t, previous: z["a"][t] * (previous * (1.0 - z["reset"][t])) + z["b"][t]


def _dropping(s):
    return lambda z, t, p: np.where(z["reset"][t], 0.0, z["a"][t] * p + z["b"][t])


def _to_start(s):
    return lambda z, t, p: z["a"][t] * np.where(z["reset"][t], z["x0"], p) + z["b"][t]


def _unscaled_start(s):
    def step(z, t, p):
        return right_step(z, t, p) if t else z["b"][0] + np.where(z["reset"][0], 0.0, p)

    return step


def _euler(lam, step, right):
    one = np.ones_like(lam * step)
    return 1.0 + lam * step, step * one, (step * one, 0.0 * one), (lam * one, one)


def _backward_euler(lam, step, right):
    r = 1.0 / (1.0 - lam * step)
    return r, r * step, (step * r**2, step**2 * r**2), (lam * r**2, r**2)


def _clipped(change: Callable) -> Callable:
    """Return a fault of Λ that clip_eigs asks for: change(Lambda_re) → its real part."""

    def fault(s):
        re = change(s["Lambda_re"]) if s["clip_eigs"] else s["lam"].real
        return re + 1j * s["lam"].imag

    return fault


FORWARD = {  # fault: {stage: what it is instead}
    "the reset multiplies the old state by zero instead of selecting: NaN and Inf pass it": {
        "recurrence": _multiplied
    },
    "a reset at the first step does not clear the initial state": {
        "reset": lambda s: s["reset"] & (np.arange(len(s["reset"])) > 0)[:, None]
    },
    "resets are ignored": {"reset": lambda s: np.zeros_like(s["reset"])},
    "the initial state is ignored": {"x0": lambda s: np.zeros_like(s["x0"])},
    "a reset acts one step late, after the step instead of before it": {
        "reset": lambda s: later(s["reset"], 1)
    },
    "a reset acts one step early": {"reset": lambda s: later(s["reset"], -1)},
    "a reset drops the input of its own step too": {"recurrence": _dropping},
    "a reset goes back to the initial state instead of forgetting": {"recurrence": _to_start},
    "a reset in one row of the batch acts on all rows": {
        "reset": lambda s: np.broadcast_to(s["reset"].any(axis=1, keepdims=True), s["reset"].shape)
    },
    "the initial state is not multiplied by Λ̄": {"recurrence": _unscaled_start},
    "Euler instead of zero-order hold: Λ̄ = 1 + ΛΔ, w = Δ": {"method": method_fault(_euler)},
    "bilinear instead of zero-order hold": {"method": lambda s: METHODS["bilinear"]},
    "zero-order hold instead of bilinear": {"method": lambda s: zoh},
    "backward Euler instead of what is asked for: Λ̄ = 1/(1 - ΛΔ), w = Δ Λ̄": {
        "method": method_fault(_backward_euler)
    },
    "Λ̄ is 1 + ΛΔ, as Euler's method has it; w as it should be": {
        "a": lambda s: 1.0 + s["lam"] * s["step"]
    },
    "w is Δ Λ̄": {"w": lambda s: s["step"] * s["a"]},
    "the input is multiplied by √(1 - |Λ̄|²), as the LRU does": {
        "w": lambda s: np.sqrt(1.0 - np.abs(s["a"]) ** 2) + 0.0j
    },
    "w has √Δ instead of Δ": {"w": lambda s: s["w"] / np.sqrt(s["step"])},
    "w is half of what it should be": {"w": lambda s: 0.5 * s["w"]},
    "the input is held by Euler's method: w = Δ, Λ̄ as it should be": {
        "w": lambda s: s["step"] + 0.0 * s["a"]
    },
    "B̄ is not divided by Λ: w = Λ̄ - 1": {"w": lambda s: s["a"] - 1.0},
    "B is not discretised: w = 1": {"w": lambda s: np.ones_like(s["a"])},
    "B̄ is multiplied by Δ once more": {"w": lambda s: s["w"] * s["step"]},
    "(Λ̄ - 1)/Λ is computed as it is written: where ΛΔ is tiny it cancels to 0": {
        "w": lambda s: np.where(np.abs(s["lam"] * s["step"]) < 1e-7, 0.0, s["w"])
    },
    "the factor 2 of conjugate symmetry is missing": {"factor": lambda s: 1.0},
    "the factor 2 is there without conjugate symmetry too": {"factor": lambda s: 2.0},
    "the skip D·u is missing": {"skip": lambda s: 0.0 * s["skip"]},
    "the skip is u instead of D·u": {"skip": lambda s: s["u"]},
    "the skip is u + D·u": {"skip": lambda s: s["skip"] + s["u"]},
    "the skip D·u is added twice": {"skip": lambda s: 2.0 * s["skip"]},
    "log_step is taken for the step: exp is missing": {
        "exp_log_step": lambda s: s["log_step"][:, 0]
    },
    "the step is softplus(log_step), as Mamba's": {
        "exp_log_step": lambda s: np.log1p(s["exp_log_step"])
    },
    "the step is 10^log_step": {"exp_log_step": lambda s: 10.0 ** s["log_step"][:, 0]},
    "the step is clamped to 0.001 … 0.1": {
        "exp_log_step": lambda s: np.clip(s["exp_log_step"], 1e-3, 0.1)
    },
    "the step is that of the first state for all states": {
        "exp_log_step": lambda s: np.broadcast_to(s["exp_log_step"][:1], s["exp_log_step"].shape)
    },
    "step_rescale is ignored": {"step_rescale": lambda s: 1.0},
    "step_rescale divides instead of multiplying": {
        "step_rescale": lambda s: 1.0 / s["step_rescale"]
    },
    "step_rescale multiplies log_step": {
        "exp_log_step": lambda s: (
            np.exp(s["step_rescale"] * s["log_step"][:, 0]) / s["step_rescale"]
        )
    },
    "step_rescale scales Λ̄ only, not the input": {
        "w": lambda s: s["method"](s["lam"], s["step"] / s["step_rescale"])[1]
    },
    "dt is the step: exp(log_step) is not in it": {
        "step": lambda s: np.broadcast_to(s["dt"][..., None], s["step"].shape)
    },
    "dt is added to the step instead of multiplied": {
        "step": lambda s: s["step"] / s["dt"][..., None] + s["dt"][..., None]
    },
    "dt is summed up: times are taken, not their differences": {
        "dt": lambda s: np.cumsum(s["dt"], axis=0)
    },
    "dt is the mean of the batch": {
        "dt": lambda s: np.broadcast_to(s["dt"].mean(axis=1, keepdims=True), s["dt"].shape)
    },
    "dt is ignored": {"dt": lambda s: np.ones_like(s["dt"])},
    "dt is that of the next input: one step late": {"dt": lambda s: later(s["dt"], 1, 1.0)},
    "dt is that of the previous input: one step early": {"dt": lambda s: later(s["dt"], -1, 1.0)},
    "dt of the batch's first row is used in all rows": {
        "dt": lambda s: np.broadcast_to(s["dt"][:, :1], s["dt"].shape)
    },
    "dt scales Λ̄ only, not the input": {
        "w": lambda s: s["method"](s["lam"], s["step"] / s["dt"][..., None])[1]
    },
    "dt scales the input only, not Λ̄": {
        "a": lambda s: s["method"](s["lam"], s["step"] / s["dt"][..., None])[0]
    },
    "clip_eigs is ignored": {"clip_eigs": lambda s: False},
    "Re Λ is clipped from below, at least -1e-4": {
        "lam": _clipped(lambda re: np.maximum(re, CLIP))
    },
    "Re Λ is clipped at 0, not at -1e-4": {"lam": _clipped(lambda re: np.minimum(re, 0.0))},
    "clip_eigs makes Re Λ -|Re Λ|": {"lam": _clipped(lambda re: -np.abs(re))},
    "clip_eigs clips Im Λ too": {
        "lam": lambda s: (
            s["lam"].real + 1j * np.minimum(s["lam"].imag, CLIP if s["clip_eigs"] else np.inf)
        )
    },
    "eigenvalues are clipped although clip_eigs is off": {"clip_eigs": lambda s: True},
    "Re Λ is made negative: -|Lambda_re|": {
        "lam": lambda s: -np.abs(s["lam"].real) + 1j * s["lam"].imag
    },
    "Lambda_re is taken for log(-Re Λ)": {
        "lam": lambda s: -np.exp(s["Lambda_re"]) + 1j * s["lam"].imag
    },
    "|Im Λ| is used": {"lam": lambda s: s["lam"].real + 1j * np.abs(s["lam"].imag)},
    "the imaginary part of the initial state is ignored": {"x0": lambda s: s["x0"].real + 0j},
    "the initial state is conjugated": {"x0": lambda s: s["x0"].conj()},
    "real and imaginary parts of B are exchanged": {"B_tilde": lambda s: 1j * s["B_tilde"].conj()},
    "real and imaginary parts of C are exchanged": {"C_tilde": lambda s: 1j * s["C_tilde"].conj()},
    "y has |C x|, not its real part": {
        "y": lambda s: s["skip"] + s["factor"] * np.abs(s["x"] @ s["C_tilde"].T)
    },
    "y has the imaginary part of C x, not the real one": {
        "y": lambda s: s["skip"] + s["factor"] * (s["x"] @ s["C_tilde"].T).imag
    },
    "Λ is conjugated": {"lam": lambda s: s["lam"].conj()},
    "the imaginary part of Λ is ignored": {"lam": lambda s: s["lam"].real + 0j},
    "B is conjugated": {"B_tilde": lambda s: s["B_tilde"].conj()},
    "the imaginary part of B is ignored": {"B_tilde": lambda s: s["B_tilde"].real + 0j},
    "C is conjugated": {"C_tilde": lambda s: s["C_tilde"].conj()},
    "the imaginary part of C is ignored: Re C · Re x": {
        "C_tilde": lambda s: s["C_tilde"].real + 0j
    },
    "the imaginary part of C x is added to the real part": {
        "y": lambda s: s["y"] + s["factor"] * (s["x"] @ s["C_tilde"].T).imag
    },
    "y[t] is read from the state before step t": {
        "y": lambda s: (
            s["skip"]
            + s["factor"] * (np.concatenate([s["x0"][None], s["x"][:-1]]) @ s["C_tilde"].T).real
        )
    },
    "the last state is that of the first step": {"x_last": lambda s: s["x"][0]},
    "the last state is the one before the last step": {
        "x_last": lambda s: s["x"][-2] if len(s["x"]) > 1 else s["x0"]
    },
    "the last state is the initial state": {"x_last": lambda s: s["x0"]},
    "the last state is zero": {"x_last": lambda s: np.zeros_like(s["x0"])},
    "the last state is conjugated": {"x_last": lambda s: s["x"][-1].conj()},
}

FORWARD_CAUSES = {name: cause(forward, OUTPUTS, **faults) for name, faults in FORWARD.items()}
