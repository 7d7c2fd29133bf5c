"""The memoryless core: by hand, against its specification, gradients.

And that nothing passes from step to step.
"""

import core_on_device
import numpy as np
import pytest
from simulator import simulated

from minis5.nn.mlp import MLPConfig, MLPCore
from minis5.nn.parameters import flatten_tree
from minis5.reference import cores as ref
from minis5.verify import memory_core
from minis5.verify.gradients import assert_close

CASES = [("mlp", MLPConfig((7, 6)), 5), ("mlp", MLPConfig((3,)), 4), ("mlp", MLPConfig(()), 3)]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"widths={case[1].widths}")
CHECKS = [
    "equals_reference",
    "gradients",
    "packed_is_separate",
    "single_precision",
    "caches_do_not_share_memory",
]
CHECKS += ["columns_are_independent"]


def test_specification_by_hand():
    p = {"0": {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([0.5, 0.0])}}
    p["1"] = {"kernel": np.array([[3.0], [100.0]]), "bias": np.array([0.25])}
    y, state = ref.mlp(p, np.array([[[2.0]]]), None, "a state", None)
    assert_close(y.ravel(), [3 * 2.5 + 100 * -0.04 + 0.25])
    assert state == "a state"


@cases
@pytest.mark.parametrize("check", CHECKS)
def test_core(check, case):
    getattr(memory_core, check)(case)


@cases
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_by_step(case, dtype):
    memory_core.step_by_step(case, dtype)


@cases
def test_has_no_memory(case):
    """NaN at one step stays there, with resets or without."""
    core, params, u, reset, state, rng = memory_core.problem(case)
    dy = rng.standard_normal(u.shape)
    y, _, cache = core.forward(params, u, reset, state)
    du, _, _ = core.backward(dy, cache)
    u[3, 1] = dy[3, 1] = np.nan
    for got, expected in (
        (core.forward(params, u, reset, state)[0], y),
        (core.backward(dy, cache)[0], du),
    ):
        assert np.isnan(got[3, 1]).all()
        got[3, 1] = expected[3, 1]
        assert_close(got, expected)


def test_names_shapes_and_initial_values():
    core = MLPCore(MLPConfig((6, 3)), 4)
    params = flatten_tree(core.init(np.random.default_rng(0)))
    assert {name: z.shape for name, z in params.items()} == flatten_tree(core.shapes())
    assert {
        name: shape for name, shape in flatten_tree(core.shapes()).items() if "kernel" in name
    } == {"0/kernel": (4, 6), "1/kernel": (6, 3), "2/kernel": (3, 4)}
    assert_close(params["0/kernel"] @ params["0/kernel"].T, 2 * np.eye(4), c=32)
    assert not any(z.any() for name, z in params.items() if name.endswith("bias"))
    assert core.initial_state(3).shape == (0, 3, 0)


def test_bad_configurations_are_named():
    with pytest.raises(ValueError, match=r"^widths: expected positive widths, got \(8, 0\)"):
        MLPConfig((8, 0))


def on_the_device():
    core_on_device.device(CASES[0], np.float64)


def test_simulated_gpu():
    simulated(__file__, "on_the_device()")
