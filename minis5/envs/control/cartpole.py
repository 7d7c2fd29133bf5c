"""CartPoleBalance, CartPoleSwingUp: hold a pole upright on a cart that is pushed along a rail.

The rail is 3.6 m long. The action, a row of one float32 in [-1, 1], is the push in units of 10 N.
The observation is (cart position in m, cosine and sine of the pole's angle, cart velocity, angular
velocity); angle 0 is upright. In CartPoleBalance the pole starts within 0.034 rad of it; in
CartPoleSwingUp it hangs down. The reward, in [0, 1], is a product of factors that are large for an
upright pole, a cart in the middle, a small push and a slow pole. Truncated at step `max_steps`,
never terminated.

As in dm_control: masses, damping, the soft ends of the rail, the method of Runge and Kutta with
steps of 10 ms, reward, observation, distribution of the starts.
Different: the numbers that the starts are drawn from, and rounding.

Source: DeepMind Control Suite (Tassa et al., 1801.00690); dm_control, suite/cartpole.{py,xml}.
Equations of motion: Barto, Sutton, Anderson 1983, with the inertia of a capsule; physics.py for the
rail's ends.
Tests: tests/envs/control/test_cartpole.py, by hand and side by side with dm_control.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.elementary import MOST_ANGLE, cos, sin, wrap
from minis5.envs.control.physics import GRAVITY, capsule, limit_force
from minis5.envs.control.reward import gaussian, quadratic
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_normal, next_uniform

STARTS = ("upright", "hanging")
LEVELS = {
    "CartPoleBalance": {"max_steps": 1000, "start": "upright"},
    "CartPoleSwingUp": {"max_steps": 1000, "start": "hanging"},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
X, THETA, X_DOT, THETA_DOT = range(4)  # floats: the state; theta is not wrapped

FORCE = 10.0
CART_MASS, HALF_LENGTH = 1.0, 0.5
POLE_MASS, POLE_INERTIA = capsule(0.045, 2 * HALF_LENGTH, mass=0.1)
MASS = CART_MASS + POLE_MASS
MOMENT = POLE_MASS * HALF_LENGTH
INERTIA = POLE_INERTIA + MOMENT * HALF_LENGTH  # about the hinge
X_LIMIT, X_TIME_CONSTANT = 1.8, 0.08
X_MOBILITY = INERTIA / (MASS * INERTIA - MOMENT * MOMENT)  # with the pole upright
MOST_STEPS = 10_000  # theta stays within the range of sin


class CartPoleParams(NamedTuple):
    max_steps: int
    hanging: int  # 1: the pole starts hanging, 0: upright
    timestep: float  # s
    cart_damping: float  # N s/m
    pole_damping: float  # N m s/rad


def configure(max_steps, start):
    """Return the task that is truncated after `max_steps` steps.

    `start` is "upright" or "hanging", the pole's pose.
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "CartPoleSwingUp has max_steps=1000"
    )
    hanging = STARTS.index(check_choice("start", start, STARTS))
    high = np.full(5, np.inf, np.float32)
    return Task(
        params=CartPoleParams(
            max_steps, hanging, timestep=0.01, cart_damping=5e-4, pole_damping=2e-6
        ),
        ints=STEPS + 1,
        floats=4,
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
    if params.hanging == 1:
        floats[X] = 0.01 * next_normal(ints)
        floats[THETA] = math.pi + 0.01 * next_normal(ints)
    else:
        floats[X] = -0.1 + 0.2 * next_uniform(ints)
        floats[THETA] = -0.034 + 0.068 * next_uniform(ints)
    floats[X_DOT] = 0.01 * next_normal(ints)
    floats[THETA_DOT] = 0.01 * next_normal(ints)


@njit(nogil=True)
def accelerations(params, x, theta, x_dot, theta_dot, force):
    """Return those of the cart (m/s2) and of the pole (rad/s2), under a push of `force` N."""
    c, s = cos(theta), sin(theta)
    # The equations of motion:  MASS x'' + coupling theta'' = push
    #                           coupling x'' + INERTIA theta'' = torque
    coupling = MOMENT * c
    push = force - params.cart_damping * x_dot + MOMENT * s * (theta_dot * theta_dot)
    torque = MOMENT * GRAVITY * s - params.pole_damping * theta_dot
    determinant = MASS * INERTIA - coupling * coupling
    x_acc = (INERTIA * push - coupling * torque) / determinant
    if abs(x) > X_LIMIT:
        side = 1.0 if x > 0.0 else -1.0
        mobility = INERTIA / determinant
        push -= side * limit_force(
            X_LIMIT - abs(x), -side * x_dot, -side * x_acc, mobility, X_MOBILITY, X_TIME_CONSTANT
        )
        x_acc = (INERTIA * push - coupling * torque) / determinant
    return x_acc, (MASS * torque - coupling * push) / determinant


@njit(nogil=True)
def step(params, ints, floats, action):
    force = FORCE * np.float64(action[0])
    x0, theta0, x_dot0, theta_dot0 = floats[X], floats[THETA], floats[X_DOT], floats[THETA_DOT]
    x, theta, x_dot, theta_dot = x0, theta0, x_dot0, theta_dot0
    x_sum, theta_sum, x_dot_sum, theta_dot_sum = 0.0, 0.0, 0.0, 0.0
    for stage in range(4):
        x_acc, theta_acc = accelerations(params, x, theta, x_dot, theta_dot, force)
        weight = 1.0 if stage == 0 or stage == 3 else 2.0
        x_sum, x_dot_sum = x_sum + weight * x_dot, x_dot_sum + weight * x_acc
        theta_sum = theta_sum + weight * theta_dot
        theta_dot_sum = theta_dot_sum + weight * theta_acc
        h = params.timestep if stage == 2 else params.timestep / 2
        x, x_dot = x0 + h * x_dot, x_dot0 + h * x_acc
        theta, theta_dot = theta0 + h * theta_dot, theta_dot0 + h * theta_acc
    h = params.timestep / 6
    floats[X], floats[X_DOT] = x0 + h * x_sum, x_dot0 + h * x_dot_sum
    floats[THETA], floats[THETA_DOT] = theta0 + h * theta_sum, theta_dot0 + h * theta_dot_sum
    ints[STEPS] += 1
    return reward(params, floats, action), False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def reward(params, floats, action):
    """Return the reward of the state to which the action has led."""
    upright = (cos(floats[THETA]) + 1.0) / 2
    centred = (1.0 + gaussian(abs(floats[X]), 2.0)) / 2
    small_control = (4.0 + quadratic(np.float64(action[0]))) / 5
    slow = (1.0 + gaussian(abs(floats[THETA_DOT]), 5.0)) / 2
    return upright * small_control * slow * centred


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0], out[3], out[4] = floats[X], floats[X_DOT], floats[THETA_DOT]
    out[1], out[2] = cos(floats[THETA]), sin(floats[THETA])


def render(params, ints, floats):
    x, theta, x_dot, theta_dot = floats[:4]  # a mixture has room for more
    return (
        f"step {ints[STEPS]}/{params.max_steps}: x {x:+.3f} m, {x_dot:+.3f} m/s, "
        f"{wrap(theta):+.3f} rad from upright, {theta_dot:+.3f} rad/s"
    )
