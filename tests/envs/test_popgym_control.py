"""The control environments in lockstep with POPGym's and Gymnasium's.

POPGym draws starts and noise from a `Replay` of our numbers. Its sin and cos are NumPy's, whose last bit may differ from ours,
and a balanced pole is unstable: 600 steps make one bit into a metre. So the environments are compared in two ways: as they are,
to 1e-6, where nothing has time to grow (random actions, or policies with the peer set to our state before every step); and
bit by bit over whole episodes, with our sin and cos lent to the peer.
"""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import cartpole as gymnasium_cartpole
from gymnasium.envs.classic_control import pendulum as gymnasium_pendulum
from lockstep import Replay, lockstep

from minis5 import elementary
from minis5.envs.popgym import cartpole, pendulum
from minis5.envs.registry import make_single


def start(peer, env):
    peer.np_random = Replay([env._ints[0, 0], 0, 0])
    return peer.reset()[0]


class OurNumPy:
    """NumPy with our sine and cosine."""

    def __getattr__(self, name):
        return getattr(np, name)

    def sin(self, x):
        return np.float64(elementary.sin(x))

    def cos(self, x):
        return np.float64(elementary.cos(x))


@pytest.fixture
def lent(monkeypatch):
    for module in (gymnasium_cartpole, gymnasium_pendulum):
        monkeypatch.setattr(module, "np", OurNumPy())


def together(policy):
    """`start` and `policy` that set the peer to our state before every step."""
    peers = []

    def start_and_keep(peer, env):
        peers.append(peer)
        return start(peer, env)

    def set_and_act(env, rng):
        peers[-1].state = env._floats[
            0, : 4 if isinstance(peers[-1], gymnasium_cartpole.CartPoleEnv) else 2
        ].copy()
        return policy(env, rng)

    return start_and_keep, set_and_act


def balance(env, rng):
    """Holds the pole, though three actions in a hundred are random."""
    state = env._floats[0, :4]
    return int(state @ [0.1, 0.4, 1.0, 1.0] > 0) if rng.random() < 0.97 else int(rng.integers(2))


def any_torque(env, rng):
    return np.array([rng.uniform(-2, 2)], np.float32)


def swing_up(env, rng):
    """Pumps until the pendulum has the energy to stand, then holds it."""
    theta, speed = env._floats[0, :2]
    energy = speed**2 / 2 + pendulum.PULL * (math.cos(theta) - 1)
    if math.cos(theta) > 0.9 and abs(energy) < 5:
        torque = -20 * elementary.wrap(theta) - 5 * speed
    else:
        torque = math.copysign(2, -energy * speed)
    return np.array([torque + rng.normal(0, 0.1)], np.float32).clip(-2, 2)


@pytest.mark.parametrize("name", cartpole.LEVELS)
def test_cartpole(name):
    assert set(lockstep(name, start, atol=1e-6)) == {(True, False)}
    kept, policy = together(balance)
    assert set(lockstep(name, kept, 20, policy, atol=1e-6)) == {(False, True)}


@pytest.mark.parametrize("name", cartpole.LEVELS)
def test_cartpole_bit_by_bit(name, lent):
    assert set(lockstep(name, start)) == {(True, False)}
    assert set(lockstep(name, start, 20, balance)) == {(False, True)}


@pytest.mark.parametrize("name", pendulum.LEVELS)
def test_pendulum(name):
    assert set(lockstep(name, start, policy=any_torque, atol=1e-6)) == {(False, True)}
    kept, policy = together(swing_up)
    assert set(lockstep(name, kept, 20, policy, atol=1e-6)) == {(False, True)}


@pytest.mark.parametrize("name", pendulum.LEVELS)
def test_pendulum_bit_by_bit(name, lent):
    height = []

    def watched(env, rng):
        height.append(math.cos(env._floats[0, pendulum.THETA]))
        return swing_up(env, rng)

    lockstep(name, start, 30, watched)
    assert min(height) < -0.99 and np.mean(np.array(height) > 0.99) > 0.2  # hung down, and stood


def test_a_pole_that_falls_at_the_last_step_is_terminated_and_truncated():
    theirs = pytest.importorskip("popgym.envs.position_only_cartpole")
    env = make_single("PositionOnlyCartPoleEasy")
    env.reset(seed=0)
    steps = 1
    while not env.step(1)[2]:
        steps += 1
    for max_steps, flags in [
        (steps, [True, True]),
        (steps + 1, [True, False]),
        (steps - 1, [False, True]),
    ]:
        peer = theirs.PositionOnlyCartPole(max_episode_length=max_steps)
        env = make_single("PositionOnlyCartPoleEasy", max_steps=max_steps)
        env.reset(seed=0)
        start(peer, env)
        for _ in range(min(steps, max_steps)):
            ours, others = env.step(1), peer.step(1)
        assert list(ours[2:4]) == list(others[2:4]) == flags and ours[1] == others[1]


def test_cartpole_steps_are_gymnasiums():
    """From random states, the limits among them: the whole state, to rounding."""
    peer = gymnasium.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    task = cartpole.configure(**cartpole.LEVELS["PositionOnlyCartPoleEasy"])
    falls = 0
    for state in rng.uniform(-1, 1, (2000, 4)) * [2.5, 5, 0.22, 5]:
        peer.reset()
        peer.state, action = state, int(rng.integers(2))
        ints, floats = np.zeros(task.ints, np.int64), state.copy()
        _, reward, fallen, _, _ = peer.step(action)
        assert cartpole.step(task.params, ints, floats, action) == (reward / 200, fallen, False)
        np.testing.assert_allclose(floats, peer.state, rtol=1e-14, atol=1e-15)
        falls += fallen
    assert 300 < falls < 1600


def test_pendulum_steps_are_gymnasiums():
    """From random states, wound up ones and full speed among them: the whole state and the cost, to rounding.

    NumPy squares a float32 torque by powf, which may err in the last place: 2.4e-10 in a cost of at most 0.004.
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
