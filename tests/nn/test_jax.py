"""The cores against independent implementations with automatic differentiation.

The S5 layer is written below in jax.numpy from the papers' equations alone: the resettable
operator in ``lax.associative_scan``, gradients by ``jax.vjp``, float64. States go in and out as
pairs of real arrays, so that no convention for complex gradients is involved. GRU and LSTM are
cells under ``lax.scan``, from the papers' equations. Skipped without JAX.
"""

import numpy as np
import pytest

from minis5.nn.cores import CORES
from minis5.nn.gru import GRUConfig
from minis5.nn.lstm import LSTMConfig
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.nn.s5_core import S5Config, S5Core
from minis5.verify.gradients import assert_close

jax = pytest.importorskip(
    "jax", reason="needs JAX (pip install jax) to compare with automatic differentiation"
)
jax.config.update("jax_enable_x64", True)
# these tests spend their time compiling
jax.config.update("jax_disable_most_optimizations", True)
jnp = jax.numpy

CONFIGS = {
    "paper": S5Config(n_layers=2, ssm_size=6),
    "norms": S5Config(
        n_layers=1, ssm_size=6, gate="half_glu1", prenorm=True, gtrxl_norm=True, postnorm=True
    ),
    "bilinear": S5Config(
        n_layers=1, ssm_size=6, gate="half_glu2", discretization="bilinear", step_rescale=1.7
    ),
    "all states": S5Config(n_layers=1, ssm_size=4, gate="gelu", conj_sym=False, clip_eigs=True),
}


def combine(e_i, e_j):
    """(a_j a_i, a_j b_i + b_j, c_i) where c_j = 0, else e_j."""
    (a_i, b_i, c_i), (a_j, b_j, c_j) = e_i, e_j
    return jnp.where(c_j, a_j, a_j * a_i), jnp.where(c_j, b_j, a_j * b_i + b_j), c_i | c_j


def ssm(p, u, reset, x0, dt, config):
    real = jnp.minimum(p["Lambda_re"], -1e-4) if config.clip_eigs else p["Lambda_re"]
    lam = real + 1j * p["Lambda_im"]
    step = config.step_rescale * jnp.exp(p["log_step"][:, 0]) * dt[..., None]  # (T, B, P)
    if config.discretization == "zoh":
        lam_bar = jnp.exp(lam * step)
        w = (lam_bar - 1) / lam
    else:
        r = 1 / (1 - lam * step / 2)
        lam_bar, w = r * (1 + lam * step / 2), r * step
    b = w * jnp.einsum("ph,tbh->tbp", p["B"][..., 0] + 1j * p["B"][..., 1], u)
    elements = (
        jnp.concatenate([jnp.ones_like(lam_bar[:1]), lam_bar]),
        jnp.concatenate([x0[None], b]),
        jnp.concatenate([jnp.zeros_like(reset[:1]), reset])[..., None] & jnp.ones(lam.shape, bool),
    )
    x = jax.lax.associative_scan(combine, elements)[1][1:]
    y = jnp.einsum("hp,tbp->tbh", p["C"][..., 0] + 1j * p["C"][..., 1], x).real
    return (2 if config.conj_sym else 1) * y + p["D"] * u, x[-1]


