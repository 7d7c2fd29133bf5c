"""Checks of minis5's own memory cores: forward, backward and one-step mode, against each other.

Each function takes a case, (core's name, configuration, d_model), and raises AssertionError.
Parameters are moved away from their initial values, biases too. There are resets at the first step,
twice in a row, in the middle and at the last step; the state is not zero. Other people's cores:
minis5/verify/replay.py.

Tests: tests/nn/test_gru.py, test_lstm.py and test_mlp.py call them.
"""

import numpy as np

from minis5.nn.cores import CORES
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.reference import cores as reference_cores
from minis5.verify.gradients import assert_close, check_gradients, random_like, require

T, B = 7, 4


def problem(case, seed=0, dtype=np.float64, T=T, B=B):
    """Return a core, nested parameters and inputs: core, params, u, reset, state, rng."""
    name, config, d_model = case
    rng, core = np.random.default_rng(seed), CORES[name][1](config, d_model)
    params = {
        key: (z + 0.3 * rng.standard_normal(z.shape)).astype(dtype)
        for key, z in flatten_tree(core.init(rng)).items()
    }
    u = rng.standard_normal((T, B, d_model)).astype(dtype)
    reset = np.zeros((T, B), bool)
    if B > 2:
        reset[0, 0] = reset[T // 2, 1] = reset[T // 2 + 1, 1] = reset[T // 2, 2] = reset[
            T - 1, 2
        ] = True
    return (
        core,
        unflatten_tree(params),
        u,
        reset,
        random_like(rng, core.initial_state(B, dtype)),
        rng,
    )


def equals_reference(case):
    """The specification gives the same outputs and last state."""
    core, params, u, reset, state, _ = problem(case)
    expected, after = reference_cores.CORES[case[0]](params, u, reset, state, core.config)
    y, last, _ = core.forward(params, u, reset, state)
    assert_close(y, expected, T=T, c=32)
    assert_close(last, after, T=T, c=32)


def gradients(case):
    """Every parameter, the input and the state; cotangents on the output and the last state."""
    core, params, u, reset, state, _ = problem(case, 1)
    inputs = {"u": u} | ({"state": state} if state.size else {}) | flatten_tree(params)

    def run(z):
        params = unflatten_tree(
            {name: value for name, value in z.items() if name not in ("u", "state")}
        )
        return core.forward(params, z["u"], reset, z.get("state", state))

    def backward(z, cotangents):
        du, dstate, grads = core.backward(cotangents[0], run(z)[2], cotangents[1])
        require(dstate.shape == state.shape, f"dstate: shape {dstate.shape}, not {state.shape}")
        found = {"u": du, "state": dstate} | flatten_tree(grads)
        return {name: found[name] for name in inputs}

    check_gradients(lambda z: run(z)[:2], backward, inputs)


def step_by_step(case, dtype):
    """Steps give what the sequence gives, in the same float type."""
    core, params, u, reset, state, _ = problem(case, 2, dtype)
    y, last, _ = core.forward(params, u, reset, state)
    step, outputs = core.stepper(params), []
    for t in range(T):
        out, state = step(u[t], reset[t], state)
        outputs.append(out)
    for name, z in {"y": y, "last": last, "step's y": outputs[0], "step's state": state}.items():
        require(z.dtype == dtype, f"{name}: {z.dtype}, not {np.dtype(dtype)}")
    assert_close(np.stack(outputs), y, T=T, c=32)
    assert_close(state, last, T=T, c=32)


def packed_is_separate(case):
    """Episodes in one sequence give what each gives alone from a state of zeros.

    Outputs, states and all gradients.
    """
    core, params, u, reset, state, rng = problem(case, 3, T=9, B=1)
    edges = (0, 2, 3, 9)
    reset[list(edges[:-1])] = True
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    du, dstate, grads = core.backward(dy, cache)
    require(not dstate.any(), "dstate: a gradient passes the reset at the first step")
    total = {name: 0 for name in flatten_tree(grads)}
    for begin, end in zip(edges, edges[1:], strict=False):
        rows = slice(begin, end)
        y1, last1, cache1 = core.forward(
            params, u[rows], np.zeros_like(reset[rows]), core.initial_state(1, np.float64)
        )
        du1, _, grads1 = core.backward(dy[rows], cache1)
        assert_close(y1, y[rows], T=9, c=32)
        assert_close(du1, du[rows], T=9, c=64)
        total = {name: total[name] + g for name, g in flatten_tree(grads1).items()}
    assert_close(last1, last, T=9, c=32)
    for name, g in flatten_tree(grads).items():
        assert_close(total[name], g, T=9, c=128, name=name)


