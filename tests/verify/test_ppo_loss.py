"""minis5.verify's loss: right ones pass, faulty ones are caught and named, gradients are right."""

import numpy as np
import pytest
from fault_checks import assert_caught_and_named
from sampling import sampled

from minis5 import reference as ref
from minis5.rl.loss import Batch as OurBatch
from minis5.verify import check_ppo_loss
from minis5.verify.checks import run_operation
from minis5.verify.gradients import check_gradients
from minis5.verify.operations import ppo_loss
from minis5.verify.operations.ppo_parts import Batch, normalise

CASES = {case.name: case for case in ppo_loss.cases("float64", 0, False)}


def textbook(params, value, batch, *, clip, value_coef, entropy_coef):
    """The plain loss, as one writes it for logits."""
    top = params - params.max(axis=1, keepdims=True)
    log_p = top - np.log(np.exp(top).sum(axis=1, keepdims=True))
    ratio = np.exp(log_p[np.arange(len(value)), batch.actions] - batch.log_probs)
    both = ratio * batch.advantages, np.clip(ratio, 1 - clip, 1 + clip) * batch.advantages
    value_loss = 0.5 * np.mean((value - batch.returns) ** 2)
    entropy = -np.mean((np.exp(log_p) * log_p).sum(axis=1))
    return -np.mean(np.minimum(*both)) + value_coef * value_loss - entropy_coef * entropy


def test_our_loss_passes():
    report = check_ppo_loss(ppo_loss.ours)
    assert report.counts["passed"] == len(report.results) > 70


def test_a_loss_without_the_extras_passes_core():
    report = check_ppo_loss(textbook, gradients=False, flags="core")
    assert report.counts["passed"] == len(report.results) > 15
    with np.errstate(all="ignore"):
        report = run_operation(ppo_loss.LOSS_ALONE, textbook)
    assert report.by_flag["clip_value"]["missing"] and report.by_flag["gaussian"]["missing"]
    assert not report.by_flag["core"]["missing"] and report.by_flag["masks"]["failed"]
    masks = {result.cause for result in report.results if "masks" in result.flags}
    assert "p log p is NaN where p is 0" in masks


@pytest.mark.parametrize("cause", sampled(ppo_loss.CAUSES))
def test_a_fault_is_caught_and_named(cause):
    assert_caught_and_named(ppo_loss.OPERATION, cause, small="dual" not in cause)


@pytest.mark.parametrize("name", [n for n in CASES if "N6" in n and "nan" not in n])
def test_gradients_are_the_slopes_of_the_reference(name):
    """Central differences; no case lies on the edge of a clip."""
    case = CASES[name]
    inputs, options = case.inputs, case.options
    batch = Batch(*(inputs[key] for key in Batch._fields))
    batch = batch._replace(
        advantages=normalise(batch.advantages, batch.valid, options["normalize"])
    )
    row = OurBatch(*(z[None] for z in batch))
    dist = ppo_loss.KINDS[options["distribution"]]
    names = ("clip", "value_coef", "entropy_coef", "clip_value")
    free = np.isfinite(inputs["params"])

    def forward(z):
        params = np.where(free, 0.0, inputs["params"])
        params[free] = z["params"]
        loss = ref.ppo_loss(
            dist, params[None], z["value"][None], row, **{k: options[k] for k in names}
        )
        return (np.array([loss]),)

    def backward(z, cotangents):
        return {
            "params": cotangents[0] * case.expected["d_params"][free],
            "value": cotangents[0] * case.expected["d_value"],
        }

    start = {"params": inputs["params"][free], "value": inputs["value"]}
    check_gradients(forward, backward, start, entries=4)
    assert not case.expected["d_params"][~free].any()


def test_edges_are_approached_from_both_sides_and_never_touched():
    case = CASES["edges-N16-float64"]
    z, clip = case.inputs, case.options["clip"]
    log_prob = [ref.categorical(*row)[0] for row in zip(z["params"], z["actions"], strict=True)]
    ratio, moved = np.exp(log_prob - z["log_probs"]), z["value"] - z["values"]
    for beyond in (abs(ratio - 1) - clip, abs(moved) - clip):
        assert (abs(beyond) < 0.01).all() and (abs(beyond) > 1e-3).all()
        assert (beyond > 0).sum() == (beyond < 0).sum() == 8


def test_what_is_returned_wrongly_is_said():
    report = run_operation(ppo_loss.OPERATION, lambda *z, **k: 1.0, dtypes="float64", small=True)
    words = {result.message for result in report.results}
    wanted = "expected 3 results, loss, d_params, d_value, got float; return a tuple of them"
    assert words == {f"raised TypeError: {wanted}"}


def test_small_sets_are_subsets():
    assert {case.name for case in ppo_loss.cases("float64", 0, True)} < set(CASES)
