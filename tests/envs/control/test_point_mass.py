"""The point masses by hand: a step, walls, rewards, starts, directions; and beside dm_control."""

import itertools

import numpy as np
import pytest
from control_tasks import (
    Play,
    assert_uniform,
    check_bad_max_steps,
    check_bad_option,
    check_observation,
    check_picture,
    check_return,
    check_rewards,
    check_truncation_after_1000_steps,
)
from scipy import stats
from suite_pairs import (
    Pair,
    check_end_of_an_episode,
    check_single_steps,
    check_spaces_and_times,
    check_starts,
    check_trajectories,
    same,
)
from suite_steps import check_recorded_steps

from minis5.envs.control import point_mass
from minis5.envs.registry import find, make_vec

LEVELS = list(point_mass.LEVELS)


def point(*state):
    """Return PointMassEasy in this state, with its forces along the axes."""
    return Play("PointMassEasy", state, rest=[1, 0, 0, 1])


def test_a_step_by_hand():
    """0.1 N act on 0.3 kg, and 1 * 0.02 on top from the damping."""
    play = point(0.1, 0, 0, 0)
    play.step(0, -1)
    np.testing.assert_allclose(
        play.floats[:4], [0.1, -0.02 * 0.02 * 0.1 / 0.32, 0, -0.02 * 0.1 / 0.32], rtol=1e-14
    )


def test_walls_hold():
    for action in itertools.product((1, -1), repeat=2):
        play = point(0, 0, 0, 0)
        for _ in range(500):
            play.step(*action)
        np.testing.assert_allclose(play.floats[:2], 0.29 * np.array(action), atol=1e-3)


def test_rewards_at_named_poses():
    check_rewards(
        [
            ("PointMassEasy", [0.009, -0.012, 1, 1], [0, 0], 1),
            ("PointMassEasy", [0.018, 0.024, 0, 0], [0, 0], 0.1),
            ("PointMassEasy", [0, 0, 0, 0], [1, -1], 0.8),
            ("PointMassHard", [0, 0, 0, 0], [0, 1], 0.9),
        ]
    )


def test_observation():
    check_observation("PointMassHard", [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4])


def test_starts():
    starts = {}
    for name in LEVELS:
        envs = make_vec(name, 4000, seed=5)
        envs.reset()
        starts[name] = envs.get_state()["floats"]
        assert not starts[name][:, 2:4].any()  # at rest
        for column in starts[name].T[:2]:
            assert_uniform(column, -0.29, 0.29)
    assert (starts["PointMassEasy"][:, 4:] == [1, 0, 0, 1]).all()


def test_directions_of_the_hard_point_mass():
    """They are distributed as the suite's, which rejects some, last for one episode, and act."""
    envs = make_vec("PointMassHard", 4000, seed=5)
    envs.reset()
    directions = envs.get_state()["floats"][:, 4:]
    first, second = directions[:, :2], directions[:, 2:]
    np.testing.assert_allclose(np.linalg.norm(directions.reshape(-1, 2), axis=1), 1, rtol=1e-12)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(10_000, 2, 2))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors = vectors[abs((vectors[:, 0] * vectors[:, 1]).sum(1)) <= 0.9]

    def angles(a, b):
        turn = np.arctan2(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], (a * b).sum(1))
        return np.arctan2(*a.T), np.arctan2(*b.T), turn

    for ours, theirs in zip(
        angles(first, second), angles(vectors[:, 0], vectors[:, 1]), strict=True
    ):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    assert (
        abs((first * second).sum(1)).max() <= 0.9 + 1e-12
        and abs((first * second).sum(1)).max() > 0.89
    )

    speeds = [0.02 / 0.32 * 0.1 * directions[:, :2], 0.02 / 0.32 * 0.1 * directions[:, 2:]]
    for action, expected in zip(np.eye(2, dtype=np.float32), speeds, strict=True):
        envs.set_state(
            {
                "ints": envs.get_state()["ints"],
                "floats": np.column_stack([np.zeros((4000, 4)), directions]),
            }
        )
        obs, *_ = envs.step(np.tile(action, (4000, 1)))
        np.testing.assert_allclose(obs[:, 2:], expected, rtol=1e-6)
        np.testing.assert_array_equal(envs.get_state()["floats"][:, 4:], directions)
    envs.reset()
    assert (envs.get_state()["floats"][:, 4:] != directions).all()


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_the_best_return_is_reached():
    check_return("PointMassEasy", [0, 0, 0, 0], find("PointMassEasy")[1].best_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_bad_directions():
    message = "directions: expected one of 'fixed', 'random', got 2"
    check_bad_option("PointMassEasy", {"directions": 2}, message)


def test_good_options():
    drawn = find("PointMassEasy", {"directions": "random"})[1]
    assert drawn.params == find("PointMassHard")[1].params


def test_picture():
    picture = "at (+0.100, +0.200) m, moving (+0.000, -1.000) m/s"
    check_picture("PointMassHard", [0.1, 0.2, 0, -1], picture)


def test_constants_are_the_suite_s():
    m = Pair("PointMassEasy").model
    same(
        [point_mass.MASS, point_mass.FORCE, point_mass.WALL, 1 / point_mass.MASS],
        [m.body_mass[1], m.actuator_gear[0, 0], m.jnt_range[0, 1], m.dof_invweight0[0]],
    )


@pytest.mark.parametrize("name", LEVELS)
def test_spaces_and_times_are_the_suite_s(name):
    check_spaces_and_times(name)


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("hold", [1, 10])
def test_trajectories_are_the_suite_s(name, hold):
    check_trajectories(name, hold)


@pytest.mark.parametrize("name", LEVELS)
def test_the_end_of_an_episode_is_the_suite_s(name):
    check_end_of_an_episode(name)


@pytest.mark.parametrize("name", LEVELS)
def test_single_steps_from_any_state_are_the_suite_s(name):
    check_single_steps(name)


@pytest.mark.parametrize("name", LEVELS)
def test_starts_are_drawn_as_the_suite_s(name):
    check_starts(name)


@pytest.mark.parametrize("name", LEVELS)
def test_recorded_steps_of_the_suite(name):
    check_recorded_steps(name)