def two_parts_are_the_whole(case):
    """A sequence cut in two gives what the whole gives, gradients included."""
    core, params, u, reset, state, rng = problem(case, 4)
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    dlast = random_like(rng, last)
    du, dstate, grads = core.backward(dy, cache, dlast)
    for cut in (1, T // 2, T // 2 + 1):
        y1, middle, cache1 = core.forward(params, u[:cut], reset[:cut], state)
        y2, last2, cache2 = core.forward(params, u[cut:], reset[cut:], middle)
        assert_close(np.concatenate([y1, y2]), y, T=T, c=32)
        assert_close(last2, last, T=T, c=32)
        du2, dmiddle, grads2 = core.backward(dy[cut:], cache2, dlast)
        du1, dstate1, grads1 = core.backward(dy[:cut], cache1, dmiddle)
        assert_close(np.concatenate([du1, du2]), du, T=T, c=64)
        assert_close(dstate1, dstate, T=T, c=64)
        grads1, grads2 = flatten_tree(grads1), flatten_tree(grads2)
        for name, expected in flatten_tree(grads).items():
            assert_close(grads1[name] + grads2[name], expected, T=T, c=128, name=name)


def nothing_passes_a_reset(case, bad=np.nan, at=3):
    """Neither NaN nor Inf passes a reset, forward or backward.

    After a reset, nothing depends on inputs and states before it; before it, no gradient depends on
    those after it.
    """
    core, params, u, reset, state, rng = problem(case, 5)
    reset[:] = False
    reset[at, 1] = True
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    du, dstate, _ = core.backward(dy, cache)
    u2, state2, dy2 = u.copy(), state.copy(), dy.copy()
    u2[:at, 1] = state2[:, 1] = dy2[at:, 1] = bad
    with np.errstate(invalid="ignore"):
        y2, last2, cache2 = core.forward(params, u2, reset, state2)
        du2, dstate2, _ = core.backward(dy2, cache)
        du3, _, _ = core.backward(dy, cache2)
    others = [0, 2, 3]
    if np.isnan(bad):
        require(np.isnan(y2[:at, 1]).all(), "y: NaN is lost before the reset")
        require(np.isnan(du2[at:, 1]).all(), "du: NaN is lost after the reset")
    for got, expected in ((y2, y), (du3, du)):
        assert_close(got[at:], expected[at:], T=T)
        assert_close(got[:, others], expected[:, others], T=T)
    assert_close(last2, last, T=T)
    assert_close(du2[:at], du[:at], T=T)
    assert_close(du2[:, others], du[:, others], T=T)
    assert_close(dstate2, dstate, T=T)


def single_precision(case):
    """float32 agrees with float64 up to rounding, and stays float32."""
    both = []
    for dtype in (np.float32, np.float64):
        core, params, u, reset, state, rng = problem(case, 6, np.float32)
        params = unflatten_tree({name: z.astype(dtype) for name, z in flatten_tree(params).items()})
        dy = rng.standard_normal(u.shape).astype(dtype)
        y, last, cache = core.forward(params, u.astype(dtype), reset, state.astype(dtype))
        du, dstate, grads = core.backward(dy, cache, last)
        both.append({"y": y, "last": last, "du": du, "dstate": dstate} | flatten_tree(grads))
    for name, expected in both[1].items():
        require(both[0][name].dtype == np.float32, f"{name}: {both[0][name].dtype}, not float32")
        assert_close(both[0][name], expected, T=T, c=64, name=name)


def caches_do_not_share_memory(case):
    """A second forward leaves the first one's gradients alone; neither changes its inputs."""
    core, params, u, reset, state, rng = problem(case, 7)
    dy = rng.standard_normal(u.shape)
    dlast = random_like(rng, state)
    inputs = [u, reset, state, dy, dlast, *flatten_tree(params).values()]
    copies = [z.copy() for z in inputs]
    y, last, cache = core.forward(params, u, reset, state)
    y_copy, last_copy, first = y.copy(), last.copy(), core.backward(dy, cache, dlast)
    core.forward(params, 2 * u, ~reset, -state)
    second = core.backward(dy, cache, dlast)
    np.testing.assert_array_equal(y, y_copy)
    np.testing.assert_array_equal(last, last_copy)
    for one, two in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(one, two)
    for name, z in flatten_tree(first[2]).items():
        np.testing.assert_array_equal(z, flatten_tree(second[2])[name])
    for z, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(z, copy)


def columns_are_independent(case):
    """Some environments alone, sliced or reordered, give what they give among all."""
    core, params, u, reset, state, rng = problem(case, 8)
    y, last, cache = core.forward(params, u, reset, state)
    dy = rng.standard_normal(u.shape)
    du, dstate, _ = core.backward(dy, cache)
    for rows in ([3, 0], slice(1, 4, 2)):
        y2, last2, cache2 = core.forward(params, u[:, rows], reset[:, rows], state[:, rows])
        du2, dstate2, _ = core.backward(dy[:, rows], cache2)
        for got, expected in ((y2, y), (last2, last), (du2, du), (dstate2, dstate)):
            assert_close(got, expected[:, rows], T=T, c=32)
