"""Forces of the finger: the header's minimum, no circles, momentum, friction; and MuJoCo's."""

import math

import numpy as np
import pytest
from finger_states import any_states
from suite_pairs import Pair

from minis5.envs.control import finger_forces, fingertip, physics


def inertia(second):
    """Return the finger's m11 and m12 at the second joint's angle."""
    m12 = finger_forces.OUTER + finger_forces.COUPLING * math.cos(second)
    return finger_forces.INNER + m12 + finger_forces.COUPLING * math.cos(second), m12


def rows_of(state):
    """Return the rows in this state, by differences of the gaps: directions (n, 3), r and D."""
    q, v = state[:3], state[3:]
    found = []
    for joint in range(2):
        gap = finger_forces.JOINT_LIMIT - abs(q[joint])
        if gap < 0:
            j = -np.sign(q[joint]) * np.eye(3)[joint]
            mobility = finger_forces.JOINT_MOBILITY[joint]
            r = physics.reference(gap, j @ v, 0.02)
            found.append((j, r, physics.stiffness(gap, mobility)))

    def points(q, on_tip, on_cap):
        """Return where a point of the second link and one of the spinner are at the angles q."""
        x, z, dx, dz = fingertip.links(q[0], q[1])
        c, s = math.cos(q[2]), math.sin(q[2])
        tip = x + on_tip[0] * dx - on_tip[1] * dz, z + on_tip[0] * dz + on_tip[1] * dx
        return np.array([c * on_cap[0] - s * on_cap[1], c * on_cap[1] + s * on_cap[0]]) - tip

    place = fingertip.from_spinner(fingertip.links(q[0], q[1]), q[2])
    for cap in (-0.02, 0.02):
        for gap, nx, nz, x, z in fingertip.contacts(cap, place):
            if gap > 0:
                continue
            away = np.array([x, z]) - place[:2]
            way = np.array(place[2:4])
            on_tip = way @ away, way[0] * away[1] - way[1] * away[0]
            h = 1e-6
            jacobian = np.transpose(
                [
                    (points(q + h * e, on_tip, (x, z)) - points(q - h * e, on_tip, (x, z)))
                    for e in np.eye(3)
                ]
            ) / (2 * h)
            c, s = math.cos(q[2]), math.sin(q[2])
            n = np.array([c * nx - s * nz, c * nz + s * nx])
            t = np.array([-n[1], n[0]])
            rise = (1e-4, 0.9, 0.01)
            for j in ((n + t) @ jacobian, (n - t) @ jacobian):
                r = physics.reference(gap, j @ v, 0.02, rise)
                d = physics.stiffness(gap, finger_forces.CONTACT_MOBILITY, rise) / 2
                found.append((j, r, d))
    return found


def test_torques_minimise_what_the_header_says():
    """At the minimum the gradient is 0: M (a - a_free) is what all rows and the friction push."""
    rng, kinds, slipping = np.random.default_rng(3), {}, 0
    for state in any_states(1500):
        m11, m12 = inertia(state[1])
        mass = np.array([[m11, m12, 0], [m12, finger_forces.OUTER, 0], [0, 0, 0]])
        mass[2, 2] = finger_forces.SPINNER
        free = rng.uniform(-1, 1, 3) * [30, 15, 0.3]
        args = tuple(state[:3]), tuple(state[3:]), m11, m12, tuple(free)
        *torques, top, bottom = finger_forces.constrained(*args)
        a = np.linalg.solve(mass, torques)
        rows = rows_of(state)
        pushes = sum((d * max(0, r - j @ a) * j for j, r, d in rows), np.zeros(3))
        # The impedance of the friction is 0.9, and it aims at rest as a damper does.
        held = 9 * finger_forces.SPINNER * (-2 / (0.95 * 0.02) * state[5] - a[2])
        pushes[2] += np.clip(held, -0.1, 0.1)
        slipping += abs(held) > 0.1
        scale = max(1, *(abs(d * r) for _, r, d in rows), 0)
        np.testing.assert_allclose(torques - free, pushes, rtol=0, atol=1e-7 * scale)
        assert min(top, bottom) >= 0
        kinds[len(rows)] = kinds.get(len(rows), 0) + 1
    # nothing, a limit, both or a contact, two contacts
    assert min(kinds.get(k, 0) for k in (0, 1, 2, 4)) > 20 and 200 < slipping < 1400, kinds


