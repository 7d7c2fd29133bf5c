"""The S5 stack: every option against the specification, one-step mode, states, gradients."""

import itertools
from dataclasses import replace

import device_checks
import numpy as np
import pytest
from simulator import simulated

from minis5 import reference as ref
from minis5.nn.layers import GATES
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.nn.s5_core import S5Config, S5Core
from minis5.verify.gradients import assert_close, check_gradients, random_like

NORMS = ("prenorm", "postnorm", "gtrxl_norm")
SMALL = S5Config(n_layers=2, ssm_size=4)
CONFIGS = [  # every gate with every choice of norms; the options of the SSM in turn
    replace(
        SMALL,
        gate=gate,
        **dict(zip(NORMS, norms, strict=True)),
        discretization=("zoh", "bilinear")[i % 2],
        conj_sym=i % 3 > 0,
        clip_eigs=i % 5 == 0,
        step_rescale=(1.0, 1.7)[i % 4 == 0],
        blocks=1 + i % 2,
    )
    for i, (gate, norms) in enumerate(
        itertools.product(GATES, itertools.product((False, True), repeat=3))
    )
]


def name_of(config):
    norms = (n for n in NORMS if getattr(config, n))
    return "-".join(
        [config.gate, *norms, config.discretization, "half" if config.conj_sym else "all"]
    )


def problem(config, seed=0, T=6, B=3, H=3, dtype=np.float64):
    """Return a core, parameters moved away from their initial values, and inputs.

    core, params, u, reset, state, dt, rng.
    """
    rng = np.random.default_rng(seed)
    core = S5Core(config, H)
    initial = flatten_tree(core.init(rng))
    params = {
        name: (z + 0.3 * rng.standard_normal(z.shape)).astype(dtype) for name, z in initial.items()
    }
    u = rng.standard_normal((T, B, H)).astype(dtype)
    reset = rng.random((T, B)) < 0.25
    state = random_like(rng, core.initial_state(B, dtype))
    dt = rng.uniform(0.3, 3.0, (T, B)).astype(dtype)
    return core, unflatten_tree(params), u, reset, state, dt, rng


