"""From what a function or a program gave for a case to a result.

Leaves out: reading files (folders.py), calling functions (checks.py). Tests:
tests/verify/test_judge.py.
"""

from typing import Any

import numpy as np

from minis5.verify.case import Case, Operation
from minis5.verify.compare import accuracy, agrees, as_numbers, first_wrong
from minis5.verify.flags import INFORMATIONAL
from minis5.verify.report import Result


def judge(operation: Operation, case: Case, outputs: dict[str, Any]) -> Result:
    """Return the result of a case from its outputs, {name: array}."""
    wrong = first_wrong(case, outputs)
    informs = bool(INFORMATIONAL & set(case.flags))
    causes: tuple[str, ...] = ()
    if wrong is not None and not informs:
        fits = {cause: _fit(case, outputs, f) for cause, f in operation.causes.items()}
        best = max(fits.values(), default=0)
        causes = tuple(cause for cause, fit in fits.items() if fit == best > 0)
    return Result(
        operation=case.operation,
        case=case.name,
        flags=case.flags,
        dtype=case.dtype,
        status="passed" if wrong is None else "informational" if informs else "failed",
        message="" if wrong is None else wrong.words,
        wrong=wrong,
        causes=causes,
        accuracy=accuracy(case, outputs),
        ours=our_accuracy(operation, case) if "long" in case.flags else None,
    )


def not_implemented(case: Case, why: str) -> Result:
    """Return the result of a case that was not tried."""
    parts = case.operation, case.name, case.flags, case.dtype
    return Result(*parts, "missing", f"not implemented: {why}")


def raised(case: Case, error: Exception) -> Result:
    """Return the result of a case in which a function raised an exception."""
    words = " ".join(str(error).split())
    words = f"raised {type(error).__name__}" + (f": {words[:300]}" if words else "")
    status = "informational" if INFORMATIONAL & set(case.flags) else "failed"
    return Result(case.operation, case.name, case.flags, case.dtype, status, words)


def our_accuracy(operation: Operation, case: Case) -> float | None:
    """Return the accuracy of minis5's own function on a case; None if there is none."""
    if operation.ours is None:
        return None
    with np.errstate(all="ignore"):
        return accuracy(case, operation.call(operation.ours, case))


def _fit(case, outputs, outputs_of):
    """Return 2 if a fault would have given these outputs, 1 if those that are wrong, else 0.

    Whoever writes gradients by hand may have a fault in the loss, but not in its gradients.
    """
    with np.errstate(all="ignore"):
        try:
            faulty = outputs_of(case)
        except (KeyError, ValueError, IndexError, ZeroDivisionError):
            return 0  # this fault cannot be in such a case
        faulty = {k: faulty.get(k, z) for k, z in case.expected.items()}
        if agrees(case, outputs, faulty) and _is_nearer(case, outputs, faulty):
            return 2
        right = {k: z for k, z in case.expected.items() if agrees(case, outputs, {k: z})}
        mixed = faulty | right
        return int(agrees(case, outputs, mixed) and _is_nearer(case, outputs, mixed))


def _is_nearer(case, outputs, faulty):
    """Return whether outputs are ten times nearer to those of a fault than to what is expected.

    A small error is within the tolerance of a fault that would give a small error too. Where NaN or
    Inf is wrong, there is nothing to measure.
    """
    for name, z in case.expected.items():
        array = as_numbers(outputs.get(name))
        if array is None or (np.isfinite(array) != np.isfinite(z)).any():
            return True
    error, distance = accuracy(case, outputs), accuracy(case._replace(expected=faulty), outputs)
    return error is None or distance is None or distance <= 0.1 * error
