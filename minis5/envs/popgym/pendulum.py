"""The pendulums: swing a pendulum up and hold it, seeing the angle but not the speed.

PositionOnlyPendulum, NoisyPositionOnlyPendulum. A rod, 1 m and 1 kg, turns about one end. The
action, a row of one float32 in [-2, 2], is a torque in N m, too weak to lift the rod at once.
Physics, start (angle theta uniform in [-pi, pi), 0 is upright; speed uniform in [-1, 1) rad/s) and
cost theta**2 + 0.1 speed**2 + 0.001 torque**2, of the state before the step, are those of
Gymnasium's Pendulum-v1. The observation is (cos theta, sin theta). In the noisy levels each number
has normal noise of standard deviation `noise`, and the sum is clipped to [-1, 1]. The cost is
scaled to a reward between -1 / max_steps (hanging down at full speed) and 1 / max_steps (upright
and still). Truncated at step `max_steps`, never terminated.

POPGym's quirks, kept: the noise is rounded to float32 and added in float32; a torque's effect and
cost are computed in float32 too, as NumPy 2 does with a float32 action; the most negative reward is
a little below -1 / max_steps.

Source: POPGym 1.0.7, popgym/envs/{position_only,noisy_position_only}_pendulum.py (Morad et al.,
ICLR 2023); Gymnasium, envs/classic_control/pendulum.py.
Tests: tests/envs/popgym/test_pendulum.py, by hand and in lockstep with popgym and Gymnasium.
"""

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box
from numba import njit

from minis5.checks import check_integer, check_number
from minis5.elementary import MOST_ANGLE, cos, sin, wrap
from minis5.envs.popgym.noise import draw_noise, noisy
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_uniform

LEVELS = {
    "PositionOnlyPendulumEasy": {"max_steps": 200, "noise": 0.0},
    "PositionOnlyPendulumMedium": {"max_steps": 150, "noise": 0.0},
    "PositionOnlyPendulumHard": {"max_steps": 100, "noise": 0.0},
    "NoisyPositionOnlyPendulumEasy": {"max_steps": 200, "noise": 0.1},
    "NoisyPositionOnlyPendulumMedium": {"max_steps": 200, "noise": 0.2},
    "NoisyPositionOnlyPendulumHard": {"max_steps": 200, "noise": 0.3},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: steps done
THETA, SPEED = 0, 1  # floats: the state; theta is not wrapped
# floats[NOISE : NOISE + 2]: noise of the present observation, float32 values; absent without noise
NOISE = 2

PULL = 15.0  # 3 g / 2 l with g = 10: angular acceleration by gravity, lying level
LIFT = np.float32(3.0)  # 3 / m l**2: angular acceleration by a torque of 1
TAU = 0.05  # seconds between states
MAX_SPEED = 8.0
MAX_TORQUE = np.float32(2.0)
TORQUE_COST = np.float32(0.001)
HALF_COST = 16.2736044 / 2  # pi**2 + 0.1 (8**2) + 0.001 (2**2), as POPGym rounds it
MOST_STEPS = 200_000  # |theta| <= pi + 0.4 max_steps stays within the range of sin


class Params(NamedTuple):
    max_steps: int
    noise: float


def configure(max_steps, noise):
    """Return the task that is truncated after `max_steps` steps.

    `noise` is the standard deviation of an observation's noise.
    """
    max_steps = check_integer(
        "max_steps", max_steps, 1, MOST_STEPS, "PositionOnlyPendulumEasy has max_steps=200"
    )
    noise = check_number("noise", noise, 0.0, 1e6, "NoisyPositionOnlyPendulumEasy has noise=0.1")
    high = np.ones(2, np.float32)
    return Task(
        params=Params(max_steps, noise),
        ints=STEPS + 1,
        floats=NOISE + 2 if noise > 0 else NOISE,
        observation_space=Box(-high, high),
        action_space=Box(-MAX_TORQUE, MAX_TORQUE, (1,)),
        episode_length=max_steps,
        # HALF_COST is rounded down, but the start is slow, so that the first step makes up for it.
        worst_return=-1.0,
        best_return=1.0,
        ranges=(
            Range("ints", STEPS, STEPS + 1, 0, max_steps - 1),
            Range("floats", THETA, THETA + 1, -MOST_ANGLE, MOST_ANGLE),
            Range("floats", SPEED, SPEED + 1, -MAX_SPEED, MAX_SPEED),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS] = 0
    floats[THETA] = -math.pi + math.tau * next_uniform(ints)
    floats[SPEED] = -1.0 + 2.0 * next_uniform(ints)
    draw_noise(ints, floats, NOISE, params.noise)


@njit(nogil=True)
def step(params, ints, floats, action):
    theta, speed, torque = floats[THETA], floats[SPEED], np.float32(action[0])
    angle = wrap(theta)
    cost = angle * angle + 0.1 * (speed * speed) + np.float64(TORQUE_COST * (torque * torque))
    speed += (PULL * sin(theta) + np.float64(LIFT * torque)) * TAU
    speed = min(max(speed, -MAX_SPEED), MAX_SPEED)
    floats[THETA], floats[SPEED] = theta + speed * TAU, speed
    ints[STEPS] += 1
    draw_noise(ints, floats, NOISE, params.noise)
    return (HALF_COST - cost) / HALF_COST / params.max_steps, False, ints[STEPS] >= params.max_steps


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0], out[1] = cos(floats[THETA]), sin(floats[THETA])
    if params.noise > 0.0:
        for i in range(2):
            out[i] = noisy(out[i], floats[NOISE + i], np.float32(1.0))


def render(params, ints, floats):
    angle, speed = wrap(floats[THETA]), floats[SPEED]
    return (
        f"step {ints[STEPS]}/{params.max_steps}: {angle:+.3f} rad from upright, {speed:+.3f} rad/s"
    )
