"""FingerSpin, FingerTurnEasy, FingerTurnHard: a finger with two joints turns a spinner on a hinge.

All is in a vertical plane, without gravity. The action, a row of two float32 in [-1, 1], is the
torques of the joints, in units of 30 and 15 N m. The observation is (both angles in rad, x and z of
the spinner's tip seen from its hinge in m, three angular velocities, log(1 + force in N) of the
touch sensors at the top and the bottom of the fingertip); in the turning tasks also (x and z of the
target from the hinge, distance of the tip to the target's edge, in m). The start is at rest, with
any three angles at which nothing touches, and any target on the circle of the tip. The reward is 1
if the spinner turns at -15 rad/s or faster (in FingerSpin), or if its tip is within the target, a
radius of 7 cm in FingerTurnEasy and 3 cm in FingerTurnHard; otherwise 0. Truncated at step
`max_steps`, never terminated.

As in dm_control: masses, damping, friction of the hinge, the joints' soft limits, contacts and
their friction, touch sensors, MuJoCo's Euler method (implicit in the damping) with two steps of 10
ms to a control step, reward, observation, distributions of starts and targets.
Different: the numbers that these are drawn from, the method that finds the forces (MuJoCo stops at
a tolerance of 1e-8), and rounding. Leaves out: what fingertip.py does.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/finger.{py,xml};
MuJoCo's documentation, "Computation" (numerical integration); finger_forces.py for limits and
contacts. Equations of motion: as in reacher.py.
Tests: tests/envs/control/test_finger.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer, check_number
from minis5.elementary import MOST_ANGLE, cos, log, sin, wrap
from minis5.envs.control.finger_forces import (
    COUPLING,
    INNER,
    JOINT_LIMIT,
    OUTER,
    SPINNER,
    constrained,
)
from minis5.envs.control.fingertip import touching
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {  # a target_radius of 0: there is no target, the spinner shall spin
    "FingerSpin": {"max_steps": 1000, "target_radius": 0.0},
    "FingerTurnEasy": {"max_steps": 1000, "target_radius": 0.07},
    "FingerTurnHard": {"max_steps": 1000, "target_radius": 0.03},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: control steps done
# floats: the state, the hinge's angle not wrapped; forces on the sensors; the target from the hinge
FIRST, SECOND, HINGE, FIRST_SPEED, SECOND_SPEED, HINGE_SPEED = range(6)
TOP, BOTTOM, TARGET_X, TARGET_Z = range(6, 10)

FIRST_TORQUE, SECOND_TORQUE = 30.0, 15.0
TIP = 0.13  # m, from the hinge
SPINNING = 15.0  # rad/s
SUBSTEPS = 2
MOST_STEPS = 10_000  # angles stay within the range of sin
MOST_FORCE = 1e9  # N; log takes any force below it


class FingerParams(NamedTuple):
    max_steps: int
    target_radius: float  # m
    timestep: float  # s, of a substep
    damping: float  # N m s/rad, of the finger's joints
    hinge_damping: float  # N m s/rad


def configure(max_steps, target_radius):
    """Return the task that is truncated after `max_steps` steps.

    The target has a radius of `target_radius` m. If it is 0, there is no target, and the hinge has
    little damping: the spinner shall spin.
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "FingerSpin has max_steps=1000"
    )
    target_radius = check_number(
        "target_radius", target_radius, 0.0, 1.0, "FingerTurnEasy has target_radius=0.07"
    )
    spin = target_radius == 0.0
    high = np.full(9 if spin else 12, np.inf, np.float32)
    return Task(
        params=FingerParams(
            max_steps,
            target_radius,
            timestep=0.01,
            damping=2.5,
            hinge_damping=0.03 if spin else 0.5,
        ),
        ints=STEPS + 1,
        floats=TARGET_Z + 1,
        observation_space=Box(-high, high),
        action_space=Box(-1, 1, (2,), np.float32),
        episode_length=max_steps,
        worst_return=0.0,
        best_return=float(max_steps),
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", FIRST, HINGE + 1, -MOST_ANGLE, MOST_ANGLE),
            Range("floats", TOP, BOTTOM + 1, 0.0, MOST_FORCE),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    for i in range(TARGET_Z + 1):
        floats[i] = 0.0
    if params.target_radius > 0.0:
        angle = -math.pi + math.tau * next_uniform(ints)
        floats[TARGET_X], floats[TARGET_Z] = TIP * sin(angle), TIP * cos(angle)
    drawing = True
    while drawing:
        floats[FIRST] = JOINT_LIMIT * (2.0 * next_uniform(ints) - 1.0)
        floats[SECOND] = JOINT_LIMIT * (2.0 * next_uniform(ints) - 1.0)
        floats[HINGE] = -math.pi + math.tau * next_uniform(ints)
        drawing = touching(floats[FIRST], floats[SECOND], floats[HINGE])


@njit(nogil=True)
def step(params, ints, floats, action):
    h = params.timestep
    push, push_2 = FIRST_TORQUE * np.float64(action[0]), SECOND_TORQUE * np.float64(action[1])
    for _ in range(SUBSTEPS):
        first, second, hinge = floats[FIRST], floats[SECOND], floats[HINGE]
        u, v, w = floats[FIRST_SPEED], floats[SECOND_SPEED], floats[HINGE_SPEED]
        # m11 u' + m12 v' = t1, m12 u' + OUTER v' = t2, SPINNER w' = t3
        m12 = OUTER + COUPLING * cos(second)
        m11 = INNER + m12 + COUPLING * cos(second)
        fling = COUPLING * sin(second)
        t1 = push + fling * (v * (2.0 * u + v)) - params.damping * u
        t2 = push_2 - fling * (u * u) - params.damping * v
        t3 = -params.hinge_damping * w
        t1, t2, t3, floats[TOP], floats[BOTTOM] = constrained(
            (first, second, hinge), (u, v, w), m11, m12, (t1, t2, t3)
        )
        m11 += h * params.damping
        m22 = OUTER + h * params.damping
        determinant = m11 * m22 - m12 * m12
        u += h * ((m22 * t1 - m12 * t2) / determinant)
        v += h * ((m11 * t2 - m12 * t1) / determinant)
        w += h * (t3 / (SPINNER + h * params.hinge_damping))
        floats[FIRST], floats[SECOND], floats[HINGE] = first + h * u, second + h * v, hinge + h * w
        floats[FIRST_SPEED], floats[SECOND_SPEED], floats[HINGE_SPEED] = u, v, w
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def tip(floats):
    """Return the spinner's tip, seen from the hinge (m)."""
    return -TIP * sin(floats[HINGE]), TIP * cos(floats[HINGE])


@njit(nogil=True)
def to_target(params, floats):
    """Return the distance from the tip to the target's edge (m), negative inside."""
    x, z = tip(floats)
    x, z = floats[TARGET_X] - x, floats[TARGET_Z] - z
    return math.sqrt(x * x + z * z) - params.target_radius


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led."""
    if params.target_radius > 0.0:
        return 1.0 if to_target(params, floats) <= 0.0 else 0.0
    return 1.0 if floats[HINGE_SPEED] <= -SPINNING else 0.0


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0], out[1] = floats[FIRST], floats[SECOND]
    out[2], out[3] = tip(floats)
    for i in range(3):
        out[4 + i] = floats[FIRST_SPEED + i]
    out[7], out[8] = log(1.0 + floats[TOP]), log(1.0 + floats[BOTTOM])
    if params.target_radius > 0.0:
        out[9], out[10] = floats[TARGET_X], floats[TARGET_Z]
        out[11] = to_target(params, floats)


def render(params, ints, floats):
    finger = f"finger at {floats[FIRST]:+.3f} and {floats[SECOND]:+.3f} rad"
    spinner = f"spinner at {wrap(floats[HINGE]):+.3f} rad, {floats[HINGE_SPEED]:+.3f} rad/s"
    target = ""
    if params.target_radius > 0.0:
        target = f", tip {to_target(params, floats):+.3f} m from the target"
    return f"step {ints[STEPS]}/{params.max_steps}: {finger}, {spinner}{target}"
