"""Where fingertip and spinner of the finger tasks touch, and what the touch sensors feel.

The spinner is two capsules ("caps") side by side, the fingertip is one; a capsule is a segment with
a radius. All is in a plane and seen from the spinner: its hinge is the origin, its long axis is z,
and the middles of its segments are at x = 2 cm and x = -2 cm.

Leaves out: what never touches (first link, ground, the pin in the spinner's middle). Where the
segments cross, 7 cm deep, no direction leads out: MuJoCo takes it from rounding errors or brakes,
here nothing pushes. (Full torques that flip at every step get there about once in a million steps.)
Source: Ericson, "Real-time collision detection", 2005, section 5.1.9 (nearest points of two
segments); MuJoCo's documentation, "XML reference" (touch sensor), and MuJoCo 3.17 itself for the
contacts of parallel capsules (before, it had others where their ends stand out).
Tests: tests/envs/control/test_fingertip.py, by hand and beside MuJoCo.
"""

import math

from numba import njit

from minis5.elementary import cos, sin

# m: the finger's joints are ARM apart, and the spinner's hinge is so far from the first one
ARM, HINGE = 0.18, 0.4
# m from the second joint: where the fingertip's segment begins, and how long it is
TIP_BEGIN, TIP_LENGTH, TIP_RADIUS = 0.13, 0.031, 0.03
TIP_HALF, TIP_MIDDLE = TIP_LENGTH / 2, TIP_BEGIN + TIP_LENGTH / 2
CAP_OFFSET, CAP_HALF, CAP_RADIUS = 0.02, 0.09, 0.04
TOUCH = TIP_RADIUS + CAP_RADIUS
REACH = 0.2  # m: a fingertip that touches the spinner ends nearer than this to the hinge
SENSOR_PLACE, SENSOR_OFFSET, SENSOR_RADIUS = 0.17, 0.01, 0.025  # m
LEAST = 1e-15  # m: shorter vectors have no direction
PARALLEL = 1e-15  # m4: segments whose product's square is less are parallel, those within 2e-5 rad
NO_CONTACT = (1.0, 0.0, 0.0, 0.0, 0.0)


@njit(nogil=True)
def clip(x):
    return min(max(x, -1.0), 1.0)


@njit(nogil=True)
def links(first, second):
    """Return where the second joint is, seen from the hinge (m), and the second link's direction.

    `first` and `second` are the joints' angles (rad); at 0 the finger points along x.
    """
    c, s = cos(first), sin(first)
    c2, s2 = cos(second), sin(second)
    return ARM * c - HINGE, ARM * s, c * c2 - s * s2, s * c2 + c * s2


@njit(nogil=True)
def near(link):
    """Tell whether the fingertip may touch the spinner."""
    x, z, dx, dz = link
    x, z = x + (TIP_BEGIN + TIP_LENGTH) * dx, z + (TIP_BEGIN + TIP_LENGTH) * dz
    return x * x + z * z < REACH * REACH


@njit(nogil=True)
def from_spinner(link, hinge):
    """Return `link`, and where the first joint is, seen from the spinner at the angle `hinge`."""
    x, z, dx, dz = link
    c, s = cos(hinge), sin(hinge)
    return c * x + s * z, c * z - s * x, c * dx + s * dz, c * dz - s * dx, -HINGE * c, HINGE * s


@njit(nogil=True)
def contact(cap, x, z, dx, dz, p):
    """Return the contact of fingertip and cap at their points that are nearest to each other.

    Parameters
    ----------
    cap : float
        x of the cap's middle: the cap is the segment from (cap, -CAP_HALF) to (cap, CAP_HALF).
    x, z, dx, dz : float
        The middle of the fingertip's segment, and the way from there to its end.
    p : float in [-1, 1]
        The fingertip's point (x + p dx, z + p dz) where it is nearest to the cap's line.

    Returns
    -------
    tuple of 5 float
        Gap (m), the unit vector from fingertip to cap, and the middle of the gap (m).
    """
    q = (z + p * dz) / CAP_HALF
    if abs(q) > 1.0:  # beyond the cap's end
        q = clip(q)
        p = clip(((cap - x) * dx + (q * CAP_HALF - z) * dz) / (TIP_HALF * TIP_HALF))
    x, z = x + p * dx, z + p * dz
    nx, nz = cap - x, q * CAP_HALF - z
    distance = math.sqrt(nx * nx + nz * nz)
    inverse = 1.0 / distance if distance > LEAST else 0.0
    nx, nz = inverse * nx, inverse * nz
    between = TIP_RADIUS + 0.5 * (distance - TOUCH)
    return distance - TOUCH, nx, nz, x + between * nx, z + between * nz


@njit(nogil=True)
def contacts(cap, place):
    """Return the two contacts of the fingertip with a cap; unless both are parallel, one is none.

    `cap` is x of the cap's middle, and `place` as `from_spinner` returns it.
    """
    x, z, dx, dz, _, _ = place
    x, z = x + TIP_MIDDLE * dx, z + TIP_MIDDLE * dz
    dx, dz = TIP_HALF * dx, TIP_HALF * dz
    if dx * dx * (CAP_HALF * CAP_HALF) >= PARALLEL:
        # The lines meet at this part of the way from the fingertip's middle to its end.
        return contact(cap, x, z, dx, dz, clip((cap - x) / dx)), NO_CONTACT
    # Side by side: at both ends of what they have in common, or twice at the nearest ends.
    return contact(cap, x, z, dx, dz, 1.0), contact(cap, x, z, dx, dz, -1.0)


@njit(nogil=True)
def touching(first, second, hinge):
    """Tell whether fingertip and spinner touch at these angles (rad)."""
    link = links(first, second)
    if not near(link):
        return False
    place = from_spinner(link, hinge)
    left, right = contacts(-CAP_OFFSET, place), contacts(CAP_OFFSET, place)
    return left[0][0] <= 0.0 or right[0][0] <= 0.0


@njit(nogil=True)
def feels(met, side, place):
    """Tell whether the touch sensor on one side of the finger, 1 or -1, feels a contact.

    The sensor is a circle. It feels what pushes inside, or outside in a direction away from the
    finger that leads through it. `met` is as `contact` returns it, `place` as `from_spinner` does.
    """
    _, nx, nz, x, z = met
    second_x, second_z, dx, dz, _, _ = place
    x -= second_x + SENSOR_PLACE * dx - side * SENSOR_OFFSET * dz
    z -= second_z + SENSOR_PLACE * dz + side * SENSOR_OFFSET * dx
    ahead = x * nx + z * nz
    outside = x * x + z * z - SENSOR_RADIUS * SENSOR_RADIUS
    return outside <= 0.0 or (ahead <= 0.0 and ahead * ahead >= outside)
