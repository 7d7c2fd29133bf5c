"""ReacherEasy, ReacherHard: bring the finger of an arm with two links to a target.

The arm is horizontal; each episode draws the target. The action, a row of two float32 in [-1, 1],
is the torques of shoulder and wrist in units of 0.05 N m. The observation is (angles of shoulder
and wrist in rad, vector from finger to target in m, two angular velocities). The start is at rest
with any two angles that the joints allow, and a target between 5 and 20 cm from the shoulder. The
reward is 1 if the finger touches the target (a radius of 5 cm, in ReacherHard 1.5 cm), otherwise 0.
Truncated at step `max_steps`, never terminated.

As in dm_control: masses, damping, the wrist's soft limits, MuJoCo's Euler method (implicit in the
damping) with steps of 20 ms, reward, observation, distributions of starts and targets.
Different: the numbers that these are drawn from, and rounding.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/reacher.{py,xml};
MuJoCo's documentation, "Computation" (numerical integration). Equations of motion: Spong,
Hutchinson, Vidyasagar, "Robot modeling and control", 2006, section 7.4, planar elbow manipulator,
without gravity.
Tests: tests/envs/control/test_reacher.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer, check_number
from minis5.elementary import MOST_ANGLE, cos, sin, wrap
from minis5.envs.control.physics import capsule, limit_force, sphere
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {
    "ReacherEasy": {"max_steps": 1000, "target_radius": 0.05},
    "ReacherHard": {"max_steps": 1000, "target_radius": 0.015},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
# floats: the state; angles are not wrapped
SHOULDER, WRIST, SHOULDER_SPEED, WRIST_SPEED, TARGET_X, TARGET_Y = range(6)

TORQUE = 0.05
# m: from shoulder to wrist, and from wrist to finger; the hand's own rod is 2 cm shorter
ARM, HAND = 0.12, 0.12
FINGER_RADIUS = 0.01
ARM_MASS, ARM_INERTIA = capsule(0.01, 0.12)
HAND_MASS, HAND_INERTIA = capsule(0.01, 0.1)
FINGER_MASS, FINGER_INERTIA = sphere(FINGER_RADIUS)
# moment of inertia of hand and finger about the wrist
OUTER = HAND_INERTIA + HAND_MASS * 0.05 * 0.05 + FINGER_INERTIA + FINGER_MASS * HAND * HAND
# of all about the shoulder, with hand and finger as points at the wrist
INNER = ARM_INERTIA + ARM_MASS * 0.06 * 0.06 + (HAND_MASS + FINGER_MASS) * ARM * ARM
COUPLING = ARM * (HAND_MASS * 0.05 + FINGER_MASS * HAND)
STRAIGHT = INNER + OUTER + 2 * COUPLING, OUTER + COUPLING
# with the arm straight
WRIST_MOBILITY = STRAIGHT[0] / (STRAIGHT[0] * OUTER - STRAIGHT[1] * STRAIGHT[1])
WRIST_LIMIT, WRIST_TIME_CONSTANT = 160 / 180 * math.pi, 0.02
NEAREST, FARTHEST = 0.05, 0.2  # m: of targets
MOST_STEPS = 10_000  # angles stay within the range of sin


class ReacherParams(NamedTuple):
    max_steps: int
    target_radius: float  # m
    timestep: float  # s
    damping: float  # N m s/rad, of both joints


def configure(max_steps, target_radius):
    """Return the task that is truncated after `max_steps` steps.

    The target has a radius of `target_radius` m.
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "ReacherEasy has max_steps=1000"
    )
    target_radius = check_number(
        "target_radius", target_radius, 0.0, 1.0, "ReacherEasy has target_radius=0.05"
    )
    high = np.full(6, np.inf, np.float32)
    return Task(
        params=ReacherParams(max_steps, target_radius, timestep=0.02, damping=0.01),
        ints=STEPS + 1,
        floats=6,
        observation_space=Box(-high, high),
        action_space=Box(-1, 1, (2,), np.float32),
        episode_length=max_steps,
        worst_return=0.0,
        best_return=float(max_steps),
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", SHOULDER, SHOULDER + 1, -MOST_ANGLE, MOST_ANGLE),
            Range("floats", WRIST, WRIST + 1, -MOST_ANGLE, MOST_ANGLE),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    floats[SHOULDER] = -math.pi + math.tau * next_uniform(ints)
    floats[WRIST] = WRIST_LIMIT * (2.0 * next_uniform(ints) - 1.0)
    floats[SHOULDER_SPEED] = floats[WRIST_SPEED] = 0.0
    angle = math.tau * next_uniform(ints)
    radius = NEAREST + (FARTHEST - NEAREST) * next_uniform(ints)
    floats[TARGET_X], floats[TARGET_Y] = radius * sin(angle), radius * cos(angle)


@njit(nogil=True)
def step(params, ints, floats, action):
    shoulder, wrist = floats[SHOULDER], floats[WRIST]
    u, v = floats[SHOULDER_SPEED], floats[WRIST_SPEED]
    c, s = cos(wrist), sin(wrist)
    # m11 u' + m12 v' = t1, m12 u' + OUTER v' = t2
    m12 = OUTER + COUPLING * c
    m11 = INNER + m12 + COUPLING * c
    fling = COUPLING * s
    t1 = TORQUE * np.float64(action[0]) + fling * (v * (2.0 * u + v)) - params.damping * u
    t2 = TORQUE * np.float64(action[1]) - fling * (u * u) - params.damping * v
    if abs(wrist) > WRIST_LIMIT:
        side = 1.0 if wrist > 0.0 else -1.0
        determinant = m11 * OUTER - m12 * m12
        acceleration = (m11 * t2 - m12 * t1) / determinant
        # MuJoCo keeps stiff limits stable in this way.
        time_constant = max(WRIST_TIME_CONSTANT, 2.0 * params.timestep)
        gap, mobility = WRIST_LIMIT - abs(wrist), m11 / determinant
        t2 -= side * limit_force(
            gap, -side * v, -side * acceleration, mobility, WRIST_MOBILITY, time_constant
        )
    h = params.timestep
    m11 += h * params.damping
    m22 = OUTER + h * params.damping
    determinant = m11 * m22 - m12 * m12
    u += h * ((m22 * t1 - m12 * t2) / determinant)
    v += h * ((m11 * t2 - m12 * t1) / determinant)
    floats[SHOULDER], floats[WRIST] = shoulder + h * u, wrist + h * v
    floats[SHOULDER_SPEED], floats[WRIST_SPEED] = u, v
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def to_target(floats):
    """Return the vector from the finger to the target (m)."""
    shoulder, both = floats[SHOULDER], floats[SHOULDER] + floats[WRIST]
    x = floats[TARGET_X] - (ARM * cos(shoulder) + HAND * cos(both))
    return x, floats[TARGET_Y] - (ARM * sin(shoulder) + HAND * sin(both))


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led."""
    x, y = to_target(floats)
    return 1.0 if math.sqrt(x * x + y * y) <= params.target_radius + FINGER_RADIUS else 0.0


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0], out[1] = floats[SHOULDER], floats[WRIST]
    out[2], out[3] = to_target(floats)
    out[4], out[5] = floats[SHOULDER_SPEED], floats[WRIST_SPEED]


def render(params, ints, floats):
    x, y = to_target(floats)
    return (
        f"step {ints[STEPS]}/{params.max_steps}: "
        f"shoulder {wrap(floats[SHOULDER]):+.3f} rad, wrist {floats[WRIST]:+.3f} rad, "
        f"target ({x:+.3f}, {y:+.3f}) m from the finger"
    )
