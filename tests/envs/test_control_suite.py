"""The control tasks after the DeepMind Control Suite by hand: accelerations, energy, rewards, limits, starts, returns, options.
Side by side with dm_control they are in test_dm_control_physics.py."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from minis5.envs.control import acrobot as control_acrobot
from minis5.envs.control import ball_in_cup as control_ball_in_cup
from minis5.envs.control import cartpole as control_cartpole
from minis5.envs.control import contact as control_contact
from minis5.envs.control import pendulum as control_pendulum
from minis5.envs.control import physics
from minis5.envs.control import point_mass as control_point_mass
from minis5.envs.control import reacher as control_reacher
from minis5.envs.control.reward import gaussian, quadratic
from minis5.envs.registry import CONTROL_SUITE, find, make_single, make_vec

LEVELS = [name for env in CONTROL_SUITE for name in env.LEVELS]
G = 9.81


class Play:
    """One environment in a state of one's own, stepped with constants of one's own."""

    def __init__(self, name, state, **constants):
        self.env, self.task = find(name)
        self.params = self.task.params._replace(**constants)
        self.ints, self.floats = np.zeros(self.task.ints, np.int64), np.zeros(self.task.floats)
        if name.startswith("PointMass"):
            self.floats[control_point_mass.FIRST :] = 1, 0, 0, 1
        self.floats[: len(state)] = state

    def step(self, *action):
        row = np.array(action or np.zeros(self.task.action_space.shape), np.float32)
        return self.env.step(self.params, self.ints, self.floats, row)[0]

    def reward(self, *action):
        return self.env.reward(self.params, self.floats, np.array(action, np.float32))


def test_shapes_of_rewards():
    assert gaussian(0.0, 2.0) == gaussian(-3.0, 2.0) == quadratic(0.0) == 1
    np.testing.assert_allclose(
        [gaussian(2.0, 2.0), gaussian(0.03, 0.01), gaussian(1.0, 2.0)],
        [0.1, 1e-9, 0.1**0.25],
        rtol=1e-14,
    )
    assert gaussian(1e9, 1.0) == 0
    assert [quadratic(x) for x in (0.5, -0.5, 1.0, -1.0, 1.5)] == [0.75, 0.75, 0, 0, 0]


@pytest.mark.parametrize(("radius", "length"), [(0.045, 1.0), (0.3, 0.2), (0.5, 0.0)])
def test_mass_and_inertia_of_a_capsule_by_slices(radius, length):
    """A disc of radius r has the moment r**2 / 4 of its mass across its own axis, and its distance's square on top."""
    edges = np.linspace(-length / 2 - radius, length / 2 + radius, 20_001)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    squares = radius**2 - np.maximum(abs(middles) - length / 2, 0) ** 2
    masses = 1000 * math.pi * squares * width
    expected = masses.sum(), (masses * (squares / 4 + middles**2)).sum()
    np.testing.assert_allclose(physics.capsule(radius, length), expected, rtol=1e-6)
    np.testing.assert_allclose(
        physics.capsule(radius, length, mass=2), np.array(expected) * 2 / expected[0], rtol=1e-6
    )
    if length == 0:
        np.testing.assert_allclose(physics.sphere(radius), expected, rtol=1e-6)


def lagrange(bodies, q, v, torques, weight):
    """Accelerations of the coordinates q by Lagrange's equations, with differences for derivatives.

    `bodies`: (mass, inertia, function of q that gives x, z of the centre of mass and the angle); `weight`: that of a kg, along -z.
    """
    h = 1e-4
    mass, force = np.zeros((2, 2)), np.array(torques, float)
    for m, inertia, place in bodies:
        # (3, 2)
        jacobian = np.transpose(
            [(place(q + h * e) - place(q - h * e)) / (2 * h) for e in np.eye(2)]
        )
        bend = (place(q + h * v) - 2 * place(q) + place(q - h * v)) / h**2
        weights = np.array([m, m, inertia])
        mass += jacobian.T @ (weights[:, None] * jacobian)
        force -= jacobian.T @ (weights * bend + [0, m * weight, 0])
    return np.linalg.solve(mass, force)


