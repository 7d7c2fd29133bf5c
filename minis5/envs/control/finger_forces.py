"""Forces in the finger tasks: limits of joints, contacts of the fingertip, friction of the hinge.

There are three angles: the finger's two joints and the spinner's hinge. A constraint has *rows*: a
row j of three numbers says how its gap grows with the angles, r is the acceleration of the gap that
it aims at, and D its stiffness (physics.py). A limit of a joint has one row. A contact with normal
n and tangent t, friction coefficient 1, has two, along n + t and n - t. The angles' accelerations a
are those that minimise

    1/2 (a - a_free)' M (a - a_free)  +  sum over rows of D / 2 max(0, r - j.a)**2  +  h(r_h - a_3),

and each row's force is D max(0, r - j.a). The last term is the friction of the hinge: h(x) is
D_h / 2 x**2 until its slope, the torque, is 0.1 N m, and linear from there on. If it is known which
rows push and whether the friction has reached its bound, this is a linear system of 3 equations.
`pushed` solves it for the rows that push at the last solution, until these stay the same. From turn
PATIENCE on it lets only the first row change that should (Murty's rule), which cannot go in circles
(6 million random states: it always ended at the minimum).

MuJoCo's cone of friction is round here, with the cost D / 2 times the square of the distance from
the cone. In the plane that cone is a right angle, so that this is the cost of two rows along its
sides: those above, with D / 2 each.

Source: MuJoCo's documentation, "Computation" (constraint model, friction loss, elliptic cones);
Murty, "Note on a Bard-type scheme for solving the complementarity problem", Opsearch 11, 1974.
Tests: tests/envs/control/test_finger_forces.py, by hand and against MuJoCo's accelerations.
"""

import math

from numba import njit

from minis5.envs.control.fingertip import (
    ARM,
    CAP_HALF,
    CAP_OFFSET,
    CAP_RADIUS,
    NO_CONTACT,
    TIP_LENGTH,
    TIP_MIDDLE,
    TIP_RADIUS,
    contacts,
    feels,
    from_spinner,
    links,
    near,
)
from minis5.envs.control.physics import capsule, cylinder, reference, stiffness

JOINT_LIMIT = 110 / 180 * math.pi
TIME_CONSTANT = 0.02
CONTACT_RISE = (1e-4, 0.9, 0.01)
FRICTION = 0.1  # N m, the most that the hinge has

BALL_MASS, BALL_INERTIA = cylinder(0.034, 0.066)  # around the first joint
UPPER_MASS, UPPER_INERTIA = capsule(0.03, 0.17)
LOWER_MASS, LOWER_INERTIA = capsule(0.028, 0.16)
TIP_MASS, TIP_INERTIA = capsule(TIP_RADIUS, TIP_LENGTH)
CAP_MASS, CAP_INERTIA = capsule(CAP_RADIUS, 2 * CAP_HALF)
PIN_INERTIA = cylinder(0.02, 0.09)[1]
# moments of inertia of the second link about its joint, of both about the first with the second as
# a point at its joint, and of the spinner
OUTER = LOWER_INERTIA + LOWER_MASS * 0.08 * 0.08 + TIP_INERTIA + TIP_MASS * TIP_MIDDLE * TIP_MIDDLE
INNER = (
    BALL_INERTIA + UPPER_INERTIA + UPPER_MASS * 0.085 * 0.085 + (LOWER_MASS + TIP_MASS) * ARM * ARM
)
COUPLING = ARM * (LOWER_MASS * 0.08 + TIP_MASS * TIP_MIDDLE)
SPINNER = 2 * (CAP_INERTIA + CAP_MASS * CAP_OFFSET * CAP_OFFSET) + PIN_INERTIA
# Accelerations by a unit of force with the finger straight, as MuJoCo takes them for the stiffness.
# The second link's, at its centre of mass, is averaged over three directions; only across the
# finger it moves. The spinner's centre of mass does not move.
STRAIGHT = INNER + OUTER + 2 * COUPLING, OUTER + COUPLING
DETERMINANT = STRAIGHT[0] * OUTER - STRAIGHT[1] * STRAIGHT[1]
JOINT_MOBILITY = OUTER / DETERMINANT, STRAIGHT[0] / DETERMINANT
CENTRE = COUPLING / ARM / (LOWER_MASS + TIP_MASS)  # m from the second joint
ACROSS = ARM + CENTRE
CONTACT_MOBILITY = (
    ACROSS * ACROSS * OUTER - 2 * ACROSS * CENTRE * STRAIGHT[1] + CENTRE * CENTRE * STRAIGHT[0]
) / (3 * DETERMINANT)
FRICTION_MOBILITY = 1 / SPINNER
PATIENCE, MOST_TURNS = 6, 100
NO_ROW = (0.0, 0.0, 0.0, 0.0, 0.0)


