"""The control environments by hand: first steps, ends of episodes, noise, returns, options. Lockstep with POPGym and Gymnasium
is in test_popgym_control.py."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from minis5.envs.popgym import cartpole, pendulum
from minis5.envs.registry import find, make_single, make_vec
from minis5.random import next_normal, next_uniform


def cartpole_at(name, state, **options):
    env = make_single(name, **options)
    env.reset(seed=0)
    env._floats[0, :4] = state
    return env


def pendulum_at(theta, speed, **options):
    env = make_single("PositionOnlyPendulumEasy", **options)
    env.reset(seed=0)
    env._floats[0, :2] = theta, speed
    return env


def torque(value):
    return np.array([value], np.float32)


def test_cartpole_by_hand():
    # From rest, a push of 10 N: the pole's acceleration is -(10 / 1.1) / (0.5 (4/3 - 0.1 / 1.1)) =
    # -600 / 41 rad/s2, the cart's
    # 10 / 1.1 + 0.05 (600 / 41) / 1.1 = 400 / 41 m/s2. Velocities change at once, positions one
    # step of 0.02 s later.
    positions, velocities = (
        cartpole_at(view + "OnlyCartPoleEasy", [0, 0, 0, 0]) for view in ("Position", "Velocity")
    )
    x_dot, theta_dot = 8 / 41, -12 / 41
    obs, *rest = positions.step(1)
    assert (
        obs.dtype == np.float32 and obs.tolist() == [0, 0] and rest == [1 / 200, False, False, {}]
    )
    np.testing.assert_allclose(velocities.step(1)[0], [x_dot, theta_dot], rtol=1e-7)
    np.testing.assert_allclose(positions.step(0)[0], [0.02 * x_dot, 0.02 * theta_dot], rtol=1e-7)
    # The push to the left takes the velocities back, as the pole still stands upright.
    np.testing.assert_allclose(velocities.step(0)[0], [0, 0], atol=1e-7)


def test_cartpole_mirrored():
    left, right = (
        cartpole_at("PositionOnlyCartPoleHard", s * np.array([0.1, -0.3, 0.04, 0.2]))
        for s in (1, -1)
    )
    for t in range(8):
        left.step(t % 3 % 2)
        right.step(1 - t % 3 % 2)
        np.testing.assert_allclose(left._floats, -right._floats, rtol=1e-12)


@pytest.mark.parametrize(
    ("state", "fallen"),
    [
        ([2.4, 0, 0, 0], False),
        ([np.nextafter(2.4, 3), 0, 0, 0], True),
        ([-2.401, 0, 0, 0], True),
        ([2.41, -1, 0, 0], False),  # back within the limits after 0.02 s
        ([0, 0, math.radians(12) - 1e-9, 0], False),
        ([0, 0, math.radians(12) + 1e-9, 0], True),
        ([0, 0, math.radians(-12), -1e-3], True),
    ],
)
def test_cartpole_limits(state, fallen):
    assert cartpole_at("PositionOnlyCartPoleEasy", state).step(0)[1:4] == (1 / 200, fallen, False)


def test_cartpole_falls_after_8_steps_at_the_earliest():
    lengths = []
    for *corner, action in itertools.product(
        [-0.05, 0.05], [-0.05, 0.05], [-0.05, 0.05], [-0.05, 0.05], [0, 1]
    ):
        env = cartpole_at("PositionOnlyCartPoleEasy", corner)
        lengths.append(next(t for t in itertools.count(1) if env.step(action)[2]))
    assert (
        min(lengths)
        == cartpole.FASTEST_FALL
        == 200 * find("PositionOnlyCartPoleEasy")[1].worst_return
    )
    assert find("PositionOnlyCartPoleEasy", {"max_steps": 5})[1].worst_return == 1


def test_velocities_are_not_seen_at_first():
    """POPGym's VelocityOnlyCartPole returns positions from reset."""
    envs = make_vec("VelocityOnlyCartPoleEasy", 100)
    obs, _ = envs.reset()
    np.testing.assert_array_equal(obs, envs.get_state()["floats"][:, [0, 2]].astype(np.float32))
    starts = 0
    for _ in range(60):
        obs, *_, infos = envs.step(np.arange(100) % 2)
        ended = infos.get("_final_obs", np.zeros(100, bool))
        state = envs.get_state()["floats"].astype(np.float32)
        np.testing.assert_array_equal(obs[ended], state[ended][:, [0, 2]])
        np.testing.assert_array_equal(obs[~ended], state[~ended][:, [1, 3]])
        starts += ended.sum()
        # velocities: the pole was falling
        assert not ended.any() or (abs(infos["final_obs"][ended, 1]) > 0.5).all()
    assert starts > 100


