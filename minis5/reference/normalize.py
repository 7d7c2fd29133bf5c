"""Normalisation of observations, rewards and values, as plain sums over all that was seen."""

import numpy as np


def normalize_observations(seen, epsilon=1e-8, bound=10.0):
    """Return seen (T, B, n), each normalised by all of steps 0 to t.

    clip((x - mean) / sqrt(variance + epsilon), ±bound), with the variance of the population.
    """
    out = np.zeros(seen.shape)
    for t in range(len(seen)):
        for j in range(seen.shape[2]):
            known = [float(x) for x in seen[: t + 1, :, j].ravel()]
            mean = sum(known) / len(known)
            variance = sum((x - mean) ** 2 for x in known) / len(known)
            for n in range(seen.shape[1]):
                z = (float(seen[t, n, j]) - mean) / np.sqrt(variance + epsilon)
                out[t, n, j] = min(max(z, -bound), bound)
    return out


def normalize_rewards(rewards, done, gamma, epsilon=1e-8, bound=10.0):
    """Return rewards (T, B) divided by the deviation of R, clipped to ±bound.

    R[t] = gamma R[t-1] + r[t] within an episode; the deviation is that of all R of these steps.
    """
    sums = []
    for n in range(rewards.shape[1]):
        total = 0.0
        for t in range(len(rewards)):
            total = gamma * total + rewards[t, n]
            sums.append(total)
            total = 0.0 if done[t, n] else total
    mean = sum(sums) / len(sums)
    variance = sum((x - mean) ** 2 for x in sums) / len(sums)
    return np.array(
        [[min(max(r / np.sqrt(variance + epsilon), -bound), bound) for r in row] for row in rewards]
    )


def first_value(rewards, values, next_values, terminated, valid, gamma):
    """Return (k, c): with k·V + c for every value V, the TD errors are orthogonal to V and to 1.

    k is then taken into [0, 1], and c is the one that fits this k. All arrays are (T, B). Where
    nothing decides k it is 0; where nothing decides c, the answer is (1, 0).
    """
    a, b = np.zeros((2, 2)), np.zeros(2)
    for t in range(len(rewards)):
        for n in range(rewards.shape[1]):
            if valid[t, n]:
                follows = 0.0 if terminated[t, n] else gamma
                feature = np.array([values[t, n], 1.0], float)
                a += np.outer(feature, feature - follows * np.array([next_values[t, n], 1.0]))
                b += feature * rewards[t, n]
    if a[1, 1] == 0:
        return 1.0, 0.0
    determinant = a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    k = (b[0] * a[1, 1] - a[0, 1] * b[1]) / determinant if determinant else 0.0
    k = min(max(k, 0.0), 1.0)
    return k, (b[1] - k * a[1, 0]) / a[1, 1]
