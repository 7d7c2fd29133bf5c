"""From outputs to a result: the case at hand is an addition, whose faults are a forgotten term."""

import numpy as np
import pytest

from minis5.verify.case import Case, Operation
from minis5.verify.judge import judge, not_implemented, our_accuracy, raised


def missing_b(case):
    return {"x": case.inputs["a"]}


def no_such_input(case):
    return {"x": case.inputs["c"]}


def call(function, case):
    return {"x": function(case.inputs["a"], case.inputs["b"])}


ADDITION = Operation("add", "", lambda *a: iter(()), call, {}, lambda a, b: a + b * (1 + 1e-9))
CAUSES = {"cannot be": no_such_input, "b is forgotten": missing_b, "b is lost": missing_b}
OPERATION = ADDITION._replace(causes=CAUSES)


def case_of(*flags):
    a, b = np.arange(4.0), np.full(4, 2.0)
    options = {"T": 4}
    return Case("add", "one", flags, "float64", options, {"a": a, "b": b}, {"x": a + b})


def test_right():
    result = judge(OPERATION, case_of("core"), {"x": np.arange(4.0) + 2})
    assert (result.status, result.message, result.causes, result.accuracy) == ("passed", "", (), 0)
    assert result.ours is None and result.id == "add/one"


def test_wrong_with_its_causes():
    result = judge(OPERATION, case_of("core"), {"x": np.arange(4.0)})
    assert result.status == "failed" and result.causes == ("b is forgotten", "b is lost")
    assert result.message.startswith("x[0]: expected 2, got 0") and result.wrong.at == (0,)
    assert result.accuracy == pytest.approx(2 / 5)


def test_a_fault_may_show_in_some_outputs_only():
    """The loss is wrong, its gradient by hand is right."""

    def outputs(x, y):
        return {"x": np.full(4, x), "y": np.full(4, y)}

    both = {"both": lambda case: outputs(3.0, 5.0), "another": lambda case: outputs(2.0, 5.0)}
    case = case_of("core")._replace(expected=outputs(1.0, 4.0))
    for got, causes in (
        (outputs(3.0, 5.0), ("both",)),
        (outputs(3.0, 4.0), ("both",)),
        (outputs(2.0, 4.0), ("another",)),
        (outputs(1.0, 5.0), ("both", "another")),
        (outputs(3.0, 6.0), ()),
    ):
        assert judge(ADDITION._replace(causes=both), case, got).causes == causes


def test_zeros_of_a_fault_are_not_tiny_numbers():
    case = case_of("core")._replace(expected={"x": np.full(4, 1e-20)})
    zero = {"all is zero": lambda case: {"x": np.zeros(4)}}
    assert judge(ADDITION._replace(causes=zero), case, {"x": np.full(4, 3e-20)}).causes == ()
    assert judge(ADDITION._replace(causes=zero), case, {"x": np.zeros(4)}).causes


def test_wrong_without_a_cause():
    result = judge(OPERATION, case_of("core"), {"x": np.arange(4.0) + 3})
    assert result.status == "failed" and result.causes == ()


@pytest.mark.parametrize("flag", ["long", "subnormal"])
def test_some_cases_inform_only(flag):
    result = judge(OPERATION, case_of(flag), {"x": np.arange(4.0)})
    assert result.status == "informational" and result.causes == ()
    assert raised(case_of(flag), ValueError("no")).status == "informational"


def test_long_cases_have_our_accuracy():
    result = judge(OPERATION, case_of("long"), {"x": np.arange(4.0) + 2})
    assert result.status == "passed" and result.ours == pytest.approx(2e-9 / 5, rel=1e-3)
    assert our_accuracy(OPERATION._replace(ours=None), case_of("long")) is None


def test_not_tried():
    result = not_implemented(case_of("core"), "no file x.npy")
    assert (result.status, result.message) == ("missing", "not implemented: no file x.npy")
    result = raised(case_of("core"), RuntimeError("two\n lines"))
    assert (result.status, result.message) == ("failed", "raised RuntimeError: two lines")
    assert raised(case_of("core"), KeyError()).message == "raised KeyError"
    assert len(raised(case_of("core"), ValueError("x" * 1000)).message) < 350


def test_a_fault_that_errs_as_little_is_not_blamed():
    """An error of 6e-14 is within the tolerance of one of 5e-14, but that is no evidence."""
    case = case_of("core")
    right = case.expected["x"]
    faults = {"too large": lambda case: {"x": right * (1 + 5e-14)}}
    operation = ADDITION._replace(causes=faults)
    result = judge(operation, case, {"x": right * (1 + 6e-14)})
    assert result.status == "failed" and result.causes == ()
    faults["larger"] = lambda case: {"x": right * (1 + 6.01e-14)}
    assert judge(operation, case, {"x": right * (1 + 6e-14)}).causes == ("larger",)
