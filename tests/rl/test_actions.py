"""Actions between an agent's distribution and an environment's action space."""

import gymnasium as gym
import numpy as np
import pytest

from minis5.rl.actions import Actions
from minis5.rl.agent import ActorCritic
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical


@pytest.mark.parametrize(
    ("space", "kind", "action", "expected"),
    [
        (gym.spaces.Discrete(3, start=5), Categorical, [0, 2], [5, 7]),
        (
            gym.spaces.MultiDiscrete([2, 3], start=[1, -1]),
            MultiCategorical,
            [[0, 2], [1, 0]],
            [[1, 1], [2, -1]],
        ),
        (
            gym.spaces.Box(-1, np.array([[1], [2]], np.float32)),
            DiagGaussian,
            [[0.5, 5.0], [-3.0, 1.5]],
            [[[0.5], [2.0]], [[-1.0], [1.5]]],
        ),
    ],
    ids=["discrete", "multi", "box"],
)
def test_to_env(space, kind, action, expected):
    """Integers count from the space's start; boxes get their shape back and are clipped."""
    actions = Actions(space)
    assert type(actions.distribution) is kind
    batch = actions.to_env(np.array(action))
    np.testing.assert_array_equal(batch, expected)
    assert batch.dtype == space.dtype and all(one in space for one in batch)


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.MultiBinary(3),
        gym.spaces.MultiDiscrete([[2, 3]]),
        gym.spaces.Box(0, 9, (2,), np.int64),
        gym.spaces.Text(3),
    ],
)
def test_unsupported_action_spaces(space):
    with pytest.raises(ValueError, match=r"^action_space: expected .*got .*; wrap"):
        Actions(space)
    with pytest.raises(ValueError, match=r"^action_space: expected .*got .*; wrap"):
        ActorCritic(gym.spaces.Box(-10, 10, (3,), np.float32), space)
