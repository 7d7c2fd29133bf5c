"""The reachers by hand: accelerations, energy, wrist, rewards, starts; and beside dm_control."""

import math

import numpy as np
import pytest
from control_tasks import (
    Play,
    assert_uniform,
    check_bad_max_steps,
    check_bad_option,
    check_energy,
    check_observation,
    check_picture,
    check_return,
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

from minis5.envs.control import physics, reacher
from minis5.envs.registry import find, make_vec

LEVELS = list(reacher.LEVELS)


def test_accelerations_by_lagrange():
    """Euler's method takes accelerations at the old angles and speeds, damping at the new."""
    bodies = [
        (*physics.capsule(0.01, 0.12), on_first(0.06)),
        (*physics.capsule(0.01, 0.1), on_second(0.12, 0.05)),
        (*physics.sphere(0.01), on_second(0.12, 0.12)),
    ]
    for q, v, action in poses():
        action = action.astype(np.float32)
        play = Play("ReacherEasy", [*q, *v])
        play.step(*action)
        after = play.floats[2:4]
        expected = lagrange(bodies, q, v, 0.05 * action - 0.01 * after, 0)
        np.testing.assert_allclose((after - v) / 0.02, expected, rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(play.floats[:2], q + 0.02 * after)


def energy_of_reacher(f):
    mass, inertia = physics.capsule(0.01, 0.12)
    energy = (mass * 0.06**2 + inertia) * f[2] ** 2 / 2
    for (mass, inertia), distance in (
        (physics.capsule(0.01, 0.1), 0.05),
        (physics.sphere(0.01), 0.12),
    ):
        v, turn = speeds_on_second(f, 0.12, distance)
        energy += (mass * v @ v + inertia * turn**2) / 2
    return energy


def test_energy_is_kept_as_well_as_the_method_can():
    check_energy("ReacherEasy", energy_of_reacher, [0, 0.5, 2, -3], {"damping": 0.0}, order=1)


def test_the_wrist_holds():
    """Under the full torque, it gives way by 0.05 N m / (D d / (0.95 * 0.04)**2) = 0.083 rad."""
    d = 0.95 / 0.05 / reacher.WRIST_MOBILITY
    give = 0.05 / (d * 0.95 / (0.95 * 0.04) ** 2)
    assert 0.0825 < give < 0.0835
    for side in (1, -1):
        arm = Play("ReacherEasy", [0, 0, 0, 0])
        for _ in range(500):
            arm.step(0, side)
        held = [(math.radians(160) + give) * side, 0]
        np.testing.assert_allclose(arm.floats[[1, 3]], held, atol=1e-9)


def test_rewards_at_named_poses():
    bent = [0, math.pi / 2, 0, 0]  # the finger is at (0.12, 0.12)
    check_rewards(
        [
            ("ReacherEasy", [*bent, 0.12, 0.1799], [0, 0], 1),
            ("ReacherEasy", [*bent, 0.12, 0.1801], [0, 0], 0),
            ("ReacherHard", [*bent, 0.1449, 0.12], [0, 0], 1),
            ("ReacherHard", [*bent, 0.1451, 0.12], [0, 0], 0),
        ]
    )


def test_observation():
    state = [0, math.pi / 2, 3, 4, 0.1, 0.2]
    check_observation("ReacherHard", state, [0, math.pi / 2, -0.02, 0.08, 3, 4])


def test_starts():
    for name in LEVELS:
        envs = make_vec(name, 4000, seed=5)
        envs.reset()
        starts = envs.get_state()["floats"]
        shoulder, wrist, _, _, x, y = starts.T
        assert not starts[:, 2:4].any()  # at rest
        assert_uniform(shoulder, -math.pi, math.pi)
        assert_uniform(wrist, -math.radians(160), math.radians(160))
        assert_uniform(np.hypot(x, y), 0.05, 0.2)
        assert_uniform(np.arctan2(y, x), -math.pi, math.pi)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_the_worst_return_is_reached():
    task = find("ReacherHard")[1]
    check_return("ReacherHard", [0, 0, 0, 0, -0.1, 0], task.worst_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_bad_target_radius():
    message = r"target_radius: expected a number in \[0.0, 1.0\], got -1; ReacherEasy has"
    check_bad_option("ReacherEasy", {"target_radius": -1}, message)


def test_good_options():
    small = find("ReacherEasy", {"target_radius": 0.015})[1]
    assert small.params == find("ReacherHard")[1].params


def test_picture():
    picture = "shoulder +0.717 rad, wrist +0.000 rad, target (-0.181, -0.158) m from the finger"
    check_picture("ReacherEasy", [7, 0, 0, 0, 0, 0], picture)


def test_constants_are_the_suite_s():
    m = Pair("ReacherEasy").model
    same([reacher.ARM_MASS, reacher.HAND_MASS, reacher.FINGER_MASS], m.body_mass[1:])
    same([reacher.ARM_INERTIA, reacher.HAND_INERTIA, reacher.FINGER_INERTIA], m.body_inertia[1:, 0])
    same(
        [reacher.WRIST_LIMIT, reacher.WRIST_MOBILITY, reacher.TORQUE],
        [m.jnt_range[1, 1], m.dof_invweight0[1], m.actuator_gear[1, 0]],
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
