"""Environments of which some numbers are hidden."""

import gymnasium as gym
import numpy as np
import pytest

import minis5
from minis5.envs.foreign.partial import KeepNumbers

NAME = "minis5.envs.foreign.partial:KeepNumbers"


def test_it_shows_the_numbers_that_are_named():
    plain, partly = gym.make("CartPole-v1"), KeepNumbers(gym.make("CartPole-v1"), [2, 0])
    space = partly.observation_space
    assert space.shape == (2,) and space.dtype == np.float32
    np.testing.assert_array_equal(space.high, plain.observation_space.high[[2, 0]])
    seen, shown = plain.reset(seed=5)[0], partly.reset(seed=5)[0]
    for _ in range(8):
        np.testing.assert_array_equal(shown, seen[[2, 0]])
        assert space.contains(shown)
        (seen, *rest), (shown, *others) = plain.step(1), partly.step(1)
        assert rest == others


def test_a_batch_takes_it_by_name():
    envs = minis5.make_vec("CartPole-v1", 3, wrappers=[(NAME, {"numbers": [0, 2]})])
    assert envs.single_observation_space.shape == (2,)
    assert envs.reset()[0].shape == (3, 2)


@pytest.mark.parametrize("numbers", [[], [4], [-1], [0, 0], "01", 3, [0.5], [True], None])
def test_wrong_numbers_are_named(numbers):
    with pytest.raises((ValueError, TypeError), match="numbers: expected"):
        KeepNumbers(gym.make("CartPole-v1"), numbers)


def test_other_spaces_are_refused():
    with pytest.raises(ValueError, match="env: expected a Box of one axis, got Discrete"):
        KeepNumbers(gym.make("FrozenLake-v1"), [0])