@njit(nogil=True)
def limit_row(angle, speed, joint):
    """Return row, stiffness D and aim r of a joint's limit; `joint` is 0 or 1."""
    gap = JOINT_LIMIT - abs(angle)
    if gap >= 0.0:
        return NO_ROW
    j = -1.0 if angle > 0.0 else 1.0
    r = reference(gap, j * speed, TIME_CONSTANT)
    if joint == 0:
        return j, 0.0, 0.0, stiffness(gap, JOINT_MOBILITY[0]), r
    return 0.0, j, 0.0, stiffness(gap, JOINT_MOBILITY[1]), r


@njit(nogil=True)
def contact_row(met, side, place, speeds):
    """Return row, stiffness D and aim r along one side, 1 or -1, of a contact's cone of friction.

    `met` is what `contact` returns, and `place` what `from_spinner` does.
    """
    gap, nx, nz, x, z = met
    if gap > 0.0:
        return NO_ROW
    nx, nz = nx - side * nz, nz + side * nx
    second_x, second_z, _, _, first_x, first_z = place
    # Turning by one unit, a joint moves what is at (x, z) from it by (-z, x).
    j1 = nx * (z - first_z) - nz * (x - first_x)
    j2 = nx * (z - second_z) - nz * (x - second_x)
    j3 = nz * x - nx * z
    u, v, w = speeds
    r = reference(gap, j1 * u + j2 * v + j3 * w, TIME_CONSTANT, CONTACT_RISE)
    return j1, j2, j3, 0.5 * stiffness(gap, CONTACT_MOBILITY, CONTACT_RISE), r


