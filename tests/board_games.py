"""Help for the tests of board games and bandits: playing, choosing squares, comparing counts."""

import numpy as np
from scipy.stats import chi2

NEVER = 1e-6  # smallest p-value that passes


def play(env, actions):
    """Return observation, reward, terminated and truncated of each step."""
    return [env.step(np.array(action))[:4] for action in actions]


def choose(env, candidates):
    """Return row and column of the square with the largest of `candidates`, one for each square."""
    size = env.task.params.size
    return np.array(divmod(int(np.argmax(candidates)), size))


def chi_square(counts, other=None):
    """Return the p-value of the hypothesis that all categories are equally likely.

    With `other` counts of the same categories: that both have the same probabilities.
    """
    if other is None:
        table = np.array(counts)
        expected, degrees = table.mean(), len(table) - 1
    else:
        table = np.array([counts, other])
        table = table[:, table.any(axis=0)]
        expected, degrees = (
            np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum(),
            table.shape[1] - 1,
        )
    return chi2.sf(((table - expected) ** 2 / expected).sum(), degrees)
