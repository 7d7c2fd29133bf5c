"""PendulumSwingUp by hand: a step, energy, rewards, starts, options; and beside dm_control."""

import math

import numpy as np
import pytest
from control_tasks import (
    Play,
    assert_uniform,
    check_bad_max_steps,
    check_energy,
    check_observation,
    check_picture,
    check_return,
    check_rewards,
    check_truncation_after_1000_steps,
)
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

from minis5.envs.control import pendulum
from minis5.envs.registry import find, make_vec

LEVELS = list(pendulum.LEVELS)


def test_a_step_by_hand():
    """1 N m + 4.905 N m act on 0.251 kg m2, and 0.1 * 0.02 on top from the damping."""
    play = Play("PendulumSwingUp", [math.pi / 2, 0])
    play.step(1)
    np.testing.assert_allclose(
        play.floats, [math.pi / 2 + 0.02 * 0.02 * 5.905 / 0.253, 0.02 * 5.905 / 0.253], rtol=1e-14
    )


def energy_of_pendulum(f):
    return pendulum.INERTIA * f[1] ** 2 / 2 + pendulum.PULL * math.cos(f[0])


def test_energy_is_kept_as_well_as_the_method_can():
    check_energy("PendulumSwingUp", energy_of_pendulum, [2, 1], {"damping": 0.0}, order=1)


def test_rewards_at_named_poses():
    check_rewards(
        [
            ("PendulumSwingUp", [math.radians(7.99), 9], [1], 1),
            ("PendulumSwingUp", [-2 * math.pi - math.radians(7.99), 0], [1], 1),
            ("PendulumSwingUp", [math.radians(8.01), 0], [0], 0),
        ]
    )


def test_observation():
    check_observation("PendulumSwingUp", [2.0, 3.0], [math.cos(2), math.sin(2), 3])


def test_starts():
    envs = make_vec("PendulumSwingUp", 4000, seed=5)
    envs.reset()
    starts = envs.get_state()["floats"]
    assert not starts[:, 1].any()  # at rest
    assert_uniform(starts[:, 0], -math.pi, math.pi)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_bounds_of_returns_are_reached():
    task = find("PendulumSwingUp")[1]
    check_return("PendulumSwingUp", [0, 0], task.best_return)
    check_return("PendulumSwingUp", [math.pi, 0], task.worst_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_picture():
    check_picture("PendulumSwingUp", [-math.pi / 2, 3], "-1.571 rad from upright, +3.000 rad/s")


def test_constants_are_the_suite_s():
    m = Pair("PendulumSwingUp").model
    same(
        [pendulum.INERTIA, pendulum.MASS * pendulum.LENGTH],
        [m.body_inertia[1, 0] + 0.25, m.body_mass[1] * m.body_ipos[1, 2]],
    )
    same(find("PendulumSwingUp")[1].params.damping, m.dof_damping)


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
    check_single_steps(name, limits=False)


@pytest.mark.parametrize("name", LEVELS)
def test_starts_are_drawn_as_the_suite_s(name):
    check_starts(name)


@pytest.mark.parametrize("name", LEVELS)
def test_recorded_steps_of_the_suite(name):
    check_recorded_steps(name)
