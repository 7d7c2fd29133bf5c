"""The LSTM: by hand, against its specification, gradients, resets, precision, its kernels."""

import math

import core_on_device
import numpy as np
import pytest
from simulator import simulated

from minis5.nn.lstm import LSTMConfig, LSTMCore
from minis5.nn.parameters import flatten_tree
from minis5.reference import cores as ref
from minis5.verify import memory_core
from minis5.verify.gradients import assert_close

CASES = [
    ("lstm", LSTMConfig(), 5),
    ("lstm", LSTMConfig(hidden=7, forget_bias=-0.5), 4),
    ("lstm", LSTMConfig(hidden=1), 3),
]
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
        "input": {
            "kernel": np.array([[0.5, -1.0, 2.0, 0.8]]),
            "bias": np.array([0.1, 0.2, 0.3, 0.4]),
        },
        "recurrent": {"kernel": np.array([[1.5, 0.7, -0.4, 0.9]])},
    }
    h, c = 0.25, -0.5
    i, f = sigmoid(0.5 * 2 + 0.1 + 1.5 * h), sigmoid(-1.0 * 2 + 0.2 + 0.7 * h)
    g, o = math.tanh(2.0 * 2 + 0.3 - 0.4 * h), sigmoid(0.8 * 2 + 0.4 + 0.9 * h)
    first = o * math.tanh(f * c + i * g)
    i, g, o = sigmoid(-0.5 + 0.1), math.tanh(-2.0 + 0.3), sigmoid(-0.8 + 0.4)
    second = o * math.tanh(i * g)
    u, reset = np.array([[[2.0]], [[-1.0]]]), np.array([[False], [True]])
    y, last = ref.lstm(p, u, reset, np.array([[[h]], [[c]]]), None)
    assert_close(y.ravel(), [first, second])
    assert_close(last.ravel(), [second, i * g])


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


@pytest.mark.parametrize("forget_bias", [1.0, 0.0, 2.5])
def test_names_shapes_and_initial_values(forget_bias):
    core = LSTMCore(LSTMConfig(hidden=6, forget_bias=forget_bias), 4)
    params = flatten_tree(core.init(np.random.default_rng(0)))
    expected = {
        "input/kernel": (4, 24),
        "input/bias": (24,),
        "recurrent/kernel": (6, 24),
        "out/kernel": (6, 4),
        "out/bias": (4,),
    }
    assert {name: z.shape for name, z in params.items()} == expected == flatten_tree(core.shapes())
    for gate in np.split(params["recurrent/kernel"], 4, axis=1):
        assert_close(gate @ gate.T, np.eye(6), c=32)
    assert (params["input/bias"] == np.repeat([0, forget_bias, 0, 0], 6)).all() and not params[
        "out/bias"
    ].any()
    assert "out" not in LSTMCore(LSTMConfig(hidden=4), 4).shapes()
    assert core.initial_state(3).shape == (2, 3, 6)


def test_the_forget_gate_keeps_or_clears_the_cell():
    """With f = 1 and i = 0 the cell stays; with f = 0 it is empty."""
    core, params, u, reset, state, _ = memory_core.problem(CASES[0])
    reset[:] = False
    params["input"]["bias"][:10] = np.repeat([-1e4, 1e4], 5)
    np.testing.assert_array_equal(core.forward(params, u, reset, state)[1][1], state[1])
    params["input"]["bias"][5:10] = -1e4
    assert not core.forward(params, u, reset, state)[1].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "hidden: expected at least 1, or None .*got 0"),
        ({"forget_bias": math.nan}, "forget_bias: expected a finite number, got nan"),
    ],
)
def test_bad_configurations_are_named(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        LSTMConfig(**changes)


def on_the_device():
    for case, dtype in zip(CASES[:2], (np.float32, np.float64), strict=True):
        core_on_device.device(case, dtype)


def test_simulated_gpu():
    simulated(__file__, "on_the_device()")
