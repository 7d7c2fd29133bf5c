"""The finger tasks by hand: accelerations, energy, friction, rewards, starts; beside dm_control."""

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
from suite_steps import check_recorded_steps, read

from minis5.envs.control import finger, finger_forces, fingertip, physics
from minis5.envs.registry import find, make_vec

LEVELS = list(finger.LEVELS)
SECOND_LINK = ((physics.capsule(0.028, 0.16), 0.08), (physics.capsule(0.03, 0.031), 0.1455))


def test_accelerations_by_lagrange():
    """Euler's method takes accelerations at the old angles and speeds, damping at the new."""
    bodies = [
        (*physics.cylinder(0.034, 0.066), on_first(0)),
        (*physics.capsule(0.03, 0.17), on_first(0.085)),
        *((*body, on_second(0.18, distance)) for body, distance in SECOND_LINK),
    ]
    compared, h = 0, 0.005
    for q, v, action in poses():
        play, action = Play("FingerTurnEasy", [*q, 2, *v, 0], timestep=h), action.astype(np.float32)
        play.step(*action)
        # The angles tell the speeds after the first of two substeps.
        between = (play.floats[:2] - q) / h - play.floats[3:5]
        angles = q, q + h * between
        if any(fingertip.touching(*a, 2) for a in angles) or abs(angles[1]).max() > 1.9:
            continue
        for a, before, after in zip(angles, (v, between), (between, play.floats[3:5]), strict=True):
            expected = lagrange(bodies, a, before, [30, 15] * action - 2.5 * after, 0)
            np.testing.assert_allclose((after - before) / h, expected, rtol=1e-5, atol=1e-3)
        compared += 1
    assert compared > 20


def energy_of_finger(f):
    f = f[[0, 1, 3, 4]]
    mass, inertia = physics.capsule(0.03, 0.17)
    inertia += mass * 0.085**2 + physics.cylinder(0.034, 0.066)[1]
    energy = inertia * f[2] ** 2 / 2
    for (mass, inertia), distance in SECOND_LINK:
        v, turn = speeds_on_second(f, 0.18, distance)
        energy += (mass * v @ v + inertia * turn**2) / 2
    return energy


def test_energy_is_kept_as_well_as_the_method_can():
    # slow enough to reach neither limits nor spinner within two seconds
    state = [1.5, 0.2, 0, 0.1, -0.5, 0]
    check_energy("FingerSpin", energy_of_finger, state, {"damping": 0.0}, order=1)


def test_the_joints_hold():
    """Under the full torque, a joint gives way by torque / (D d / (0.95 * 0.02)**2)."""
    for joint, torque in ((0, 30), (1, 15)):
        d = 0.95 / 0.05 / finger_forces.JOINT_MOBILITY[joint]
        give = torque / (d * 0.95 / (0.95 * 0.02) ** 2)
        assert 0.04 < give < 0.17
        for side in (1, -1):
            play = Play("FingerSpin", [side * 1.5, 0, 0, 0, 0, 0])
            for _ in range(300):
                # The first joint is held against its limit to keep the tip off the spinner.
                play.step(side, 0 if joint == 0 else side)
            limit = math.radians(110)
            assert abs(abs(play.floats[joint]) - limit - give) < 1e-9
            assert abs(play.floats[3:5]).max() < 1e-9


def test_the_hinge_slows_down_by_friction_and_damping():
    """(w' - w) SPINNER / h = -0.1 - damping w' while it turns; then it stops for good."""
    for name, damping in (("FingerSpin", 0.03), ("FingerTurnHard", 0.5)):
        play = Play(name, [1.5, 0, 0, 0, 0, -20])
        w = -20.0
        for _ in range(2):
            w = (finger_forces.SPINNER * w + 0.01 * 0.1) / (finger_forces.SPINNER + 0.01 * damping)
        play.step(0, 0)
        assert abs(play.floats[5] - w) < 1e-13
        for _ in range(500):
            play.step(0, 0)
        assert abs(play.floats[5]) < 1e-12


def test_moments_of_inertia_by_hand():
    """A cylinder turns about its axis as half its mass at its radius."""
    mass, inertia = physics.cylinder(0.1, 2)
    assert abs(mass - 20 * math.pi) < 1e-12 and abs(inertia - 0.1 * math.pi) < 1e-12


def test_rewards_at_named_poses():
    at = [1, 0, 0, 0, 0, 0, 0, 0]  # the tip is 0.13 m above the hinge
    check_rewards(
        [
            ("FingerSpin", [1, 0, 0, 0, 0, -15], [0, 0], 1),
            ("FingerSpin", [1, 0, 0, 0, 0, -14.9], [0, 0], 0),
            ("FingerSpin", [1, 0, 0, 0, 0, 20], [0, 0], 0),
            ("FingerTurnEasy", [*at, 0.0699, 0.13], [0, 0], 1),
            ("FingerTurnEasy", [*at, 0.0701, 0.13], [0, 0], 0),
            ("FingerTurnHard", [*at, 0, 0.1001], [0, 0], 1),
            ("FingerTurnHard", [*at, 0, 0.0999], [0, 0], 0),
        ]
    )