def on_first(distance):
    """Place of a body on the first link, as `lagrange` takes it; angles from upright."""
    return lambda q: np.array([distance * np.sin(q[0]), distance * np.cos(q[0]), q[0]])


def on_second(length, distance):
    """The same on the second link, behind a first one of that length."""
    return lambda q: on_first(length)(q) * [1, 1, 0] + on_first(distance)(q[:1] + q[1:])


def poses(n=50):
    rng = np.random.default_rng(0)
    return zip(
        rng.uniform(-1.7, 1.7, (n, 2)),
        rng.normal(0, 2, (n, 2)),
        rng.uniform(-1, 1, (n, 2)),
        strict=True,
    )


def test_cartpole_by_lagrange():
    pole = control_cartpole.POLE_MASS, control_cartpole.POLE_INERTIA
    bodies = [
        (1.0, 0.0, lambda q: np.array([q[0], 0, 0])),
        (*pole, lambda q: np.array([q[0] + 0.5 * np.sin(q[1]), 0.5 * np.cos(q[1]), q[1]])),
    ]
    params = find("CartPoleSwingUp")[1].params
    for q, v, action in poses():
        force = 10 * action[0]
        expected = lagrange(bodies, q, v, [force - 5e-4 * v[0], -2e-6 * v[1]], G)
        np.testing.assert_allclose(
            control_cartpole.accelerations(params, *q, *v, force), expected, rtol=1e-6, atol=1e-6
        )


def test_acrobot_by_lagrange():
    (m1, i1), (m2, i2) = physics.capsule(0.05, 1, mass=1), physics.capsule(0.049, 1, mass=1)
    bodies = [(m1, i1, on_first(0.5)), (m2, i2, on_second(1, 0.5))]
    params = find("AcrobotSwingUp")[1].params
    for q, v, action in poses():
        torque = 2 * action[0]
        expected = lagrange(bodies, q, v, [-0.05 * v[0], torque - 0.05 * v[1]], G)
        np.testing.assert_allclose(
            control_acrobot.accelerations(params, *q, *v, torque), expected, rtol=1e-6, atol=1e-6
        )


def test_reacher_by_lagrange():
    """Euler's method changes the velocities by the accelerations at the old angles and speeds, but with the damping of the new."""
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


def test_simple_poses():
    """Cartpole: the pole lying level does not feel the cart. Pendulum: 1 N m + 4.905 N m on 0.251 kg m2, and 0.1 * 0.02 on top
    from the damping. Acrobot: both balanced poses rest. Point mass: 0.1 N on 0.3 kg, and 1 * 0.02 on top."""
    params = find("CartPoleSwingUp")[1].params
    x_acc, theta_acc = control_cartpole.accelerations(params, 0.5, math.pi / 2, 0.0, 0.0, 11.0)
    np.testing.assert_allclose(
        [x_acc, theta_acc], [10, 0.4905 / control_cartpole.INERTIA], rtol=1e-14
    )
    pendulum = Play("PendulumSwingUp", [math.pi / 2, 0])
    pendulum.step(1)
    np.testing.assert_allclose(
        pendulum.floats,
        [math.pi / 2 + 0.02 * 0.02 * 5.905 / 0.253, 0.02 * 5.905 / 0.253],
        rtol=1e-14,
    )
    params = find("AcrobotSwingUp")[1].params
    for shoulder, elbow in [(0.0, 0.0), (math.pi, 0.0), (0.0, math.pi), (math.pi, math.pi)]:
        assert (
            max(map(abs, control_acrobot.accelerations(params, shoulder, elbow, 0.0, 0.0, 0.0)))
            < 1e-14
        )
    point = Play("PointMassEasy", [0.1, 0, 0, 0])
    point.step(0, -1)
    np.testing.assert_allclose(
        point.floats[:4], [0.1, -0.02 * 0.02 * 0.1 / 0.32, 0, -0.02 * 0.1 / 0.32], rtol=1e-14
    )


def energy_of_pendulum(f):
    return control_pendulum.INERTIA * f[1] ** 2 / 2 + control_pendulum.PULL * math.cos(f[0])


