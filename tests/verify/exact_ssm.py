"""Make minis5/verify/operations/exact_ssm.json: outputs and gradients of the S5 layer, with 50
digits, for steps that are extremely small or large.

    pip install mpmath && python tests/verify/exact_ssm.py

Nothing here is shared with minis5: the layer is written once more with mpmath's numbers, and the
gradients are central differences with a step of 1e-20, in 60 digits.
"""

import json
from itertools import product

import mpmath
import numpy as np

from minis5.verify.case import DTYPES
from minis5.verify.operations import ssm, ssm_vjp

DIGITS, STEP = 60, mpmath.mpf(10) ** -20
NAMES = (*ssm.LAYER, "u", "x0")


def numbers(z):
    """Return an array of mpmath numbers."""
    kind = mpmath.mpc if z.dtype.kind == "c" else mpmath.mpf
    return np.vectorize(kind, otypes=[object])(z)


def layer(z):
    """Return y (T, B, H) and the last state (B, P): zero-order hold, with conjugate symmetry."""
    T, B, H = z["u"].shape
    P = z["Lambda_re"].size
    y, x = np.empty((T, B, H), object), z["x0"].copy()
    for t, n in product(range(T), range(B)):
        for p in range(P):
            lam = mpmath.mpc(z["Lambda_re"][p], z["Lambda_im"][p])
            step = mpmath.exp(z["log_step"][p, 0]) * (z["dt"][t, n] if "dt" in z else 1)
            a = mpmath.exp(lam * step)
            v = sum(mpmath.mpc(*z["B"][p, h]) * z["u"][t, n, h] for h in range(H))
            x[n, p] = a * x[n, p] + (a - 1) / lam * v
        for h in range(H):
            sums = sum(mpmath.mpc(*z["C"][h, p]) * x[n, p] for p in range(P))
            y[t, n, h] = 2 * sums.real + z["D"][h] * z["u"][t, n, h]
    return y, x


def loss(z):
    """Return what the gradients are those of."""
    y, last = layer(z)
    real = (mpmath.conj(d) * x for d, x in zip(z["dx_last"].flat, last.flat, strict=True))
    return sum((z["dy"] * y).flat) + sum(term.real for term in real)


def slope(z, name, index, direction):
    """Return the derivative of the loss by one number, along 1 or i."""
    ends = []
    for sign in (1, -1):
        moved = z[name].copy()
        moved[index] += sign * STEP * direction
        ends.append(loss(z | {name: moved}))
    return (ends[0] - ends[1]) / (2 * STEP)


def gradient(z, name):
    """Return the gradient by one input; of a complex one ∂/∂Re + i ∂/∂Im."""
    out = np.empty(z[name].shape, complex if name == "x0" else float)
    for index in np.ndindex(out.shape):
        out[index] = float(slope(z, name, index, 1))
        if name == "x0":
            out[index] += 1j * float(slope(z, name, index, mpmath.mpc(0, 1)))
    return out


def flat(z):
    """Return an array as a list of numbers, complex ones as real and imaginary part in turn."""
    return np.ascontiguousarray(z).view(np.float64).reshape(-1).tolist()


def table():
    """Return {case: {output: flat list}} for every case with steps of STEPS."""
    found = {}
    for operation, dtype in product((ssm, ssm_vjp), DTYPES):
        for case in operation.cases(dtype, 0, True):
            if case.name.startswith(tuple(ssm.STEPS)):
                z = {name: numbers(value) for name, value in case.inputs.items()}
                shape = case.options["B"], case.options["P"]
                z["x0"] = numbers(np.zeros(shape, complex))
                if operation is ssm:
                    y, last = layer(z)
                    outputs = {"y": y.astype(float), "x_last": last.astype(complex)}
                else:
                    outputs = {f"d{name}": gradient(z, name) for name in NAMES}
                found[case.id] = {name: flat(value) for name, value in outputs.items()}
    return found


def text():
    """Return the file, a line for each case."""
    with mpmath.workdps(DIGITS):
        lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in table().items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    ssm.EXACT.write_text(text(), encoding="utf-8")