def test_observation():
    state = [1, 0.5, math.pi / 2, 3, 4, 5, math.e - 1, 0, 0, 0.13]
    seen = [1, 0.5, -0.13, 0, 3, 4, 5, 1, 0]
    check_observation("FingerSpin", state, seen)
    check_observation("FingerTurnHard", state, [*seen, 0, 0.13, 0.13 * math.sqrt(2) - 0.03])


@pytest.mark.parametrize("name", LEVELS)
def test_starts(name):
    """They are at rest and uniform, without those that touch, which a search finds."""
    envs = make_vec(name, 4000, seed=5)
    envs.reset()
    starts = envs.get_state()["floats"]
    assert not starts[:, 3:8].any()
    angles = np.random.default_rng(0).uniform(-1, 1, (4000, 3)) * [1.919862, 1.919862, math.pi]

    def free(angles):
        link = np.transpose([fingertip.links(*row[:2]) for row in angles])
        tip = link[:2, :, None] + link[2:, :, None] * np.linspace(0.13, 0.161, 30)
        c, s = np.cos(angles[:, 2:]), np.sin(angles[:, 2:])
        x, z = c * tip[0] + s * tip[1], c * tip[1] - s * tip[0]
        aside, beyond = np.minimum(abs(x - 0.02), abs(x + 0.02)), np.maximum(abs(z) - 0.09, 0)
        return np.hypot(aside, beyond).min(1) > 0.07

    expected = angles[free(angles)]
    assert 30 < len(angles) - len(expected) < 1000 and free(starts[:, :3]).mean() > 0.999
    for ours, theirs in zip(starts[:, :3].T, expected.T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    if name == "FingerSpin":
        assert not starts[:, 8:].any()
    else:
        np.testing.assert_allclose(np.hypot(*starts[:, 8:].T), 0.13, rtol=1e-12)
        assert_uniform(np.arctan2(*starts[:, 8:].T), -math.pi, math.pi)


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    check_truncation_after_1000_steps(name)


def test_worst_and_best_return_are_reached():
    task = find("FingerTurnHard")[1]
    check_return("FingerTurnHard", [1.5, 0, 0, 0, 0, 0, 0, 0, 0, -0.13], task.worst_return)
    check_return("FingerTurnHard", [1.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.13], task.best_return)


@pytest.mark.parametrize("name", LEVELS)
def test_bad_max_steps(name):
    check_bad_max_steps(name)


def test_bad_target_radius():
    message = r"target_radius: expected a number in \[0.0, 1.0\], got -1; FingerTurnEasy has"
    check_bad_option("FingerSpin", {"target_radius": -1}, message)


def test_good_options():
    small = find("FingerTurnEasy", {"target_radius": 0.03})[1]
    assert small.params == find("FingerTurnHard")[1].params


@pytest.mark.parametrize(
    ("name", "target"), [("FingerSpin", ""), ("FingerTurnEasy", ", tip +0.060 m from the target")]
)
def test_pictures(name, target):
    state = [1, -0.5, 7, 0, 0, -2, 0, 0, 0, 0]
    picture = "finger at +1.000 and -0.500 rad, spinner at +0.717 rad, -2.000 rad/s"
    check_picture(name, state, picture + target)


def test_constants_are_the_suite_s():
    pair = Pair("FingerSpin")
    m, f = pair.model, finger_forces
    same(
        [f.BALL_MASS + f.UPPER_MASS, f.LOWER_MASS + f.TIP_MASS, f.SPINNER],
        [*m.body_mass[1:3], m.body_inertia[3, 0]],
    )
    same([*f.JOINT_MOBILITY, f.FRICTION_MOBILITY], m.dof_invweight0)
    same(f.CONTACT_MOBILITY, m.body_invweight0[2, 0] + m.body_invweight0[3, 0])
    same(
        [f.JOINT_LIMIT, finger.FIRST_TORQUE, finger.SECOND_TORQUE],
        [m.jnt_range[1, 1], *m.actuator_gear[:, 0]],
    )
    mujoco = pytest.importorskip("mujoco")
    assert m.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC and m.opt.impratio == 1
    assert m.opt.disableflags == mujoco.mjtDisableBit.mjDSBL_GRAVITY
    for name in LEVELS:
        other, params = Pair(name), find(name)[1].params
        damping = [params.damping, params.damping, params.hinge_damping]
        assert other.model.dof_damping.tolist() == damping
        if params.target_radius:
            assert other.peer.physics.named.model.site_size["target", 0] == params.target_radius


@pytest.mark.parametrize("name", LEVELS)
def test_recorded_steps_of_the_suite(name):
    check_recorded_steps(name)
    after = read(name)["floats_after"]
    assert after[:, finger.TOP : finger.BOTTOM + 1].any(axis=1).sum() > 20  # sensors feel something


@pytest.mark.parametrize("name", LEVELS)
def test_spaces_and_times_are_the_suite_s(name):
    check_spaces_and_times(name, finger.SUBSTEPS)


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
