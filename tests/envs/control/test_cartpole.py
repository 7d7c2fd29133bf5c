"""The cart-poles by hand: accelerations, energy, rail, rewards, starts; and beside dm_control."""

import math

import numpy as np
import pytest
from control_tasks import (
    G,
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
    poses,
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

from minis5.envs.control import cartpole
from minis5.envs.registry import find, make_vec

LEVELS = list(cartpole.LEVELS)


def test_accelerations_by_lagrange():
    pole = cartpole.POLE_MASS, cartpole.POLE_INERTIA
    bodies = [
        (1.0, 0.0, lambda q: np.array([q[0], 0, 0])),
        (*pole, lambda q: np.array([q[0] + 0.5 * np.sin(q[1]), 0.5 * np.cos(q[1]), q[1]])),
    ]
    params = find("CartPoleSwingUp")[1].params
    for q, v, action in poses():
        force = 10 * action[0]
        expected = lagrange(bodies, q, v, [force - 5e-4 * v[0], -2e-6 * v[1]], G)
        np.testing.assert_allclose(
            cartpole.accelerations(params, *q, *v, force), expected, rtol=1e-6, atol=1e-6
        )


def test_a_level_pole_does_not_feel_the_cart():
    params = find("CartPoleSwingUp")[1].params
    x_acc, theta_acc = cartpole.accelerations(params, 0.5, math.pi / 2, 0.0, 0.0, 11.0)
    np.testing.assert_allclose([x_acc, theta_acc], [10, 0.4905 / cartpole.INERTIA], rtol=1e-14)


def energy_of_cartpole(f):
    cart, pole = cartpole.CART_MASS, cartpole.POLE_MASS
    v = np.array([f[2] + 0.5 * math.cos(f[1]) * f[3], -0.5 * math.sin(f[1]) * f[3]])
    kinetic = (cart * f[2] ** 2 + pole * v @ v + cartpole.POLE_INERTIA * f[3] ** 2) / 2
    return kinetic + pole * G * 0.5 * math.cos(f[1])


def test_energy_is_kept_as_well_as_the_method_can():
    free = {"cart_damping": 0.0, "pole_damping": 0.0}
    check_energy("CartPoleSwingUp", energy_of_cartpole, [0, 2, 0.3, 1], free, order=4)


def test_the_rails_end_holds_the_cart():
    """Under the full push, pole hanging, it gives way by 10 N / (D d / (0.95 tc)**2) = 3.1 mm."""
    params = find("CartPoleSwingUp")[1].params
    d = 0.95 / 0.05 / cartpole.X_MOBILITY
    give = 10 / (d * 0.95 / (0.95 * 0.08) ** 2)
    assert 0.003 < give < 0.0033
    for side in (1, -1):
        accelerations = cartpole.accelerations(
            params, side * (1.8 + give), math.pi, 0.0, 0.0, side * 10.0
        )
        np.testing.assert_allclose(accelerations, 0, atol=1e-11)
        play = Play("CartPoleSwingUp", [side * 1.7, math.pi, side * 3, 0])
        far = 0
        for _ in range(300):
            play.step(side)
            far = max(far, abs(play.floats[0]))
        assert 1.8 < abs(play.floats[0]) < 1.82 and far < 2.0


def test_rewards_at_named_poses():
    pi = math.pi
    check_rewards(
        [
            ("CartPoleSwingUp", [0, 0, 0, 0], [0], 1),
            ("CartPoleSwingUp", [0, pi, 0, 0], [0], 0),
            ("CartPoleSwingUp", [0, pi / 2, 0, 0], [0], 0.5),
            ("CartPoleSwingUp", [0, 0, 0, 0], [-1], 0.8),
            ("CartPoleSwingUp", [-2, 0, 7, 0], [0], 0.55),
            ("CartPoleBalance", [0, 0, 0, 5], [0], 0.55),
            ("CartPoleBalance", [2, pi / 2, 0, -5], [0.5], 0.5 * 0.95 * 0.55 * 0.55),
        ]
    )


def test_observation():
    expected = [0.5, math.cos(2), math.sin(2), 3, 4]
    check_observation("CartPoleSwingUp", [0.5, 2.0, 3.0, 4.0], expected)


def test_starts():
    starts = {}
    for name in LEVELS:
        envs = make_vec(name, 4000, seed=5)
        envs.reset()
        starts[name] = envs.get_state()["floats"]
    hanging, upright = starts["CartPoleSwingUp"], starts["CartPoleBalance"]
    for column in (*(hanging - [0, math.pi, 0, 0]).T, *upright[:, 2:].T):
        assert stats.kstest(column / 0.01, "norm").pvalue > 1e-3
    assert_uniform(upright[:, 0], -0.1, 0.1)
    assert_uniform(upright[:, 1], -0.034, 0.034)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_the_best_return_is_reached():
    check_return("CartPoleBalance", [0, 0, 0, 0], find("CartPoleBalance")[1].best_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_bad_start():
    message = "start: expected one of 'upright', 'hanging', got 'lying'"
    check_bad_option("CartPoleSwingUp", {"start": "lying"}, message)


def test_good_options():
    hanging = find("CartPoleBalance", {"start": "hanging"})[1]
    assert hanging.params == find("CartPoleSwingUp")[1].params


def test_picture():
    picture = "x +0.500 m, +1.000 m/s, +0.250 rad from upright, -2.000 rad/s"
    check_picture("CartPoleSwingUp", [0.5, 2 * math.pi + 0.25, 1, -2], picture)


def test_constants_are_the_suite_s():
    m, params = Pair("CartPoleSwingUp").model, find("CartPoleSwingUp")[1].params
    same([cartpole.CART_MASS, cartpole.POLE_MASS], m.body_mass[1:])
    same(cartpole.POLE_INERTIA, m.body_inertia[2, 0])
    same([params.cart_damping, params.pole_damping], m.dof_damping)
    same([cartpole.FORCE, cartpole.X_MOBILITY], [m.actuator_gear[0, 0], m.dof_invweight0[0]])
    same([cartpole.X_LIMIT, cartpole.X_TIME_CONSTANT], [m.jnt_range[0, 1], m.jnt_solref[0, 0]])


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
    check_single_steps(name)


@pytest.mark.parametrize("name", LEVELS)
def test_starts_are_drawn_as_the_suite_s(name):
    check_starts(name)


@pytest.mark.parametrize("name", LEVELS)
def test_recorded_steps_of_the_suite(name):
    check_recorded_steps(name)
