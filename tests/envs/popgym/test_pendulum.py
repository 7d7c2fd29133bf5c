"""The pendulums: steps, period and returns by hand; lockstep with POPGym and Gymnasium."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import pendulum as gymnasium_pendulum
from popgym_peers import lockstep
from sampling import sampled
from scipy import stats

from minis5 import elementary
from minis5.envs.popgym import pendulum
from minis5.envs.registry import find, make_single, make_vec
from minis5.random import next_normal, next_uniform
from minis5.verify.lockstep import OurNumPy, start_from_our_numbers, together


def pendulum_at(theta, speed, **options):
    """Return PositionOnlyPendulumEasy in this state."""
    env = make_single("PositionOnlyPendulumEasy", **options)
    env.reset(seed=0)
    env._floats[0, :2] = theta, speed
    return env


def torque(value):
    return np.array([value], np.float32)


def test_first_steps_by_hand():
    # Lying level and at rest, the full torque gives 15 + 3 * 2 rad/s2 for 0.05 s.
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


def test_speed_is_at_most_than_8_and_the_angle_is_wrapped_in_the_cost_alone():
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


def test_without_torque_it_swings_with_its_period_and_keeps_its_energy():
    env = pendulum_at(math.pi - 0.05, 0, max_steps=1000)
    states = []
    for _ in range(1000):
        env.step(torque(0))
        states.append(env._floats[0].copy())
    theta, speed = np.transpose(states)
    energy = speed**2 / 2 + 15 * (np.cos(theta) + 1)
    # The method is semi-implicit Euler: energy goes up and down with the phase ...
    assert abs(energy / energy[0] - 1).max() < 0.25
    assert abs(energy[-500:].mean() / energy[:500].mean() - 1) < 0.01  # ... but does not drift
    crossings = np.flatnonzero((theta[1:] > math.pi) & (theta[:-1] <= math.pi))
    period = np.diff(crossings).mean() * 0.05
    assert abs(period / (2 * math.pi / math.sqrt(15)) - 1) < 0.01


def test_returns():
    env = pendulum_at(0, 0)
    assert abs(sum(env.step(torque(0))[1] for _ in range(200)) - env.task.best_return) < 1e-12
    # POPGym rounds its constant for the highest cost down: a step may cost more than
    # 1 / max_steps.
    assert pendulum_at(-math.pi, 8).step(torque(-2))[1] < -1 / 200
    # No episode does: its start is slow, even if all other steps cost the most.
    worst = [math.pi**2 + 0.1 * speed**2 + float(np.float32(0.001) * 4) for speed in (1, 8)]
    for n in (1, 200, pendulum.MOST_STEPS):
        assert 1 - (worst[0] + (n - 1) * worst[1]) / n / pendulum.HALF_COST > -1


@pytest.mark.parametrize("name", pendulum.LEVELS)
def test_starts(name):
    task = find(name)[1]
    envs = make_vec(name, 4000, seed=5)
    envs.reset()
    state = envs.get_state()["floats"]
    for column, bound in zip(state.T, [math.pi, 1], strict=False):
        assert (abs(column) <= bound).all()
        assert stats.kstest(column, "uniform", args=(-bound, 2 * bound)).pvalue > 1e-3
    assert state.shape[1] == 2 + 2 * (task.params.noise > 0)


def test_draws():
    """The state is drawn in order, then the noise: on reset and after every step."""
    env = make_single("NoisyPositionOnlyPendulumHard")
    env.reset(seed=7)
    row = np.array([7, 0, 0])
    start = [-math.pi + math.tau * next_uniform(row), -1 + 2 * next_uniform(row)]
    noise = [float(np.float32(0.3 * next_normal(row))) for _ in range(2)]
    assert env._floats[0].tolist() == start + noise
    env.step(env.action_space.sample())
    assert env._floats[0, -2:].tolist() == [
        float(np.float32(0.3 * next_normal(row))) for _ in range(2)
    ]
    assert env._ints[0, 2] == row[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 200_001}, r"max_steps: expected an integer in \[1, 200000\], got 200001"),
        ({"noise": math.nan}, "noise: expected a number in .*, got nan"),
        ({"noise": "0.1"}, "noise: expected a number in .*, got '0.1'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        find("PositionOnlyPendulumEasy", options)


@pytest.mark.parametrize("action", [2.001, -3, np.nan, np.inf])
def test_too_much_torque(action):
    with pytest.raises(
        ValueError, match=r"action: expected a member of Box\(-2.0, 2.0, \(1,\), float32\)"
    ):
        pendulum_at(0, 0).step(torque(action))


def test_pictures():
    env = make_single("NoisyPositionOnlyPendulumEasy", render_mode="ansi")
    env.reset(seed=0)
    env._floats[0, :2] = 2 * math.pi + 0.25, -1.5
    assert env.render() == "step 0/200: +0.250 rad from upright, -1.500 rad/s"


@pytest.fixture
def lent(monkeypatch):
    """Lend our sine and cosine to Gymnasium's pendulum, which POPGym's is built on."""
    monkeypatch.setattr(gymnasium_pendulum, "np", OurNumPy())


def any_torque(env, rng):
    return np.array([rng.uniform(-2, 2)], np.float32)


def swing_up(env, rng):
    """Pump until the pendulum has the energy to stand, then hold it."""
    theta, speed = env._floats[0, :2]
    energy = speed**2 / 2 + pendulum.PULL * (math.cos(theta) - 1)
    if math.cos(theta) > 0.9 and abs(energy) < 5:
        torque = -20 * elementary.wrap(theta) - 5 * speed
    else:
        torque = math.copysign(2, -energy * speed)
    return np.array([torque + rng.normal(0, 0.1)], np.float32).clip(-2, 2)


@pytest.mark.parametrize("name", sampled(pendulum.LEVELS, 3))
def test_lockstep_with_popgym(name):
    ends = lockstep(name, start_from_our_numbers, 50, any_torque, atol=1e-6)
    assert set(ends) == {(False, True)}
    kept, policy = together(swing_up, size=2)
    assert set(lockstep(name, kept, 20, policy, atol=1e-6)) == {(False, True)}


@pytest.mark.parametrize("name", sampled(pendulum.LEVELS, 3))
def test_lockstep_with_popgym_bit_by_bit(name, lent):
    height = []

    def watched(env, rng):
        height.append(math.cos(env._floats[0, pendulum.THETA]))
        return swing_up(env, rng)

    lockstep(name, start_from_our_numbers, 30, watched)
    assert min(height) < -0.99 and np.mean(np.array(height) > 0.99) > 0.2  # hung down, and stood


def test_steps_are_gymnasiums():
    """From random states, the whole state and the cost are the same to rounding.

    The states include wound-up angles and full speed. NumPy squares a float32 torque by powf, which
    may err in the last place: 2.4e-10 in a cost of at most 0.004.
    """
    peer = gymnasium.make("Pendulum-v1").unwrapped
    rng = np.random.default_rng(0)
    task = pendulum.configure(**pendulum.LEVELS["PositionOnlyPendulumEasy"])
    clipped = 0
    for k in range(2000):
        state = rng.uniform(-1, 1, 2) * [4 if k % 2 else 80, 8]
        action = np.array([rng.choice([-2, 0, 2, rng.uniform(-2, 2)])], np.float32)
        peer.reset()
        peer.state = state
        ints, floats = np.zeros(task.ints, np.int64), state.copy()
        peer_reward = peer.step(action)[1]
        reward, terminated, truncated = pendulum.step(task.params, ints, floats, action)
        assert not terminated and not truncated
        np.testing.assert_allclose(
            (reward * 200 - 1) * pendulum.HALF_COST, peer_reward, rtol=1e-13, atol=2.4e-10
        )
        np.testing.assert_allclose(floats, peer.state, rtol=1e-14, atol=1e-14)
        clipped += abs(floats[pendulum.SPEED]) == 8
    assert clipped > 50
