"""Rollouts in one launch on a GPU, against the steps one by one.

The checks of persistent_checks.py; at the laptop's sizes in float64, where another order of sums
does not change an action; and twice for equal bits.
"""

import numpy as np
import persistent_checks as checks
import pytest

from minis5 import AgentConfig
from minis5.arrays import to_host

cupy = pytest.importorskip("cupy")


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Leave the switch as it is."""
    monkeypatch.setenv("MINIS5_PERSISTENT", "1")


@pytest.mark.parametrize("check", ["edges", "resets", "truncations", "networks", "misfits"])
def test_one_launch_is_the_steps_one_by_one(check):
    getattr(checks, check)()


@pytest.mark.parametrize("env_id", ["RepeatPreviousEasy", "PositionOnlyPendulumEasy"])
def test_the_laptops_network(env_id):
    laptop = AgentConfig()
    sizes = {"encoder": laptop.encoder, "heads": laptop.heads, "core_config": laptop.core_config}
    resets, _ = checks.rollouts(env_id, 128, 257, **sizes)
    assert resets > 0


def test_runs_are_identical_bit_for_bit():
    runs = []
    for _ in range(2):
        made = checks.collector("one launch", "PositionOnlyCartPoleEasy", 1021, AgentConfig(), {})
        with cupy.cuda.Stream():
            for _ in range(2):
                rollout, _ = made.collect(100, np.random.default_rng(0))
        runs.append([to_host(z).tobytes() for z in rollout if z is not None])
    assert runs[0] == runs[1]
