"""Contacts of ball, cup, string, ground: the header's minimum, symmetry, momentum; and MuJoCo."""

import itertools
import math

import numpy as np
import pytest
from ball_states import any_states
from control_tasks import G
from suite_pairs import Pair

from minis5.envs.control import contact, physics


def rows_of(x, z, height, speeds):
    """Return the rows of contact.py's header, made anew: directions (n, 4), r and D.

    A direction has two numbers for the cup and two for the ball.
    """
    corners = np.array(
        [(-0.05, 0), (-0.05, -0.075), (-0.025, -0.1), (0.025, -0.1), (0.05, -0.075), (0.05, 0)]
    )
    ball, cup_mobility, ball_mobility = (
        np.array([x, z]),
        1 / contact.CUP_MASS,
        1 / contact.BALL_MASS,
    )
    contacts = []  # gap, direction, whether the cup is pushed back, mobility
    for start, end in itertools.pairwise(corners):
        way = end - start
        offset = ball - start - np.clip((ball - start) @ way / (way @ way), 0, 1) * way
        distance = np.linalg.norm(offset)
        n, t = offset / distance, offset[::-1] / distance * [-1, 1]
        mobility = 4 * (2 / 3 * cup_mobility + ball_mobility)
        contacts += [(distance - 0.033, j, 1, mobility) for j in (n, n, n + t, n - t)]
    string = ball - [0, -0.108]
    contacts.append(
        (
            0.3 - np.linalg.norm(string),
            -string / np.linalg.norm(string),
            1,
            cup_mobility + ball_mobility,
        )
    )
    contacts += [
        (height - 0.025, np.array(j), 0, 4 * ball_mobility)
        for j in ((0, 1), (0, 1), (1, 1), (-1, 1))
    ]
    rows = [
        (np.array([*(-back * j), *j]), gap, mobility)
        for gap, j, back, mobility in contacts
        if gap < 0
    ]
    r = [physics.reference(gap, j @ speeds, 0.02) for j, gap, _ in rows]
    return (
        np.array([j for j, _, _ in rows]),
        np.array(r),
        np.array([physics.stiffness(gap, m) for _, gap, m in rows]),
    )


def test_accelerations_minimise_what_the_header_says():
    """At the minimum the gradient is 0: mass (a - a_free) is the sum of the rows' forces."""
    rng = np.random.default_rng(3)
    masses = np.repeat([contact.CUP_MASS, contact.BALL_MASS], 2)
    kinds = set()
    for k in range(1500):
        x, z, height = rng.uniform(-0.1, 0.1), rng.uniform(-0.16, 0.05), rng.choice([0.024, 1.0])
        if k % 3 == 0:  # on the string
            angle, length = rng.uniform(-1, 1), rng.uniform(0.299, 0.31)
            x, z = length * math.sin(angle), -0.108 - length * math.cos(angle)
        speeds, free = rng.normal(size=4), rng.normal(size=4) * 10
        a = np.array(contact.constrained(x, z, height, tuple(speeds), tuple(free)))
        j, r, d = rows_of(x, z, height, speeds)
        force = d * np.maximum(0, r - j @ a) @ j if len(j) else np.zeros(4)
        np.testing.assert_allclose(
            masses * (a - free), force, rtol=0, atol=1e-9 * max(1, abs(force).max())
        )
        kinds.add(len(j))
    assert kinds >= {0, 1, 4, 5, 8, 12}  # none, string, contact, both, two and three contacts


def test_contacts_are_mirrored_and_hold_the_momentum():
    """Left and right are alike; forces on ball and cup are opposite; the ground pushes the ball."""
    rng = np.random.default_rng(0)
    touching = 0
    for _ in range(500):
        x, z, speeds = rng.uniform(-0.1, 0.1), rng.uniform(-0.16, 0.05), rng.normal(size=4)
        free = (*rng.normal(size=2), 0.0, -G)
        found = np.array(contact.constrained(x, z, 1.0, tuple(speeds), free))
        flip = np.array([-1, 1, -1, 1])
        mirrored = contact.constrained(
            -x, z, 1.0, tuple(speeds * flip), tuple(np.array(free) * flip)
        )
        np.testing.assert_allclose(mirrored, found * flip, rtol=1e-9, atol=1e-9)
        pushes = np.array([contact.CUP_MASS, contact.BALL_MASS])[:, None] * (found - free).reshape(
            2, 2
        )
        np.testing.assert_allclose(pushes[0], -pushes[1], atol=1e-9)
        touching += contact.touched(x, z) > 0
    assert touching > 100
    free = (0.0, 0.0, 0.0, -G)
    found = contact.constrained(0.0, -0.2, 0.024, (0.0, 0.0, 0.3, -0.5), free)
    assert found[:2] == (0, 0) and found[2] < 0 and found[3] > 0  # friction against the way, and up


def test_accelerations_are_mujoco_s():
    """In random states, with up to three contacts and a taut string, accelerations are the same."""
    pair = Pair("BallInCupCatch")
    mujoco = pytest.importorskip("mujoco")
    data, model = pair.peer.physics.data, pair.model
    contacts = {}
    for state in any_states(5000):
        cup_x, cup_z, ball_x, ball_z = data.qpos[:] = state[:4]
        data.qvel[:], data.ctrl[:] = state[4:], 0
        mujoco.mj_forward(model.ptr, data.ptr)
        place = ball_x - cup_x, ball_z - cup_z - 0.4, ball_z + 0.2
        found = contact.constrained(*place, tuple(state[4:]), tuple(data.qacc_smooth))
        np.testing.assert_allclose(
            found, data.qacc, rtol=0, atol=1e-10 * max(1, abs(data.qacc).max())
        )
        taut = data.nefc % 4  # a contact has four rows, the string one
        contacts[data.ncon, taut] = contacts.get((data.ncon, taut), 0) + 1
        touched = contact.touched(*place[:2])
        assert touched.bit_count() + (place[2] < 0.025) == data.ncon
    assert (
        min(contacts.get(kind, 0) for kind in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 0)]) > 10
    ), contacts
