"""Random states of each control task, from which single steps are compared with dm_control's."""

import ball_states
import finger_states
import numpy as np


def acrobot(n):
    """Return random states, (n, 4)."""
    return np.random.default_rng(1).uniform([-7, -7, -10, -10], [7, 7, 10, 10], (n, 4))


def cartpole(n):
    """Return random states, (n, 4), many of them beyond the rail's ends."""
    return np.random.default_rng(1).uniform([-2.1, -4, -3, -10], [2.1, 4, 3, 10], (n, 4))


def pendulum(n):
    """Return random states, (n, 2)."""
    return np.random.default_rng(1).uniform([-7, -10], [7, 10], (n, 2))


def point_mass(n):
    """Return random states, (n, 4), beyond the walls and about the target in turn."""
    wide, near = [0.33, 0.33, 0.1, 0.1], [0.04, 0.04, 0.1, 0.1]
    scales = np.where(np.arange(n)[:, None] % 2, wide, near)
    return np.random.default_rng(1).uniform(-1, 1, (n, 4)) * scales


def reacher(n):
    """Return random states, (n, 4), many of them beyond the wrist's limits."""
    return np.random.default_rng(1).uniform([-4, -3.1, -5, -5], [4, 3.1, 5, 5], (n, 4))


STATES = {  # family of levels: a function of the number of states
    "Acrobot": acrobot,
    "BallInCup": ball_states.any_states,
    "CartPole": cartpole,
    "Finger": finger_states.any_states,
    "Pendulum": pendulum,
    "PointMass": point_mass,
    "Reacher": reacher,
}


def any_states(name, n=300):
    """Return random states of a level."""
    (family,) = (family for family in STATES if name.startswith(family))
    return STATES[family](n)
