"""The two shapes of the control tasks' rewards: 1 in a region, less and less outside it.

Leaves out: the suite's other six shapes; bounds that are not those of a distance.
Source: DeepMind Control Suite (Tassa et al., 1801.00690, section 4.1, "rewards"); dm_control,
utils/rewards.py: `tolerance` with sigmoid "gaussian" and value_at_margin 0.1, its defaults, and
with "quadratic" and value_at_margin 0.
Tests: tests/envs/control/test_reward.py, by hand and against dm_control.
"""

from numba import njit

from minis5.elementary import exp

LOG_TENTH = -2.3025850929940455  # log 0.1


@njit(nogil=True)
def gaussian(distance, margin):
    """Return a reward for being near: exp(-c distance**2), 1 at a `distance` <= 0, 0.1 at `margin`.

    Parameters
    ----------
    distance : float
        From the region of reward 1, in any unit.
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
    """Return a reward for a small control: 1 - x**2, but 0 if |x| > 1."""
    return max(1.0 - x * x, 0.0)
