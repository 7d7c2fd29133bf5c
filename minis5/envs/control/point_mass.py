"""PointMassEasy, PointMassHard: push a heavy point to the middle of a square, and hold it.

The action, a row of two float32 in [-1, 1], is the sizes of two forces of at most 0.1 N. In
PointMassEasy they act along x and along y. In PointMassHard each episode draws two directions of
its own, any whose angle has a cosine of at most 0.9. The observation is (x, y in m, two
velocities), without the directions. The start is at rest anywhere within 0.29 m. The reward is 1
within 15 mm of the middle, 0.1 at 30 mm, times a factor of at least 0.8 that is larger for small
controls. Truncated at step `max_steps`, never terminated.

As in dm_control: mass, damping, the soft walls, MuJoCo's Euler method (implicit in the damping)
with steps of 20 ms, reward, observation, distributions of starts and directions.
Different: the numbers that these are drawn from (directions by their angles, not by rejection), and
rounding.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/point_mass.{py,xml};
MuJoCo's documentation, "Computation" (numerical integration).
Tests: tests/envs/control/test_point_mass.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.elementary import cos, sin
from minis5.envs.control.physics import limit_force
from minis5.envs.control.reward import gaussian, quadratic
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

DIRECTIONS = ("fixed", "random")
LEVELS = {
    "PointMassEasy": {"max_steps": 1000, "directions": "fixed"},
    "PointMassHard": {"max_steps": 1000, "directions": "random"},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
X, Y, X_SPEED, Y_SPEED = range(4)  # floats: the state
# floats[FIRST : FIRST + 2], floats[SECOND : SECOND + 2]: the forces' directions, unit vectors
FIRST, SECOND = 4, 6

FORCE, MASS = 0.1, 0.3
WALL, WALL_TIME_CONSTANT = 0.29, 0.02
TARGET_RADIUS = 0.015
LEAST_ANGLE = 0.45102681179626236  # between the directions: arccos 0.9
MOST_STEPS = 2**31 - 1


class PointMassParams(NamedTuple):
    max_steps: int
    random: int  # 1: directions are drawn, 0: they are the axes
    timestep: float  # s
    damping: float  # N s/m


def configure(max_steps, directions):
    """Return the task that is truncated after `max_steps` steps.

    `directions` of the forces is "fixed" or "random".
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "PointMassEasy has max_steps=1000"
    )
    drawn = DIRECTIONS.index(check_choice("directions", directions, DIRECTIONS))
    high = np.full(4, np.inf, np.float32)
    return Task(
        params=PointMassParams(max_steps, drawn, timestep=0.02, damping=1.0),
        ints=STEPS + 1,
        floats=SECOND + 2,
        observation_space=Box(-high, high),
        action_space=Box(-1, 1, (2,), np.float32),
        episode_length=max_steps,
        worst_return=0.0,
        best_return=float(max_steps),
        ranges=(Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    floats[X] = WALL * (2.0 * next_uniform(ints) - 1.0)
    floats[Y] = WALL * (2.0 * next_uniform(ints) - 1.0)
    floats[X_SPEED] = floats[Y_SPEED] = 0.0
    floats[FIRST], floats[FIRST + 1] = 1.0, 0.0
    floats[SECOND], floats[SECOND + 1] = 0.0, 1.0
    if params.random == 1:
        first, between = math.tau * next_uniform(ints), 2.0 * next_uniform(ints)
        # On either side, the angle covers half a turn without its two forbidden ends.
        side, between = (0.0, between) if between < 1.0 else (math.pi, between - 1.0)
        second = first + side + LEAST_ANGLE + (math.pi - 2.0 * LEAST_ANGLE) * between
        floats[FIRST], floats[FIRST + 1] = cos(first), sin(first)
        floats[SECOND], floats[SECOND + 1] = cos(second), sin(second)


@njit(nogil=True)
def pushed(params, x, speed, force):
    """Return the speed along one axis after a step under `force` (N)."""
    force -= params.damping * speed
    if abs(x) > WALL:
        side = 1.0 if x > 0.0 else -1.0
        # MuJoCo keeps stiff limits stable in this way.
        time_constant = max(WALL_TIME_CONSTANT, 2.0 * params.timestep)
        acceleration = -side * (force / MASS)
        force -= side * limit_force(
            WALL - abs(x), -side * speed, acceleration, 1.0 / MASS, 1.0 / MASS, time_constant
        )
    return speed + params.timestep * (force / (MASS + params.timestep * params.damping))


@njit(nogil=True)
def step(params, ints, floats, action):
    a, b = np.float64(action[0]), np.float64(action[1])
    for axis in range(2):
        force = FORCE * (floats[FIRST + axis] * a + floats[SECOND + axis] * b)
        speed = pushed(params, floats[X + axis], floats[X_SPEED + axis], force)
        floats[X + axis], floats[X_SPEED + axis] = floats[X + axis] + params.timestep * speed, speed
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led."""
    distance = math.sqrt(floats[X] * floats[X] + floats[Y] * floats[Y])
    small_control = (quadratic(np.float64(action[0])) + quadratic(np.float64(action[1]))) / 2
    return gaussian(distance - TARGET_RADIUS, TARGET_RADIUS) * ((small_control + 4.0) / 5)


@njit(nogil=True)
def observe(params, ints, floats, out):
    for i in range(4):
        out[i] = floats[i]


def render(params, ints, floats):
    x, y, x_speed, y_speed = floats[:FIRST]
    moving = f"moving ({x_speed:+.3f}, {y_speed:+.3f}) m/s"
    return f"step {ints[STEPS]}/{params.max_steps}: at ({x:+.3f}, {y:+.3f}) m, {moving}"
