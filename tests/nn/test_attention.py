"""Self-attention: the specification by hand, windows, carried states, gradients.

And that no step sees what it must not see.
"""

from dataclasses import replace

import core_on_device
import gymnasium as gym
import numpy as np
import pytest
from sampling import sampled
from simulator import simulated

from minis5 import ActorCritic, AgentConfig, load
from minis5 import reference as ref
from minis5.nn.attention import AttentionConfig, AttentionCore, sinusoids
from minis5.nn.cores import CORES
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.rl.agent_file import save_agent
from minis5.verify.gradients import assert_close, check_gradients, random_like

SMALL = AttentionConfig(n_layers=2, n_heads=2, window=4, mlp_width=5)
CONFIGS = [  # windows of one step, shorter than the sequence, and longer than all
    SMALL,
    replace(SMALL, window=1, n_layers=1),
    replace(SMALL, window=2, n_heads=4, final_norm=False),
    replace(SMALL, window=32, n_heads=1, n_layers=3),
]


def name_of(config):
    layers, heads = f"layers{config.n_layers}", f"heads{config.n_heads}"
    return f"{layers}-{heads}-window{config.window}-norm{config.final_norm}"


def problem(config, seed=0, T=9, B=3, H=4, dtype=np.float64, steps=(0, 2, 40), p_reset=0.2):
    """Return a core, parameters moved away from their initial values, and inputs.

    The environments have taken ``steps`` steps before.
    """
    rng = np.random.default_rng(seed)
    core = AttentionCore(config, H)
    initial = flatten_tree(core.init(rng))
    params = {
        name: (z + 0.3 * rng.standard_normal(z.shape)).astype(dtype) for name, z in initial.items()
    }
    u = rng.standard_normal((T, B, H)).astype(dtype)
    reset = rng.random((T, B)) < p_reset
    state, M = core.initial_state(B, dtype), config.window - 1
    for b, step in enumerate(steps):
        state[-1, b, 0] = step
        for i in range(config.n_layers):
            state[(i + 1) * M - min(step, M) : (i + 1) * M, b] = rng.standard_normal(
                (min(step, M), H)
            )
    return core, unflatten_tree(params), u, reset, state, rng


def test_reference_by_hand():
    """One head, all weights simple: scores 0 and log 3 make weights 1/4 and 3/4."""
    assert_close(ref.sinusoid(3, 3), [np.sin(3), np.cos(3), np.sin(3 / 10000 ** (2 / 3))])
    kernel = np.zeros((2, 6))
    kernel[0, 0] = kernel[1, 2] = 1.0  # q = (first, 0), k = (second, 0)
    kernel[:, 4:] = np.eye(2)  # v = n
    p = {"qkv": {"kernel": kernel}, "out": {"kernel": np.eye(2), "bias": np.array([0.0, 10.0])}}
    seen = [np.array([8.0, 0.0]), np.array([np.sqrt(2.0), np.log(3.0)])]
    assert_close(ref.self_attention(p, seen, 1), [2 + 0.75 * np.sqrt(2.0), 10 + 0.75 * np.log(3.0)])


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_equals_reference(config):
    core, params, u, reset, state, _ = problem(config)
    expected, last = ref.attention(params, u, reset, state, config)
    y, after, _ = core.forward(params, u, reset, state)
    assert_close(y, expected, T=9, c=64)
    assert_close(after, last, T=9, c=64)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
@pytest.mark.parametrize("p_reset", [0.0, 0.2])
def test_backward(config, p_reset):
    """Every parameter, the input and the state; cotangents on the output and the last state."""
    core, params, u, reset, state, _ = problem(config, 1, p_reset=p_reset)

    def run(z):
        params = unflatten_tree(
            {name: value for name, value in z.items() if name not in ("u", "state")}
        )
        return core.forward(params, z["u"], reset, z["state"])

    def backward(z, cotangents):
        du, dstate, grads = core.backward(cotangents[0], run(z)[2], cotangents[1])
        return {"u": du, "state": dstate} | flatten_tree(grads)

    check_gradients(
        lambda z: run(z)[:2], backward, {"u": u, "state": state} | flatten_tree(params), entries=2
    )


