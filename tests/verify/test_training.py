"""minis5.verify's whole update: minis5's own passes, faulty ones are caught and named."""

import numpy as np
import pytest
from fault_checks import assert_caught_and_named
from sampling import sampled

from minis5 import reference as ref
from minis5.verify import check_training
from minis5.verify.checks import run_operation
from minis5.verify.gradients import check_gradients
from minis5.verify.operations import training
from minis5.verify.operations.ppo_parts import Batch, normalise
from minis5.verify.operations.update import NAMES, ROLLOUT, Rollout, forward, part, update


def test_our_parts_together_pass():
    report = check_training(training.ours)
    assert report.counts["passed"] == len(report.results) > 25


@pytest.mark.parametrize("cause", sampled(training.CAUSES))
def test_a_fault_is_caught_and_named(cause):
    assert_caught_and_named(training.OPERATION, cause)


def test_the_gradient_is_the_slope_of_the_reference():
    """Central differences of the reference's loss of the agent, in one minibatch."""
    cases = training.cases("float64", 0, True)
    case = next(case for case in cases if case.name.startswith("both-clips"))
    o, r = case.options, Rollout(*(case.inputs[name] for name in ROLLOUT))
    params = {key: case.inputs[f"start_{key}"] for key in NAMES}
    group = case.inputs["groups"][0]
    ends = r.terminated, r.done, o["gamma"], o["lam"]
    advantages = ref.gae(r.rewards, r.values, r.next_values, *ends)
    mine, targets = part(r, group), advantages + r.values
    chosen = advantages[:, group]
    normal = normalise(chosen, np.ones(chosen.shape, bool), "population")
    batch = Batch(
        mine.actions, mine.log_probs, mine.values, normal, targets[:, group], normal == normal
    )
    names = ("clip", "value_coef", "entropy_coef", "clip_value")

    def loss(z):
        s = forward(z, mine)
        settings = {name: o[name] for name in names}
        return (
            np.array([ref.ppo_loss(ref.categorical, s["logits"], s["value"], batch, **settings)]),
        )

    grads = update.gradients(params, r, advantages, targets, group, o)
    check_gradients(loss, lambda z, w: {k: w[0] * g for k, g in grads.items()}, params, entries=4)


def test_cases_have_what_their_flags_say():
    for case in training.cases("float64", 0, False):
        z, flags = case.inputs, set(case.flags)
        assert z["reset"].any() == ("reset" in flags)
        assert np.asarray(z["x0"] != 0).any() == ("initial_state" in flags)
        assert (z["done"] & ~z["terminated"]).any() == ("truncation" in flags)
        assert not (z["terminated"] & ~z["done"]).any()
        assert np.isnan(z["x0"]).any() == ("reset_selects" in flags)
        assert all(np.isfinite(array).all() for array in case.expected.values())
        epochs = z["groups"].reshape(-1, case.options["B"])
        assert (np.sort(epochs) == np.arange(case.options["B"])).all()


def test_what_is_returned_wrongly_is_said():
    for train, message in (
        (lambda params, *_, **k: [params], "the params after each of 4 minibatches, got 1"),
        (lambda *_, **k: [None], "train: expected dicts with a_re, a_im"),
    ):
        report = run_operation(
            training.OPERATION, train, dtypes="float64", small=True, flags="core"
        )
        assert any(message in result.message for result in report.results)


def test_small_sets_are_subsets():
    small = {case.name for case in training.cases("float32", 0, True)}
    assert small < {case.name for case in training.cases("float32", 0, False)}
