"""Help for the tests of batches: observations as an array, random actions, steps, comparisons."""

import numpy as np
from gymnasium.vector.utils import batch_space

from minis5.spaces import leaves


def rows(observations):
    """Return the observations of a batch as one array, (n, numbers in one of them)."""
    return np.column_stack([leaf.reshape(len(leaf), -1) for leaf in leaves(observations)])


def random_actions(envs, steps, seed=0, n=64):
    """Return `steps` batches of actions.

    They are drawn for n environments, so that a part of a batch gets its part of the whole's.
    """
    space = batch_space(envs.single_action_space, n)
    space.seed(seed)
    first = envs._first_index
    return [space.sample()[first : first + envs.num_envs] for _ in range(steps)]


def rollout(envs, steps, seed=0):
    """Take steps with random actions.

    Return [rows of observations, reward, terminated, truncated, infos] of each.
    """
    steps = [envs.step(actions) for actions in random_actions(envs, steps, seed)]
    return [[rows(step[0]), *step[1:]] for step in steps]


def same(a, b):
    """Tell whether two lists of arrays have equal numbers and dtypes."""
    return all(
        np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype
        for x, y in zip(a, b, strict=True)
    )
