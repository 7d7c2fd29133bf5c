"""PendulumSwingUp: swing a ball on a rod up and hold it there, with a motor that is weak.

The ball of 1 kg is 0.5 m from the hinge. The motor is too weak to lift it at once. The action, a
row of one float32 in [-1, 1], is the torque in N m. The observation is (cosine and sine of the
angle, angular velocity); angle 0 is upright. The start is at rest at any angle. The reward is 1
within 8 degrees of upright, otherwise 0. Truncated at step `max_steps`, never terminated.

As in dm_control: mass, damping, MuJoCo's Euler method (implicit in the damping) with steps of 20
ms, reward, observation, distribution of the starts.
Different: the numbers that the starts are drawn from, and rounding.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/pendulum.{py,xml};
MuJoCo's documentation, "Computation" (numerical integration).
Tests: tests/envs/control/test_pendulum.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer
from minis5.elementary import MOST_ANGLE, cos, sin, wrap
from minis5.envs.control.physics import GRAVITY
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {"PendulumSwingUp": {"max_steps": 1000}}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
THETA, SPEED = 0, 1  # floats: the state; theta is not wrapped

MASS, RADIUS, LENGTH = 1.0, 0.05, 0.5
INERTIA = 0.4 * MASS * RADIUS * RADIUS + MASS * LENGTH * LENGTH  # about the hinge
PULL = MASS * GRAVITY * LENGTH  # torque of gravity, lying level
COS_8_DEGREES = 0.9902680687415704
MOST_STEPS = 10_000  # theta stays within the range of sin


class PendulumParams(NamedTuple):
    max_steps: int
    timestep: float  # s
    damping: float  # N m s/rad


def configure(max_steps):
    """Return the task that is truncated after `max_steps` steps."""
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "PendulumSwingUp has max_steps=1000"
    )
    high = np.full(3, np.inf, np.float32)
    return Task(
        params=PendulumParams(max_steps, timestep=0.02, damping=0.1),
        ints=STEPS + 1,
        floats=2,
        observation_space=Box(-high, high),
        action_space=Box(-1, 1, (1,), np.float32),
        episode_length=max_steps,
        worst_return=0.0,
        best_return=float(max_steps),
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", THETA, THETA + 1, -MOST_ANGLE, MOST_ANGLE),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    floats[THETA] = -math.pi + math.tau * next_uniform(ints)
    floats[SPEED] = 0.0


@njit(nogil=True)
def step(params, ints, floats, action):
    theta, speed, h = floats[THETA], floats[SPEED], params.timestep
    torque = np.float64(action[0]) + PULL * sin(theta) - params.damping * speed
    speed += h * (torque / (INERTIA + h * params.damping))
    floats[THETA], floats[SPEED] = theta + h * speed, speed
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led."""
    return 1.0 if cos(floats[THETA]) >= COS_8_DEGREES else 0.0


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0], out[1], out[2] = cos(floats[THETA]), sin(floats[THETA]), floats[SPEED]


def render(params, ints, floats):
    theta, speed = floats[:2]  # a mixture has room for more
    state = f"{wrap(theta):+.3f} rad from upright, {speed:+.3f} rad/s"
    return f"step {ints[STEPS]}/{params.max_steps}: {state}"
