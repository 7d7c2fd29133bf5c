"""Whether minis5.verify catches and names the faults that it knows itself, shared by the tests."""

from functools import cache

import numpy as np

from minis5.verify.case import cast
from minis5.verify.compare import first_wrong
from minis5.verify.judge import judge
from minis5.verify.report import Report

MOST = 8  # about so many failing cases are asked for their cause; each tries all causes


@cache
def some_cases(operation_cases, dtype, small):
    """Return the cases of one dtype."""
    return list(operation_cases(dtype, 0, small))


def assert_caught_and_named(operation, cause, *, small=True):
    """Assert that an implementation with a fault, in either dtype, fails, and that the fault is
    said to be the cause.
    """
    for dtype in ("float32", "float64"):
        failing = []
        for case in some_cases(operation.cases, dtype, small):
            with np.errstate(all="ignore"):
                outputs = operation.causes[cause](case)
                outputs = {name: cast(np.asarray(z), dtype) for name, z in outputs.items()}
            if first_wrong(case, outputs):
                failing.append((case, outputs))
        assert failing, f"{cause}: not caught in {dtype}"
    some = failing[:: max(1, len(failing) // MOST)]
    report = Report(judge(operation, *pair) for pair in some)
    assert cause in {result.cause for result in report.results}, report.text()