@pytest.mark.parametrize("with_dt", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_equals_reference(config, with_dt):
    core, params, u, reset, state, dt, _ = problem(config)
    dt = dt if with_dt else None
    expected, last = ref.stack(params, u, reset, state, config, dt)
    y, after, _ = core.forward(params, u, reset, state, dt)
    assert_close(y, expected, T=6, c=32)
    assert_close(after, last, T=6, c=32)


@pytest.mark.parametrize("config", CONFIGS[::3], ids=name_of)
def test_backward(config):
    """Every parameter of both layers, the input and the state.

    Cotangents are on the output and the last state.
    """
    core, params, u, reset, state, dt, _ = problem(config, 1)
    dt = dt if config.conj_sym else None

    def run(z):
        params = unflatten_tree(
            {name: value for name, value in z.items() if name.startswith("layers/")}
        )
        return core.forward(params, z["u"], reset, z["state"], dt)

    def backward(z, cotangents):
        du, dstate, grads = core.backward(cotangents[0], run(z)[2], cotangents[1])
        return {"u": du, "state": dstate} | flatten_tree(grads)

    check_gradients(
        lambda z: run(z)[:2], backward, {"u": u, "state": state} | flatten_tree(params), entries=1
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", [*CONFIGS[::5], replace(SMALL, resets=False)], ids=name_of)
def test_step_by_step_is_forward(config, dtype):
    core, params, u, reset, state, _, _ = problem(config, 2, dtype=dtype)
    y, last, _ = core.forward(params, u, reset, state)
    step = core.stepper(params)
    outputs = []
    for t in range(len(u)):
        out, state = step(u[t], reset[t], state)
        outputs.append(out)
    assert y.dtype == last.dtype == outputs[0].dtype == state.dtype == dtype
    assert_close(np.stack(outputs), y, T=6, c=32)
    assert_close(state, last, T=6, c=32)


@pytest.mark.parametrize("with_dt", [False, True])
@pytest.mark.parametrize("config", CONFIGS[::7], ids=name_of)
def test_two_parts_are_the_whole(config, with_dt):
    core, params, u, reset, state, dt, rng = problem(config, 3)
    dt = dt if with_dt else np.ones_like(dt)
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state, dt)
    dlast = random_like(rng, last)
    y1, middle, cache1 = core.forward(params, u[:4], reset[:4], state, dt[:4])
    y2, last2, cache2 = core.forward(params, u[4:], reset[4:], middle, dt[4:])
    assert_close(np.concatenate([y1, y2]), y, T=6, c=32)
    assert_close(last2, last, T=6, c=32)
    du, dstate, grads = core.backward(dy, cache, dlast)
    du2, dmiddle, grads2 = core.backward(dy[4:], cache2, dlast)
    du1, dstate1, grads1 = core.backward(dy[:4], cache1, dmiddle)
    assert_close(np.concatenate([du1, du2]), du, T=6, c=64)
    assert_close(dstate1, dstate, T=6, c=64)
    grads1, grads2 = flatten_tree(grads1), flatten_tree(grads2)
    for name, expected in flatten_tree(grads).items():
        assert_close(grads1[name] + grads2[name], expected, T=6, c=128, name=name)


@pytest.mark.parametrize("config", CONFIGS[::7], ids=name_of)
def test_nothing_passes_a_reset(config):
    """Not even NaN passes a reset, in any layer.

    After a reset, nothing depends on inputs and states before it.
    """
    core, params, u, reset, state, _, rng = problem(config, 4)
    reset[:] = False
    reset[3, 1] = True
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    du, dstate, _ = core.backward(dy, cache)
    u2, state2, dy2 = u.copy(), state.copy(), dy.copy()
    u2[:3, 1] = state2[:, 1] = dy2[3:, 1] = np.nan
    y2, last2, _ = core.forward(params, u2, reset, state2)
    du2, dstate2, _ = core.backward(dy2, cache)
    assert np.isnan(y2[:3, 1]).all() and np.isnan(du2[3:, 1]).all()
    assert_close(y2[3:], y[3:], T=6)
    assert_close(last2, last, T=6)
    assert_close(du2[:3], du[:3], T=6)
    assert_close(dstate2, dstate, T=6)


def test_resets_can_be_switched_off():
    """In the paper's ablation memory runs on, in all three modes."""
    core, params, u, reset, state, _, rng = problem(replace(SMALL, resets=False), 5)
    assert reset.any()
    y, last, cache = core.forward(params, u, reset, state)
    plain = S5Core(SMALL, 3)
    y2, last2, cache2 = plain.forward(params, u, np.zeros_like(reset), state)
    np.testing.assert_array_equal(y, y2)
    np.testing.assert_array_equal(last, last2)
    assert np.abs(y - plain.forward(params, u, reset, state)[0]).max() > 1e-3
    dy = rng.standard_normal(u.shape)
    np.testing.assert_array_equal(core.backward(dy, cache)[1], plain.backward(dy, cache2)[1])
    expected, _ = ref.stack(params, u, reset, state, core.config)
    assert_close(y, expected, T=6, c=32)


def test_environments_are_independent():
    """Some environments alone, as in a minibatch, give what they give among all."""
    core, params, u, reset, state, _, rng = problem(SMALL, 6, B=5)
    y, last, _ = core.forward(params, u, reset, state)
    rows = [3, 0]
    y2, last2, _ = core.forward(params, u[:, rows], reset[:, rows], state[:, rows])
    assert_close(y2, y[:, rows], T=6)
    assert_close(last2, last[:, rows], T=6)


@pytest.mark.parametrize("config", CONFIGS[::9], ids=name_of)
def test_caches_do_not_share_memory(config):
    """A second forward leaves the first one's gradients alone; neither changes its inputs."""
    core, params, u, reset, state, _, rng = problem(config, 7)
    dy = rng.standard_normal(u.shape)
    inputs = [u, reset, state, dy, *flatten_tree(params).values()]
    copies = [z.copy() for z in inputs]
    y, _, cache = core.forward(params, u, reset, state)
    first, y_copy = core.backward(dy, cache), y.copy()
    core.forward(params, 2 * u, ~reset, -state)
    second = core.backward(dy, cache)
    np.testing.assert_array_equal(y, y_copy)
    for one, two in zip(first[:2], second[:2], strict=True):
        np.testing.assert_array_equal(one, two)
    for name, z in flatten_tree(first[2]).items():
        np.testing.assert_array_equal(z, flatten_tree(second[2])[name])
    for z, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(z, copy)


def test_names_and_shapes():
    config = S5Config(n_layers=1, ssm_size=8, prenorm=True, gtrxl_norm=True, postnorm=True)
    params = flatten_tree(S5Core(config, 6).init(np.random.default_rng(0)))
    ssm = {
        "Lambda_re": (4,),
        "Lambda_im": (4,),
        "B": (4, 6, 2),
        "C": (6, 4, 2),
        "D": (6,),
        "log_step": (4, 1),
    }
    expected = {f"layers/0/ssm/{name}": shape for name, shape in ssm.items()}
    for name in ("out1", "out2"):
        expected |= {f"layers/0/{name}/kernel": (6, 6), f"layers/0/{name}/bias": (6,)}
    for name in ("norm", "gtrxl_norm", "postnorm"):
        expected |= {f"layers/0/{name}/scale": (6,), f"layers/0/{name}/bias": (6,)}
    assert {name: z.shape for name, z in params.items()} == expected
    for name, z in params.items():
        if name.endswith("scale"):
            assert (z == 1).all()
        if name.endswith("bias"):
            assert (z == 0).all()
    assert S5Core(config, 6).initial_state(5).shape == (1, 5, 8)
    assert S5Core(replace(config, conj_sym=False), 6).initial_state(5).shape == (1, 5, 16)
    assert not S5Core(config, 6).initial_state(5).any()


@pytest.mark.parametrize(
    "name, value",
    [
        ("gate", "glu"),
        ("discretization", "euler"),
        ("n_layers", 0),
        ("step_rescale", 0.0),
        ("step_rescale", np.inf),
        ("step_rescale", np.nan),
    ],
)
def test_bad_configurations_are_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*got "):
        S5Config(**{name: value})


def test_the_gpu_form_in_the_simulator_is_the_stack():
    simulated(device_checks.__file__, "stack()")
