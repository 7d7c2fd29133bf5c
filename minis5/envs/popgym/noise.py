"""Normal noise on observations, as POPGym adds it.

It is drawn once for each observation, rounded to float32, added and clipped. `reset` and `step`
draw it and `observe` adds it, so that an observation can be asked for again without another draw.

Source: POPGym 1.0.7, popgym/envs/noisy_position_only_cartpole.py, noisy_position_only_pendulum.py.
Tests: tests/envs/popgym/test_noise.py; test_cartpole.py and test_pendulum.py in lockstep with
popgym.
"""

import numpy as np
from numba import njit

from minis5.random import next_normal


@njit(nogil=True)
def draw_noise(ints, floats, start, sigma):
    """Draw the noise of two observed numbers into floats[start : start + 2], unless sigma is 0."""
    if sigma > 0.0:
        for i in range(2):
            floats[start + i] = np.float32(sigma * next_normal(ints))


@njit(nogil=True)
def noisy(value, noise, bound):
    """Return `value` + `noise`, clipped to +-`bound`; everything in float32."""
    return min(max(np.float32(value) + np.float32(noise), -bound), bound)
