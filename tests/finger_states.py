"""Random states of the finger tasks, for the tests of the tasks and of their forces."""

import math

import numpy as np

from minis5.envs.control import fingertip


def depth(state):
    """Return how deep the fingertip is in the spinner, in m."""
    place = fingertip.from_spinner(fingertip.links(state[0], state[1]), state[2])
    return max(-fingertip.contacts(cap, place)[0][0] for cap in (-0.02, 0.02))


def any_states(n=300):
    """Return random states, (n, 6): two of three with the finger near the spinner or in contact.

    Every tenth is side by side with the spinner, all axes parallel. The third part are anywhere,
    many of them beyond the joints' limits. None is more than 3 cm deep,
    nor so fast that the axes of fingertip and spinner cross in the next 10 ms.
    """
    rng = np.random.default_rng(1)
    found = []
    while len(found) < n:
        if len(found) % 3 > 0:
            # An isosceles triangle brings the tip near the hinge: the second joint turns back by
            # twice the first one's angle.
            first = rng.uniform(-0.8, 0.8)
            second, side = -2 * first + rng.uniform(-0.5, 0.5), rng.choice([-1, 1]) * math.pi / 2
            parallel = math.remainder(first + second + side, math.tau)
            angles = first, second, parallel if len(found) % 10 == 1 else rng.uniform(-3.2, 3.2)
        else:
            angles = rng.uniform([-2.1, -2.1, -3.2], [2.1, 2.1, 3.2])
        state = np.array([*angles, *rng.normal(0, 1, 3) * rng.choice([0.1, 3, 20])])
        if depth(state) < 0.03 and depth(state[:3] + 0.01 * state[3:]) < 0.05:
            found.append(state)
    return np.array(found)
