"""PositionOnlyCartPole: balance the pole, seeing cart position and pole angle but no velocity.

Physics, limits and start (each state variable uniform in [-0.05, 0.05)) are those of Gymnasium's CartPole-v1, in
float64. Each step, the last one included, earns 1 / max_steps. The episode is terminated when the pole or the cart
leaves its limits and truncated at step `max_steps` (both may be true at that step, as in POPGym).

Source: POPGym 1.0.7, popgym/envs/position_only_cartpole.py; Gymnasium, envs/classic_control/cartpole.py; Barto, Sutton,
Anderson 1983.
Tested in tests/test_envs.py and, in lockstep with popgym and Gymnasium, tests/test_envs_lockstep.py.
"""

import math

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from minis5.envs.task import Task, check_integer
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {
    "PositionOnlyCartPoleEasy": {"max_steps": 200},
    "PositionOnlyCartPoleMedium": {"max_steps": 400},
    "PositionOnlyCartPoleHard": {"max_steps": 600},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done; floats: x, x_dot, theta, theta_dot

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = POLE_MASS + 1.0
HALF_LENGTH = 0.5
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
FORCE = 10.0
TAU = 0.02  # seconds between states
X_LIMIT = 2.4
THETA_LIMIT = 12 * 2 * math.pi / 360
RANDOM_LENGTH = 22.25  # of an episode under the random policy: measured, 1.1 million episodes, standard error 0.01


def configure(max_steps):
    """Task that is truncated after `max_steps` steps."""
    max_steps = check_integer("max_steps", max_steps, 1, 2**31 - 1, "PositionOnlyCartPoleEasy has max_steps=200")
    high = np.array([2 * X_LIMIT, 2 * THETA_LIMIT], np.float32)
    return Task(
        params=np.array([max_steps]),
        ints=STEPS + 1,
        floats=4,
        observation_space=Box(-high, high),
        action_space=Discrete(2),
        episode_length=max_steps,
        random_return=RANDOM_LENGTH / max_steps if max_steps >= 100 else math.nan,
        best_return=1.0,
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    for i in range(4):
        floats[i] = -0.05 + 0.1 * next_uniform(ints)


@njit(nogil=True)
def step(params, ints, floats, action):
    x, x_dot, theta, theta_dot = floats[0], floats[1], floats[2], floats[3]
    force = FORCE if action == 1 else -FORCE
    cos, sin = math.cos(theta), math.sin(theta)
    temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * temp) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS))
    x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS
    x += TAU * x_dot
    x_dot += TAU * x_acc
    theta += TAU * theta_dot
    theta_dot += TAU * theta_acc
    floats[0], floats[1], floats[2], floats[3] = x, x_dot, theta, theta_dot
    ints[STEPS] += 1
    fallen = abs(x) > X_LIMIT or abs(theta) > THETA_LIMIT
    return 1.0 / params[0], fallen, ints[STEPS] >= params[0]


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = floats[0]
    out[1] = floats[2]


def render(params, ints, floats):
    return f"step {ints[STEPS]}/{params[0]}: x {floats[0]:+.3f} m, theta {floats[2]:+.3f} rad"
