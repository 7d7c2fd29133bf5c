"""Masses and inertias by slices; impedance and limits by hand."""

import math

import numpy as np
import pytest

from minis5.envs.control import physics


@pytest.mark.parametrize(("radius", "length"), [(0.045, 1.0), (0.3, 0.2), (0.5, 0.0)])
def test_mass_and_inertia_of_a_capsule_by_slices(radius, length):
    """Across its own axis, a disc of radius r has the moment r**2 / 4 of its mass.

    The square of its distance comes on top.
    """
    edges = np.linspace(-length / 2 - radius, length / 2 + radius, 20_001)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    squares = radius**2 - np.maximum(abs(middles) - length / 2, 0) ** 2
    masses = 1000 * math.pi * squares * width
    expected = masses.sum(), (masses * (squares / 4 + middles**2)).sum()
    np.testing.assert_allclose(physics.capsule(radius, length), expected, rtol=1e-6)
    np.testing.assert_allclose(
        physics.capsule(radius, length, mass=2), np.array(expected) * 2 / expected[0], rtol=1e-6
    )
    if length == 0:
        np.testing.assert_allclose(physics.sphere(radius), expected, rtol=1e-6)


def test_impedance():
    """It grows from 0.9 at the limit to 0.95 at 1 mm, by two equal halves of a parabola."""
    gaps = np.array([0, -0.25e-3, -0.5e-3, -0.75e-3, -1e-3, -1])
    expected = 0.9 + 0.05 * np.array([0, 1 / 8, 1 / 2, 7 / 8, 1, 1])
    np.testing.assert_allclose([physics.impedance(gap) for gap in gaps], expected, rtol=1e-14)


def test_limit_force_by_hand():
    # Deep in the limit D = 19 / mobility. With this time constant 1 / (0.95 tc) = 2, so that the
    # reference is -4 speed - 4 * 0.95 gap.
    tc = 1 / 1.9
    assert abs(physics.reference(-1.0, 0.5, tc) - (-2 + 3.8)) < 1e-14
    # f = D (reference - a - A f), D = 19 / 2, A = 3
    assert abs(physics.limit_force(-1.0, 0.5, 0.8, 3.0, 2.0, tc) - 9.5 / (1 + 28.5)) < 1e-14
    # it is leaving: no force holds it back
    assert physics.limit_force(-1.0, 5.0, 0.8, 3.0, 2.0, tc) == 0


@pytest.mark.parametrize(("radius", "length"), [(0.1, 0.3), (0.02, 1.0)])
def test_mass_and_inertia_of_a_cylinder_by_tubes(radius, length):
    """Along its axis, a thin tube of radius r has the moment r**2 of its mass."""
    edges = np.linspace(0, radius, 20_001)
    middles, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    masses = 1000 * 2 * math.pi * middles * width * length
    expected = masses.sum(), (masses * middles**2).sum()
    np.testing.assert_allclose(physics.cylinder(radius, length), expected, rtol=1e-6)
