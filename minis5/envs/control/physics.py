"""MuJoCo's physics in the control tasks: masses and inertias of bodies, and soft limits.

MuJoCo has no hard limit: beyond one, a force pushes back. The gap to the limit is to have the
acceleration `reference`, that of a damped spring, and the force is the `stiffness` D times the
acceleration that is missing. One limit alone has a solution in closed form: f = D (reference - a -
A f) gives f = D (reference - a) / (1 + D A), or 0 if that is negative. Here a is the gap's
acceleration without the force, and A that by a unit of it. (MuJoCo's R is 1 / D.)

Most joints, strings and contacts of the suite that are used here have MuJoCo's default impedance,
RISE: 0.9 at the limit, and more and more up to 0.95 from 1 mm (or 0.001 rad) beyond it on. Those of
the finger with the spinner have another, which is handed over. The damping ratio is 1 everywhere.

Leaves out: friction and several constraints at once, which are in contact.py and fingertip.py.
Source: MuJoCo's documentation, "Computation" (constraint model) and "Modeling" (solver parameters);
Todorov, "Convex and analytically-invertible dynamics with contacts and constraints", ICRA 2014.
Tests: tests/envs/control/test_physics.py, and against MuJoCo those of the tasks.
"""

import math

from numba import njit

GRAVITY = 9.81
DENSITY = 1000.0  # kg/m3 of bodies whose mass is not given
RISE = (0.9, 0.95, 0.001)  # impedance at the limit, most impedance, and the gap (m or rad) of it


def sphere(radius):
    """Return mass (kg) and moment of inertia (kg m2) about the centre of a sphere; radius in m."""
    mass = DENSITY * (4 / 3 * math.pi * (radius * radius * radius))
    return mass, 0.4 * (mass * (radius * radius))


def capsule(radius, length, mass=None):
    """Return mass (kg) and moment of inertia across (kg m2) of a cylinder with half-sphere ends.

    Parameters
    ----------
    radius, length : float
        In m; `length` is the cylinder's, between the centres of the half spheres.
    mass : float, optional
        In kg; if it is left out, the density is DENSITY.
    """
    if mass is None:
        mass = DENSITY * (math.pi * (radius * radius) * (length + 4 / 3 * radius))
    ends = mass * (4 * radius / (4 * radius + 3 * length))
    inertia = (mass - ends) * (3 * (radius * radius) + length * length) / 12
    # Half spheres have their centres of mass 3/8 of the radius away from the flat side.
    return mass, inertia + ends * (
        0.4 * (radius * radius) + length * length / 4 + 3 / 8 * (length * radius)
    )


def cylinder(radius, length):
    """Return mass (kg) and moment of inertia along (kg m2) of a cylinder; lengths in m."""
    mass = DENSITY * (math.pi * (radius * radius) * length)
    return mass, mass * (radius * radius) / 2


@njit(nogil=True)
def impedance(gap, rise=RISE):
    """Return how stiff a constraint is at a `gap` <= 0 (m or rad).

    `rise` has the impedance at the limit, the most impedance, and the gap, positive, where that
    begins.
    """
    least, most, width = rise
    x = -gap / width
    if x >= 1.0:
        return most
    y = 2.0 * (x * x) if x <= 0.5 else 1.0 - 2.0 * ((1.0 - x) * (1.0 - x))
    return least + y * (most - least)


@njit(nogil=True)
def reference(gap, speed, time_constant, rise=RISE):
    """Return the acceleration that a constraint aims at: that of a damped spring at the limit.

    Parameters
    ----------
    gap, speed : float
        Distance to the limit, negative beyond it, and its derivative; m or rad, and seconds.
    time_constant : float
        Seconds; at least two timesteps.
    rise : tuple of 3 float
        As in `impedance`.
    """
    rate = 1.0 / (rise[1] * time_constant)
    return -2.0 * rate * speed - rate * rate * impedance(gap, rise) * gap


@njit(nogil=True)
def stiffness(gap, mobility, rise=RISE):
    """Return the force for each unit of acceleration that is missing at a `gap` <= 0.

    `mobility` (1/kg or 1/(kg m2)) is the gap's acceleration by a unit of force in the model's
    reference pose.
    """
    d = impedance(gap, rise)
    return d / ((1.0 - d) * mobility)


@njit(nogil=True)
def limit_force(gap, speed, acceleration, mobility_now, mobility, time_constant):
    """Return the force (N or N m, >= 0) with which a limit pushes back at a `gap` <= 0.

    Parameters
    ----------
    gap, speed, acceleration : float
        Distance to the limit, negative beyond it, and its derivatives without the force; m or rad,
        and seconds.
    mobility_now, mobility : float
        Acceleration of the gap by a unit of force, in the present and in the model's reference
        pose.
    time_constant : float
        Seconds; at least two timesteps.
    """
    missing = reference(gap, speed, time_constant) - acceleration
    d = stiffness(gap, mobility)
    return max(d * missing / (1.0 + d * mobility_now), 0.0)