def test_pendulum_by_hand():
    # Lying level, at rest, with the full torque: 15 + 3 * 2 rad/s2 for 0.05 s.
    env = pendulum_at(math.pi / 2, 0)
    obs, reward, *flags, info = env.step(torque(2))
    theta = math.pi / 2 + 1.05 * 0.05
    np.testing.assert_allclose(env._floats[0], [theta, 1.05], rtol=1e-15)
    assert obs.dtype == np.float32 and flags == [False, False] and info == {}
    np.testing.assert_allclose(obs, [math.cos(theta), math.sin(theta)], rtol=1e-6)
    assert abs(reward - (1 - (math.pi**2 / 4 + 0.004) / 8.1368022) / 200) < 1e-12
    # The cost is that of the state before the step, here with speed and a negative torque.
    assert (
        abs(env.step(torque(-1))[1] - (1 - (theta**2 + 0.11025 + 0.001) / 8.1368022) / 200) < 1e-12
    )


def test_pendulum_is_no_faster_than_8_and_its_angle_is_wrapped_in_the_cost_alone():
    env = pendulum_at(3 * math.pi / 2, 7.9)
    for _ in range(2):
        env.step(torque(0))
    assert env._floats[0, 1] < 7.9
    env = pendulum_at(2 * math.pi + 1, 7.9)
    reward = env.step(torque(0))[1]
    assert env._floats[0].tolist() == [2 * math.pi + 1 + 8 * 0.05, 8]
    assert abs(reward - (1 - (1 + 6.241) / 8.1368022) / 200) < 1e-12
    env = pendulum_at(-1, -8)
    env.step(torque(-2))
    assert env._floats[0].tolist() == [-1 - 8 * 0.05, -8]


def test_pendulum_without_torque_swings_with_its_period_and_keeps_its_energy():
    env = pendulum_at(math.pi - 0.05, 0, max_steps=1000)
    states = []
    for _ in range(1000):
        env.step(torque(0))
        states.append(env._floats[0].copy())
    theta, speed = np.transpose(states)
    energy = speed**2 / 2 + 15 * (np.cos(theta) + 1)
    # semi-implicit Euler: it goes up and down with the phase, and
    assert abs(energy / energy[0] - 1).max() < 0.25
    assert abs(energy[-500:].mean() / energy[:500].mean() - 1) < 0.01  # does not drift
    crossings = np.flatnonzero((theta[1:] > math.pi) & (theta[:-1] <= math.pi))
    period = np.diff(crossings).mean() * 0.05
    assert abs(period / (2 * math.pi / math.sqrt(15)) - 1) < 0.01


def test_returns_of_the_pendulum():
    env = pendulum_at(0, 0)
    assert abs(sum(env.step(torque(0))[1] for _ in range(200)) - env.task.best_return) < 1e-12
    # POPGym's constant for the highest cost is rounded down: one step may cost more than -1 /
    # max_steps.
    assert pendulum_at(-math.pi, 8).step(torque(-2))[1] < -1 / 200
    # No episode does, as it starts slow, even if all its other steps cost the most.
    worst = [math.pi**2 + 0.1 * speed**2 + float(np.float32(0.001) * 4) for speed in (1, 8)]
    for n in (1, 200, pendulum.MOST_STEPS):
        assert 1 - (worst[0] + (n - 1) * worst[1]) / n / pendulum.HALF_COST > -1