def energy_of_cartpole(f):
    cart, pole = control_cartpole.CART_MASS, control_cartpole.POLE_MASS
    v = np.array([f[2] + 0.5 * math.cos(f[1]) * f[3], -0.5 * math.sin(f[1]) * f[3]])
    kinetic = (cart * f[2] ** 2 + pole * v @ v + control_cartpole.POLE_INERTIA * f[3] ** 2) / 2
    return kinetic + pole * G * 0.5 * math.cos(f[1])


def speeds_on_second(f, l1, distance):
    """Velocity of a point on the second link, angles from upright."""
    both, turn = f[0] + f[1], f[2] + f[3]
    x = l1 * math.cos(f[0]) * f[2] + distance * math.cos(both) * turn
    return np.array([x, -l1 * math.sin(f[0]) * f[2] - distance * math.sin(both) * turn]), turn


def energy_of_acrobot(f):
    (m1, i1), (m2, i2) = physics.capsule(0.05, 1, mass=1), physics.capsule(0.049, 1, mass=1)
    v, turn = speeds_on_second(f, 1, 0.5)
    kinetic = ((m1 * 0.25 + i1) * f[2] ** 2 + m2 * v @ v + i2 * turn**2) / 2
    return kinetic + G * (
        m1 * 0.5 * math.cos(f[0]) + m2 * (math.cos(f[0]) + 0.5 * math.cos(f[0] + f[1]))
    )


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


@pytest.mark.parametrize(
    ("name", "energy", "state", "free", "order"),
    [
        (
            "CartPoleSwingUp",
            energy_of_cartpole,
            [0, 2, 0.3, 1],
            {"cart_damping": 0.0, "pole_damping": 0.0},
            4,
        ),
        ("AcrobotSwingUp", energy_of_acrobot, [2, 1, 0.5, -0.5], {"damping": 0.0}, 4),
        ("PendulumSwingUp", energy_of_pendulum, [2, 1], {"damping": 0.0}, 1),
        ("ReacherEasy", energy_of_reacher, [0, 0.5, 2, -3], {"damping": 0.0}, 1),
    ],
)
def test_energy_is_kept_as_well_as_the_method_can(name, energy, state, free, order):
    """Without control and damping, over a second. Half the step: the error falls by 2**order. With damping it is lost."""
    errors = []
    for h in (0.005, 0.0025, 0.00125):
        play = Play(name, state, timestep=h, **free)
        energies = [energy(play.floats)]
        for _ in range(round(1 / h)):
            play.step()
            energies.append(energy(play.floats))
        errors.append(np.abs(np.array(energies) - energies[0]).max())
    assert errors[0] < {4: 1e-6, 1: 0.05}[order] * abs(energies[0])
    for coarse, fine in itertools.pairwise(errors):
        assert 0.85 < coarse / fine / 2**order < 1.15
    damped = Play(name, state)
    before = energy(damped.floats)
    for _ in range(100):
        damped.step()
    assert energy(damped.floats) < before - max(1e-6, 10 * errors[0])


def test_energy_of_ball_and_cup():
    """In free fall for time t, semi-implicit Euler loses m g**2 h t / 2; the cup on its spring swings with its period; once the
    string is taut, energy is lost, never won."""
    ball = Play("BallInCupCatch", [0, 0, 0.15, 0.3])
    for _ in range(5):
        ball.step()
    lost = -(ball.floats[7] ** 2 / 2 + G * (ball.floats[3] - 0.3))
    np.testing.assert_allclose(lost, G**2 * 0.002 * 0.1 / 2, rtol=1e-9)

    low = -control_contact.CUP_MASS * G / 20
    cup = Play("BallInCupCatch", [0.02, low, 0.15, 0.3], damping=0.0)
    omega = math.sqrt(20 / control_contact.CUP_MASS)
    for k in range(1, 6):
        cup.step()
        assert abs(cup.floats[0] - 0.02 * math.cos(omega * 0.02 * k)) < 0.02 * omega * 0.002
        assert abs(cup.floats[1] - low) < 1e-12

    def energy(f):
        kinetic = (
            control_contact.CUP_MASS * f[4:6] @ f[4:6] + control_contact.BALL_MASS * f[6:] @ f[6:]
        )
        return (
            kinetic / 2
            + 10 * f[:2] @ f[:2]
            + G * (control_contact.CUP_MASS * f[1] + control_contact.BALL_MASS * f[3])
        )

    swing = Play("BallInCupCatch", [0, 0, 0.25, 0.25])
    energies, taut = [energy(swing.floats)], 0
    for _ in range(1000):
        swing.step()
        energies.append(energy(swing.floats))
        x, z = control_ball_in_cup.ball_from_cup(swing.floats)
        taut += math.hypot(x, z + control_contact.STRING_DEPTH) > control_contact.STRING_LENGTH
    assert np.diff(energies).max() < 1e-5 and taut > 500


