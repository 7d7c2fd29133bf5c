"""Generalised advantage estimation as the resettable scan, run backwards in time.

    δ[t] = r[t] + γ·(1 - terminated[t])·next_values[t] - values[t]
    A[t] = δ[t] + γλ·A[t+1]          A[t] = δ[t] where an episode ends at t

``next_values[t]`` is the value of the true next observation. Where an episode was truncated at t,
that is its last observation, not the next episode's first. Terminated and truncated stay apart:
only termination makes the future worth nothing.

Source: 1506.02438, eq. 16. Specification: reference.gae. Tests: tests/rl/test_gae.py.
"""

from minis5.arrays import Array, array_module
from minis5.nn.scan import scan_forward
from minis5.rl.learning_doors import take_gae

__all__ = ["gae"]


def gae(
    rewards: Array,
    values: Array,
    next_values: Array,
    terminated: Array,
    done: Array,
    gamma: float,
    lam: float,
) -> Array:
    """Return the advantages (T, B).

    Parameters
    ----------
    rewards, values, next_values : (T, B) float32 or float64
    terminated : (T, B) bool
        The environment ended there: no value follows.
    done : (T, B) bool
        terminated or truncated: nothing flows back from the next episode.
    gamma, lam : float
        Discount and λ, both in [0, 1].

    Returns
    -------
    advantages : (T, B); the λ-returns are advantages + values

    Raises
    ------
    TypeError, ValueError
        Shapes or dtypes differ, a factor is not in [0, 1], or a step is terminated but not done.
    """
    arrays = take_gae(rewards, values, next_values, terminated, done, gamma, lam)
    rewards, values, next_values, terminated, done = arrays
    xp, shape = array_module(rewards), rewards.shape
    # δ[t] = r[t] + γ·V'[t] - V[t], without V' where the episode terminated
    delta = rewards + gamma * xp.where(terminated, rewards.dtype.type(0), next_values) - values
    # A[t] = δ[t] + γλ·A[t+1]: a scan from the last step to the first, reset where an episode ends
    a, A_last = xp.full((1, 1, 1), gamma * lam, delta.dtype), xp.zeros((shape[1], 1), delta.dtype)
    backwards = xp.ascontiguousarray(delta[::-1])[..., None]
    ends = xp.ascontiguousarray((terminated | done)[::-1])
    return scan_forward(a, backwards, ends, A_last, is_complex=False)[::-1, :, 0].copy()
