"""Normal noise on observations, as POPGym adds it: drawn once for each observation, rounded to float32, added, clipped.

Drawing belongs to `reset` and `step`, adding to `observe`: so an observation can be asked for again without another draw.

Source: POPGym 1.0.7, popgym/envs/noisy_position_only_cartpole.py, noisy_position_only_pendulum.py.
Tested in tests/envs/test_control.py and, in lockstep with popgym, tests/envs/test_popgym_control.py.
"""

import numpy as np
from numba import njit

from minis5.random import next_normal


@njit(nogil=True)
def draw_noise(ints, floats, start, sigma):
    """Draw the noise of an observation of two numbers into floats[start : start + 2]; without noise, sigma = 0, nothing."""
    if sigma > 0.0:
        for i in range(2):
            floats[start + i] = np.float32(sigma * next_normal(ints))


@njit(nogil=True)
def noisy(value, noise, bound):
    """`value` + `noise`, clipped to +-`bound`; everything in float32."""
    return min(max(np.float32(value) + np.float32(noise), -bound), bound)
