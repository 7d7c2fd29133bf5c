"""Two sets of episodes: may both come from one environment?

Each episode gives some numbers: its return, its length, the rewards of its parts, what was seen
first, second, halfway and last, and how much observations vary. Whether two samples of a number
come from one distribution is tested in ways that look at whole episodes, which are independent:

    Kolmogorov and Smirnov    the shape; with ties the test is cautious
    permutation z             the mean, and the mean distance from ours
    Fisher's exact test       instead of all three, where a number has only two values

A difference is reported if its p-value is below `rate` / (number of tests), so that a right
environment fails with a probability of at most about `rate` (Bonferroni).

Source: Fisher 1922; Kolmogorov 1933, Smirnov 1939; Pitman 1937 (permutations).
Tests: tests/verify/test_samples.py, against SciPy.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.spaces import leaves

NEAR = 1e-6  # of the largest: numbers no farther apart are the same
MOST_NUMBERS = 12  # of an observation; others are summed up in their mean and mean square


class Difference(NamedTuple):
    """A number of an episode whose distribution is another one."""

    number: str
    got: float  # mean
    expected: float
    p: float


def numbers(trace):
    """Return {name: number} of an episode."""
    rewards = np.array(trace.rewards, float)
    found = {"return": rewards.sum(), "length": len(rewards)}
    for name, part in zip(("first", "middle", "last"), np.array_split(rewards, 3), strict=True):
        found[f"rewards of the {name} third"] = part.sum()
    found["rewards above 0"] = (rewards > 0).sum()
    found["first reward"] = rewards[0]
    count = len(trace.observations)
    seen = {"first": 0, "second": 1, "halfway": count // 2, "last": count - 1}
    vectors = {name: vector(trace.observations[t]) for name, t in seen.items()}
    for name, z in vectors.items():
        places = np.unique(np.linspace(0, z.size - 1, min(z.size, MOST_NUMBERS)).astype(int))
        found |= {f"{name} observation, number {i}": z[i] for i in places}
        if z.size > 1:
            found[f"{name} observation, mean"] = z.mean()
            found[f"{name} observation, mean square"] = np.square(z).mean()
    for one, other in (("first", "second"), ("second", "halfway")):
        found[f"{one} times {other} observation"] = vectors[one] @ vectors[other]
    seen = np.array([leaves(obs) for obs in trace.observations], float).reshape(count, -1)
    found["all observations, mean square"] = np.square(seen).mean()
    found["all observations, mean square of changes"] = np.square(np.diff(seen, axis=0)).mean()
    return found


def vector(obs):
    """Return an observation as one vector of float64."""
    return np.concatenate([np.ravel(leaf).astype(float) for leaf in leaves(obs)])


def compare(got, expected, rate):
    """Return the differences between two lists of traces.

    Parameters
    ----------
    got, expected : list of Trace
    rate : float
        Probability that two lists from one environment differ.

    Returns
    -------
    list of Difference, the clearest first; and the number of tests
    """
    got, expected = table(got), table(expected)
    tests = {name: p_value(got[name], expected[name]) for name in expected}
    count = sum(len(p) for p in tests.values())
    wrong = [
        Difference(name, float(got[name].mean()), float(expected[name].mean()), float(min(p)))
        for name, p in tests.items()
        if p and min(p) * count < rate
    ]
    return sorted(wrong, key=lambda difference: difference.p), count


def table(traces):
    rows = [numbers(trace) for trace in traces]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def p_value(got, expected):
    """Return the p-values of the tests that apply to two samples of a number; none if constant."""
    got, expected = merged(got, expected)
    values = np.unique(np.concatenate([got, expected]))
    if values.size == 1:
        return []
    if values.size == 2:
        counts = [[(sample == value).sum() for value in values] for sample in (got, expected)]
        return [fisher(counts)]
    center = expected.mean()
    shape = kolmogorov_smirnov(got, expected)
    spread = abs(got - center), abs(expected - center)
    return [shape, permutation_z(got, expected), permutation_z(*spread)]


def merged(one, other):
    """Return two samples in which numbers that differ by rounding, as float32, are the same."""
    both = np.concatenate([one, other])
    order = np.argsort(both)
    apart = np.diff(both[order], prepend=-np.inf) > NEAR * abs(both).max()
    same = np.empty(both.size)
    same[order] = both[order][apart][np.cumsum(apart) - 1]
    return same[: one.size], same[one.size :]


def permutation_z(got, expected):
    """Return the p-value of the hypothesis that two samples of one distribution have these means.

    The deviation is that of both samples together, as if they were shuffled: one that happens to be
    constant does not deceive.
    """
    both = np.concatenate([got, expected])
    error = both.std(ddof=1) * np.sqrt(1.0 / got.size + 1.0 / expected.size)
    return mean_p(got.mean() - expected.mean(), error)


def mean_p(difference, error):
    """Return the p-value of a difference of means with a standard error."""
    if error == 0:
        return float(abs(difference) <= NEAR)
    return math.erfc(abs(difference) / error / math.sqrt(2.0))


def kolmogorov_smirnov(one, other):
    """Return the p-value of the hypothesis that two samples have one distribution, for large ones.

    Ties make it larger than it is.
    """
    values = np.concatenate([one, other])
    shares = [np.searchsorted(np.sort(z), values, "right") / z.size for z in (one, other)]
    x = abs(shares[0] - shares[1]).max() * math.sqrt(one.size * other.size / values.size)
    if x < 0.2:  # where the series converges slowly and p is 1 to twelve digits
        return 1.0
    return min(
        1.0, 2.0 * sum((-1) ** (k - 1) * math.exp(-2.0 * (k * x) ** 2) for k in range(1, 40))
    )


def fisher(counts):
    """Return the p-value of the hypothesis that both rows of a 2 by 2 table have one probability.

    It is the probability, with these sums of rows and columns, of a table that is no likelier.
    """
    (a, b), (c, d) = ([int(count) for count in row] for row in counts)
    row, column, total = a + b, a + c, a + b + c + d
    ways = [
        math.comb(column, k) * math.comb(total - column, row - k)
        for k in range(max(0, row + column - total), min(row, column) + 1)
    ]
    observed = math.comb(column, a) * math.comb(total - column, b)
    return sum(way for way in ways if way <= observed) / math.comb(total, row)
