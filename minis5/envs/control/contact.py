"""Forces between ball, cup, string and ground: several of MuJoCo's soft constraints at once.

These are the bodies of BallInCupCatch. A constraint has *rows*: directions j in which it pushes the
ball (and the cup the other way, unless it is the ground). Each row has an acceleration r that it
aims at along j, and a stiffness D (physics.py). The string has one row. A contact with normal n and
tangent t, friction coefficient 1, has three, along n + t, n and n - t. That along n counts twice,
because of the friction out of the plane, where nothing moves. The accelerations a are those that
minimise

    sum over bodies of mass / 2 |a - a_free|**2  +  sum over rows of D / 2 max(0, r - j.a)**2,

and each row's force is D max(0, r - j.a). If it is known which rows push, this is a linear system
of 2 + 2 equations. Newton's method solves it for the rows that push at the last solution, until
these stay the same. (400,000 random contacts took 7 turns or fewer.)

Leaves out: everything out of the plane; rotation, because neither body can rotate.
Source: MuJoCo's documentation, "Computation" (constraint model, pyramidal friction cones) and
"Modeling" (solver parameters); the stiffness of a pyramid's rows: MuJoCo,
src/engine/engine_core_constraint.c.
Tests: tests/envs/control/test_contact.py, by hand and against MuJoCo's accelerations.
"""

import math

from numba import njit

from minis5.envs.control.physics import capsule, limit_force, reference, sphere, stiffness

# The cup's bars, seen from its origin (m): segments with a radius of 8 mm, as one end and the way
# to the other.
SEGMENTS = (
    (-0.05, 0.0, 0.0, -0.075),
    (-0.05, -0.075, 0.025, -0.025),
    (-0.025, -0.1, 0.05, 0.0),
    (0.025, -0.1, 0.025, 0.025),
    (0.05, -0.075, 0.0, 0.075),
)
BARS = tuple((x0, z0, dx, dz, 1 / (dx * dx + dz * dz)) for x0, z0, dx, dz in SEGMENTS)
BAR_RADIUS, BALL_RADIUS = 0.008, 0.025
TOUCH = BAR_RADIUS + BALL_RADIUS
STRING = len(BARS)  # the string and the ground are numbered after the bars
GROUND = STRING + 1
# m: the string begins so far below the cup's origin, and ends in the ball's centre
STRING_DEPTH, STRING_LENGTH = 0.108, 0.3
# m: a ball that touches a bar is nearer than REACH to the point at this depth
MIDDLE_DEPTH, REACH = 0.05, 0.104
TIME_CONSTANT = 0.02
LEAST = 1e-15  # m: shorter vectors have no direction

SLANTED = math.sqrt(2 * 0.025 * 0.025)
CUP_MASS = (
    2 * capsule(BAR_RADIUS, 0.075)[0]
    + 2 * capsule(BAR_RADIUS, SLANTED)[0]
    + capsule(BAR_RADIUS, 0.05)[0]
)
BALL_MASS = sphere(BALL_RADIUS)[0]
# Accelerations by a unit of force, as MuJoCo takes them for the stiffness. The cup's is averaged
# over three directions, one of which is fixed. The rows of a contact are less stiff by 2 (1 +
# friction**2) friction**2.
STRING_MOBILITY = 1 / CUP_MASS + 1 / BALL_MASS
GROUND_MOBILITY = 4 * (1 / BALL_MASS)
BAR_MOBILITY = 4 * (2 / 3 / CUP_MASS + 1 / BALL_MASS)
MOST_ITERATIONS = 20


@njit(nogil=True)
def from_bar(bar, x, z):
    """Return the vector from a bar's nearest point to (x, z), seen from the cup's origin (m)."""
    x0, z0, dx, dz, inverse = BARS[bar]
    along = ((x - x0) * dx + (z - z0) * dz) * inverse
    along = min(max(along, 0.0), 1.0)
    return x - (x0 + along * dx), z - (z0 + along * dz)


@njit(nogil=True)
def touched(x, z):
    """Return the bars that a ball at (x, z) from the cup's origin touches: bit k for bar k."""
    bits = 0
    if x * x + (z + MIDDLE_DEPTH) * (z + MIDDLE_DEPTH) < REACH * REACH:
        for bar in range(STRING):
            dx, dz = from_bar(bar, x, z)
            if dx * dx + dz * dz < TOUCH * TOUCH:
                bits |= 1 << bar
    return bits


@njit(nogil=True)
def constraint(number, x, z, height):
    """Return gap (m), unit vector along which it pushes the ball, and mobility of a constraint.

    The ball is at (x, z) from the cup, and at this height above the ground.
    """
    if number < STRING:
        dx, dz = from_bar(number, x, z)
        distance = max(math.sqrt(dx * dx + dz * dz), LEAST)
        unit = 1.0 / distance
        return distance - TOUCH, unit * dx, unit * dz, BAR_MOBILITY
    if number == STRING:
        dz = z + STRING_DEPTH
        length = max(math.sqrt(x * x + dz * dz), LEAST)
        unit = -1.0 / length
        return STRING_LENGTH - length, unit * x, unit * dz, STRING_MOBILITY
    return height - BALL_RADIUS, 0.0, 1.0, GROUND_MOBILITY