def test_the_ball_at_rest():
    """On the string and in the cup, the spring carries cup and ball; string and bar give way by what carries the ball."""
    weight = control_contact.BALL_MASS * G
    low = -(control_contact.CUP_MASS + control_contact.BALL_MASS) * G / 20
    for start, number in (([0, 0, 0, 0.1], control_contact.STRING), ([0, 0, 0, 0.334], 2)):
        play = Play("BallInCupCatch", start)
        rewards = [play.step() for _ in range(1000)]
        x, z = control_ball_in_cup.ball_from_cup(play.floats)
        np.testing.assert_allclose(play.floats[:2], [0, low], atol=1e-6)
        gap, nx, nz, mobility = control_contact.constraint(number, x, z, 1.0)
        np.testing.assert_allclose([nx, nz], [0, 1], atol=1e-9)
        d = physics.impedance(gap)
        # At rest the reference acceleration is -d gap / (0.95 * 0.02)**2; a contact has two rows
        # along its normal and two beside.
        rows = 1 if number == control_contact.STRING else 4
        force = rows * d / (1 - d) / mobility * -d * gap / 0.019**2
        np.testing.assert_allclose(force, weight, rtol=1e-4)
        assert rewards[-1] == (number == 2) and abs(play.floats[4:]).max() < 1e-6


def test_impedance():
    """From 0.9 at the limit to 0.95 from 1 mm on, with equal halves of a parabola between."""
    gaps = np.array([0, -0.25e-3, -0.5e-3, -0.75e-3, -1e-3, -1])
    expected = 0.9 + 0.05 * np.array([0, 1 / 8, 1 / 2, 7 / 8, 1, 1])
    np.testing.assert_allclose([physics.impedance(gap) for gap in gaps], expected, rtol=1e-14)


def test_limit_force_by_hand():
    # Deep: D = 19 / mobility, reference = 4 m/s2 - 4 m/s2 for a gap of -0.38 m at 1 m/s with a time
    # constant of 1 / 1.9 s.
    tc = 1 / 1.9  # 1 / (0.95 tc) = 2: reference = -4 speed - 4 * 0.95 gap
    assert abs(physics.reference(-1.0, 0.5, tc) - (-2 + 3.8)) < 1e-14
    # f = D (reference - a - A f), D = 19 / 2, A = 3
    assert abs(physics.limit_force(-1.0, 0.5, 0.8, 3.0, 2.0, tc) - 9.5 / (1 + 28.5)) < 1e-14
    # it is leaving: no force holds it back
    assert physics.limit_force(-1.0, 5.0, 0.8, 3.0, 2.0, tc) == 0


def test_the_rails_end_holds_the_cart():
    """Under the full push, the pole hanging, it gives way by 10 N / (D d / (0.95 tc)**2) = 3.1 mm."""
    params = find("CartPoleSwingUp")[1].params
    d = 0.95 / 0.05 / control_cartpole.X_MOBILITY
    give = 10 / (d * 0.95 / (0.95 * 0.08) ** 2)
    assert 0.003 < give < 0.0033
    for side in (1, -1):
        accelerations = control_cartpole.accelerations(
            params, side * (1.8 + give), math.pi, 0.0, 0.0, side * 10.0
        )
        np.testing.assert_allclose(accelerations, 0, atol=1e-11)
        play = Play("CartPoleSwingUp", [side * 1.7, math.pi, side * 3, 0])
        far = 0
        for _ in range(300):
            play.step(side)
            far = max(far, abs(play.floats[0]))
        assert 1.8 < abs(play.floats[0]) < 1.82 and far < 2.0


