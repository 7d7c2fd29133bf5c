"""AcrobotSwingUp by hand: accelerations, energy, rewards, starts; and beside dm_control."""

import math

import numpy as np
import pytest
from control_tasks import (
    G,
    assert_uniform,
    check_bad_max_steps,
    check_energy,
    check_observation,
    check_picture,
    check_rewards,
    check_truncation_after_1000_steps,
    lagrange,
    on_first,
    on_second,
    poses,
    speeds_on_second,
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

from minis5.envs.control import acrobot, physics
from minis5.envs.registry import find, make_single, make_vec

LEVELS = list(acrobot.LEVELS)


def test_accelerations_by_lagrange():
    (m1, i1), (m2, i2) = physics.capsule(0.05, 1, mass=1), physics.capsule(0.049, 1, mass=1)
    bodies = [(m1, i1, on_first(0.5)), (m2, i2, on_second(1, 0.5))]
    params = find("AcrobotSwingUp")[1].params
    for q, v, action in poses():
        torque = 2 * action[0]
        expected = lagrange(bodies, q, v, [-0.05 * v[0], torque - 0.05 * v[1]], G)
        np.testing.assert_allclose(
            acrobot.accelerations(params, *q, *v, torque), expected, rtol=1e-6, atol=1e-6
        )


def test_balanced_poses_rest():
    params = find("AcrobotSwingUp")[1].params
    for shoulder, elbow in [(0.0, 0.0), (math.pi, 0.0), (0.0, math.pi), (math.pi, math.pi)]:
        accelerations = acrobot.accelerations(params, shoulder, elbow, 0.0, 0.0, 0.0)
        assert max(map(abs, accelerations)) < 1e-14


def energy_of_acrobot(f):
    (m1, i1), (m2, i2) = physics.capsule(0.05, 1, mass=1), physics.capsule(0.049, 1, mass=1)
    v, turn = speeds_on_second(f, 1, 0.5)
    kinetic = ((m1 * 0.25 + i1) * f[2] ** 2 + m2 * v @ v + i2 * turn**2) / 2
    return kinetic + G * (
        m1 * 0.5 * math.cos(f[0]) + m2 * (math.cos(f[0]) + 0.5 * math.cos(f[0] + f[1]))
    )


def test_energy_is_kept_as_well_as_the_method_can():
    state = [2, 1, 0.5, -0.5]
    check_energy("AcrobotSwingUp", energy_of_acrobot, state, {"damping": 0.0}, order=4)


def test_rewards_at_named_poses():
    check_rewards(
        [
            ("AcrobotSwingUp", [0, 0, 0, 0], [1], 1),
            ("AcrobotSwingUp", [0.09, 0, 5, 5], [1], 1),  # 0.18 m away
            ("AcrobotSwingUp", [math.pi, 0, 0, 0], [0], 0.1 ** (3.8**2)),
            ("AcrobotSwingUp", [0, math.pi, 0, 0], [0], 0.1 ** (1.8**2)),
        ]
    )


def test_observation():
    expected = [math.sin(1), math.sin(3), math.cos(1), math.cos(3), 5, 6]
    check_observation("AcrobotSwingUp", [1.0, 2.0, 5.0, 6.0], expected)


def test_starts():
    envs = make_vec("AcrobotSwingUp", 4000, seed=5)
    envs.reset()
    starts = envs.get_state()["floats"]
    assert not starts[:, 2:4].any()  # at rest
    for column in starts.T[:2]:
        assert_uniform(column, -math.pi, math.pi)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_good_options():
    env = make_single("AcrobotSwingUp", max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]
    assert env.task.best_return == 2


def test_picture():
    picture = "shoulder +1.000 rad from upright, +2.000 rad/s, elbow -1.000 rad, +3.000 rad/s"
    check_picture("AcrobotSwingUp", [1, -1, 2, 3], picture)


def test_constants_are_the_suite_s():
    m = Pair("AcrobotSwingUp").model
    same(
        [acrobot.UPPER_INERTIA, acrobot.LOWER_INERTIA, acrobot.TORQUE],
        [*m.body_inertia[1:, 0], m.actuator_gear[0, 0]],
    )
    same([find("AcrobotSwingUp")[1].params.damping] * 2, m.dof_damping)


@pytest.mark.parametrize("name", LEVELS)
def test_spaces_and_times_are_the_suite_s(name):
    check_spaces_and_times(name, runge_kutta=True)


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
