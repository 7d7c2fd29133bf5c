"""The shapes of rewards, by hand and against dm_control's."""

import numpy as np
import pytest

from minis5.envs.control.reward import gaussian, quadratic


def test_shapes_of_rewards():
    assert gaussian(0.0, 2.0) == gaussian(-3.0, 2.0) == quadratic(0.0) == 1
    np.testing.assert_allclose(
        [gaussian(2.0, 2.0), gaussian(0.03, 0.01), gaussian(1.0, 2.0)],
        [0.1, 1e-9, 0.1**0.25],
        rtol=1e-14,
    )
    assert gaussian(1e9, 1.0) == 0
    assert [quadratic(x) for x in (0.5, -0.5, 1.0, -1.0, 1.5)] == [0.75, 0.75, 0, 0, 0]


def test_shapes_are_the_suite_s():
    rewards = pytest.importorskip("dm_control.utils.rewards")

    for x in np.linspace(-12, 12, 481):
        expected = rewards.tolerance(x, bounds=(0, 0.25), margin=2)
        assert abs(gaussian(x - 0.25 if x > 0 else -x, 2.0) - expected) < 1e-15 + 1e-14 * expected
        expected = rewards.tolerance(x / 6, margin=1, value_at_margin=0, sigmoid="quadratic")
        assert abs(quadratic(x / 6) - expected) < 1e-15
