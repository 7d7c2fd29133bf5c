"""The cart-poles: balance a pole on a cart, seeing half the state.

PositionOnlyCartPole, VelocityOnlyCartPole, NoisyPositionOnlyCartPole. The agent pushes the cart
left (0) or right (1). Physics, limits and start (each of the four state variables uniform in
[-0.05, 0.05)) are those of Gymnasium's CartPole-v1. The observation is (cart position in metres,
pole angle in radians) or the two velocities. In the noisy levels each number has normal noise of
standard deviation `noise`, and the sum is clipped to the space's bounds. Each step, the last one
included, earns 1 / max_steps. The episode is terminated when the cart or the pole leaves its
limits, and truncated at step `max_steps`.

POPGym's quirks, kept: both flags may be true at step `max_steps`; VelocityOnlyCartPole shows the
positions in the first observation, and velocities only afterwards; the noise is rounded to float32
and added in float32.

Source: POPGym 1.0.7, popgym/envs/{position_only,velocity_only,noisy_position_only}_cartpole.py
(Morad et al., ICLR 2023); Gymnasium, envs/classic_control/cartpole.py; Barto, Sutton, Anderson
1983.
Tests: tests/envs/popgym/test_cartpole.py, by hand and in lockstep with popgym and Gymnasium.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from minis5.checks import check_choice, check_integer, check_number
from minis5.elementary import MOST_ANGLE, cos, sin
from minis5.envs.popgym.noise import draw_noise, noisy
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

VIEWS = ("positions", "velocities")
LEVELS = {
    "PositionOnlyCartPoleEasy": {"max_steps": 200, "view": "positions", "noise": 0.0},
    "PositionOnlyCartPoleMedium": {"max_steps": 400, "view": "positions", "noise": 0.0},
    "PositionOnlyCartPoleHard": {"max_steps": 600, "view": "positions", "noise": 0.0},
    "VelocityOnlyCartPoleEasy": {"max_steps": 200, "view": "velocities", "noise": 0.0},
    "VelocityOnlyCartPoleMedium": {"max_steps": 400, "view": "velocities", "noise": 0.0},
    "VelocityOnlyCartPoleHard": {"max_steps": 600, "view": "velocities", "noise": 0.0},
    "NoisyPositionOnlyCartPoleEasy": {"max_steps": 200, "view": "positions", "noise": 0.1},
    "NoisyPositionOnlyCartPoleMedium": {"max_steps": 200, "view": "positions", "noise": 0.2},
    "NoisyPositionOnlyCartPoleHard": {"max_steps": 200, "view": "positions", "noise": 0.3},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
X, X_DOT, THETA, THETA_DOT = range(4)  # floats: the state
# floats[NOISE : NOISE + 2]: noise of the present observation, float32 values; absent without noise
NOISE = 4

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
FORCE = 10.0
TAU = 0.02  # seconds between states
X_LIMIT = 2.4
THETA_LIMIT = 12 * 2 * math.pi / 360
X_HIGH, THETA_HIGH = np.float32(2 * X_LIMIT), np.float32(2 * THETA_LIMIT)
UNBOUNDED = np.float32(np.inf)
# Within the limits |theta_acc| < 18.1, so after 7 steps |theta| < 0.05 + 7 (0.001) + 21 (0.02**2)
# 18.1 is still within its limit.
FASTEST_FALL = 8  # steps


class Params(NamedTuple):
    max_steps: int
    velocities: int  # 1: velocities are observed, 0: positions
    noise: float


def configure(max_steps, view, noise):
    """Return the task that is truncated after `max_steps` steps.

    `view` is "positions" or "velocities"; `noise` is the standard deviation of an observation's
    noise.
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, 2**31 - 1, "PositionOnlyCartPoleEasy has max_steps=200"
    )
    velocities = VIEWS.index(check_choice("view", view, VIEWS))
    noise = check_number("noise", noise, 0.0, 1e6, "NoisyPositionOnlyCartPoleEasy has noise=0.1")
    high = np.full(2, np.inf, np.float32) if velocities else np.array([X_HIGH, THETA_HIGH])
    return Task(
        params=Params(max_steps, velocities, noise),
        ints=STEPS + 1,
        floats=NOISE + 2 if noise > 0 else NOISE,
        observation_space=Box(-high, high),
        action_space=Discrete(2),
        episode_length=max_steps,
        worst_return=min(FASTEST_FALL, max_steps) / max_steps,
        best_return=1.0,
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", THETA, THETA + 1, -MOST_ANGLE, MOST_ANGLE),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    for i in range(4):
        floats[i] = -0.05 + 0.1 * next_uniform(ints)
    draw_noise(ints, floats, NOISE, params.noise)


@njit(nogil=True)
def step(params, ints, floats, action):
    x, x_dot, theta, theta_dot = floats[X], floats[X_DOT], floats[THETA], floats[THETA_DOT]
    force = FORCE if action == 1 else -FORCE
    c, s = cos(theta), sin(theta)
    temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * s) / TOTAL_MASS
    theta_acc = (GRAVITY * s - c * temp) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (c * c) / TOTAL_MASS)
    )
    x_acc = temp - POLE_MASS_LENGTH * theta_acc * c / TOTAL_MASS
    x += TAU * x_dot
    theta += TAU * theta_dot
    floats[X], floats[X_DOT] = x, x_dot + TAU * x_acc
    floats[THETA], floats[THETA_DOT] = theta, theta_dot + TAU * theta_acc
    ints[STEPS] += 1
    draw_noise(ints, floats, NOISE, params.noise)
    fallen = abs(x) > X_LIMIT or abs(theta) > THETA_LIMIT
    return 1.0 / params.max_steps, fallen, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def observe(params, ints, floats, out):
    first = X_DOT if params.velocities == 1 and ints[STEPS] > 0 else X
    out[0], out[1] = floats[first], floats[first + 2]
    if params.noise > 0.0:
        out[0] = noisy(out[0], floats[NOISE], UNBOUNDED if params.velocities == 1 else X_HIGH)
        out[1] = noisy(
            out[1], floats[NOISE + 1], UNBOUNDED if params.velocities == 1 else THETA_HIGH
        )


def render(params, ints, floats):
    x, x_dot, theta, theta_dot = floats[:NOISE]
    track = [" "] * 49  # one column is 0.1 m
    track[min(max(round(24 + 10 * x), 0), 48)] = "\\|/"[1 + (theta > 0.02) - (theta < -0.02)]
    return (
        f"step {ints[STEPS]}/{params.max_steps}: x {x:+.3f} m, {x_dot:+.3f} m/s, "
        f"theta {theta:+.3f} rad, {theta_dot:+.3f} rad/s\n[{''.join(track)}]"
    )
