"""Actions between an agent's distribution and an environment's action space."""

import gymnasium as gym
import numpy as np
import pytest

import minis5
from minis5 import load, save
from minis5.rl.actions import Actions
from minis5.rl.agent import ActorCritic
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical
from minis5.rl.rollout import Collector


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
        (
            gym.spaces.MultiDiscrete([[2, 3], [4, 5]], np.int32, start=[[0, -9], [1, 0]]),
            MultiCategorical,
            [[0, 1, 2, 3], [1, 2, 3, 4]],
            [[[0, -8], [3, 3]], [[1, -7], [4, 4]]],
        ),
        (
            gym.spaces.MultiBinary(3),
            MultiCategorical,
            [[0, 1, 1], [1, 0, 0]],
            [[0, 1, 1], [1, 0, 0]],
        ),
        (gym.spaces.MultiBinary((1, 2)), MultiCategorical, [[0, 1], [1, 0]], [[[0, 1]], [[1, 0]]]),
        (
            gym.spaces.Box(np.array([-2, 5]), np.array([0, 6]), dtype=np.int16),
            MultiCategorical,
            [[0, 0], [2, 1]],
            [[-2, 5], [0, 6]],
        ),
        (
            gym.spaces.Box(2**64 - 3, 2**64 - 1, (1,), np.uint64),
            MultiCategorical,
            [[0], [2]],
            np.array([[2**64 - 3], [2**64 - 1]], np.uint64),
        ),
        (gym.spaces.Box(-1, 1, ()), DiagGaussian, [[0.5], [-3.0]], [0.5, -1.0]),
    ],
    ids=str,
)
def test_to_env(space, kind, action, expected):
    """Integers count from the space's start; actions get their shape back; boxes are clipped."""
    actions = Actions(space)
    assert type(actions.distribution) is kind and not actions.scaled
    assert kind is DiagGaussian or not Actions(space, scale=True).scaled
    batch = actions.to_env(np.array(action))
    np.testing.assert_array_equal(batch, expected)
    assert batch.dtype == space.dtype and all(one in space for one in batch)
    assert actions.distribution.encode(np.array(action)).shape[0] == len(action)


