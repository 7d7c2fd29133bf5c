"""The table of cores, and the core without memory. Every other core has a test file of its own."""

import numpy as np

from minis5.nn.cores import CORES, NoConfig, NoCore


def test_no_core():
    core = NoCore(NoConfig(), 3)
    u, reset, state = np.ones((4, 2, 3)), np.zeros((4, 2), bool), core.initial_state(2)
    y, last, cache = core.forward(core.init(None), u, reset, state)
    np.testing.assert_array_equal(y, u)
    du, dstate, grads = core.backward(2 * u, cache)
    np.testing.assert_array_equal(du, 2 * u)
    assert grads == {} and dstate.shape == last.shape == state.shape == (0, 2, 0)
    np.testing.assert_array_equal(core.stepper({})(u[0], reset[0], state)[0], u[0])


def test_registry():
    assert set(CORES) >= {"s5", "none"}
    for config, core in CORES.values():
        assert core(config(), 4).initial_state(3).shape[1] == 3
