"""Random states of BallInCupCatch, for the tests of the task and of its contacts."""

import math

import numpy as np


def any_states(n=300):
    """Return random states, (n, 8): the ball on the taut string, beside the cup, or in contact."""
    rng = np.random.default_rng(1)
    cup = rng.uniform([-0.2, -0.35], [0.2, 0.15], (n, 2))
    speeds = rng.normal(0, 1, (n, 4)) * rng.choice([0.01, 0.3, 2], (n, 1))
    angle, length = rng.uniform(-math.pi, math.pi, n), rng.uniform(0.299, 0.31, n)
    hung = np.stack([length * np.sin(angle), 0.292 - length * np.cos(angle)], 1)
    near = np.stack([rng.uniform(-0.1, 0.1, n), 0.4 + rng.uniform(-0.15, 0.04, n)], 1)
    ball = cup + np.where(np.arange(n)[:, None] % 3 > 0, near, hung)
    ball[:, 1] = np.maximum(ball[:, 1], -0.18)  # 5 mm into the ground
    return np.concatenate([cup, ball, speeds], 1)