def test_rows_that_would_take_turns_forever():
    """In these states all rows that should change at once go in circles; one at a time does not."""
    for state, torques in [
        ((0.66809, -1.3732, 1.63, 36.571, 23.934, -23.978), (-102.69, -47.603, 0.71935)),
        ((-0.53928, 0.47623, -0.62967, 0.0539, -0.0682, -0.044), (-28.001, 0.53392, 0.0013)),
        ((-0.70039, 1.4034, 1.6268, -10.447, -9.0469, -0.77044), (0.65581, 7.6531, 0.0231)),
    ]:
        state = np.array(state)
        m11, m12 = inertia(state[1])
        args = tuple(state[:3]), tuple(state[3:]), m11, m12, torques
        t = np.array(finger_forces.constrained(*args)[:3])
        mass = np.array([[m11, m12, 0], [m12, finger_forces.OUTER, 0], [0, 0, 0]])
        mass[2, 2] = finger_forces.SPINNER
        a = np.linalg.solve(mass, t)
        pushes = sum((d * max(0, r - j @ a) * j for j, r, d in rows_of(state)), np.zeros(3))
        held = 9 * finger_forces.SPINNER * (-2 / (0.95 * 0.02) * state[5] - a[2])
        pushes[2] += np.clip(held, -0.1, 0.1)
        np.testing.assert_allclose(t - torques, pushes, rtol=0, atol=1e-6 * abs(pushes).max())


def test_up_and_down_are_alike():
    """Upside down, angles, speeds and torques change their signs, and sensors their places."""
    rng, felt = np.random.default_rng(0), 0
    for state in any_states(600):
        m11, m12 = inertia(state[1])
        torques = rng.uniform(-1, 1, 3)
        found, mirrored = (
            finger_forces.constrained(
                # The mirror image of the spinner is the spinner, turned the other way.
                tuple(sign * state[:3]),
                tuple(sign * state[3:]),
                m11,
                m12,
                tuple(sign * torques),
            )
            for sign in (1, -1)
        )
        np.testing.assert_allclose(mirrored[:3], -np.array(found[:3]), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(mirrored[3:], found[:2:-1], rtol=1e-9, atol=1e-9)
        felt += found[3] > 0
    assert felt > 30


def test_accelerations_are_mujoco_s():
    """In random states with up to four contacts or two limits; so are the sensors' forces."""
    pair = Pair("FingerSpin")
    mujoco = pytest.importorskip("mujoco")
    data, kinds = pair.peer.physics.data, {}
    for state in any_states(5000):
        data.qpos[:], data.qvel[:], data.ctrl[:] = state[:3], state[3:], 0
        mujoco.mj_forward(pair.model.ptr, data.ptr)
        m11, m12 = inertia(state[1])
        *torques, top, bottom = finger_forces.constrained(
            tuple(state[:3]), tuple(state[3:]), m11, m12, tuple(data.qfrc_smooth)
        )
        expected = data.qfrc_smooth + data.qfrc_constraint
        scale = max(1, abs(data.qfrc_constraint).max())
        np.testing.assert_allclose(torques, expected, rtol=0, atol=1e-9 * scale)
        felt = pair.peer.physics.named.data.sensordata[["touchtop", "touchbottom"]]
        np.testing.assert_allclose([top, bottom], felt, rtol=1e-8, atol=1e-8)
        # the hinge's friction is one row, a contact has three
        kind = data.ncon, data.nefc - 1 - 3 * data.ncon
        kinds[kind] = kinds.get(kind, 0) + 1
    seen = [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (4, 0)]
    assert min(kinds.get(kind, 0) for kind in seen) > 10, kinds