def test_walls_and_wrist_hold():
    """Under the full torque, the wrist gives way by 0.05 N m / (D d / (0.95 * 0.04)**2) = 0.083 rad."""
    d = 0.95 / 0.05 / control_reacher.WRIST_MOBILITY
    give = 0.05 / (d * 0.95 / (0.95 * 0.04) ** 2)
    assert 0.0825 < give < 0.0835
    for action in itertools.product((1, -1), repeat=2):
        point, arm = Play("PointMassEasy", [0, 0, 0, 0]), Play("ReacherEasy", [0, 0, 0, 0])
        for _ in range(500):
            point.step(*action)
            arm.step(0, action[1])
        np.testing.assert_allclose(point.floats[:2], 0.29 * np.array(action), atol=1e-3)
        np.testing.assert_allclose(
            arm.floats[[1, 3]], [(math.radians(160) + give) * action[1], 0], atol=1e-9
        )


def test_rewards_at_named_poses():
    pi = math.pi
    for name, state, action, expected in [
        ("CartPoleSwingUp", [0, 0, 0, 0], [0], 1),
        ("CartPoleSwingUp", [0, pi, 0, 0], [0], 0),
        ("CartPoleSwingUp", [0, pi / 2, 0, 0], [0], 0.5),
        ("CartPoleSwingUp", [0, 0, 0, 0], [-1], 0.8),
        ("CartPoleSwingUp", [-2, 0, 7, 0], [0], 0.55),
        ("CartPoleBalance", [0, 0, 0, 5], [0], 0.55),
        ("CartPoleBalance", [2, pi / 2, 0, -5], [0.5], 0.5 * 0.95 * 0.55 * 0.55),
        ("PendulumSwingUp", [math.radians(7.99), 9], [1], 1),
        ("PendulumSwingUp", [-2 * pi - math.radians(7.99), 0], [1], 1),
        ("PendulumSwingUp", [math.radians(8.01), 0], [0], 0),
        ("AcrobotSwingUp", [0, 0, 0, 0], [1], 1),
        ("AcrobotSwingUp", [0.09, 0, 5, 5], [1], 1),  # 0.18 m away
        ("AcrobotSwingUp", [pi, 0, 0, 0], [0], 0.1 ** (3.8**2)),
        ("AcrobotSwingUp", [0, pi, 0, 0], [0], 0.1 ** (1.8**2)),
        ("PointMassEasy", [0.009, -0.012, 1, 1], [0, 0], 1),
        ("PointMassEasy", [0.018, 0.024, 0, 0], [0, 0], 0.1),
        ("PointMassEasy", [0, 0, 0, 0], [1, -1], 0.8),
        ("PointMassHard", [0, 0, 0, 0], [0, 1], 0.9),
        # the finger is at (0.12, 0.12)
        ("ReacherEasy", [0, pi / 2, 0, 0, 0.12, 0.1799], [0, 0], 1),
        ("ReacherEasy", [0, pi / 2, 0, 0, 0.12, 0.1801], [0, 0], 0),
        ("ReacherHard", [0, pi / 2, 0, 0, 0.1449, 0.12], [0, 0], 1),
        ("ReacherHard", [0, pi / 2, 0, 0, 0.1451, 0.12], [0, 0], 0),
        # the target's middle is 0.35 m above the ball's place
        ("BallInCupCatch", [0.3, 0, 0.3, 0.35], [1, 1], 1),
        ("BallInCupCatch", [0, 0, 0.0249, 0.3251], [0, 0], 1),
        ("BallInCupCatch", [0, 0, 0.0251, 0.35], [0, 0], 0),
        ("BallInCupCatch", [0, 0.1, 0, 0.4251], [0, 0], 1),
        ("BallInCupCatch", [0, 0, 0, 0.3249], [0, 0], 0),
    ]:
        assert abs(Play(name, state).reward(*action) - expected) < 1e-12, (name, state)


