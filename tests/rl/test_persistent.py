"""The persistent rollout kernel in the simulator, against the steps one by one.

Whole iterations with it, against the CPU's: tests/rl/test_cuda_training.py. On a GPU:
tests/gpu/test_persistent.py.
"""

import persistent_checks
import pytest
from sampling import sampled
from simulator import simulated


@pytest.mark.parametrize(
    "check", sampled(["edges", "resets", "truncations", "networks", "misfits"])
)
def test_one_launch_is_the_steps_one_by_one(check):
    simulated(persistent_checks.__file__, f"{check}()")
