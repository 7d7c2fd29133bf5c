"""minis5.verify's S5 layer: what is expected is right, right layers pass, faults are named."""

import numpy as np
import pytest
from fault_checks import assert_caught_and_named, some_cases
from sampling import sampled

import minis5
from minis5 import reference
from minis5.verify import check_ssm, check_ssm_vjp
from minis5.verify.checks import Failed, run_operation
from minis5.verify.gradients import check_gradients
from minis5.verify.operations import ssm, ssm_vjp
from minis5.verify.operations.ssm_stages import LAYER, forward
from minis5.verify.operations.ssm_vjp_faults import GRADIENTS

REGULAR = [
    case
    for case in some_cases(ssm_vjp.cases, "float64", True)
    if "extreme" not in case.flags and "reset_selects" not in case.flags
]


@pytest.mark.parametrize("case", REGULAR, ids=lambda case: case.name)
def test_expected_gradients_are_those_of_the_reference(case):
    """By central differences of reference.ssm, with the case's own gradients of both outputs."""
    x0 = case.inputs.get("x0", np.zeros((case.options["B"], case.options["P"]), complex))
    inputs = {name: case.inputs[name] for name in (*LAYER, "u")} | {"x0": x0}
    dx_last = case.inputs.get("dx_last", np.zeros_like(x0))
    weights = case.inputs["dy"], dx_last

    def run(z):
        outputs = ssm.reference_ssm(case.inputs | z, case.options)
        return tuple(np.real(np.conj(w) * y) for w, y in zip(weights, outputs, strict=True))

    def backward(z, cotangents):
        changed = {"dy": cotangents[0] * weights[0], "dx_last": cotangents[1] * weights[1]}
        inputs = case.inputs | {"x0": x0} | changed
        stages = ssm_vjp.backward(case._replace(inputs=inputs))
        return {name: stages[f"d{name}"] for name in inputs if name in z}

    check_gradients(run, backward, inputs, entries=2)
    stages = ssm_vjp.backward(case)
    for name in GRADIENTS:
        assert np.array_equal(stages[name], case.expected[name])


@pytest.mark.parametrize("case", some_cases(ssm.cases, "float64", True), ids=lambda case: case.name)
def test_stages_are_the_reference(case):
    with np.errstate(invalid="ignore"):
        stages = forward(case)
    for name, expected in case.expected.items():
        scale = np.nanmax(np.abs(expected))
        np.testing.assert_allclose(stages[name], expected, atol=1e-13 * scale, rtol=0)


def test_right_layers_pass():
    report = check_ssm(minis5.s5.ssm_forward, minis5.s5.ssm_backward)
    assert report.counts["passed"] == len(report.results) > 200
    assert {result.operation for result in report.results} == {"ssm", "ssm_vjp"}
    report = check_ssm(reference.ssm, flags="no-extreme,no-long")
    assert report.counts["passed"] == len(report.results) > 80


def test_gradients_of_one_function_pass():
    report = check_ssm_vjp(ssm_vjp.OPERATION.ours, small=True)
    assert report.counts["passed"] == len(report.results) > 40


@pytest.mark.parametrize("cause", sampled(ssm.FORWARD_CAUSES))
def test_a_fault_is_caught_and_named(cause):
    assert_caught_and_named(ssm.OPERATION, cause)


@pytest.mark.parametrize("cause", sampled(ssm_vjp.BACKWARD_CAUSES))
def test_a_fault_of_the_gradients_is_caught_and_named(cause):
    assert_caught_and_named(ssm_vjp.OPERATION, cause)


def plain(layer, u):
    """A textbook's S5 layer: no reset, no initial state, no options."""
    lam = (layer["Lambda_re"] + 1j * layer["Lambda_im"]).astype(np.complex128)
    step = np.exp(layer["log_step"][:, 0].astype(np.float64))
    a = np.exp(lam * step)
    B, C = (layer[name][..., 0] + 1j * layer[name][..., 1] for name in "BC")
    x, y = np.zeros((u.shape[1], lam.size), complex), np.zeros(u.shape)
    for t in range(len(u)):
        x = a * x + (a - 1.0) / lam * (u[t] @ B.T)
        y[t] = 2.0 * (x @ C.T).real + layer["D"] * u[t]
    return y, x


def test_a_layer_that_can_less_passes_what_it_can():
    report = check_ssm(plain, flags="core,chunked")
    assert report.counts["passed"] == len(report.results) > 5
    with pytest.raises(Failed) as caught:
        check_ssm(plain, flags="no-extreme")
    results = caught.value.report.results
    assert {r.status for r in results if set(r.flags) - {"core", "chunked", "long"}} == {"missing"}


def test_the_usual_formula_cancels():
    report = run_operation(ssm.OPERATION, plain, flags="extreme", dtypes="float64")
    failed = {r.case for r in report.results if r.status == "failed"}
    assert any(name.startswith("tiny-steps-regular") for name in failed)


@pytest.mark.parametrize(
    "result, message",
    [(np.zeros(3), "expected at least 2 results, y and x_last, got ndarray"), ((1,), "got 1;")],
)
def test_what_is_returned_wrongly_is_said(result, message):
    report = run_operation(ssm.OPERATION, lambda *a, **k: result, small=True, dtypes="float32")
    assert all(message in r.message for r in report.results)


def test_gradients_that_are_returned_wrongly_are_said():
    for result, message in (
        ((1, 2), "expected 3 results, du, dx0, grads, got 2"),
        ((1, 2, {"D": 1}), "grads: expected a dict with Lambda_re, Lambda_im, B, C, D, log_step"),
    ):

        def function(*arguments, result=result, **keywords):
            return result

        report = run_operation(ssm_vjp.OPERATION, function, small=True, dtypes="float32")
        assert all(message in r.message for r in report.results)


def test_the_data_of_50_digits_are_what_their_script_makes():
    pytest.importorskip("mpmath")
    import exact_ssm

    assert exact_ssm.text() == ssm.EXACT.read_text(encoding="utf-8")


def test_the_data_of_50_digits_are_those_of_the_reference_where_it_is_right():
    """Float64 loses nothing in large steps, and three digits of the smallest."""
    used = 0
    for case in some_cases(ssm.cases, "float64", True):
        if case.name.startswith(tuple(ssm.STEPS)):
            y, x_last = ssm.reference_ssm(case.inputs, case.options)
            for got, name in ((y, "y"), (x_last, "x_last")):
                scale = np.abs(case.expected[name]).max()
                np.testing.assert_allclose(got, case.expected[name], rtol=0, atol=1e-13 * scale)
            used += 1
    assert used == 6


def test_small_sets_are_subsets():
    for module in (ssm, ssm_vjp):
        whole = {case.name: case for case in module.cases("float32", 0, False)}
        for case in module.cases("float32", 0, True):
            other = whole[case.name]
            assert case.inputs.keys() == other.inputs.keys()
            for name, z in case.inputs.items():
                np.testing.assert_array_equal(z, other.inputs[name])