def test_backward_of_short_sequences():
    """With fewer steps than the window, stored rows are stored again and pass gradients on."""
    core, params, u, reset, state, rng = problem(replace(SMALL, window=8), 2, T=2, steps=(3, 5, 40))
    reset[:] = False

    def run(z):
        return core.forward(params, z["u"], reset, z["state"])

    def backward(z, cotangents):
        return dict(
            zip(
                ("u", "state"), core.backward(cotangents[0], run(z)[2], cotangents[1]), strict=False
            )
        )

    check_gradients(lambda z: run(z)[:2], backward, {"u": u, "state": state}, entries=5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_step_by_step_is_forward(config, dtype):
    core, params, u, reset, state, _ = problem(config, 3, dtype=dtype)
    kept = state.copy()
    y, last, _ = core.forward(params, u, reset, state)
    step = core.stepper(params)
    outputs, after = [], state
    for t in range(len(u)):
        out, after = step(u[t], reset[t], after)
        outputs.append(out)
    assert y.dtype == last.dtype == outputs[0].dtype == after.dtype == dtype
    assert_close(np.stack(outputs), y, T=9, c=64)
    assert_close(after, last, T=9, c=64)
    np.testing.assert_array_equal(state, kept)


@pytest.mark.parametrize("cut", [1, 4, 8])
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_two_parts_are_the_whole(config, cut):
    """Gradients too, through the state between the parts.

    So the state holds all that a later step may see.
    """
    core, params, u, reset, state, rng = problem(config, 4)
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    dlast = random_like(rng, last)
    y1, middle, cache1 = core.forward(params, u[:cut], reset[:cut], state)
    y2, last2, cache2 = core.forward(params, u[cut:], reset[cut:], middle)
    assert_close(np.concatenate([y1, y2]), y, T=9, c=64)
    assert_close(last2, last, T=9, c=64)
    du, dstate, grads = core.backward(dy, cache, dlast)
    du2, dmiddle, grads2 = core.backward(dy[cut:], cache2, dlast)
    du1, dstate1, grads1 = core.backward(dy[:cut], cache1, dmiddle)
    assert_close(np.concatenate([du1, du2]), du, T=9, c=128)
    assert_close(dstate1, dstate, T=9, c=128)
    grads1, grads2 = flatten_tree(grads1), flatten_tree(grads2)
    for name, expected in flatten_tree(grads).items():
        assert_close(grads1[name] + grads2[name], expected, T=9, c=256, name=name)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_packed_episodes_are_separate_ones(config):
    core, params, u, reset, state, rng = problem(config, 5)
    reset[:] = False
    reset[[0, 2, 7]] = True
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    du, dstate, grads = core.backward(dy, cache)
    total = {}
    for part in (slice(0, 2), slice(2, 7), slice(7, 9)):
        alone, end, cache = core.forward(
            params, u[part], np.zeros_like(reset[part]), core.initial_state(3, np.float64)
        )
        assert_close(alone, y[part], T=9, c=64)
        du1, _, grads1 = core.backward(dy[part], cache)
        assert_close(du1, du[part], T=9, c=128)
        total = {name: total.get(name, 0) + z for name, z in flatten_tree(grads1).items()}
    assert_close(end, last, T=9, c=64)
    assert not dstate.any()
    for name, expected in flatten_tree(grads).items():
        assert_close(total[name], expected, T=9, c=256, name=name)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_nothing_passes_a_reset(config):
    """Not even NaN passes a reset, forward or backward.

    After a reset, nothing depends on inputs and states before it.
    """
    core, params, u, reset, state, rng = problem(config, 6)
    reset[:] = False
    reset[3, 1] = True
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    dlast = random_like(rng, last)
    du, dstate, _ = core.backward(dy, cache, dlast)
    u2, state2, dy2, dlast2 = u.copy(), state.copy(), dy.copy(), dlast.copy()
    u2[:3, 1] = state2[:, 1] = dy2[3:, 1] = dlast2[:, 1] = np.nan
    y2, last2, _ = core.forward(params, u2, reset, state2)
    du2, dstate2, _ = core.backward(dy2, cache, dlast2)
    assert np.isnan(y2[:3, 1]).all() and np.isnan(du2[3:, 1]).all()
    assert_close(y2[3:], y[3:], T=9)
    assert_close(last2, last, T=9)
    assert_close(du2[:3], du[:3], T=9)
    assert_close(dstate2, dstate, T=9)
    step, after = core.stepper(params), state2
    for t in range(len(u)):
        out, after = step(u2[t], reset[t], after)
        if t >= 3:
            assert_close(out, y[t], T=9, c=64)
    assert_close(after, last, T=9, c=64)


def test_nothing_passes_the_window():
    """With one block and a window of 4, NaN at step 2 reaches the outputs 2 to 5 alone.

    Its gradient comes from there alone. No step sees ahead.
    """
    core, params, u, reset, state, rng = problem(replace(SMALL, n_layers=1), 7)
    reset[:] = False
    dy = rng.standard_normal(u.shape)
    y, last, cache = core.forward(params, u, reset, state)
    u2 = u.copy()
    u2[2, 1] = np.nan
    y2, last2, _ = core.forward(params, u2, reset, state)
    np.testing.assert_array_equal(
        np.isnan(y2[:, 1]).any(axis=-1), [t in (2, 3, 4, 5) for t in range(9)]
    )
    np.testing.assert_array_equal(
        np.isnan(y2[:, 1]).all(axis=-1), [t in (2, 3, 4, 5) for t in range(9)]
    )
    np.testing.assert_array_equal(y2[6:], y[6:])
    np.testing.assert_array_equal(last2, last)
    dy2 = dy.copy()
    dy2[6, 1] = np.nan
    du, du2 = core.backward(dy, cache)[0], core.backward(dy2, cache)[0]
    np.testing.assert_array_equal(
        np.isnan(du2[:, 1]).all(axis=-1), [t in (3, 4, 5, 6) for t in range(9)]
    )
    np.testing.assert_array_equal(du2[:3], du[:3])
    np.testing.assert_array_equal(du2[7:], du[7:])
    step, after = core.stepper(params), state
    for t in range(9):
        out, after = step(u2[t], reset[t], after)
        assert np.isnan(out[1]).all() == (t in (2, 3, 4, 5)) and not np.isnan(out[[0, 2]]).any()


def test_weights_get_nothing_from_what_is_not_seen():
    """NaN in stored rows that no step sees leaves the gradients of the weights as they are."""
    core, params, u, reset, state, rng = problem(SMALL, 8)
    reset[0] = True
    dy, state2 = rng.standard_normal(u.shape), np.full_like(state, np.nan)
    expected = core.backward(dy, core.forward(params, u, reset, state)[2])
    got = core.backward(dy, core.forward(params, u, reset, state2)[2])
    for name, z in flatten_tree(expected[2]).items():
        np.testing.assert_array_equal(flatten_tree(got[2])[name], z)
    np.testing.assert_array_equal(got[1], expected[1])


def test_environments_are_independent():
    core, params, u, reset, state, _ = problem(SMALL, 9)
    y, last, _ = core.forward(params, u, reset, state)
    rows = [2, 0]
    y2, last2, _ = core.forward(params, u[:, rows], reset[:, rows], state[:, rows])
    assert_close(y2, y[:, rows], T=9, c=16)
    assert_close(last2, last[:, rows], T=9, c=16)


def test_caches_do_not_share_memory():
    """A second forward leaves the first one's gradients alone; neither changes its inputs."""
    core, params, u, reset, state, rng = problem(SMALL, 10)
    dy = rng.standard_normal(u.shape)
    inputs = [u, reset, state, dy, *flatten_tree(params).values()]
    copies = [z.copy() for z in inputs]
    y, last, cache = core.forward(params, u, reset, state)
    dlast = random_like(rng, last)
    first, kept = core.backward(dy, cache, dlast), (y.copy(), last.copy(), dlast.copy())
    core.forward(params, 2 * u, ~reset, state)
    second = core.backward(dy, cache, dlast)
    for one, two in zip((y, last, dlast, *first[:2]), (*kept, *second[:2]), strict=True):
        np.testing.assert_array_equal(one, two)
    for name, z in flatten_tree(first[2]).items():
        np.testing.assert_array_equal(z, flatten_tree(second[2])[name])
    for z, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(z, copy)


def test_float32_is_near_float64():
    """Values and gradients, also far into an episode.

    There float32 would be too coarse for the angles.
    """
    results = []
    for dtype in (np.float64, np.float32):
        core, params, u, reset, state, rng = problem(
            replace(SMALL, window=6), 11, dtype=dtype, steps=(0, 2, 1_000_000)
        )
        y, last, cache = core.forward(params, u, reset, state)
        results.append(
            (y, last, *core.backward(rng.standard_normal(y.shape).astype(dtype), cache)[:2])
        )
    for wide, narrow in zip(*results, strict=True):
        assert narrow.dtype == np.float32
        assert_close(narrow, wide, T=9, c=128)
    far = np.float32([16_000_001])
    assert_close(sinusoids(far, 6)[0], ref.sinusoid(16_000_001, 6), c=2)


def test_names_shapes_and_state():
    core = AttentionCore(AttentionConfig(n_layers=2, n_heads=3, window=5, mlp_width=7), 6)
    shapes = {
        "qkv/kernel": (6, 18),
        "out/kernel": (6, 6),
        "out/bias": (6,),
        "up/kernel": (6, 7),
        "up/bias": (7,),
    }
    shapes |= {"down/kernel": (7, 6), "down/bias": (6,)}
    shapes |= {f"{norm}/{part}": (6,) for norm in ("norm1", "norm2") for part in ("scale", "bias")}
    expected = {f"layers/{i}/{name}": shape for i in (0, 1) for name, shape in shapes.items()}
    expected |= {"norm/scale": (6,), "norm/bias": (6,)}
    assert {
        name: z.shape for name, z in flatten_tree(core.init(np.random.default_rng(0))).items()
    } == expected
    assert core.initial_state(5).shape == (2 * 4 + 1, 5, 6) and not core.initial_state(5).any()
    assert AttentionCore(replace(SMALL, window=1), 6).initial_state(5).shape == (1, 5, 6)


@pytest.mark.parametrize("name", ["n_layers", "n_heads", "window", "mlp_width"])
def test_bad_configurations_are_named(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected at least 1, got 0"):
        AttentionConfig(**{name: 0})


def agent(**more):
    config = AgentConfig(encoder=(8,), heads=(8,), core="attention", core_config=SMALL)
    return ActorCritic(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3), config, **more)


def test_agent():
    """An agent with this core acts, and comes back from its file."""
    assert CORES["attention"] == (AttentionConfig, AttentionCore)
    one, memory, rng = agent(seed=3), None, np.random.default_rng(0)
    for t in range(6):
        action, memory = one.act(rng.uniform(-1, 1, (4, 2)), memory, np.full(4, t % 4 == 0))
        assert action.shape == (4,)
    assert (memory.core[-1, :, 0] == 2).all()


def test_agent_file(tmp_path):
    one = agent(seed=3)
    save_agent(one, tmp_path / "agent.npz")
    other = load(tmp_path / "agent.npz")
    assert other.config == one.config
    np.testing.assert_array_equal(other.parameter_vector, one.parameter_vector)


def test_what_an_agent_cannot_be(monkeypatch):
    with monkeypatch.context() as changed:  # as a core that somebody adds without kernels
        changed.setattr(AttentionCore, "devices", ("cpu",))
        message = "^device: .*'attention' runs on 'cpu' only, got 'cuda'"
        with pytest.raises(ValueError, match=message):
            agent(device="cuda")
    with pytest.raises(
        ValueError, match="^n_heads: expected a divisor of the core's width 8, got 3"
    ):
        config = AgentConfig(encoder=(8,), core="attention", core_config=replace(SMALL, n_heads=3))
        ActorCritic(gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3), config)


def on_the_device(number, dtype):
    """A row of threads takes four keys at a time in the simulator, so that it has several turns."""
    core_on_device.compare(*problem(CONFIGS[number], 10, dtype=dtype, steps=(0, 2, 5)))


def unseen_on_the_device():
    """NaN in stored rows, and in gradients of steps that do not see a row, stay where they are."""
    for number in (0, 3):
        core, params, u, reset, state, rng = problem(CONFIGS[number], 11)
        reset[0], state[:-1] = True, np.nan
        results = core_on_device.compare(core, params, u, reset, state, rng)
        assert all(np.isfinite(z).all() for z in results.values())


@pytest.mark.parametrize("number", sampled(range(len(CONFIGS))))
def test_simulated_gpu(number):
    dtype = "float32" if number % 2 else "float64"
    simulated(__file__, f"on_the_device({number}, {dtype!r})")


@pytest.mark.slow
def test_simulated_gpu_with_nan():
    simulated(__file__, "unseen_on_the_device()")