@pytest.mark.parametrize("name", [*cartpole.LEVELS, *pendulum.LEVELS])
def test_starts(name):
    env, task = find(name)
    envs = make_vec(name, 4000, seed=5)
    envs.reset()
    state = envs.get_state()["floats"]
    bounds = [0.05] * 4 if env is cartpole else [math.pi, 1]
    for column, bound in zip(state.T, bounds, strict=False):
        assert (abs(column) <= bound).all()
        assert stats.kstest(column, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3
    assert state.shape[1] == len(bounds) + 2 * (task.params.noise > 0)


def test_draws():
    """The state in order, then the noise: on reset and after every step."""
    for name, bounds in [
        ("NoisyPositionOnlyCartPoleHard", [(-0.05, 0.1)] * 4),
        ("NoisyPositionOnlyPendulumHard", [(-math.pi, math.tau), (-1, 2)]),
    ]:
        env = make_single(name)
        env.reset(seed=7)
        row = np.array([7, 0, 0])
        start = [low + width * next_uniform(row) for low, width in bounds]
        noise = [float(np.float32(0.3 * next_normal(row))) for _ in range(2)]
        assert env._floats[0].tolist() == start + noise
        env.step(env.action_space.sample())
        assert env._floats[0, -2:].tolist() == [
            float(np.float32(0.3 * next_normal(row))) for _ in range(2)
        ]
        assert env._ints[0, 2] == row[2]


@pytest.mark.parametrize(
    "name", [name for name in [*cartpole.LEVELS, *pendulum.LEVELS] if "Noisy" in name]
)
def test_noise(name):
    """Added to what the level without noise shows, normal with the level's deviation, and clipped to the space."""
    envs = make_vec(name, 5000, seed=3)
    sigma, high = envs.task.params.noise, envs.single_observation_space.high
    envs.action_space.seed(0)
    for observations in (envs.reset, lambda: envs.step(envs.action_space.sample())):
        obs = observations()[0]
        floats = envs.get_state()["floats"]
        seen = (
            floats[:, [0, 2]]
            if "CartPole" in name
            else np.stack([np.cos(floats[:, 0]), np.sin(floats[:, 0])], 1)
        )
        noise = floats[:, -2:]
        for column in noise.T:
            assert stats.kstest(column / sigma, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(noise.T)[0, 1]) < 4 / math.sqrt(5000)
        np.testing.assert_allclose(obs, np.clip(seen + noise, -high, high), atol=1e-6)
        assert ("CartPole" in name and sigma == 0.1) or (abs(obs) == high).any()
        assert obs in envs.observation_space


def test_noise_of_velocities_is_not_clipped():
    env = cartpole_at("VelocityOnlyCartPoleEasy", [0, 0, 0, 0], noise=100.0)
    assert np.isinf(env.observation_space.high).all()
    assert max(abs(env.step(t % 2)[0]).max() for t in range(8)) > 50


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "PositionOnlyCartPoleEasy",
            {"max_steps": 0},
            r"max_steps: expected an integer in \[1, 2147483647\], got 0",
        ),
        (
            "PositionOnlyCartPoleEasy",
            {"view": "all"},
            "view: expected one of 'positions', 'velocities', got 'all'",
        ),
        (
            "PositionOnlyCartPoleEasy",
            {"noise": -0.1},
            r"noise: expected a number in \[0.0, 1000000.0\], got -0.1",
        ),
        (
            "PositionOnlyPendulumEasy",
            {"max_steps": 200_001},
            r"max_steps: expected an integer in \[1, 200000\], got 200001",
        ),
        (
            "PositionOnlyPendulumEasy",
            {"noise": math.nan},
            "noise: expected a number in .*, got nan",
        ),
        ("PositionOnlyPendulumEasy", {"noise": "0.1"}, "noise: expected a number in .*, got '0.1'"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        find(name, options)


@pytest.mark.parametrize("action", [2.001, -3, np.nan, np.inf])
def test_too_much_torque(action):
    with pytest.raises(
        ValueError, match=r"action: expected a member of Box\(-2.0, 2.0, \(1,\), float32\)"
    ):
        pendulum_at(0, 0).step(torque(action))


def test_pictures():
    env = make_single("PositionOnlyCartPoleEasy", render_mode="ansi")
    env.reset(seed=0)
    env._floats[0] = -2.4, 0.5, -0.1, 0
    head, track = env.render().split("\n")
    assert (
        head == "step 0/200: x -2.400 m, +0.500 m/s, theta -0.100 rad, +0.000 rad/s"
        and track == "[\\" + " " * 48 + "]"
    )
    env._floats[0] = 2.5, 0, 0.1, 0
    assert env.render().endswith("\n[" + " " * 48 + "/]")
    env = make_single("NoisyPositionOnlyPendulumEasy", render_mode="ansi")
    env.reset(seed=0)
    env._floats[0, :2] = 2 * math.pi + 0.25, -1.5
    assert env.render() == "step 0/200: +0.250 rad from upright, -1.500 rad/s"
