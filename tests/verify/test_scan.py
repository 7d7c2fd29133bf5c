"""minis5.verify's scan: right ones pass, faulty ones are caught and named."""

import numpy as np
import pytest
from sampling import sampled

import minis5
from minis5 import reference
from minis5.verify import check_scan
from minis5.verify.checks import run_operation
from minis5.verify.operations import scan


def faulty(cause):
    """Return a function that has a fault."""

    def function(a, b, reset=None, x0=None):
        inputs = {"a": a, "b": b, "reset": reset, "x0": x0}
        given = {name: z for name, z in inputs.items() if z is not None}
        case = scan.Case("scan", "", (), "", {}, given, {})
        with np.errstate(all="ignore"):
            return scan.CAUSES[cause](case)["x"].astype(b.dtype)

    return function


@pytest.mark.parametrize("function", [minis5.scan, reference.scan])
def test_right_functions_pass(function):
    report = check_scan(function)
    assert report.counts["passed"] == len(report.results) > 150


@pytest.mark.parametrize("cause", sampled(scan.CAUSES))
def test_a_fault_is_caught_and_named(cause):
    small = "chunk" not in cause  # the size of a chunk shows in long sequences
    report = run_operation(scan.OPERATION, faulty(cause), dtypes="float32", small=small)
    assert not report.passed
    named = {result.cause for result in report.results if result.status == "failed"}
    assert cause in named


def test_a_multiplying_reset_fails_where_it_must_and_nowhere_else():
    cause = next(cause for cause in scan.CAUSES if "multiplies" in cause)
    report = run_operation(scan.OPERATION, faulty(cause))
    failed = {result.id for result in report.results if result.status == "failed"}
    assert failed == {r.id for r in report.results if "reset_selects" in r.flags} != set()


def test_small_sets_are_subsets():
    small = {case.name for case in scan.cases("float32", 0, True)}
    assert small < {case.name for case in scan.cases("float32", 0, False)}