def test_observations():
    for name, state, expected in [
        ("CartPoleSwingUp", [0.5, 2.0, 3.0, 4.0], [0.5, math.cos(2), math.sin(2), 3, 4]),
        ("PendulumSwingUp", [2.0, 3.0], [math.cos(2), math.sin(2), 3]),
        (
            "AcrobotSwingUp",
            [1.0, 2.0, 5.0, 6.0],
            [math.sin(1), math.sin(3), math.cos(1), math.cos(3), 5, 6],
        ),
        ("PointMassHard", [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
        ("ReacherHard", [0, math.pi / 2, 3, 4, 0.1, 0.2], [0, math.pi / 2, -0.02, 0.08, 3, 4]),
        ("BallInCupCatch", range(8), range(8)),
    ]:
        play = Play(name, state)
        out = np.zeros(play.task.observation_space.shape, np.float32)
        play.env.observe(play.params, play.ints, play.floats, out)
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7)


def test_starts():
    def uniform(column, low, high):
        assert (column >= low).all() and (column <= high).all()
        assert stats.kstest(column, "uniform", args=(low, high - low)).pvalue > 1e-3

    starts = {}
    for name in LEVELS:
        envs = make_vec(name, 4000, seed=5)
        envs.reset()
        starts[name] = envs.get_state()["floats"]
    for name, speeds in [
        ("PendulumSwingUp", 1),
        ("AcrobotSwingUp", 2),
        ("PointMassEasy", 2),
        ("PointMassHard", 2),
        ("ReacherEasy", 2),
    ]:
        assert not starts[name][:, speeds : 2 * speeds].any(), name  # all at rest
    hanging, upright = starts["CartPoleSwingUp"], starts["CartPoleBalance"]
    for column in (*(hanging - [0, math.pi, 0, 0]).T, *upright[:, 2:].T):
        assert stats.kstest(column / 0.01, "norm").pvalue > 1e-3
    uniform(upright[:, 0], -0.1, 0.1)
    uniform(upright[:, 1], -0.034, 0.034)
    for column in (starts["PendulumSwingUp"][:, 0], *starts["AcrobotSwingUp"].T[:2]):
        uniform(column, -math.pi, math.pi)
    for name in ("PointMassEasy", "PointMassHard"):
        for column in starts[name].T[:2]:
            uniform(column, -0.29, 0.29)
    for name in ("ReacherEasy", "ReacherHard"):
        shoulder, wrist, _, _, x, y = starts[name].T
        uniform(shoulder, -math.pi, math.pi)
        uniform(wrist, -math.radians(160), math.radians(160))
        uniform(np.hypot(x, y), 0.05, 0.2)
        uniform(np.arctan2(y, x), -math.pi, math.pi)
    assert (starts["PointMassEasy"][:, 4:] == [1, 0, 0, 1]).all()


def test_directions_of_the_hard_point_mass():
    """Drawn as the suite draws them, by rejection; the same for the whole episode, others in the next; and they are what acts."""
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


def test_the_ball_starts_anywhere_beside_the_cup():
    """Against uniform points, those whose distance to a bar, by a search over 1000 points of each, is too small left out."""
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
    ours = np.array([control_contact.touched(x, z) > 0 for x, z in near])
    sure = (
        abs(np.array([((way - [0, 0.4] - ball) ** 2).sum(1).min() for ball in near]) ** 0.5 - 0.033)
        > 1e-5
    )
    np.testing.assert_array_equal(ours[sure], ~free(near + [0, 0.4])[sure])


def rows_of(x, z, height, speeds):
    """The rows of control_contact's header, made anew: directions (n, 4) for the cup's and the ball's accelerations, r, D."""
    corners = np.array(
        [(-0.05, 0), (-0.05, -0.075), (-0.025, -0.1), (0.025, -0.1), (0.05, -0.075), (0.05, 0)]
    )
    ball, cup_mobility, ball_mobility = (
        np.array([x, z]),
        1 / control_contact.CUP_MASS,
        1 / control_contact.BALL_MASS,
    )
    contacts = []  # gap, direction, whether the cup is pushed back, mobility
    for start, end in itertools.pairwise(corners):
        way = end - start
        offset = ball - start - np.clip((ball - start) @ way / (way @ way), 0, 1) * way
        distance = np.linalg.norm(offset)
        n, t = offset / distance, offset[::-1] / distance * [-1, 1]
        mobility = 4 * (2 / 3 * cup_mobility + ball_mobility)
        contacts += [(distance - 0.033, j, 1, mobility) for j in (n, n, n + t, n - t)]
    string = ball - [0, -0.108]
    contacts.append(
        (
            0.3 - np.linalg.norm(string),
            -string / np.linalg.norm(string),
            1,
            cup_mobility + ball_mobility,
        )
    )
    contacts += [
        (height - 0.025, np.array(j), 0, 4 * ball_mobility)
        for j in ((0, 1), (0, 1), (1, 1), (-1, 1))
    ]
    rows = [
        (np.array([*(-back * j), *j]), gap, mobility)
        for gap, j, back, mobility in contacts
        if gap < 0
    ]
    r = [physics.reference(gap, j @ speeds, 0.02) for j, gap, _ in rows]
    return (
        np.array([j for j, _, _ in rows]),
        np.array(r),
        np.array([physics.stiffness(gap, m) for _, gap, m in rows]),
    )


def test_accelerations_minimise_what_the_header_says():
    """Where the gradient of a convex function is 0: mass (a - a_free) is the sum of the rows' forces."""
    rng = np.random.default_rng(3)
    masses = np.repeat([control_contact.CUP_MASS, control_contact.BALL_MASS], 2)
    kinds = set()
    for k in range(1500):
        x, z, height = rng.uniform(-0.1, 0.1), rng.uniform(-0.16, 0.05), rng.choice([0.024, 1.0])
        if k % 3 == 0:  # on the string
            angle, length = rng.uniform(-1, 1), rng.uniform(0.299, 0.31)
            x, z = length * math.sin(angle), -0.108 - length * math.cos(angle)
        speeds, free = rng.normal(size=4), rng.normal(size=4) * 10
        a = np.array(control_contact.constrained(x, z, height, tuple(speeds), tuple(free)))
        j, r, d = rows_of(x, z, height, speeds)
        force = d * np.maximum(0, r - j @ a) @ j if len(j) else np.zeros(4)
        np.testing.assert_allclose(
            masses * (a - free), force, rtol=0, atol=1e-9 * max(1, abs(force).max())
        )
        kinds.add(len(j))
    assert kinds >= {0, 1, 4, 5, 8, 12}  # none, string, contact, both, two and three contacts


def test_the_cups_damping_is_implicit():
    """The cup alone: mass (v' - v) / h = force - 20 x - 3 v' - weight, ten times."""
    play, m, h = (
        Play("BallInCupCatch", [0.1, -0.1, 0.3, 0.25, -1, 0.5]),
        control_contact.CUP_MASS,
        0.002,
    )
    place, speed = play.floats[:2].copy(), play.floats[4:6].copy()
    play.step(1, -0.5)
    for _ in range(10):
        speed = (m * speed + h * (np.array([5, -2.5]) - 20 * place - [0, m * G])) / (m + 3 * h)
        place = place + h * speed
    np.testing.assert_allclose(play.floats[[0, 1, 4, 5]], [*place, *speed], rtol=1e-12)


def test_contacts_are_mirrored_and_hold_the_momentum():
    """Left and right alike; between ball and cup forces are opposite; the ground pushes the ball alone."""
    rng = np.random.default_rng(0)
    touching = 0
    for _ in range(500):
        x, z, speeds = rng.uniform(-0.1, 0.1), rng.uniform(-0.16, 0.05), rng.normal(size=4)
        free = (*rng.normal(size=2), 0.0, -G)
        found = np.array(control_contact.constrained(x, z, 1.0, tuple(speeds), free))
        flip = np.array([-1, 1, -1, 1])
        mirrored = control_contact.constrained(
            -x, z, 1.0, tuple(speeds * flip), tuple(np.array(free) * flip)
        )
        np.testing.assert_allclose(mirrored, found * flip, rtol=1e-9, atol=1e-9)
        pushes = np.array([control_contact.CUP_MASS, control_contact.BALL_MASS])[:, None] * (
            found - free
        ).reshape(2, 2)
        np.testing.assert_allclose(pushes[0], -pushes[1], atol=1e-9)
        touching += control_contact.touched(x, z) > 0
    assert touching > 100
    free = (0.0, 0.0, 0.0, -G)
    found = control_contact.constrained(0.0, -0.2, 0.024, (0.0, 0.0, 0.3, -0.5), free)
    assert found[:2] == (0, 0) and found[2] < 0 and found[3] > 0  # friction against the way, and up


@pytest.mark.parametrize("name", LEVELS)
def test_episodes_end_by_truncation_after_1000_steps(name):
    env = make_single(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    rewards, flags = [], []
    for _ in range(1000):
        _, reward, *ends, _ = env.step(env.action_space.sample())
        rewards.append(reward)
        flags.append(ends)
    assert (
        flags == [[False, False]] * 999 + [[False, True]] and 0 <= min(rewards) <= max(rewards) <= 1
    )
    task = env.task
    assert (task.worst_return, task.best_return, task.episode_length) == (
        0,
        1000,
        1000,
    ) and task.truncates
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()


def test_bounds_of_returns_are_reached():
    for name, best in [
        ("PendulumSwingUp", [0, 0]),
        ("PointMassEasy", [0, 0, 0, 0]),
        ("CartPoleBalance", [0, 0, 0, 0]),
    ]:
        play = Play(name, best)
        assert sum(play.step() for _ in range(1000)) == play.task.best_return
    for name, worst in [
        ("PendulumSwingUp", [math.pi, 0]),
        ("BallInCupCatch", [0, 0, 0, 0.1]),
        ("ReacherHard", [0, 0, 0, 0, -0.1, 0]),
    ]:
        play = Play(name, worst)
        assert sum(play.step() for _ in range(1000)) == play.task.worst_return


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "CartPoleSwingUp",
            {"start": "lying"},
            "start: expected one of 'upright', 'hanging', got 'lying'",
        ),
        (
            "PointMassEasy",
            {"directions": 2},
            "directions: expected one of 'fixed', 'random', got 2",
        ),
        (
            "ReacherEasy",
            {"target_radius": -1},
            r"target_radius: expected a number in \[0.0, 1.0\], got -1; ReacherEasy has",
        ),
        (
            "BallInCupCatch",
            {"damping": 0},
            "damping: BallInCupCatch has no such option; its options are max_steps",
        ),
        *(
            (
                name,
                {"max_steps": 0},
                r"max_steps: expected an integer in \[1, \d+\], got 0; \w+ has max_steps=1000",
            )
            for name in LEVELS
        ),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        find(name, options)


def test_good_options():
    assert (
        find("CartPoleBalance", {"start": "hanging"})[1].params == find("CartPoleSwingUp")[1].params
    )
    assert (
        find("PointMassEasy", {"directions": "random"})[1].params == find("PointMassHard")[1].params
    )
    assert find("ReacherEasy", {"target_radius": 0.015})[1].params == find("ReacherHard")[1].params
    env = make_single("AcrobotSwingUp", max_steps=2)
    env.reset(seed=0)
    assert [env.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [
        False,
        True,
    ] and env.task.best_return == 2


@pytest.mark.parametrize(
    ("name", "state", "picture"),
    [
        (
            "CartPoleSwingUp",
            [0.5, 2 * math.pi + 0.25, 1, -2],
            "x +0.500 m, +1.000 m/s, +0.250 rad from upright, -2.000 rad/s",
        ),
        ("PendulumSwingUp", [-math.pi / 2, 3], "-1.571 rad from upright, +3.000 rad/s"),
        (
            "AcrobotSwingUp",
            [1, -1, 2, 3],
            "shoulder +1.000 rad from upright, +2.000 rad/s, elbow -1.000 rad, +3.000 rad/s",
        ),
        ("PointMassHard", [0.1, 0.2, 0, -1], "at (+0.100, +0.200) m, moving (+0.000, -1.000) m/s"),
        (
            "ReacherEasy",
            [7, 0, 0, 0, 0, 0],
            "shoulder +0.717 rad, wrist +0.000 rad, target (-0.181, -0.158) m from the finger",
        ),
        (
            "BallInCupCatch",
            [0, 0.1, 0, 0.1],
            "cup at (+0.000, +0.100) m, ball (+0.000, -0.400) m from it",
        ),
        ("BallInCupCatch", [0, 0, 0, 0.35], "cup at (+0.000, +0.000) m, ball in it"),
    ],
)
def test_pictures(name, state, picture):
    env = make_single(name, render_mode="ansi")
    env.reset(seed=0)
    env._floats[0, : len(state)] = state
    assert env.render() == f"step 0/1000: {picture}"
