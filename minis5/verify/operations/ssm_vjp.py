"""The gradients of the S5 layer: the cases are those of its forward pass, with a gradient of the
output and, in every second one, of the last state.

Leaves out the large steps, whose gradients vanish or are what cancellation leaves.

The expected gradients are those of ssm_stages.py, which central differences of reference.ssm
confirm in the tests; for extreme steps they are derivatives with 50 digits (exact_ssm.json).
Tests: tests/verify/test_ssm.py.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minis5.nn.s5 import ssm_backward, ssm_forward
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations.scan import resets_at
from minis5.verify.operations.scan_vjp import named
from minis5.verify.operations.ssm import (
    ARGUMENTS,
    Shape,
    Trial,
    arguments,
    exact_outputs,
    problem,
    trials,
)
from minis5.verify.operations.ssm_stages import LAYER, backward
from minis5.verify.operations.ssm_vjp_faults import BACKWARD_CAUSES, GRADIENTS

LEFT_OUT = "large-steps"


def poisoned(dtype: str, seed: int) -> Iterator[Trial]:
    """Yield cases where the gradient of an output after a reset is NaN."""
    for irregular in (False, True):
        shape = Shape(6, 2, 2, 2, start=True, irregular=irregular)
        name = f"nan-after-reset-{'irregular' if irregular else 'regular'}-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        inputs["reset"] = resets_at(shape, (3, 0), (4, 1))
        inputs["dy"] = gradient_of(inputs["u"], dtype, seed, name)
        inputs["dy"][4, 0] = np.nan
        yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)


def gradient_of(u: np.ndarray, dtype: str, seed: int, name: str) -> np.ndarray:
    """Return dy."""
    return rounded(uniform(draws(seed, "ssm_vjp", name), u.shape), dtype)


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases."""
    for name, flags, shape, inputs in (*trials(dtype, seed, small), *poisoned(dtype, seed)):
        if name.startswith(LEFT_OUT):
            continue
        fixed = 0 if "extreme" in flags else seed  # exact_ssm.json has these cases' gradients
        if "dy" not in inputs:
            inputs["dy"] = gradient_of(inputs["u"], dtype, fixed, name)
        if draws(0, "has dx_last", name).random() < 0.5 or "extreme" in flags:  # of any seed
            rng = draws(fixed, "ssm_vjp last", name)
            last = uniform(rng, (shape.B, shape.P), is_complex=True)
            inputs["dx_last"] = rounded(last, dtype)
        gradients = frozenset(GRADIENTS)
        case = Case("ssm_vjp", name, flags, dtype, shape.options, inputs, {}, gradients, shape.T)
        with np.errstate(all="ignore"):
            stages = backward(case)
        expected = exact_outputs(case.id, {name: stages[name] for name in GRADIENTS})
        yield case._replace(expected=expected)


def call(function, case: Case) -> dict[str, Any]:
    """Return the gradients by name, of function(layer, u, reset, x0, dy, dx_last, **options)."""
    positional, keywords = arguments(case)
    z = case.cast()
    names = (*ARGUMENTS, "dy", "dx_last")
    results = invoke(function, *positional, z["dy"], z.get("dx_last"), names=names, **keywords)
    gradients = named(results, ("du", "dx0", "grads"))
    grads = gradients.pop("grads")
    if not isinstance(grads, dict) or not set(LAYER) <= set(grads):
        got = f"the keys {', '.join(grads)}" if isinstance(grads, dict) else type(grads).__name__
        raise TypeError(f"grads: expected a dict with {', '.join(LAYER)}, got {got}")
    return gradients | {f"d{name}": grads[name] for name in LAYER}


def vjp_of(forward: Callable, backward: Callable) -> Callable:
    """Return a function of layer, u, reset, x0, dy, dx_last from a forward and a backward pass.

    ``forward`` returns a cache as its last result; ``backward`` is called (dy, dx_last, cache).
    """

    def vjp(layer, u, reset, x0, dy, dx_last, **options):
        *_, kept = invoke(forward, layer, u, reset, x0, **options)
        return invoke(backward, dy, dx_last, kept)

    return vjp


OPERATION = Operation(
    name="ssm_vjp",
    about="""du, dx0, grads = ssm_vjp(layer, u, reset, x0, dy, dx_last, **options), the gradients of
ssm: of the sum of dy·y and Re(conj(dx_last)·x_last). Arguments and options are those of ssm, dy
(T, B, H), dx_last complex (B, P) or None for zero. du (T, B, H), dx0 complex (B, P) also if x0 is
None, grads a dict with the names and shapes of layer. Files have dLambda_re, dLambda_im, dB, dC, dD
and dlog_step. The gradient of a complex z is ∂L/∂Re z + i ∂L/∂Im z. Where clip_eigs holds Re Λ,
dLambda_re is 0.""",
    cases=cases,
    call=call,
    causes=BACKWARD_CAUSES,
    ours=vjp_of(ssm_forward, ssm_backward),
)
