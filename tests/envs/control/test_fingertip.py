"""Contacts of the finger: nearest points by a search, parallel capsules, sensors; and MuJoCo's."""

import math

import numpy as np
import pytest
from finger_states import any_states
from suite_pairs import Pair

from minis5.envs.control import fingertip


def from_segment(point, begin, end):
    """Return the vector from a segment's nearest point."""
    way = end - begin
    return point - begin - np.clip((point - begin) @ way / (way @ way), 0, 1) * way


def places(n):
    """Yield n random angles, and the fingertip seen from the spinner there."""
    for state in any_states(n):
        link = fingertip.links(state[0], state[1])
        yield state, fingertip.from_spinner(link, state[2])


def test_links_and_place_by_hand():
    """The finger points up and then ahead; the spinner has turned by a quarter, its axis is -x."""
    x, z, dx, dz = fingertip.links(math.pi / 2, -math.pi / 2)
    np.testing.assert_allclose([x, z, dx, dz], [-0.4, 0.18, 1, 0], atol=1e-15)
    seen = fingertip.from_spinner((x, z, dx, dz), math.pi / 2)
    np.testing.assert_allclose(seen, [0.18, 0.4, 0, -1, 0, 0.4], atol=1e-15)


def test_the_gap_is_that_of_the_nearest_points():
    """Of two segments that do not cross, an end of one is nearest to the other."""
    found = 0
    for _, place in places(3000):
        joint, way = np.array(place[:2]), np.array(place[2:4])
        tip = joint + 0.13 * way, joint + 0.161 * way
        for middle in (-0.02, 0.02):
            cap = np.array([middle, -0.09]), np.array([middle, 0.09])
            vectors = [-from_segment(end, *cap) for end in tip]
            vectors += [from_segment(end, *tip) for end in cap]
            shortest = min(vectors, key=np.linalg.norm)
            distance = np.linalg.norm(shortest)
            (gap, nx, nz, x, z), other = fingertip.contacts(middle, place)
            if np.ptp(np.sign([tip[0][0] - middle, tip[1][0] - middle])):
                continue  # they may cross
            assert abs(gap - (distance - 0.07)) < 1e-14
            assert abs(nx * nx + nz * nz - 1) < 1e-14
            assert (other == fingertip.NO_CONTACT) == (abs(way[0]) > 1e-4)
            if sorted(map(np.linalg.norm, vectors))[1] > distance + 1e-9:
                np.testing.assert_allclose(distance * np.array([nx, nz]), shortest, atol=1e-14)
            if gap < 0:  # the middle of the gap is as deep in the one as in the other
                here = np.array([x, z])
                depths = [
                    np.linalg.norm(from_segment(here, *line)) - radius
                    for line, radius in ((tip, 0.03), (cap, 0.04))
                ]
                np.testing.assert_allclose(depths, gap / 2, atol=1e-14)
                found += 1
    assert found > 300


def test_crossed_segments_do_not_push():
    crossed = (-0.1455, 0.0, 1.0, 0.0, -0.3, 0.0)  # the fingertip's middle is the hinge
    (gap, nx, nz, _, _), _ = fingertip.contacts(0.01, crossed)
    assert (gap, nx, nz) == (-0.07, 0, 0)


def test_parallel_capsules_touch_twice():
    """Side by side they do so at both ends of what they have in common, further on at one point."""
    beside = (-0.08, -0.1455, 0.0, 1.0, -0.08, -0.3255)
    upper, lower = fingertip.contacts(-0.02, beside)
    np.testing.assert_allclose(upper, [-0.01, 1, 0, -0.055, 0.0155], atol=1e-15)
    np.testing.assert_allclose(lower, [-0.01, 1, 0, -0.055, -0.0155], atol=1e-15)
    beyond = (-0.08, -0.1455 - 0.09, 0.0, 1.0, -0.08, -0.4155)  # its middle is beside the end
    upper, lower = fingertip.contacts(-0.02, beyond)
    np.testing.assert_allclose(upper, [-0.01, 1, 0, -0.055, -0.0745], atol=1e-15)
    np.testing.assert_allclose(lower, [-0.01, 1, 0, -0.055, -0.09], atol=1e-15)
    upper, lower = fingertip.contacts(-0.02, (-0.08, -0.1455 - 0.14, 0.0, 1.0, -0.08, -0.4655))
    assert abs(upper[0] - (math.hypot(0.06, 0.0345) - 0.07)) < 1e-15 and lower == upper
    # A turn of 1e-5 is parallel still, one of 1e-4 is not, and the gaps are alike.
    for turn, count in ((1e-5, 2), (1e-4, 1)):
        turned = (-0.08, -0.1455, turn, 1.0, -0.08, -0.3255)
        gaps = [met[0] for met in fingertip.contacts(-0.02, turned)]
        assert sum(gap <= 0 for gap in gaps) == count and abs(gaps[0] + 0.01) < 2e-5


def test_sensors_by_hand():
    """The finger points along x; the sensors are 17 cm from its joint, 1 cm above and below."""
    place = (0.0, 0.0, 1.0, 0.0, -0.18, 0.0)
    for met, top, bottom in [
        ((-0.01, 1.0, 0.0, 0.185, 0.0), True, True),  # inside both
        ((-0.01, 0.0, 1.0, 0.17, 0.03), True, False),  # inside one, away from the other
        ((-0.01, 0.0, -1.0, 0.17, -0.03), False, True),
        ((-0.01, 0.0, 1.0, 0.14, 0.03), False, False),  # beside both
        ((-0.01, 1.0, 0.0, 0.14, 0.03), True, False),  # the first is ahead
        ((-0.01, -1.0, 0.0, 0.14, 0.03), False, False),  # and now behind
    ]:
        assert fingertip.feels(met, 1.0, place) == top
        assert fingertip.feels(met, -1.0, place) == bottom


def test_contacts_are_mujoco_s():
    """Random states have the same contacts: gaps, directions, places; parallel ones have two."""
    pair = Pair("FingerSpin")
    mujoco = pytest.importorskip("mujoco")
    data, counts = pair.peer.physics.data, {}
    for state in any_states(3000):
        data.qpos[:], data.qvel[:] = state[:3], 0
        mujoco.mj_forward(pair.model.ptr, data.ptr)
        place = fingertip.from_spinner(fingertip.links(*state[:2]), state[2])
        c, s = math.cos(state[2]), math.sin(state[2])
        ours = []
        for cap in (0.02, -0.02):
            for gap, nx, nz, x, z in fingertip.contacts(cap, place):
                if gap <= 0:
                    x, z = c * x - s * z + 0.2, c * z + s * x + 0.4
                    ours.append((gap, c * nx - s * nz, c * nz + s * nx, x, z))
        theirs = [
            (met.dist, met.frame[0], met.frame[2], met.pos[0], met.pos[2])
            for met in data.contact[: data.ncon]
        ]
        assert fingertip.touching(*state[:3]) == (data.ncon > 0)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
        counts[data.ncon] = counts.get(data.ncon, 0) + 1
    assert min(counts.get(k, 0) for k in (0, 1, 2, 4)) > 10, counts
