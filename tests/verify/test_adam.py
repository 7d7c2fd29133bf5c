"""minis5.verify's optimiser: right ones pass, faulty ones are caught and named."""

import numpy as np
import pytest
from fault_checks import assert_caught_and_named
from sampling import sampled

from minis5.verify import check_optimizer
from minis5.verify.checks import run_operation
from minis5.verify.operations import adam


class Textbook:
    """Adam as an object that changes its parameters in place, with all that the flags ask for."""

    def __init__(self, params, *, lr, eps, beta1=0.9, beta2=0.999, max_norm=np.inf, rates=None):
        self.params, self.lr, self.eps, self.betas, self.t = params, lr, eps, (beta1, beta2), 0
        self.max_norm, self.rates = max_norm, rates or dict.fromkeys(params, 1.0)
        self.m = {key: np.zeros_like(z) for key, z in params.items()}
        self.v = {key: np.zeros_like(z) for key, z in params.items()}

    def step(self, grads):
        self.t += 1
        (b1, b2), t = self.betas, self.t
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads.values()))
        scale = min(1.0, self.max_norm / max(norm, 1e-30))
        for key, param in self.params.items():
            g, m, v = scale * grads[key], self.m[key], self.v[key]
            m += (1 - b1) * (g - m)
            v += (1 - b2) * (g * g - v)
            rate = self.lr * self.rates[key] / (1 - b1**t)
            param -= rate * m / (np.sqrt(v / (1 - b2**t)) + self.eps)
        return self.params


def test_our_adam_passes():
    report = check_optimizer(adam.ours, flags="no-betas")
    assert report.counts["passed"] == len(report.results) > 40


def test_an_object_that_works_in_place_passes():
    report = check_optimizer(Textbook)
    assert report.counts["passed"] == len(report.results) > 45


@pytest.mark.parametrize("cause", sampled(adam.CAUSES))
def test_a_fault_is_caught_and_named(cause):
    assert_caught_and_named(adam.OPERATION, cause, small="whatever" not in cause)


def test_an_argument_that_is_not_taken_is_not_implemented():
    report = run_operation(adam.OPERATION, adam.ours)
    assert {r.status for r in report.results if "betas" in r.flags} == {"missing"}


def test_what_is_returned_wrongly_is_said():
    for make, message in (
        (lambda params, lr, eps: 0, "make_optimizer: expected a step, got int"),
        (lambda params, lr, eps: lambda grads: None, "step: expected a dict with w, b, s, got"),
    ):
        report = run_operation(adam.OPERATION, make, dtypes="float64", small=True, flags="core")
        assert report.results and all(message in r.message for r in report.results)


def test_small_sets_are_subsets():
    small = {case.name for case in adam.cases("float32", 0, True)}
    assert small < {case.name for case in adam.cases("float32", 0, False)}
