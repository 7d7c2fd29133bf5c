"""Wrong gradients of the S5 layer: stages of ssm_stages.py that went wrong.

Tests: tests/verify/test_ssm.py.
"""

from collections.abc import Callable

import numpy as np

from minis5.verify.operations.scan_vjp import backward_states, right_carry, right_product
from minis5.verify.operations.ssm_faults import FORWARD, method_fault
from minis5.verify.operations.ssm_stages import backward, cause

GRADIENTS = ("du", "dx0", "dLambda_re", "dLambda_im", "dB", "dC", "dD", "dlog_step")


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

    return {"method": method_fault(change)}


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