INF = np.inf
BOXES = {  # low, high: where -1, 0, 0.5 and 1 are, and then what lies beyond
    (0.0, 100.0): (0, 50, 75, 100, 0, 100),
    (-1.0, 1.0): (-1, 0, 0.5, 1, -1, 1),
    (-0.01, 0.01): (-0.01, 0, 0.005, 0.01, -0.01, 0.01),
    (0.1, 0.3): (0.1, 0.2, 0.25, 0.3, 0.1, 0.3),
    (-2.0, 6.0): (-2, 2, 4, 6, -2, 6),
    (3.0, 3.0): (3, 3, 3, 3, 3, 3),
    (-INF, INF): (-1, 0, 0.5, 1, -7, 7),
    (-INF, 0.75): (-1, 0, 0.5, 0.75, -7, 0.75),
    (0.25, INF): (0.25, 0.25, 0.5, 1, 0.25, 7),
}
INSIDE = np.array([-1, 0, 0.5, 1, -7, 7])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(9,), (3, 3)])
def test_boxes_are_scaled(dtype, shape):
    """A policy's -1, 0 and 1 are a box's low, middle and high; an infinite side is not scaled."""
    low, high = np.array(list(BOXES), dtype).T
    space = gym.spaces.Box(low.reshape(shape), high.reshape(shape), dtype=dtype)
    actions = Actions(space, scale=True)
    assert actions.scaled and actions.distribution.encoded_size == 9
    batch = actions.to_env(np.repeat(INSIDE[:, None], 9, axis=1).astype(np.float32))
    assert batch.dtype == dtype and batch.shape == (6, *shape)
    expected = np.array(list(BOXES.values())).T
    eps = max(np.finfo(dtype).eps, np.finfo(np.float32).eps)
    np.testing.assert_allclose(batch.reshape(6, 9), expected, rtol=2 * eps, atol=eps)
    assert all(one in space for one in batch)  # whatever rounds, it stays within the bounds
    clipped = Actions(space).to_env(np.repeat(INSIDE[:, None], 9, axis=1))
    np.testing.assert_array_equal(
        clipped.reshape(6, 9), np.clip(INSIDE[:, None], low, high).astype(dtype)
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_widest_bounds(dtype):
    """The largest number means no bound; a half of it is one, and nothing overflows."""
    largest = np.finfo(dtype).max
    space = gym.spaces.Box(-largest, largest, (2,), dtype)
    assert not Actions(space, scale=True).scaled
    half = gym.spaces.Box(-largest / 2, largest / 2, (1,), dtype)
    with np.errstate(all="raise"):
        batch = Actions(half, scale=True).to_env(np.array([[-1], [0.5], [1e30]], dtype="float32"))
    np.testing.assert_allclose(batch / largest, [[-0.5], [0.25], [0.5]], rtol=1e-3)


def test_random_bounds_are_kept():
    """No rounding leads out of a box, wherever its bounds are."""
    rng = np.random.default_rng(0)
    low = rng.normal(size=(1000, 1)) * 10.0 ** rng.integers(-6, 7, (1000, 1))
    high = low + np.abs(rng.normal(size=(1000, 1))) * 10.0 ** rng.integers(-6, 7, (1000, 1))
    for dtype in (np.float16, np.float32, np.float64):
        lows, highs = np.clip(low, -6e4, 6e4).astype(dtype), np.clip(high, -6e4, 6e4).astype(dtype)
        actions = Actions(gym.spaces.Box(lows, highs, dtype=dtype), scale=True)
        ends = actions.to_env(np.array([[-1.0], [1.0]], np.float32).repeat(1000, axis=1))
        eps = np.finfo(np.result_type(dtype, np.float32)).eps
        for end, bound in zip(ends, (lows, highs), strict=True):
            assert (end >= lows).all() and (end <= highs).all()
            slack = eps * (np.abs(lows).astype(float) + np.abs(highs)) * 2
            assert (np.abs(end - bound.astype(float)) <= slack + np.spacing(np.abs(bound))).all()


@pytest.mark.parametrize(
    "space",
    [
        gym.spaces.Dict(move=gym.spaces.Discrete(3), speed=gym.spaces.Box(0, 1)),
        gym.spaces.Tuple([gym.spaces.Discrete(3)]),
        gym.spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
        gym.spaces.Box(0, 2**16, (2,), np.int64),
        gym.spaces.Box(0, 1, (0,)),
        gym.spaces.Box(0, 1, (0,), np.int64),
        gym.spaces.Text(3),
    ],
)
def test_unsupported_action_spaces(space):
    with pytest.raises(ValueError, match=r"^action_space: expected .*got .*; wrap"):
        Actions(space)
    with pytest.raises(ValueError, match=r"^action_space: expected .*got .*; wrap"):
        ActorCritic(gym.spaces.Box(-10, 10, (3,), np.float32), space)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("bounds", BOXES, ids=str)
def test_the_agent_sees_the_action_that_the_environment_took(bounds, scale):
    """What it sees would be executed as the action was, and is itself within the bounds."""
    space = gym.spaces.Box(*(np.array([bound, bound]) for bound in bounds), dtype=np.float64)
    actions = Actions(space, scale=scale)
    drawn = np.stack([INSIDE, INSIDE[::-1]], axis=1)
    seen = actions.encode(drawn, np.float64)
    np.testing.assert_array_equal(actions.to_env(seen), actions.to_env(drawn))
    np.testing.assert_array_equal(actions.encode(seen, np.float64), seen)
    if np.isfinite(bounds).all():
        assert abs(seen).max() <= max(1, *map(abs, bounds))
    as_drawn = Actions(space, scale=scale, show_clipped=False)
    np.testing.assert_array_equal(as_drawn.encode(drawn, np.float64), drawn)


@pytest.mark.parametrize("task", ["MemoryChain", "PositionOnlyPendulumEasy"])
def test_the_previous_action_can_be_hidden(tmp_path, task):
    """Acting, collecting and loading show zeros; all else of the input stays where it is."""
    envs = minis5.make_vec(task, 4, seed=1)
    spaces = envs.single_observation_space, envs.single_action_space
    for shown in (True, False):
        agent = minis5.ActorCritic(*spaces, minis5.AgentConfig(show_previous_action=shown))
        size = agent.observation_encoder.size
        rollout, _ = Collector(agent, envs, 1).collect(8, np.random.default_rng(0))
        assert rollout.x[1:, :, size:-1].any() == shown and rollout.x[..., :size].any()
        observation, _ = envs.reset(seed=2)
        save(agent, tmp_path / "agent.npz")
        _, memory = load(tmp_path / "agent.npz").act(observation, None, np.ones(4, bool))
        assert memory.previous_action.any() == shown
        assert memory.previous_action.shape == (4, agent.distribution.encoded_size)
        assert memory.previous_action.dtype == np.float32


def test_no_action_feeds_itself_without_end(tmp_path):
    """Acting, collecting and evaluating show the clipped action, or the drawn one if told so."""
    envs = minis5.make_vec("PositionOnlyPendulumEasy", 4, seed=1)
    spaces = envs.single_observation_space, envs.single_action_space
    for clip in (True, False):
        config = minis5.AgentConfig(clip_previous_action=clip)
        agent = minis5.ActorCritic(*spaces, config)
        agent.parameters()["log_std"][:] = 3.0
        rollout, _ = Collector(agent, envs, 1).collect(64, np.random.default_rng(0))
        seen = np.abs(rollout.x[:, :, -2])  # the previous action
        assert (seen.max() <= 1) == clip and seen.max() > 0.9
        observation, _ = envs.reset(seed=2)
        agent.parameters()["actor/out/bias"][:] = 5.0
        _, memory = agent.act(observation, None, np.ones(4, bool))
        assert (memory.previous_action == 1).all() == clip
        save(agent, tmp_path / "agent.npz")
        assert load(tmp_path / "agent.npz").config.clip_previous_action == clip
