"""BallInCupCatch: swing a ball that hangs on a string from a cup up into the cup.

All is in a vertical plane. The agent moves the cup. The action, a row of two float32 in [-1, 1], is
the forces on the cup along x and z in units of 5 N; a spring and a damper hold the cup. The
observation is (x and z of the cup, of the ball, in m from where they rest in the model, and the
four velocities). The start is at rest: the cup in place, the ball anywhere within 0.2 m to the side
and between 0.2 m below the cup and 0.1 m above it, not touching it. The reward is 1 while the ball
is in the cup, otherwise 0. Truncated at step `max_steps`, never terminated.

As in dm_control: masses, springs, the string, which is soft when it is taut, the cup's five bars,
friction, the ground, MuJoCo's Euler method with ten steps of 2 ms to a control step, reward,
observation, distribution of the starts.
Different: the numbers that the starts are drawn from, the method that finds the forces (MuJoCo
stops at a tolerance of 1e-8), and rounding.
Leaves out: contact of the cup with the ground. The cup stayed 16 cm above it under all controls
tried.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/ball_in_cup.{py,xml};
contact.py for the contacts.
Tests: tests/envs/control/test_ball_in_cup.py, by hand and side by side with dm_control.
"""

from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer
from minis5.envs.control.contact import CUP_MASS, constrained, touched
from minis5.envs.control.physics import GRAVITY
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {"BallInCupCatch": {"max_steps": 1000}}
STEPS = GENERATOR_SIZE  # ints[STEPS]: control steps done
CUP, BALL, CUP_SPEED, BALL_SPEED = 0, 2, 4, 6  # floats: the state, x and z of each

FORCE, STIFFNESS = 5.0, 20.0
CUP_HEIGHT, BALL_HEIGHT = 0.6, 0.2  # m above the ground where the state is 0
# m: the target's middle is so far below the cup's origin; a ball in it is so near, in x and z
TARGET_DEPTH, TARGET_HALF = 0.05, 0.025
SUBSTEPS = 10
MOST_STEPS = 2**31 - 1


class BallInCupParams(NamedTuple):
    max_steps: int
    timestep: float  # s, of a substep
    damping: float  # N s/m, of the cup


def configure(max_steps):
    """Return the task that is truncated after `max_steps` steps."""
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "BallInCupCatch has max_steps=1000"
    )
    high = np.full(8, np.inf, np.float32)
    return Task(
        params=BallInCupParams(max_steps, timestep=0.002, damping=3.0),
        ints=STEPS + 1,
        floats=8,
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
    for i in range(8):
        floats[i] = 0.0
    drawing = True
    while drawing:
        floats[BALL] = -0.2 + 0.4 * next_uniform(ints)
        floats[BALL + 1] = 0.2 + 0.3 * next_uniform(ints)
        drawing = touched(*ball_from_cup(floats)) > 0


@njit(nogil=True)
def ball_from_cup(floats):
    """Return the ball's centre (x, z), seen from the cup's origin (m)."""
    return floats[BALL] - floats[CUP], (BALL_HEIGHT - CUP_HEIGHT) + (
        floats[BALL + 1] - floats[CUP + 1]
    )


@njit(nogil=True)
def step(params, ints, floats, action):
    pull_x, pull_z = FORCE * np.float64(action[0]), FORCE * np.float64(action[1])
    h = params.timestep
    for _ in range(SUBSTEPS):
        # Accelerations without contacts and string, then with them.
        cup_x = (pull_x - STIFFNESS * floats[CUP] - params.damping * floats[CUP_SPEED]) / CUP_MASS
        cup_z = (
            pull_z - STIFFNESS * floats[CUP + 1] - params.damping * floats[CUP_SPEED + 1]
        ) / CUP_MASS - GRAVITY
        x, z = ball_from_cup(floats)
        height = BALL_HEIGHT + floats[BALL + 1]
        cup_u, cup_w = floats[CUP_SPEED], floats[CUP_SPEED + 1]
        ball_u, ball_w = floats[BALL_SPEED], floats[BALL_SPEED + 1]
        speeds, free = (cup_u, cup_w, ball_u, ball_w), (cup_x, cup_z, 0.0, -GRAVITY)
        cup_x, cup_z, ball_x, ball_z = constrained(x, z, height, speeds, free)
        implicit = h * (CUP_MASS / (CUP_MASS + h * params.damping))
        floats[CUP_SPEED] += implicit * cup_x
        floats[CUP_SPEED + 1] += implicit * cup_z
        floats[BALL_SPEED] += h * ball_x
        floats[BALL_SPEED + 1] += h * ball_z
        for i in range(4):
            floats[CUP + i] += h * floats[CUP_SPEED + i]
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def reward(params, floats, action):
    """Return 1 if the action has led to a state with the ball in the cup, else 0."""
    x, z = ball_from_cup(floats)
    return 1.0 if abs(x) < TARGET_HALF and abs(z + TARGET_DEPTH) < TARGET_HALF else 0.0


@njit(nogil=True)
def observe(params, ints, floats, out):
    for i in range(8):
        out[i] = floats[i]


def render(params, ints, floats):
    x, z = ball_from_cup(floats)
    cup_x, cup_z = floats[:2]
    where = "in it" if reward(params, floats, None) else f"({x:+.3f}, {z:+.3f}) m from it"
    cup = f"cup at ({cup_x:+.3f}, {cup_z:+.3f}) m"
    return f"step {ints[STEPS]}/{params.max_steps}: {cup}, ball {where}"
