"""Actions of a batch: those that are refused, what the error says, and the types that are taken."""

import numpy as np
import pytest
from batches import same

from minis5.envs.registry import make_vec


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 1, 4]), r"actions: expected values in \[0, 3\], got 4 for environment 2"),
        (np.array([0, -1, 0]), r"got -1 for environment 1"),
        (np.array([0, 2**64 - 1, 0], np.uint64), "for environment 1"),
        (
            np.zeros(3),
            r"actions: expected integers \(3,\), num_envs first, got float64 \(3,\); "
            r"pass one action of Discrete\(4\)",
        ),
        (np.array([0, np.nan, 0]), "got float64"),
        (np.zeros(2, int), r"got int64 \(2,\)"),
        (np.zeros((3, 1), int), r"got int64 \(3, 1\)"),
        (0, r"got int64 \(\)"),
        (None, "got object"),
    ],
)
def test_bad_actions_leave_the_state_alone(actions, message):
    envs = make_vec("RepeatPreviousEasy", 3)
    envs.reset()
    before = envs.get_state()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)
    assert same(before.values(), envs.get_state().values())


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            np.array([[0, 0], [7, 8]]),
            r"expected values in \[0, 0\] to \[7, 7\], got \[7 8\] for environment 1",
        ),
        (np.array([[0, 0], [-1, 0]]), r"got \[-1  0\] for environment 1"),
        (np.zeros(2, int), r"expected integers \(2, 2\), num_envs first, got int64 \(2,\)"),
        (np.zeros((2, 2)), "got float64"),
    ],
)
def test_bad_actions_of_a_board(actions, message):
    envs = make_vec("BattleshipEasy", 2)
    envs.reset()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            np.array([[0], [2.1]]),
            r"expected values in \[-2.0, 2.0\], got \[2.1\] for environment 1",
        ),
        (np.array([[np.nan], [0]]), r"got \[nan\] for environment 0"),
        (np.array([[0], [-np.inf]]), r"got \[-inf\] for environment 1"),
        (np.zeros(2), r"expected floats \(2, 1\), num_envs first, got float64 \(2,\)"),
        (np.zeros((2, 1), int), "got int64"),
    ],
)
def test_bad_torques(actions, message):
    envs = make_vec("PositionOnlyPendulumEasy", 2)
    envs.reset()
    before = envs.get_state()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)
    assert same(before.values(), envs.get_state().values())


def test_actions_of_any_integer_type():
    for actions in ([0, 1], np.array([0, 1], np.uint8), np.array([0, 5, 1])[::2]):
        envs = make_vec("MemoryChain-5", 2)
        envs.reset()
        envs.step(actions)
