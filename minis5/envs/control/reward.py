"""The two shapes that the control tasks give to their rewards: 1 where all is well, less and less outside.

Leaves out: the suite's other six shapes; bounds that are not those of a distance.
Source: DeepMind Control Suite (Tassa et al., 1801.00690, section 4.1, "rewards"); dm_control, utils/rewards.py: `tolerance`
with sigmoid "gaussian" and value_at_margin 0.1, its defaults, and with "quadratic" and value_at_margin 0.
Tested in tests/envs/test_control_suite.py and, against dm_control, in tests/envs/test_dm_control_physics.py.
"""

from numba import njit

from minis5.elementary import exp

LOG_TENTH = -2.3025850929940455  # log 0.1


@njit(nogil=True)
def gaussian(distance, margin):
    """Reward for being near: 1 where `distance` <= 0, 0.1 at `margin`, exp(-c distance**2) between and beyond.

    Parameters
    ----------
    distance : float
        From where all is well, in any unit.
    margin : float
        Positive, in the same unit.

    Returns
    -------
    float in [0, 1]
    """
    if distance <= 0.0:
        return 1.0
    d = distance / margin
    return exp(LOG_TENTH * (d * d))


@njit(nogil=True)
def quadratic(x):
    """Reward for a small control: 1 - x**2, but 0 where |x| > 1."""
    return max(1.0 - x * x, 0.0)
