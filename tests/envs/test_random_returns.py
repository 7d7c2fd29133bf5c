"""Returns of the random policy: a smaller measurement than the table's, and some formulas."""

import math

import pytest

from minis5.envs.random_returns import EPISODES, RANDOM_RETURNS, measure
from minis5.envs.registry import REGISTRY, make_vec

FORMULAS = {  # with the probability p of a right answer: 2 p - 1, times what all answers can earn
    "RepeatFirst": -1 / 2,
    "RepeatPrevious": -1 / 2,
    "Autoencode": -1 / 2,
    "HigherLower": 0,
    "MemoryChain": 0,
    "MultiarmedBandit": 0,
    "CountRecallEasy": 2 / 27 - 1,
    "CountRecallMedium": 2 / 27 - 1,
    "CountRecallHard": 2 / 17 - 1,
}


@pytest.mark.parametrize("name", REGISTRY)
def test_return_of_the_random_policy(name):
    mean, error = RANDOM_RETURNS[name]
    found = measure(make_vec(name, 300, seed=1), seed=1)
    assert abs(found.mean() - mean) <= 5 * math.hypot(error, found.std() / math.sqrt(len(found)))
    for family, formula in FORMULAS.items():
        if name.startswith(family):
            assert abs(mean - formula) <= 5 * error + 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ReacherEasy", "ReacherHard"])
def test_rare_rewards_take_all_episodes_to_compare(name):
    """The table's own measurement, to the last digit: 300 episodes say little there."""
    returns = measure(make_vec(name, EPISODES, seed=0))
    found = returns.mean(), returns.std() / math.sqrt(EPISODES)
    assert tuple(round(float(x), 5) for x in found) == RANDOM_RETURNS[name]
