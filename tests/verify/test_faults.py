"""The kit catches every fault of the catalogue and names it, and passes what is right.

A fault is tried in float32 and in float64, on the small set of cases.
"""

from functools import cache

import numpy as np
import pytest
from faults import FAULTS, OPERATION, build
from other_cores import WRONG_COLLECTORS, WRONG_CORES
from other_envs import WRONG
from sampling import sampled

from minis5.verify.checks import run_operation
from minis5.verify.flags import FLAGS
from minis5.verify.operations import OPERATIONS


@cache
def cases(name, dtype, small):
    """Return the cases of an operation but the long ones, which only inform."""
    return [case for case in OPERATIONS[name].cases(dtype, 0, small) if "long" not in case.flags]


def run(operation, function, chosen, dtype):
    """Return the report on a function tried on ``chosen`` cases."""
    operation = operation._replace(cases=lambda *_: iter(chosen))
    with np.errstate(all="ignore"):
        return run_operation(operation, function, dtypes=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of", OPERATION)
def test_right_implementations_pass(of, dtype):
    operation = OPERATIONS[OPERATION[of]]
    report = run(operation, build(of), cases(operation.name, dtype, False), dtype)
    assert report.passed and report.counts["missing"] == 0, report.text(most=5)


@pytest.mark.parametrize("fault", sampled(FAULTS), ids=lambda fault: f"{fault.of}: {fault.name}")
def test_a_fault_is_caught_and_named(fault):
    function = build(fault.of, fault.old, fault.new)
    operation = OPERATIONS[fault.operation]
    for dtype in fault.only:
        chosen = cases(operation.name, dtype, fault.set == "small")
        report = run(operation._replace(causes={}), function, chosen, dtype)
        failed = {each.case: each for each in report.results if each.status == "failed"}
        assert any(fault.fails in each.flags for each in failed.values()), report.text(most=5)
        wrong = [name for name, each in failed.items() if set(each.flags) <= set(fault.passes)]
        assert not wrong, wrong
        # the causes, of some cases
        some = [case for case in chosen if case.name in failed and fault.fails in case.flags]
        some = sorted(some, key=lambda case: -case.steps)[:6]  # a short one has several causes
        report = run(operation, function, some, dtype)
        named = {each.cause for each in report.results}
        assert any(fault.cause in cause for cause in named), (named, report.text(most=5))


def test_the_catalogue_is_large_and_without_repetition():
    edits = {(fault.of, fault.old, fault.new) for fault in FAULTS}
    assert len(edits) == len(FAULTS) >= 250
    assert all(fault.old != fault.new and fault.fails in FLAGS for fault in FAULTS)
    assert {flag for fault in FAULTS for flag in fault.passes} <= FLAGS.keys()
    assert {fault.operation for fault in FAULTS} == set(OPERATION.values())
    assert len(FAULTS) + len(WRONG) + len(WRONG_CORES) + len(WRONG_COLLECTORS) >= 320


def test_the_faults_of_well_known_code_are_there():
    """Those of environments, replays and shared norms are in files of their own."""
    found = " ".join(fault.found_in for fault in FAULTS)
    for peer in ("popjaxrl", "memax", "CleanRL", "gymnax", "s5-pytorch", "accelerated-scan"):
        assert peer in found
    assert "flash-linear-attention" in found
    told = {(words, task) for words, task, *_ in WRONG}
    past = "an episode has {} steps instead of {}: it goes on past the deck"
    for family in ("RepeatPrevious", "RepeatFirst", "HigherLower", "CountRecall"):
        assert (past.format(52, 51), f"{family}Easy") in told
    assert (past.format(105, 103), "AutoencodeEasy") in told
    assert ("the task cannot be solved", "AutoencodeEasy") in told
    assert ("2 actions: a count above 1 cannot be answered", "CountRecallEasy") in told
    assert ("actions are not projected", "PositionOnlyCartPoleEasy") in told
    assert {"leak", "no flag", "lost", "cut"} <= WRONG_COLLECTORS.keys()


def test_a_library_without_resets_or_initial_states_learns_which_cases_it_lacks():
    """As s5-pytorch and accelerated-scan are."""
    scan = build("scan")
    for function, lacking in (
        (lambda a, b: scan(a, b), {"reset", "reset_selects", "initial_state"}),
        (lambda a, b, reset=None: scan(a, b, reset), {"initial_state"}),
    ):
        report = run(OPERATIONS["scan"], function, cases("scan", "float32", True), "float32")
        assert not report.passed and report.counts["failed"] == 0
        for result in report.results:
            assert (result.status == "missing") >= bool(
                lacking & {"initial_state"} & {*result.flags}
            )
            assert result.status in ("passed", "informational") or lacking & {*result.flags}
        flags = ",".join(f"no-{flag}" for flag in lacking)
        assert run_operation(OPERATIONS["scan"], function, small=True, flags=flags).passed
