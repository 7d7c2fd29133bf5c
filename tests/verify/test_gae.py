"""minis5.verify's advantages: right ones pass, faulty ones are caught and named."""

import numpy as np
import pytest
from fault_checks import assert_caught_and_named
from sampling import sampled

from minis5 import reference
from minis5.rl.gae import gae as our_gae
from minis5.verify import check_gae
from minis5.verify.checks import Failed, run_operation
from minis5.verify.operations import gae


@pytest.mark.parametrize("function", [our_gae, reference.gae])
def test_right_functions_pass(function):
    report = check_gae(function)
    assert report.counts["passed"] == len(report.results) > 120


@pytest.mark.parametrize("cause", sampled([cause for cause in gae.CAUSES if "chunk" not in cause]))
def test_a_fault_is_caught_and_named(cause):
    assert_caught_and_named(gae.OPERATION, cause)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_a_lost_carry_is_caught_in_the_whole_set(size):
    (cause,) = (cause for cause in gae.CAUSES if f"chunks of {size} " in cause)
    cases = {c.name: c for c in gae.cases("float64", 0, False)}

    def function(*arguments):
        name = next(names)
        return gae.CAUSES[cause](cases[name])["advantages"]

    names = iter(cases)
    report = run_operation(gae.OPERATION, function, dtypes="float64")
    assert cause in {r.cause for r in report.results if r.status == "failed"}


def cleanrl(rewards, values, next_values, terminated, done, gamma, lam):
    """The usual code with one flag for both ends, which knows the last next value alone."""
    del terminated
    advantages, later = np.zeros_like(rewards), np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        alive = 1.0 - done[t]
        after = values[t + 1] if t + 1 < len(values) else next_values[-1]
        later = rewards[t] + gamma * after * alive - values[t] + gamma * lam * alive * later
        advantages[t] = later
    return advantages


def test_code_that_knows_no_truncation_passes_the_rest():
    check_gae(cleanrl, flags="no-truncation")
    with pytest.raises(Failed, match="truncation is treated as termination") as caught:
        check_gae(cleanrl, flags="no-reset_selects")
    failed = [r for r in caught.value.report.results if r.status == "failed"]
    assert failed and all("truncation" in result.flags for result in failed)


def test_small_sets_are_subsets():
    small = {case.name for case in gae.cases("float32", 0, True)}
    assert small < {case.name for case in gae.cases("float32", 0, False)}
