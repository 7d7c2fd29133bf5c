"""The cart-poles: steps, ends and velocities by hand; lockstep with POPGym and Gymnasium."""

import itertools
import math

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.classic_control import cartpole as gymnasium_cartpole
from popgym_peers import lockstep
from sampling import sampled
from scipy import stats

from minis5.envs.popgym import cartpole
from minis5.envs.registry import find, make_single, make_vec
from minis5.random import next_normal, next_uniform
from minis5.verify.lockstep import OurNumPy, start_from_our_numbers, together


def cartpole_at(name, state, **options):
    """Return the level `name` in a state of four numbers."""
    env = make_single(name, **options)
    env.reset(seed=0)
    env._floats[0, :4] = state
    return env


def test_first_steps_by_hand():
    # After a push of 10 N from rest, the pole's acceleration is
    # -(10 / 1.1) / (0.5 (4/3 - 0.1 / 1.1)) = -600 / 41 rad/s2, the cart's
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
    # The push to the left takes the velocities back, because the pole is still upright.
    np.testing.assert_allclose(velocities.step(0)[0], [0, 0], atol=1e-7)


def test_left_and_right_are_alike():
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
def test_limits(state, fallen):
    assert cartpole_at("PositionOnlyCartPoleEasy", state).step(0)[1:4] == (1 / 200, fallen, False)


def test_the_pole_falls_after_8_steps_at_the_earliest():
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


def test_truncation_comes_at_the_last_step_only():
    envs = make_vec("PositionOnlyCartPoleEasy", 1, max_steps=3)
    obs, _ = envs.reset()
    assert obs.dtype == np.float32 and obs.shape == (1, 2) and (abs(obs) <= 0.05).all()
    flags = [envs.step(np.array([t % 2]))[1:4] for t in range(4)]
    assert [tuple(x.item() for x in step) for step in flags] == [
        (1 / 3, False, False),
        (1 / 3, False, False),
        (1 / 3, False, True),
        (1 / 3, False, False),
    ]


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


@pytest.mark.parametrize("name", cartpole.LEVELS)
def test_starts(name):
    task = find(name)[1]
    envs = make_vec(name, 4000, seed=5)
    envs.reset()
    state = envs.get_state()["floats"]
    for column in state.T[:4]:
        assert (abs(column) <= 0.05).all()
        assert stats.kstest(column, "uniform", args=(-0.05, 0.1)).pvalue > 1e-3
    assert state.shape[1] == 4 + 2 * (task.params.noise > 0)


def test_draws():
    """The state is drawn in order, then the noise: on reset and after every step."""
    env = make_single("NoisyPositionOnlyCartPoleHard")
    env.reset(seed=7)
    row = np.array([7, 0, 0])
    start = [-0.05 + 0.1 * next_uniform(row) for _ in range(4)]
    noise = [float(np.float32(0.3 * next_normal(row))) for _ in range(2)]
    assert env._floats[0].tolist() == start + noise
    env.step(env.action_space.sample())
    assert env._floats[0, -2:].tolist() == [
        float(np.float32(0.3 * next_normal(row))) for _ in range(2)
    ]
    assert env._ints[0, 2] == row[2]


def test_noise_of_velocities_is_not_clipped():
    env = cartpole_at("VelocityOnlyCartPoleEasy", [0, 0, 0, 0], noise=100.0)
    assert np.isinf(env.observation_space.high).all()
    assert max(abs(env.step(t % 2)[0]).max() for t in range(8)) > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, r"max_steps: expected an integer in \[1, 2147483647\], got 0"),
        ({"view": "all"}, "view: expected one of 'positions', 'velocities', got 'all'"),
        ({"noise": -0.1}, r"noise: expected a number in \[0.0, 1000000.0\], got -0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        find("PositionOnlyCartPoleEasy", options)


def test_pictures():
    env = make_single("PositionOnlyCartPoleEasy", render_mode="ansi")
    env.reset(seed=0)
    env._floats[0] = -2.4, 0.5, -0.1, 0
    head, track = env.render().split("\n")
    assert head == "step 0/200: x -2.400 m, +0.500 m/s, theta -0.100 rad, +0.000 rad/s"
    assert track == "[\\" + " " * 48 + "]"
    env._floats[0] = 2.5, 0, 0.1, 0
    assert env.render().endswith("\n[" + " " * 48 + "/]")


@pytest.fixture
def lent(monkeypatch):
    """Lend our sine and cosine to Gymnasium's cart-pole, which POPGym's is built on."""
    monkeypatch.setattr(gymnasium_cartpole, "np", OurNumPy())


def balance(env, rng):
    """Hold the pole, though three actions in a hundred are random."""
    state = env._floats[0, :4]
    return int(state @ [0.1, 0.4, 1.0, 1.0] > 0) if rng.random() < 0.97 else int(rng.integers(2))


@pytest.mark.parametrize("name", sampled(cartpole.LEVELS, 3))
def test_lockstep_with_popgym(name):
    assert set(lockstep(name, start_from_our_numbers, atol=1e-6)) == {(True, False)}
    kept, policy = together(balance, size=4)
    assert set(lockstep(name, kept, 20, policy, atol=1e-6)) == {(False, True)}


@pytest.mark.parametrize("name", sampled(cartpole.LEVELS, 3))
def test_lockstep_with_popgym_bit_by_bit(name, lent):
    assert set(lockstep(name, start_from_our_numbers)) == {(True, False)}
    assert set(lockstep(name, start_from_our_numbers, 20, balance)) == {(False, True)}


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
        start_from_our_numbers(peer, env)
        for _ in range(min(steps, max_steps)):
            ours, others = env.step(1), peer.step(1)
        assert list(ours[2:4]) == list(others[2:4]) == flags and ours[1] == others[1]


def test_steps_are_gymnasiums():
    """From random states, the limits among them, the whole state is the same to rounding."""
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
