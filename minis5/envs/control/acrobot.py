"""AcrobotSwingUp: bring the tip of two hanging rods to the top by a motor between them.

The upper rod hangs from the shoulder, the lower one from the elbow. Each rod is 1 m long and weighs
1 kg. The action, a row of one float32 in [-1, 1], is the elbow's torque in units of 2 N m. The
observation is (horizontal components of the rods' directions, vertical ones, angular velocities of
shoulder and elbow). The start is at rest with any two angles: the shoulder's is 0 if the upper rod
is upright, the elbow's if the arm is straight. The reward is 1 if the tip is within 0.2 m of the
point 2 m above the shoulder, and falls off with the distance. Truncated at step `max_steps`, never
terminated.

As in dm_control: masses, damping, the method of Runge and Kutta with steps of 10 ms, reward,
observation, distribution of the starts.
Different: the numbers that the starts are drawn from, and rounding.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/acrobot.{py,xml}.
Equations of motion: Spong, "The swing up control problem for the acrobot", IEEE Control Systems
15(1), 1995, with angles from upright.
Tests: tests/envs/control/test_acrobot.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer
from minis5.elementary import MOST_ANGLE, cos, sin, wrap
from minis5.envs.control.physics import GRAVITY, capsule
from minis5.envs.control.reward import gaussian
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {"AcrobotSwingUp": {"max_steps": 1000}}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
SHOULDER, ELBOW, SHOULDER_SPEED, ELBOW_SPEED = range(4)  # floats: the state; angles are not wrapped

TORQUE = 2.0
LENGTH, HALF = 1.0, 0.5
UPPER_MASS, UPPER_INERTIA = capsule(0.05, LENGTH, mass=1.0)
LOWER_MASS, LOWER_INERTIA = capsule(0.049, LENGTH, mass=1.0)
LOWER = LOWER_INERTIA + LOWER_MASS * HALF * HALF  # of the lower rod about the elbow
# of both about the shoulder, with the lower rod as a point at the elbow
UPPER = UPPER_INERTIA + (UPPER_MASS * HALF * HALF + LOWER_MASS * LENGTH * LENGTH)
COUPLING = LOWER_MASS * LENGTH * HALF
UPPER_PULL = GRAVITY * (UPPER_MASS * HALF + LOWER_MASS * LENGTH)
LOWER_PULL = GRAVITY * (LOWER_MASS * HALF)
TARGET_HEIGHT, TARGET_RADIUS, MARGIN = 2.0, 0.2, 1.0  # m
MOST_STEPS = 10_000  # angles stay within the range of sin


class AcrobotParams(NamedTuple):
    max_steps: int
    timestep: float  # s
    damping: float  # N m s/rad, of both joints


def configure(max_steps):
    """Return the task that is truncated after `max_steps` steps."""
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "AcrobotSwingUp has max_steps=1000"
    )
    high = np.full(6, np.inf, np.float32)
    return Task(
        params=AcrobotParams(max_steps, timestep=0.01, damping=0.05),
        ints=STEPS + 1,
        floats=4,
        observation_space=Box(-high, high),
        action_space=Box(-1, 1, (1,), np.float32),
        episode_length=max_steps,
        worst_return=0.0,
        best_return=float(max_steps),
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", SHOULDER, SHOULDER + 1, -MOST_ANGLE, MOST_ANGLE),
            Range("floats", ELBOW, ELBOW + 1, -MOST_ANGLE, MOST_ANGLE),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    floats[SHOULDER] = -math.pi + math.tau * next_uniform(ints)
    floats[ELBOW] = -math.pi + math.tau * next_uniform(ints)
    floats[SHOULDER_SPEED] = floats[ELBOW_SPEED] = 0.0


@njit(nogil=True)
def accelerations(params, shoulder, elbow, u, v, torque):
    """Return those of shoulder and elbow (rad/s2) at these angles and speeds u, v.

    A `torque` (N m) acts at the elbow.
    """
    c, s = cos(elbow), sin(elbow)
    upper, lower = sin(shoulder), sin(shoulder + elbow)
    # m11 u' + m12 v' = t1, m12 u' + LOWER v' = t2
    m12 = LOWER + COUPLING * c
    m11 = UPPER + m12 + COUPLING * c
    fling = COUPLING * s
    t1 = UPPER_PULL * upper + LOWER_PULL * lower + fling * (v * (2.0 * u + v)) - params.damping * u
    t2 = torque + LOWER_PULL * lower - fling * (u * u) - params.damping * v
    determinant = m11 * LOWER - m12 * m12
    return (LOWER * t1 - m12 * t2) / determinant, (m11 * t2 - m12 * t1) / determinant


@njit(nogil=True)
def step(params, ints, floats, action):
    torque = TORQUE * np.float64(action[0])
    shoulder0, elbow0 = floats[SHOULDER], floats[ELBOW]
    u0, v0 = floats[SHOULDER_SPEED], floats[ELBOW_SPEED]
    shoulder, elbow, u, v = shoulder0, elbow0, u0, v0
    shoulder_sum, elbow_sum, u_sum, v_sum = 0.0, 0.0, 0.0, 0.0
    for stage in range(4):
        u_acc, v_acc = accelerations(params, shoulder, elbow, u, v, torque)
        weight = 1.0 if stage == 0 or stage == 3 else 2.0
        shoulder_sum, elbow_sum = shoulder_sum + weight * u, elbow_sum + weight * v
        u_sum, v_sum = u_sum + weight * u_acc, v_sum + weight * v_acc
        h = params.timestep if stage == 2 else params.timestep / 2
        shoulder, elbow = shoulder0 + h * u, elbow0 + h * v
        u, v = u0 + h * u_acc, v0 + h * v_acc
    h = params.timestep / 6
    floats[SHOULDER], floats[ELBOW] = shoulder0 + h * shoulder_sum, elbow0 + h * elbow_sum
    floats[SHOULDER_SPEED], floats[ELBOW_SPEED] = u0 + h * u_sum, v0 + h * v_sum
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led: how near the tip is."""
    upper, lower = floats[SHOULDER], floats[SHOULDER] + floats[ELBOW]
    x, z = LENGTH * (sin(upper) + sin(lower)), TARGET_HEIGHT - LENGTH * (cos(upper) + cos(lower))
    return gaussian(math.sqrt(x * x + z * z) - TARGET_RADIUS, MARGIN)


@njit(nogil=True)
def observe(params, ints, floats, out):
    upper, lower = floats[SHOULDER], floats[SHOULDER] + floats[ELBOW]
    out[0], out[1] = sin(upper), sin(lower)
    out[2], out[3] = cos(upper), cos(lower)
    out[4], out[5] = floats[SHOULDER_SPEED], floats[ELBOW_SPEED]


def render(params, ints, floats):
    shoulder, elbow, u, v = floats[:4]  # a mixture has room for more
    return (
        f"step {ints[STEPS]}/{params.max_steps}: "
        f"shoulder {wrap(shoulder):+.3f} rad from upright, {u:+.3f} rad/s, "
        f"elbow {wrap(elbow):+.3f} rad, {v:+.3f} rad/s"
    )
