"""Wrong S5 layers, and wrong gradients of it: stages of ssm_stages.py that went wrong.

Tests: tests/verify/test_ssm.py.
"""

from collections.abc import Callable

import numpy as np

from minis5.verify.operations.scan_faults import later, right_step
from minis5.verify.operations.scan_vjp import backward_states, right_carry, right_product
from minis5.verify.operations.ssm_stages import METHODS, backward, cause, forward, zoh

OUTPUTS = ("y", "x_last")
GRADIENTS = ("du", "dx0", "dLambda_re", "dLambda_im", "dB", "dC", "dD", "dlog_step")


def _method(change: Callable) -> Callable:
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
    "Euler instead of zero-order hold: Λ̄ = 1 + ΛΔ, w = Δ": {"method": _method(_euler)},
    "bilinear instead of zero-order hold": {"method": lambda s: METHODS["bilinear"]},
    "zero-order hold instead of bilinear": {"method": lambda s: zoh},
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
    "the skip D·u is added twice": {"skip": lambda s: 2.0 * s["skip"]},
    "log_step is taken for the step: exp is missing": {
        "exp_log_step": lambda s: s["log_step"][:, 0]
    },
    "the step is that of the first state for all states": {
        "exp_log_step": lambda s: np.broadcast_to(s["exp_log_step"][:1], s["exp_log_step"].shape)
    },
    "step_rescale is ignored": {"step_rescale": lambda s: 1.0},
    "step_rescale divides instead of multiplying": {
        "step_rescale": lambda s: 1.0 / s["step_rescale"]
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
    "eigenvalues are clipped although clip_eigs is off": {"clip_eigs": lambda s: True},
    "Re Λ is made negative: -|Lambda_re|": {
        "lam": lambda s: -np.abs(s["lam"].real) + 1j * s["lam"].imag
    },
    "Lambda_re is taken for log(-Re Λ)": {
        "lam": lambda s: -np.exp(s["Lambda_re"]) + 1j * s["lam"].imag
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


def _adjoint(**terms: Callable) -> dict[str, Callable]:
    return {"adjoint": lambda s: lambda z: backward_states(z, **terms)}


def _changed(**changes: Callable) -> dict[str, Callable]:
    """Return a fault of the adjoint's inputs."""

    def fault(s):
        return lambda z: backward_states(z | {name: f(z) for name, f in changes.items()})

    return {"adjoint": fault}


def _carry_multiplied(z, t, g):
    return z["a"][t].conj() * g * (1.0 - z["reset"][t])


def _half_method(lam_part: int | None, step_part: int | None) -> dict[str, Callable]:
    """Return a fault: derivatives by Λ or by Δ through Λ̄ (0) or w (1) are missing."""

    def change(lam, step, right):
        a, w, by_lam, by_step = right
        lam_terms = tuple(0.0 * z if i == lam_part else z for i, z in enumerate(by_lam))
        step_terms = tuple(0.0 * z if i == step_part else z for i, z in enumerate(by_step))
        return a, w, lam_terms, step_terms

    return {"method": _method(change)}


BACKWARD = {
    "the reset multiplies by zero instead of selecting: NaN and Inf pass it backwards": _adjoint(
        carry=_carry_multiplied, product=lambda z, t, g, p: g * p.conj() * (1.0 - z["reset"][t])
    ),
    "gradients pass resets: resets are ignored": _changed(
        reset=lambda z: np.zeros_like(z["reset"])
    ),
    "da is not cut at resets": _adjoint(product=lambda z, t, g, p: g * p.conj()),
    "the gradient of the initial state is missing": {"dx0": lambda s: np.zeros_like(s["dx0"])},
    "the gradient of the initial state is not cut by a reset at the first step": _adjoint(
        carry=lambda z, t, g: right_carry(z, t, g) if t else z["a"][0].conj() * g
    ),
    "the gradient of the initial state is conjugated": {"dx0": lambda s: s["dx0"].conj()},
    "the gradient of the last state is ignored": {"dx_last": lambda s: np.zeros_like(s["dx_last"])},
    "the gradient of the last state is conjugated": {"dx_last": lambda s: s["dx_last"].conj()},
    "the gradient of the last state is that of x[0]": {
        "dx": lambda s: s["dx"] - _at_end(s, -1) + _at_end(s, 0)
    },
    "Λ̄ is not conjugated in what flows back": _adjoint(
        carry=lambda z, t, g: np.where(z["reset"][t], 0.0, z["a"][t] * g)
    ),
    "x is not conjugated in the gradient of Λ̄": _adjoint(
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g * p)
    ),
    "the gradient of Λ̄ lacks the first step, with the initial state": _adjoint(
        product=lambda z, t, g, p: right_product(z, t, g, p) * (t > 0)
    ),
    "the gradient of Λ̄ is taken with x[t] instead of x[t-1]": _adjoint(
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g * z["x"][t].conj())
    ),
    "nothing flows back from later steps": _adjoint(
        carry=lambda z, t, g: np.zeros_like(g) if t else right_carry(z, t, g)
    ),
    "the factor 2 of conjugate symmetry is missing in the gradient of the states": {
        "dx": lambda s: s["dx"] - (s["factor"] - 1.0) * s["dy"] @ s["C_tilde"].conj()
    },
    "the factor 2 of conjugate symmetry is missing in dC": {
        "dC_tilde": lambda s: s["dC_tilde"] / s["factor"]
    },
    "C is not conjugated in the gradient of the states": {
        "dx": lambda s: s["dx"] + s["factor"] * s["dy"] @ (s["C_tilde"] - s["C_tilde"].conj())
    },
    "dC is conjugated": {"dC_tilde": lambda s: s["dC_tilde"].conj()},
    "dB is conjugated": {"dB_tilde": lambda s: s["dB_tilde"].conj()},
    "dB is taken without w": {"dB_tilde": lambda s: np.einsum("tnp,tnh->ph", s["g"], s["u"])},
    "w is not conjugated in the gradient of B̃u": {"dv": lambda s: s["g"] * s["w"]},
    "dD is the sum of dy, without u": {"dD": lambda s: s["dy"].sum(axis=(0, 1))},
    "dD is a mean instead of a sum": {"dD": lambda s: s["dD"] / s["u"][..., 0].size},
    "the skip is missing in du": {"du_skip": lambda s: 0.0 * s["du_skip"]},
    "du is the skip's alone": {"du": lambda s: s["du_skip"]},
    "B is not conjugated in du": {"du": lambda s: (s["dv"] @ s["B_tilde"]).real + s["du_skip"]},
    "log_step's gradient is that of the step: the factor Δ is missing": {
        "dlog_step": lambda s: s["dstep_t"].sum(axis=(0, 1))[:, None]
    },
    "log_step's gradient lacks step_rescale": {
        "dlog_step": lambda s: s["dlog_step"] / s["step_rescale"]
    },
    "log_step's gradient lacks dt": {
        "dlog_step": lambda s: (s["dstep_t"] * s["step"] / s["dt"][..., None]).sum(axis=(0, 1))[
            :, None
        ]
    },
    "log_step's gradient is zero": {"dlog_step": lambda s: 0.0 * s["dlog_step"]},
    "log_step's gradient is summed over the states": {
        "dlog_step": lambda s: np.full_like(s["dlog_step"], s["dlog_step"].sum())
    },
    "log_step's gradient lacks the part through w": _half_method(None, 1),
    "log_step's gradient lacks the part through Λ̄": _half_method(None, 0),
    "the gradient of Λ lacks the part through w": _half_method(1, None),
    "the gradient of Λ lacks the part through Λ̄": _half_method(0, None),
    "the gradient of Λ and of log_step lack the part through w": _half_method(1, 1),
    "the gradient of Λ is conjugated: Lambda_im's has the wrong sign": {
        "dlam": lambda s: s["dlam"].conj()
    },
    "Lambda_im's gradient is zero": {"dLambda_im": lambda s: 0.0 * s["dLambda_im"]},
    "the derivatives of Λ̄ and w are not conjugated": {
        "dlam_t": lambda s: s["da"] * s["by_lam"][0] + s["dw"] * s["by_lam"][1]
    },
    "Lambda_re's gradient is not cut where clip_eigs holds it": {
        "dLambda_re": lambda s: s["dlam"].real
    },
}

FORWARD_CAUSES = {name: cause(forward, OUTPUTS, **faults) for name, faults in FORWARD.items()}
BACKWARD_CAUSES = {name: cause(backward, GRADIENTS, **faults) for name, faults in BACKWARD.items()}
BACKWARD_CAUSES |= {
    f"the layer itself is wrong: {name}": cause(backward, GRADIENTS, **FORWARD[name])
    for name in (
        "the initial state is ignored",
        "bilinear instead of zero-order hold",
        "zero-order hold instead of bilinear",
        "the factor 2 is there without conjugate symmetry too",
        "step_rescale is ignored",
        "dt is ignored",
        "clip_eigs is ignored",
        "Λ is conjugated",
        "B̄ is not divided by Λ: w = Λ̄ - 1",
    )
}


def _at_end(s, t):
    """Return the gradient of the last state, at step t of a (T, B, P) array of zeros."""
    dx = np.zeros_like(s["dx"])
    dx[t] = s.get("dx_last", 0.0)
    return dx
