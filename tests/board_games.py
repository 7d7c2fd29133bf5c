"""Help for the tests of Battleship, MineSweeper and MultiarmedBandit: playing, choosing squares, comparing counts."""

import numpy as np
from scipy.stats import chi2

NEVER = 1e-6  # smallest p-value that passes


def play(env, actions):
    """Return observation, reward, terminated and truncated of each step."""
    return [env.step(np.array(action))[:4] for action in actions]


def choose(env, candidates):
    """Return the square with the largest of `candidates`, an array over the squares: its row and column."""
    size = env.task.params.size
    return np.array(divmod(int(np.argmax(candidates)), size))


def chi_square(counts, other=None):
    """Return the p-value of equal probabilities or, with `other` counts of the same categories, of the same ones."""
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
