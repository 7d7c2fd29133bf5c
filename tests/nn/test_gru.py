"""The GRU: by hand, against its specification, gradients, resets, precision, its kernels."""

import math

import core_on_device
import numpy as np
import pytest
from simulator import simulated

from minis5.nn.gru import GRUConfig, GRUCore
from minis5.nn.parameters import flatten_tree
from minis5.reference import cores as ref
from minis5.verify import memory_core
from minis5.verify.gradients import assert_close

CASES = [("gru", GRUConfig(), 5), ("gru", GRUConfig(hidden=7), 4), ("gru", GRUConfig(hidden=1), 3)]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: f"hidden={case[1].hidden}")
CHECKS = [
    "equals_reference",
    "gradients",
    "packed_is_separate",
    "two_parts_are_the_whole",
    "nothing_passes_a_reset",
]
CHECKS += ["single_precision", "caches_do_not_share_memory", "columns_are_independent"]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_specification_by_hand():
    """One unit, one input, two steps and a reset."""
    p = {
        "input": {"kernel": np.array([[0.5, -1.0, 2.0]]), "bias": np.array([0.1, 0.2, 0.3])},
        "recurrent": {"kernel": np.array([[1.5, 0.7, -0.4]]), "bias": np.array([0.6])},
    }
    h = 0.25
    r, z = sigmoid(0.5 * 2 + 0.1 + 1.5 * h), sigmoid(-1.0 * 2 + 0.2 + 0.7 * h)
    n = math.tanh(2.0 * 2 + 0.3 + r * (-0.4 * h + 0.6))
    first = (1 - z) * n + z * h
    r, z = sigmoid(0.5 * -1 + 0.1), sigmoid(1.0 + 0.2)
    second = (1 - z) * math.tanh(-2.0 + 0.3 + r * 0.6)
    u, reset = np.array([[[2.0]], [[-1.0]]]), np.array([[False], [True]])
    y, last = ref.gru(p, u, reset, np.full((1, 1, 1), h), None)
    assert_close(y.ravel(), [first, second])
    assert_close(last.ravel(), [second])


@cases
@pytest.mark.parametrize("check", CHECKS)
def test_core(check, case):
    getattr(memory_core, check)(case)


@cases
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_by_step(case, dtype):
    memory_core.step_by_step(case, dtype)


@pytest.mark.parametrize("at", [0, 1, memory_core.T - 1])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_passes_a_reset_at_an_edge(bad, at):
    memory_core.nothing_passes_a_reset(CASES[0], bad, at)


def test_names_shapes_and_initial_values():
    params = flatten_tree(GRUCore(GRUConfig(hidden=6), 4).init(np.random.default_rng(0)))
    expected = {
        "input/kernel": (4, 18),
        "input/bias": (18,),
        "recurrent/kernel": (6, 18),
        "recurrent/bias": (6,),
    }
    expected |= {"out/kernel": (6, 4), "out/bias": (4,)}
    assert (
        {name: z.shape for name, z in params.items()}
        == expected
        == flatten_tree(GRUCore(GRUConfig(hidden=6), 4).shapes())
    )
    for gate in np.split(params["recurrent/kernel"], 3, axis=1):
        assert_close(gate @ gate.T, np.eye(6), c=32)
    assert not any(z.any() for name, z in params.items() if name.endswith("bias"))
    wide = GRUCore(GRUConfig(), 200).init(np.random.default_rng(0))
    assert "out" not in wide and abs(wide["input"]["kernel"].std() * math.sqrt(200) - 1) < 0.02
    assert GRUCore(GRUConfig(hidden=6), 4).initial_state(3).shape == (1, 3, 6)


def test_remembers_where_its_gate_is_shut():
    """With z = 1 the state stays the same to the last bit until a reset."""
    core, params, u, reset, state, _ = memory_core.problem(CASES[0])
    params["input"]["bias"][5:10] = 1e4
    reset[:] = False
    reset[5, 1] = True
    y, _, _ = core.forward(params, u, reset, state)
    np.testing.assert_array_equal(y[:5], np.broadcast_to(state[0], y[:5].shape))
    assert not y[5:, 1].any()


@pytest.mark.parametrize("hidden", [0, -3])
def test_bad_configurations_are_named(hidden):
    with pytest.raises(ValueError, match=f"^hidden: expected at least 1, or None .*got {hidden}"):
        GRUConfig(hidden=hidden)


def on_the_device():
    for case, dtype in zip(CASES[:2], (np.float32, np.float64), strict=True):
        core_on_device.device(case, dtype)


def test_simulated_gpu():
    simulated(__file__, "on_the_device()")
