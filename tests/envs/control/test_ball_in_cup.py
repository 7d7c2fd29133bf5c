"""BallInCupCatch by hand: energy, rest, rewards, starts, options; and beside dm_control."""

import itertools
import math

import numpy as np
import pytest
from control_tasks import (
    G,
    Play,
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

from minis5.envs.control import ball_in_cup, contact, physics
from minis5.envs.registry import find, make_vec

LEVELS = list(ball_in_cup.LEVELS)


def test_energy():
    """In free fall for time t, semi-implicit Euler loses m g**2 h t / 2. The cup swings with the
    period of its spring. Once the string is taut, energy is lost, never won."""
    ball = Play("BallInCupCatch", [0, 0, 0.15, 0.3])
    for _ in range(5):
        ball.step()
    lost = -(ball.floats[7] ** 2 / 2 + G * (ball.floats[3] - 0.3))
    np.testing.assert_allclose(lost, G**2 * 0.002 * 0.1 / 2, rtol=1e-9)

    low = -contact.CUP_MASS * G / 20
    cup = Play("BallInCupCatch", [0.02, low, 0.15, 0.3], damping=0.0)
    omega = math.sqrt(20 / contact.CUP_MASS)
    for k in range(1, 6):
        cup.step()
        assert abs(cup.floats[0] - 0.02 * math.cos(omega * 0.02 * k)) < 0.02 * omega * 0.002
        assert abs(cup.floats[1] - low) < 1e-12

    def energy(f):
        kinetic = contact.CUP_MASS * f[4:6] @ f[4:6] + contact.BALL_MASS * f[6:] @ f[6:]
        return (
            kinetic / 2
            + 10 * f[:2] @ f[:2]
            + G * (contact.CUP_MASS * f[1] + contact.BALL_MASS * f[3])
        )

    swing = Play("BallInCupCatch", [0, 0, 0.25, 0.25])
    energies, taut = [energy(swing.floats)], 0
    for _ in range(1000):
        swing.step()
        energies.append(energy(swing.floats))
        x, z = ball_in_cup.ball_from_cup(swing.floats)
        taut += math.hypot(x, z + contact.STRING_DEPTH) > contact.STRING_LENGTH
    assert np.diff(energies).max() < 1e-5 and taut > 500


def test_the_ball_at_rest():
    """The spring carries cup and ball; string or bar gives way by what carries the ball."""
    weight = contact.BALL_MASS * G
    low = -(contact.CUP_MASS + contact.BALL_MASS) * G / 20
    for start, number in (([0, 0, 0, 0.1], contact.STRING), ([0, 0, 0, 0.334], 2)):
        play = Play("BallInCupCatch", start)
        rewards = [play.step() for _ in range(1000)]
        x, z = ball_in_cup.ball_from_cup(play.floats)
        np.testing.assert_allclose(play.floats[:2], [0, low], atol=1e-6)
        gap, nx, nz, mobility = contact.constraint(number, x, z, 1.0)
        np.testing.assert_allclose([nx, nz], [0, 1], atol=1e-9)
        d = physics.impedance(gap)
        # At rest the reference acceleration is -d gap / (0.95 * 0.02)**2. A contact has two rows
        # along its normal and two beside it.
        rows = 1 if number == contact.STRING else 4
        force = rows * d / (1 - d) / mobility * -d * gap / 0.019**2
        np.testing.assert_allclose(force, weight, rtol=1e-4)
        assert rewards[-1] == (number == 2) and abs(play.floats[4:]).max() < 1e-6


def test_rewards_at_named_poses():
    # The target's middle is 0.35 m above the ball's place.
    check_rewards(
        [
            ("BallInCupCatch", [0.3, 0, 0.3, 0.35], [1, 1], 1),
            ("BallInCupCatch", [0, 0, 0.0249, 0.3251], [0, 0], 1),
            ("BallInCupCatch", [0, 0, 0.0251, 0.35], [0, 0], 0),
            ("BallInCupCatch", [0, 0.1, 0, 0.4251], [0, 0], 1),
            ("BallInCupCatch", [0, 0, 0, 0.3249], [0, 0], 0),
        ]
    )


def test_observation():
    check_observation("BallInCupCatch", range(8), range(8))


def test_the_ball_starts_anywhere_beside_the_cup():
    """Starts are uniform, without the points that are too near to a bar.

    A search over 1000 points of each bar finds those.
    """
    envs = make_vec("BallInCupCatch", 3000, seed=5)
    envs.reset()
    state = envs.get_state()["floats"]
    assert not state[:, [0, 1, 4, 5, 6, 7]].any()
    corners = np.array(
        [(-0.05, 0), (-0.05, -0.075), (-0.025, -0.1), (0.025, -0.1), (0.05, -0.075), (0.05, 0)]
    )
    way = np.concatenate([np.linspace(a, b, 1000) for a, b in itertools.pairwise(corners)]) + [
        0,
        0.4,
    ]

    def free(balls):
        return np.array([((way - ball) ** 2).sum(1).min() for ball in balls]) > 0.033**2

    points = np.random.default_rng(0).uniform([-0.2, 0.2], [0.2, 0.5], (3000, 2))
    expected = points[free(points)]
    assert (
        300 < len(points) - len(expected) < 1500 and free(state[:, 2:4] * (1 + 1e-4)).mean() > 0.99
    )
    for ours, theirs in ((state[:, 2], expected[:, 0]), (state[:, 3], expected[:, 1])):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    rng = np.random.default_rng(1)
    near = rng.uniform([-0.1, -0.15], [0.1, 0.05], (2000, 2))
    ours = np.array([contact.touched(x, z) > 0 for x, z in near])
    sure = (
        abs(np.array([((way - [0, 0.4] - ball) ** 2).sum(1).min() for ball in near]) ** 0.5 - 0.033)
        > 1e-5
    )
    np.testing.assert_array_equal(ours[sure], ~free(near + [0, 0.4])[sure])


def test_the_cups_damping_is_implicit():
    """For the cup alone, mass (v' - v) / h = force - 20 x - 3 v' - weight, in ten substeps."""
    play, m, h = (Play("BallInCupCatch", [0.1, -0.1, 0.3, 0.25, -1, 0.5]), contact.CUP_MASS, 0.002)
    place, speed = play.floats[:2].copy(), play.floats[4:6].copy()
    play.step(1, -0.5)
    for _ in range(10):
        speed = (m * speed + h * (np.array([5, -2.5]) - 20 * place - [0, m * G])) / (m + 3 * h)
        place = place + h * speed
    np.testing.assert_allclose(play.floats[[0, 1, 4, 5]], [*place, *speed], rtol=1e-12)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_the_worst_return_is_reached():
    task = find("BallInCupCatch")[1]
    check_return("BallInCupCatch", [0, 0, 0, 0.1], task.worst_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_bad_options():
    message = "damping: BallInCupCatch has no such option; its options are max_steps"
    check_bad_option("BallInCupCatch", {"damping": 0}, message)


@pytest.mark.parametrize(
    ("state", "ball"),
    [
        ([0, 0.1, 0, 0.1], "cup at (+0.000, +0.100) m, ball (+0.000, -0.400) m from it"),
        ([0, 0, 0, 0.35], "cup at (+0.000, +0.000) m, ball in it"),
    ],
)
def test_pictures(state, ball):
    check_picture("BallInCupCatch", state, ball)


def test_constants_are_the_suite_s():
    m = Pair("BallInCupCatch").model
    same(
        [contact.CUP_MASS, contact.BALL_MASS, contact.STRING_MOBILITY],
        [*m.body_mass[1:], m.tendon_invweight0[0]],
    )
    same(
        [contact.GROUND_MOBILITY, contact.BAR_MOBILITY],
        4 * np.array([m.body_invweight0[2, 0], m.body_invweight0[1:, 0].sum()]),
    )


@pytest.mark.parametrize("name", LEVELS)
def test_spaces_and_times_are_the_suite_s(name):
    check_spaces_and_times(name, ball_in_cup.SUBSTEPS)


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