def norm(p, x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def block(p, u, reset, x0, dt, config):
    s = norm(p["norm"], u) if config.prenorm else u
    s, last = ssm(p["ssm"], s, reset, x0, dt, config)
    s = norm(p["gtrxl_norm"], s) if config.gtrxl_norm else s
    h = jax.nn.gelu(s, approximate=True)
    dense = {
        name: h @ p[name]["kernel"] + p[name]["bias"] for name in ("out1", "out2") if name in p
    }
    gated = {
        "full_glu": lambda: dense["out1"] * jax.nn.sigmoid(dense["out2"]),
        "half_glu1": lambda: h * jax.nn.sigmoid(dense["out2"]),
        "half_glu2": lambda: s * jax.nn.sigmoid(dense["out2"]),
        "gelu": lambda: h,
    }[config.gate]()
    return norm(p["postnorm"], u + gated) if config.postnorm else u + gated, last


def stack(p, u, x0_re, x0_im, reset, dt, config):
    lasts = []
    for i in range(config.n_layers):
        u, last = block(p["layers"][str(i)], u, reset, x0_re[i] + 1j * x0_im[i], dt, config)
        lasts.append(last)
    last = jnp.stack(lasts)
    return u, last.real, last.imag


@pytest.mark.parametrize("with_dt", [False, True], ids=["same step", "irregular"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_values_and_gradients(config, with_dt):
    """Outputs, last states and gradients of every input.

    With resets, one at the start too, and a state that is not zero.
    """
    rng = np.random.default_rng(0)
    T, B, H = 11, 3, 5
    core = S5Core(config, H)
    initial = flatten_tree(core.init(rng))
    params = unflatten_tree(
        {name: z + 0.3 * rng.standard_normal(z.shape) for name, z in initial.items()}
    )
    u = rng.standard_normal((T, B, H))
    reset = rng.random((T, B)) < 0.2
    reset[0, 0] = True
    state = rng.standard_normal(core.initial_state(B, np.float64).shape)
    dt = rng.uniform(0.3, 3.0, (T, B)) if with_dt else None
    re, im = np.split(state, 2, axis=-1)

    y, last, cache = core.forward(params, u, reset, state, dt)
    dy, dlast = rng.standard_normal(y.shape), rng.standard_normal(last.shape)
    du, dstate, grads = core.backward(dy, cache, dlast)

    steps = np.ones((T, B)) if dt is None else dt

    @jax.jit
    def values_and_gradients(cotangents, *inputs):
        outputs, pull = jax.vjp(
            lambda p, u, re, im: stack(p, u, re, im, reset, steps, config), *inputs
        )
        return outputs, pull(cotangents)

    cotangents = (dy, *np.split(dlast, 2, axis=-1))
    outputs, (expected_grads, *expected) = values_and_gradients(cotangents, params, u, re, im)

    assert_close(y, outputs[0], T=T, c=32, name="y")
    assert_close(last, np.concatenate(outputs[1:], axis=-1), T=T, c=32, name="last state")
    assert_close(du, expected[0], T=T, c=64, name="du")
    assert_close(dstate, np.concatenate(expected[1:], axis=-1), T=T, c=64, name="dstate")
    grads = flatten_tree(grads)
    for name, wanted in flatten_tree(expected_grads).items():
        assert_close(grads.pop(name), wanted, T=T, c=128, name=name)
    assert not grads


def gru_cell(p, x, h):
    K, sigmoid = h.shape[-1], jax.nn.sigmoid
    wx, uh = x @ p["input"]["kernel"] + p["input"]["bias"], h @ p["recurrent"]["kernel"]
    r, z = sigmoid(wx[:, :K] + uh[:, :K]), sigmoid(wx[:, K : 2 * K] + uh[:, K : 2 * K])
    n = jnp.tanh(wx[:, 2 * K :] + r * (uh[:, 2 * K :] + p["recurrent"]["bias"]))
    return ((1 - z) * n + z * h,)


def lstm_cell(p, x, h, c):
    i, f, g, o = jnp.split(
        x @ p["input"]["kernel"] + p["input"]["bias"] + h @ p["recurrent"]["kernel"], 4, axis=-1
    )
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


@pytest.mark.parametrize(
    "name, config, cell", [("gru", GRUConfig(6), gru_cell), ("lstm", LSTMConfig(6), lstm_cell)]
)
def test_recurrent_cores(name, config, cell):
    rng = np.random.default_rng(1)
    T, B, H = 11, 3, 5
    core = CORES[name][1](config, H)
    params = unflatten_tree(
        {
            name: z + 0.3 * rng.standard_normal(z.shape)
            for name, z in flatten_tree(core.init(rng)).items()
        }
    )
    u, reset = rng.standard_normal((T, B, H)), rng.random((T, B)) < 0.2
    reset[0, 0] = True
    state = rng.standard_normal(core.initial_state(B, np.float64).shape)
    y, last, cache = core.forward(params, u, reset, state)
    dy, dlast = rng.standard_normal(y.shape), rng.standard_normal(last.shape)
    du, dstate, grads = core.backward(dy, cache, dlast)

    def whole(p, u, state):
        def step(state, inputs):
            x, first = inputs
            state = jnp.stack(cell(p, x, *jnp.where(first[:, None], 0, state)))
            return state, state[0]

        last, h = jax.lax.scan(step, state, (u, reset))
        return h @ p["out"]["kernel"] + p["out"]["bias"], last

    @jax.jit
    def values_and_gradients(cotangents, *inputs):
        outputs, pull = jax.vjp(whole, *inputs)
        return outputs, pull(cotangents)

    outputs, (expected_grads, *expected) = values_and_gradients((dy, dlast), params, u, state)
    for got, wanted in zip((y, last, du, dstate), (*outputs, *expected), strict=True):
        assert_close(got, wanted, T=T, c=64)
    grads = flatten_tree(grads)
    for name, wanted in flatten_tree(expected_grads).items():
        assert_close(grads.pop(name), wanted, T=T, c=128, name=name)
    assert not grads