@njit(nogil=True)
def constrained(x, z, height, speeds, free):
    """Return the accelerations under all constraints.

    Parameters
    ----------
    x, z : float
        The ball's centre seen from the cup's origin (m).
    height : float
        Of the ball's centre above the ground (m).
    speeds, free : tuple of 4 float
        Velocities (m/s) and accelerations without constraints (m/s2): the cup's along x and z, the
        ball's.

    Returns
    -------
    tuple of 4 float
        In the same order.
    """
    cup_u, cup_w, ball_u, ball_w = speeds
    free_cup_x, free_cup_z, free_ball_x, free_ball_z = free
    touching = touched(x, z)
    if x * x + (z + STRING_DEPTH) * (z + STRING_DEPTH) > STRING_LENGTH * STRING_LENGTH:
        touching |= 1 << STRING
    if height < BALL_RADIUS:
        touching |= 1 << GROUND
    if touching == 0:
        return free
    if touching == 1 << STRING:
        gap, nx, nz, mobility = constraint(STRING, x, z, height)
        speed = nx * (ball_u - cup_u) + nz * (ball_w - cup_w)
        acceleration = nx * (free_ball_x - free_cup_x) + nz * (free_ball_z - free_cup_z)
        force = limit_force(gap, speed, acceleration, mobility, mobility, TIME_CONSTANT)
        cup_x, cup_z = free_cup_x - force * nx / CUP_MASS, free_cup_z - force * nz / CUP_MASS
        ball_x, ball_z = free_ball_x + force * nx / BALL_MASS, free_ball_z + force * nz / BALL_MASS
        return cup_x, cup_z, ball_x, ball_z

    cup_x, cup_z, ball_x, ball_z = free
    before = -1
    for _ in range(MOST_ITERATIONS):
        # Sums of D j j' and D r j over the rows that push: those of the ground (g, q), all others
        # (k, p).
        pushing = 0
        kxx, kxz, kzz, px, pz = 0.0, 0.0, 0.0, 0.0, 0.0
        gxx, gxz, gzz = BALL_MASS, 0.0, BALL_MASS
        qx, qz = BALL_MASS * free_ball_x, BALL_MASS * free_ball_z
        for number in range(GROUND + 1):
            if not touching & (1 << number):
                continue
            gap, nx, nz, mobility = constraint(number, x, z, height)
            u, w, ax, az = ball_u, ball_w, ball_x, ball_z
            if number != GROUND:
                u, w, ax, az = ball_u - cup_u, ball_w - cup_w, ball_x - cup_x, ball_z - cup_z
            stiff = stiffness(gap, mobility)
            for edge in range(-1, 2):
                jx, jz = nx - edge * nz, nz + edge * nx
                d = stiff if edge != 0 or number == STRING else 2.0 * stiff
                r = reference(gap, jx * u + jz * w, TIME_CONSTANT)
                if r <= jx * ax + jz * az or (number == STRING and edge != 0):
                    continue
                pushing |= 1 << (3 * number + edge + 1)
                if number == GROUND:
                    gxx, gxz, gzz = gxx + d * (jx * jx), gxz + d * (jx * jz), gzz + d * (jz * jz)
                    qx, qz = qx + d * (r * jx), qz + d * (r * jz)
                else:
                    kxx, kxz, kzz = kxx + d * (jx * jx), kxz + d * (jx * jz), kzz + d * (jz * jz)
                    px, pz = px + d * (r * jx), pz + d * (r * jz)
        if pushing == before:
            break
        before = pushing
        # Ball: g a = q + f; cup: mass a = mass free - f; between them f = p - k (a_ball - a_cup).
        # With w = 1 / g and v = w + 1 / mass, the relative acceleration a solves
        # (1 + v k) a = w q - free + v p.
        scale = 1.0 / (gxx * gzz - gxz * gxz)
        wxx, wxz, wzz = scale * gzz, -scale * gxz, scale * gxx
        vxx, vzz = wxx + 1 / CUP_MASS, wzz + 1 / CUP_MASS
        bx = wxx * qx + wxz * qz - free_cup_x + (vxx * px + wxz * pz)
        bz = wxz * qx + wzz * qz - free_cup_z + (wxz * px + vzz * pz)
        mxx, mxz = 1.0 + (vxx * kxx + wxz * kxz), vxx * kxz + wxz * kzz
        mzx, mzz = wxz * kxx + vzz * kxz, 1.0 + (wxz * kxz + vzz * kzz)
        scale = 1.0 / (mxx * mzz - mxz * mzx)
        ax, az = scale * (mzz * bx - mxz * bz), scale * (mxx * bz - mzx * bx)
        fx, fz = px - (kxx * ax + kxz * az), pz - (kxz * ax + kzz * az)
        cup_x, cup_z = free_cup_x - fx / CUP_MASS, free_cup_z - fz / CUP_MASS
        ball_x, ball_z = wxx * (qx + fx) + wxz * (qz + fz), wxz * (qx + fx) + wzz * (qz + fz)
    return cup_x, cup_z, ball_x, ball_z
