"""Checks from Python: what is passed, what an exception or a missing argument means."""

import numpy as np
import pytest

import minis5
from minis5.verify import CHECKS, check_gae, check_scan, check_scan_vjp
from minis5.verify.checks import OWN_LIMITS, Failed, run_operation, run_own
from minis5.verify.operations import OPERATIONS
from minis5.verify.operations.scan_vjp import CAUSES

SCAN = OPERATIONS["scan"]


def statuses(report):
    return {result.status for result in report.results}


def test_a_function_gets_both_precisions_and_only_what_it_needs():
    seen = set()

    def spy(a, b, reset=False, x0=False):
        kinds = (reset is False, x0 is False)
        seen.add((a.dtype.name, b.dtype.name, kinds))
        assert reset is False or reset is None or reset.dtype == bool
        return minis5.scan(a, b, None if reset is False else reset, None if x0 is False else x0)

    check_scan(spy, small=True)
    assert {kind for kind, _, _ in seen} == {"float32", "float64", "complex64", "complex128"}
    assert all(one == other for one, other, _ in seen)
    assert {kinds for _, _, kinds in seen} == {(True, True), (False, True), (False, False)}


def test_what_a_function_does_to_its_arguments_does_not_matter():
    def spoils(a, b, reset=None, x0=None):
        x = minis5.scan(a, b, reset, x0)
        b[:] = np.nan
        return x

    assert check_scan(spoils, small=True).passed


def test_an_argument_that_is_not_taken_is_not_implemented():
    def bare(a, b):
        return minis5.scan(a, b)

    report = run_operation(SCAN, bare, small=True)
    need = {"reset", "reset_selects", "initial_state"}
    assert statuses(report) == {"passed", "missing"} and not report.passed
    for result in report.results:
        assert (result.status == "missing") is bool(need & set(result.flags)), result.line
    assert check_scan(bare, flags="core,complex,varying,chunked,long").passed
    assert check_scan(bare, xfail=need | {"extreme", "subnormal"}, small=True).passed


def test_not_implemented_error():
    def real_only(a, b, reset=None, x0=None):
        if a.dtype.kind == "c":
            raise NotImplementedError("complex numbers")
        return minis5.scan(a, b, reset, x0)

    report = run_operation(SCAN, real_only, small=True)
    messages = {r.message for r in report.results if r.status == "missing"}
    assert messages == {"not implemented: complex numbers"}
    assert check_scan(real_only, flags="no-complex").passed


def test_an_exception_is_the_case_s_failure_in_its_own_words():
    def powers_of_two(a, b, reset=None, x0=None):
        if len(b) & (len(b) - 1):
            raise ValueError(f"length {len(b)} is no power of 2")
        return minis5.scan(a, b, reset, x0)

    with pytest.raises(Failed) as caught:
        check_scan(powers_of_two, dtypes="float32")
    failed = [r for r in caught.value.report.results if r.status == "failed"]
    assert "raised ValueError: length 33 is no power of 2" in {r.message for r in failed}
    assert all("no power of 2" in result.message for result in failed)


def test_interruption_passes():
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_scan(interrupted)


def test_one_assertion_error_has_the_report():
    with pytest.raises(AssertionError) as caught:
        check_gae(lambda *arguments: arguments[0], dtypes="float64", seed=3)
    text = str(caught.value)
    assert "FAILED gae/" in text and "… and " in text and "probable" in text
    assert text.splitlines()[-1].startswith("FAILED in ")
    assert len(caught.value.report.results) > 60


def test_results_of_another_number_are_said():
    report = run_operation(OPERATIONS["scan_vjp"], lambda *a: (1, 2), small=True, dtypes="float32")
    wanted = "raised TypeError: expected 3 results, da, db, dx0, got 2; return a tuple of them"
    assert {r.message for r in report.results if r.status == "failed"} == {wanted}


def test_gradients_in_jax_s_convention_are_named():
    def jax(a, b, reset, x0, x, dx):
        return tuple(map(np.conj, minis5.scan_vjp(a, b, reset, x0, x, dx)))

    with pytest.raises(Failed, match="as JAX returns them") as caught:
        check_scan_vjp(jax, small=True)
    failed = [r for r in caught.value.report.results if r.status == "failed"]
    assert all("complex" in result.flags for result in failed)
    assert sum(result.cause in CAUSES for result in failed) > 0.9 * len(failed)


def test_another_seed_makes_other_numbers():
    seen = []

    def spy(a, b, reset=None, x0=None):
        seen.append(b.tobytes())
        return minis5.scan(a, b, reset, x0)

    for seed in (0, 1, 0):
        check_scan(spy, seed=seed, small=True, flags="core", dtypes=["float64"])
    third = len(seen) // 3
    assert seen[:third] == seen[2 * third :] != seen[third : 2 * third]


def test_what_cannot_be_asked():
    for options, message in (
        ({"dtypes": "float16"}, "dtypes: expected one of 'float32', 'float64', got 'float16'"),
        ({"seed": "one"}, "seed: expected an integer"),
        ({"flags": "fast"}, "flags: expected names of flags, got 'fast'"),
        ({"xfail": ["fast"]}, "xfail: expected a case, a pattern of cases or a flag, got 'fast'"),
    ):
        with pytest.raises(ValueError, match=message):
            check_scan(minis5.scan, **options)
    with pytest.raises(TypeError, match="function: expected a callable, got str; pass the func"):
        check_scan("minis5.scan")


def test_ours_pass_on_the_set_that_ships():
    report = run_own()
    assert report.passed and report.counts["passed"] > 300
    assert all(set(OWN_LIMITS) & set(r.flags) for r in report.results if r.status == "xfail")
    assert {result.operation for result in report.results} == {
        name for name, operation in OPERATIONS.items() if operation.ours is not None
    }
    assert {r.operation for r in run_own(flags="core").results} <= set(OPERATIONS)


def test_every_check_has_a_name_on_the_command_line():
    import minis5.verify

    public = {name for name in minis5.verify.__all__ if name.startswith("check_")}
    assert {check.__name__ for check in CHECKS.values()} <= public
