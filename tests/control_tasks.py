"""Help for the tests of the control tasks: one environment in a state of one's own, mechanics by
Lagrange's equations, and checks that several tasks share."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from minis5.envs.registry import find, make_single

G = 9.81


class Play:
    """One environment in a state of one's own, stepped with constants of one's own.

    `rest` is what follows the state in the environment's floats, if that is not 0.
    """

    def __init__(self, name, state, rest=(), **constants):
        self.env, self.task = find(name)
        self.params = self.task.params._replace(**constants)
        self.ints, self.floats = np.zeros(self.task.ints, np.int64), np.zeros(self.task.floats)
        self.floats[self.task.floats - len(rest) :] = rest
        self.floats[: len(state)] = state

    def step(self, *action):
        row = np.array(action or np.zeros(self.task.action_space.shape), np.float32)
        return self.env.step(self.params, self.ints, self.floats, row)[0]

    def reward(self, *action):
        return self.env.reward(self.params, self.floats, np.array(action, np.float32))


def lagrange(bodies, q, v, torques, weight):
    """Return the accelerations of the coordinates q by Lagrange's equations, with differences for
    derivatives.

    A body is (mass, inertia, place): `place` takes q and returns x, z of the centre of mass, and
    the angle. `weight` is that of one kg, along -z.
    """
    h = 1e-4
    mass, force = np.zeros((2, 2)), np.array(torques, float)
    for m, inertia, place in bodies:
        jacobian = np.transpose(  # (3, 2)
            [(place(q + h * e) - place(q - h * e)) / (2 * h) for e in np.eye(2)]
        )
        bend = (place(q + h * v) - 2 * place(q) + place(q - h * v)) / h**2
        weights = np.array([m, m, inertia])
        mass += jacobian.T @ (weights[:, None] * jacobian)
        force -= jacobian.T @ (weights * bend + [0, m * weight, 0])
    return np.linalg.solve(mass, force)


def on_first(distance):
    """Return the place of a body on the first link, as `lagrange` takes it; angles from upright."""
    return lambda q: np.array([distance * np.sin(q[0]), distance * np.cos(q[0]), q[0]])


def on_second(length, distance):
    """Return the place of a body on the second link, behind a first one of that length."""
    return lambda q: on_first(length)(q) * [1, 1, 0] + on_first(distance)(q[:1] + q[1:])


def poses(n=50):
    """Yield n random coordinates, speeds and actions, two numbers each."""
    rng = np.random.default_rng(0)
    return zip(
        rng.uniform(-1.7, 1.7, (n, 2)),
        rng.normal(0, 2, (n, 2)),
        rng.uniform(-1, 1, (n, 2)),
        strict=True,
    )


def speeds_on_second(f, l1, distance):
    """Return velocity and turning speed of a point on the second link; angles from upright."""
    both, turn = f[0] + f[1], f[2] + f[3]
    x = l1 * math.cos(f[0]) * f[2] + distance * math.cos(both) * turn
    return np.array([x, -l1 * math.sin(f[0]) * f[2] - distance * math.sin(both) * turn]), turn


def check_energy(name, energy, state, free, order):
    """Without control and with constants `free` of no damping, energy is kept over a second as well
    as the method can.

    With half the step, the error falls by 2**order. With damping, energy is lost.
    """
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


def check_rewards(cases):
    """The rewards of (name, state, action, expected reward) are as expected."""
    for name, state, action, expected in cases:
        assert abs(Play(name, state).reward(*action) - expected) < 1e-12, (name, state)


def check_observation(name, state, expected):
    """In this state the observation is as expected."""
    play = Play(name, state)
    out = np.zeros(play.task.observation_space.shape, np.float32)
    play.env.observe(play.params, play.ints, play.floats, out)
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-7)


def assert_uniform(column, low, high):
    """The numbers are drawn uniformly from [low, high]."""
    assert (column >= low).all() and (column <= high).all()
    assert stats.kstest(column, "uniform", args=(low, high - low)).pvalue > 1e-3


def check_truncation_after_1000_steps(name):
    """An episode is truncated after 1000 steps, never terminated; rewards are in [0, 1]."""
    env = make_single(name)
    env.reset(seed=0)
    env.action_space.seed(0)
    rewards, flags = [], []
    for _ in range(1000):
        _, reward, *ends, _ = env.step(env.action_space.sample())
        rewards.append(reward)
        flags.append(ends)
    assert flags == [[False, False]] * 999 + [[False, True]]
    assert 0 <= min(rewards) <= max(rewards) <= 1
    task = env.task
    assert (task.worst_return, task.best_return, task.episode_length) == (0, 1000, 1000)
    assert task.truncates
    assert (env.action_space.low == -1).all() and (env.action_space.high == 1).all()


def check_return(name, state, expected):
    """Without control, an episode from this state returns exactly `expected`."""
    play = Play(name, state)
    assert sum(play.step() for _ in range(1000)) == expected


def check_bad_option(name, options, message):
    """Options that are wrong are refused with this message."""
    with pytest.raises(ValueError, match=message):
        find(name, options)


def check_bad_max_steps(name):
    """An episode of no steps is refused."""
    message = r"max_steps: expected an integer in \[1, \d+\], got 0; \w+ has max_steps=1000"
    check_bad_option(name, {"max_steps": 0}, message)


def check_picture(name, state, picture):
    """In this state, `render` returns this picture."""
    env = make_single(name, render_mode="ansi")
    env.reset(seed=0)
    env._floats[0, : len(state)] = state
    assert env.render() == f"step 0/1000: {picture}"