@njit(nogil=True)
def pushed(rows, m11, m12, forces, speed):
    """Return the accelerations under all rows and the friction of the hinge.

    Parameters
    ----------
    rows : tuple of rows
        Each as `contact_row` returns it.
    m11, m12 : float
        Moments of inertia of the finger (kg m2).
    forces : tuple of 3 float
        Torques without constraints (N m).
    speed : float
        Of the hinge (rad/s).

    Returns
    -------
    tuple of 3 float
        rad/s2.
    """
    t1, t2, t3 = forces
    held = stiffness(0.0, FRICTION_MOBILITY)  # D of the friction, 0 once it has reached its bound
    aim = reference(0.0, speed, TIME_CONSTANT)
    t3 += held * aim
    determinant = m11 * OUTER - m12 * m12
    a1, a2 = (OUTER * t1 - m12 * t2) / determinant, (m11 * t2 - m12 * t1) / determinant
    a3 = t3 / (SPINNER + held)
    pushing = 0  # bits of the rows that push
    for turn in range(MOST_TURNS):
        wanted, bit = 0, 1
        for j1, j2, j3, _, r in rows:
            if r > j1 * a1 + j2 * a2 + j3 * a3:
                wanted |= bit
            bit *= 2
        if wanted == pushing:
            torque = held * (aim - a3)
            if abs(torque) <= FRICTION:
                break
            # If the friction without a bound is beyond it, that with one is at it: with less, a_3
            # would be nearer to its aim, and the rest of the cost too steep there.
            t3 += (FRICTION if torque > 0.0 else -FRICTION) - held * aim
            held = 0.0
        changed = wanted ^ pushing
        pushing ^= changed if turn < PATIENCE else changed & -changed
        # The sum of M and of D j j' over the rows that push, and the torques with D r j.
        h11, h12, h22, h13, h23, h33 = m11, m12, OUTER, 0.0, 0.0, SPINNER + held
        b1, b2, b3 = t1, t2, t3
        bit = 1
        for j1, j2, j3, d, r in rows:
            if pushing & bit:
                h11, h12, h22 = h11 + d * (j1 * j1), h12 + d * (j1 * j2), h22 + d * (j2 * j2)
                h13, h23, h33 = h13 + d * (j1 * j3), h23 + d * (j2 * j3), h33 + d * (j3 * j3)
                b1, b2, b3 = b1 + d * (r * j1), b2 + d * (r * j2), b3 + d * (r * j3)
            bit *= 2
        # Elimination, the first angle first.
        f12, f13 = h12 / h11, h13 / h11
        h22, h23, h33 = h22 - f12 * h12, h23 - f12 * h13, h33 - f13 * h13
        b2, b3 = b2 - f12 * b1, b3 - f13 * b1
        f23 = h23 / h22
        a3 = (b3 - f23 * b2) / (h33 - f23 * h23)
        a2 = b2 / h22 - f23 * a3
        a1 = b1 / h11 - f12 * a2 - f13 * a3
    return a1, a2, a3


@njit(nogil=True)
def row_force(row, accelerations):
    """Return the force of a row (N)."""
    j1, j2, j3, d, r = row
    a1, a2, a3 = accelerations
    return d * max(0.0, r - (j1 * a1 + j2 * a2 + j3 * a3))


@njit(nogil=True)
def constrained(angles, speeds, m11, m12, torques):
    """Return torques with all constraints, and what the touch sensors feel.

    Parameters
    ----------
    angles, speeds : tuple of 3 float
        Of the finger's joints and the hinge (rad, rad/s).
    m11, m12 : float
        Moments of inertia of the finger (kg m2).
    torques : tuple of 3 float
        Without constraints (N m).

    Returns
    -------
    tuple of 5 float
        The torques (N m), and the forces on the sensors at the top and the bottom (N).
    """
    first, second, hinge = angles
    u, v, w = speeds
    left, left_2, right, right_2 = NO_CONTACT, NO_CONTACT, NO_CONTACT, NO_CONTACT
    link = links(first, second)
    place = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if near(link):
        place = from_spinner(link, hinge)
        left, left_2 = contacts(-CAP_OFFSET, place)
        right, right_2 = contacts(CAP_OFFSET, place)
    rows = (
        limit_row(first, u, 0),
        limit_row(second, v, 1),
        contact_row(left, 1.0, place, speeds),
        contact_row(left, -1.0, place, speeds),
        contact_row(left_2, 1.0, place, speeds),
        contact_row(left_2, -1.0, place, speeds),
        contact_row(right, 1.0, place, speeds),
        contact_row(right, -1.0, place, speeds),
        contact_row(right_2, 1.0, place, speeds),
        contact_row(right_2, -1.0, place, speeds),
    )
    a = pushed(rows, m11, m12, torques, w)
    top, bottom = 0.0, 0.0
    for k, met in enumerate((left, left_2, right, right_2)):
        if met[0] <= 0.0:
            force = row_force(rows[2 + 2 * k], a) + row_force(rows[3 + 2 * k], a)
            if feels(met, 1.0, place):
                top += force
            if feels(met, -1.0, place):
                bottom += force
    a1, a2, a3 = a
    return m11 * a1 + m12 * a2, m12 * a1 + OUTER * a2, SPINNER * a3, top, bottom
