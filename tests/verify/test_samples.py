"""Tests of two samples: p-values against SciPy, false alarms, what is told of an episode."""

import math

import numpy as np
import pytest
from scipy import stats

from minis5.verify.observers import Trace
from minis5.verify.samples import (
    compare,
    fisher,
    kolmogorov_smirnov,
    numbers,
    p_value,
    permutation_z,
)


@pytest.mark.parametrize("shift", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("sizes", [(30, 60), (200, 400)])
def test_p_values_are_scipy_s(shift, sizes):
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal(sizes[0]) + shift, rng.standard_normal(sizes[1])
    expected = stats.ks_2samp(one, other, method="asymp").statistic
    x = expected * math.sqrt(math.prod(sizes) / sum(sizes))
    assert kolmogorov_smirnov(one, other) == pytest.approx(stats.kstwobign.sf(x), abs=1e-12)
    both, n = np.concatenate([one, other]), len(one)
    shuffled = rng.permuted(np.tile(both, (4000, 1)), axis=1)
    spread = (shuffled[:, :n].mean(axis=1) - shuffled[:, n:].mean(axis=1)).std()
    z = stats.norm.isf(permutation_z(one, other) / 2)
    assert abs(one.mean() - other.mean()) / z == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("counts", [[[3, 17], [12, 28]], [[0, 20], [40, 0]], [[5, 5], [20, 20]]])
def test_fisher_s_exact_test_is_scipy_s(counts):
    assert fisher(counts) == pytest.approx(stats.fisher_exact(counts)[1], rel=1e-9)


def test_constants_need_no_test_and_differing_ones_differ():
    assert p_value(np.ones(5), np.ones(9)) == []
    assert p_value(np.zeros(20), np.ones(40)) == [pytest.approx(1 / math.comb(60, 20))]


def test_rounding_is_no_difference():
    """As where one environment returns float32."""
    values = np.repeat([1 / 51, -1 / 51, 1 / 3, 0.0], 20)
    assert min(p_value(values.astype(np.float32).astype(float), np.tile(values, 2))) > 0.9
    assert p_value(np.full(9, np.float32(0.1), float), np.full(20, 0.1)) == []
    assert min(p_value(np.arange(40.0), np.arange(80.0) + 100.0)) < 1e-6


def noise(seed, count, scale=1.0, mean=0.0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        T = int(rng.integers(5, 9))
        seen, rewards = rng.standard_normal((T + 1, 2)), mean + scale * rng.standard_normal(T)
        yield Trace(list(seen), [0] * T, list(rewards), [False] * T, [False] * T)


def test_one_distribution_differs_as_rarely_as_promised():
    alarms = [
        bool(compare(list(noise(2 * i, 30)), list(noise(2 * i + 1, 60)), 0.1)[0]) for i in range(60)
    ]
    assert sum(alarms) <= 15  # 6 expected at most


@pytest.mark.parametrize(
    ("change", "number"), [({"scale": 3.0}, "return"), ({"mean": 1.0}, "return")]
)
def test_another_distribution_is_named(change, number):
    found, _ = compare(list(noise(0, 100, **change)), list(noise(1, 200)), 1e-4)
    assert number in [difference.number for difference in found] and found[0].p < 1e-6


def test_numbers_of_an_episode():
    seen = [(0, 2), (1, 3), (0, 1), (0, 2)]
    found = numbers(Trace(seen, [0] * 3, [1.0, -2.0, 4.0], [False] * 3, [False] * 3))
    assert (found["return"], found["length"], found["rewards above 0"]) == (3, 3, 2)
    assert found["rewards of the middle third"] == -2 and found["first reward"] == 1
    assert found["second observation, number 1"] == 3
    assert found["first times second observation"] == 6
    assert found["all observations, mean square"] == 19 / 8
