"""Weights cross over and come back bit for bit, and compute there what they compute here.

"There" is written below from the authors' formulas alone, in plain NumPy, with their names. With
s5-pytorch installed, its own module computes too.
"""

import re

import numpy as np
import pytest
from gymnasium import spaces

import minis5
from minis5.nn.parameters import unflatten_tree
from minis5.rl.agent_file import save_agent
from minis5.rl.array_file import read_arrays, write_arrays
from minis5.rl.weight_names import layer_to_torch
from minis5.rl.weights_in import import_into, import_weights
from minis5.rl.weights_out import export_weights

BOX, FOUR = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)
T, B = 9, 2


def make_agent(action_space=FOUR, seed=3, norms=(), dtype="float64", observations=BOX, **core):
    core = minis5.S5Config(2, 4, **{norm: True for norm in norms}, **core)
    options = {"encoder": (6, 5), "heads": (7,), "core_config": core, "dtype": dtype}
    config = minis5.AgentConfig(**options, scale_actions=False)
    agent = minis5.ActorCritic(observations, action_space, config, seed=seed)
    noise = 0.1 * np.random.default_rng(seed).standard_normal(agent.parameter_vector.size)
    agent.parameter_vector[:] += noise.astype(dtype)  # no bias is 0 and no scale is 1
    for name, value in agent.parameters().items():  # the authors' layer has one norm
        if re.search("/(norm|gtrxl_norm|postnorm)/", name):
            first = norms[0].replace("prenorm", "norm")
            value[:] = agent.parameters()[re.sub(r"\w*norm/", f"{first}/", name)]
    return agent


def inputs(agent, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((T, B, agent.input_size)).astype(agent.dtype)
    return x, rng.random((T, B)) < 0.3


# What the authors' code computes, with its names


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normal(p, x):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-6) * p["scale"] + p["bias"]


def seq(p, u, reset, conj_sym=True, bilinear=False):
    lam = p["Lambda_re"] + 1j * p["Lambda_im"]
    B_tilde, C = (p[name][..., 0] + 1j * p[name][..., 1] for name in "BC")
    step = np.exp(p["log_step"][:, 0])
    if bilinear:
        a = (1 + step / 2 * lam) / (1 - step / 2 * lam)
        w = step / (1 - step / 2 * lam)
    else:
        a = np.exp(lam * step)
        w = (a - 1) / lam
    x, y = np.zeros((u.shape[1], lam.size), complex), np.empty(u.shape)
    for t in range(len(u)):
        x = np.where(reset[t][:, None], 0, a * x) + u[t] @ (w[:, None] * B_tilde).T
        y[t] = (2 if conj_sym else 1) * (x @ C.T).real + p["D"] * u[t]
    return y


def authors_agent(tree, x, reset, norms, gate, **options):
    for i in range(2):
        x = leaky(dense(tree[f"encoder_{i}"], x))
    for i in range(2):
        p = tree["s5"][f"layers_{i}"]
        s = normal(p["norm"], x) if "prenorm" in norms else x
        s = seq(p["seq"], s, reset, **options)
        s = normal(p["norm"], s) if "gtrxl_norm" in norms else s
        h = gelu(s)
        if gate == "full_glu":
            h = dense(p["out1"], h) * sigmoid(dense(p["out2"], h))
        elif gate in ("half_glu1", "half_glu2"):
            h = (h if gate == "half_glu1" else s) * sigmoid(dense(p["out2"], h))
        x = x + h
        x = normal(p["norm"], x) if "postnorm" in norms else x
    actor, critic = (leaky(dense(tree[f"{name}_body_0"], x)) for name in ("action", "value"))
    return dense(tree["action_decoder"], actor), dense(tree["value_decoder"], critic)[..., 0]


CASES = [
    ((), {}),
    (("prenorm", "gtrxl_norm"), {}),
    (("gtrxl_norm", "postnorm"), {"gate": "half_glu1"}),
    (("postnorm",), {"gate": "half_glu2", "discretization": "bilinear"}),
    (("prenorm",), {"gate": "gelu", "conj_sym": False}),
]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize(("norms", "core"), CASES)
def test_the_authors_tree_computes_the_same(tmp_path, norms, core, suffix):
    agent, path = make_agent(norms=norms, **core), tmp_path / f"x{suffix}"
    export_weights(agent, path, "flax")
    tree = unflatten_tree(read_arrays(path))["params"]
    x, reset = inputs(agent)
    logits, value, _, _ = agent.forward(x, reset, agent.initial_state(B))
    options = {"conj_sym": core.get("conj_sym", True), "bilinear": "discretization" in core}
    gate = core.get("gate", "full_glu")
    expected = authors_agent(tree, x, reset, norms, gate, **options)
    np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(value, expected[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("to", ["flax", "s5-pytorch"])
@pytest.mark.parametrize(("norms", "core"), CASES)
def test_round_trip_gives_the_same_bytes(tmp_path, norms, core, to, suffix, dtype):
    if to != "flax":
        core = {**core, "discretization": "zoh"}
    agent, path = make_agent(norms=norms, dtype=dtype, **core), tmp_path / f"x{suffix}"
    held = export_weights(agent, path, to)
    first = path.read_bytes()
    settings = {**core, "conj_sym": core.get("conj_sym", True)}
    settings |= {norm: True for norm in norms} if to == "flax" else {}
    assert all(held[name] == value for name, value in settings.items())
    back = import_weights(path, BOX, FOUR, **settings)
    assert back.config == agent.config and list(back.parameters()) == list(agent.parameters())
    assert back.parameter_vector.tobytes() == agent.parameter_vector.tobytes()
    other = make_agent(norms=norms, dtype=dtype, seed=4, **core)
    import_into(other, path)
    assert other.parameter_vector.tobytes() == agent.parameter_vector.tobytes()
    for each, name in ((agent, "a"), (back, "b"), (other, "c")):
        save_agent(each, tmp_path / f"{name}.npz")
    files = {(tmp_path / f"{name}.npz").read_bytes() for name in "abc"}
    assert len(files) == 1
    export_weights(back, path, to)
    assert path.read_bytes() == first


def test_a_gaussian_policy_and_a_tree_of_other_make(tmp_path):
    """Its names joined by dots, in the training state's two "params", in half precision."""
    action = spaces.Box(-2, 2, (2,), np.float32)
    agent, path = make_agent(action, dtype="float32"), tmp_path / "x.safetensors"
    agent.parameter_vector[:] = agent.parameter_vector.astype(np.float16)
    export_weights(agent, path, "flax")
    arrays = {
        f"params.{name.replace('/', '.')}": array.astype(np.float16)
        for name, array in read_arrays(path).items()
    }
    assert "params.params.log_std" in arrays
    write_arrays(path, arrays)
    back = import_weights(path, BOX, action)
    assert back.config == agent.config
    assert np.array_equal(back.parameter_vector, agent.parameter_vector)


@pytest.mark.parametrize("conj_sym", [True, False])
def test_one_layer_goes_to_s5_pytorch_and_back(tmp_path, conj_sym):
    agent, path = make_agent(conj_sym=conj_sym), tmp_path / "x.npz"
    export_weights(agent, path, "s5-pytorch", layer=1)
    arrays = read_arrays(path)
    assert {name: array.shape for name, array in arrays.items()} == {
        "seq.Lambda": (4,),
        "seq.B": (4, 5, 2),
        "seq.C": (5, 4),
        "seq.D": (5,),
        "seq.log_step": (4,),
    }
    lam, C = arrays["seq.Lambda"], arrays["seq.C"]
    p = {
        "Lambda_re": lam.real,
        "Lambda_im": lam.imag,
        "B": arrays["seq.B"],
        "C": np.stack([C.real, C.imag], -1),
        "D": arrays["seq.D"],
        "log_step": arrays["seq.log_step"][:, None],
    }
    u = np.random.default_rng(0).standard_normal((T, B, 5))
    ours = agent._nested["core"]["layers"]["1"]["ssm"]
    y, _, _ = minis5.s5.ssm_forward(ours, u, None, None, conj_sym=conj_sym)
    theirs = seq(p, u, np.zeros((T, B), bool), conj_sym=False)
    np.testing.assert_allclose(y, theirs, rtol=0, atol=1e-12)

    write_arrays(path, {f"model.s5.{name}": array for name, array in arrays.items()})
    before, wanted = make_agent(conj_sym=conj_sym, seed=4), agent.parameters()
    other = make_agent(conj_sym=conj_sym, seed=4)
    import_into(other, path, prefix="model.s5.", layer=1)
    for name, array in other.parameters().items():
        there = wanted if name.startswith("core/layers/1/ssm/") else before.parameters()
        assert np.array_equal(array, there[name]), name


def test_s5_pytorch_itself_computes_the_same(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch (pip install torch)")
    s5 = pytest.importorskip("s5", reason="needs s5-pytorch (pip install s5-pytorch)")
    agent, path = make_agent(dtype="float32"), tmp_path / "x.npz"
    export_weights(agent, path, "s5-pytorch", layer=0)
    module = s5.S5(5, 4)
    module.load_state_dict({name: torch.tensor(a) for name, a in read_arrays(path).items()})
    u = np.random.default_rng(0).standard_normal((T, B, 5)).astype(np.float32)
    y, _, _ = minis5.s5.ssm_forward(agent._nested["core"]["layers"]["0"]["ssm"], u, None, None)
    theirs = module(torch.tensor(u.swapaxes(0, 1))).detach().numpy().swapaxes(0, 1)
    np.testing.assert_allclose(y, theirs, rtol=0, atol=1e-5)


# What does not fit


def changed(path, to, change, agent=None, **core):
    agent = agent or make_agent(**core)
    export_weights(agent, path, to)
    arrays = read_arrays(path)
    change(arrays)
    write_arrays(path, arrays)


def drop(name):
    return lambda arrays: arrays.pop(name)


def put(name, value):
    return lambda arrays: arrays.update({name: value})


LAYER = "params/s5/layers_1/seq"


@pytest.mark.parametrize(
    ("to", "change", "core", "settings", "message"),
    [
        ("flax", drop(f"{LAYER}/B"), {}, {}, "s5/layers_1/seq/B: expected this array, got none"),
        ("flax", drop("params/value_decoder/bias"), {}, {}, "value_decoder/bias: expected this"),
        ("flax", put(f"{LAYER}/C1", np.zeros(2)), {}, {}, "C1.*belongs to a bidirectional layer"),
        ("flax", put("params/other", np.zeros(2)), {}, {}, "params/other: .*take it out"),
        ("flax", put("opt_state/mu", np.zeros(2)), {}, {}, "opt_state/mu.*'params/'"),
        ("flax", put(f"params/{LAYER}/B", np.zeros(2)), {}, {}, "once, got it twice"),
        ("flax", put(f"{LAYER}/B", np.zeros((2, 5))), {}, {}, r"seq/B: expected \(2, 5, 2\), got"),
        ("flax", put(f"{LAYER}/D", np.full(5, np.nan)), {}, {}, "finite values"),
        ("flax", put(f"{LAYER}/D", np.zeros(5, "f4")), {}, {}, "expected float64 .*got float32"),
        ("flax", put("params/encoder_0/kernel", np.zeros(6)), {}, {}, "kernel: expected .in, out."),
        (
            "flax",
            put("params/encoder_0/kernel", np.zeros((3, 6))),
            {},
            {},
            r"encoder_0/kernel: expected \(8, 6\), got \(3, 6\); its rows are 3 .* 4 .* and 1",
        ),
        ("flax", drop("params/encoder_0/kernel"), {}, {}, "encoder_0/kernel: expected this array"),
        ("flax", dict.clear, {}, {}, "expected names as .* got none"),
        ("flax", len, {"gate": "half_glu1"}, {}, "gate: expected 'half_glu1' or 'half_glu2'"),
        ("flax", len, {"gate": "gelu"}, {"gate": "full_glu"}, "layers_0/out1/.* expected this"),
        ("flax", len, {"norms": ("prenorm",)}, {}, "norms: expected one or two of prenorm"),
        ("flax", len, {}, {"prenorm": True}, "layers_0/norm/scale and 3 more: expected this array"),
        ("flax", len, {}, {"conj_sym": False}, None),
        ("flax", len, {}, {"lr": 1.0}, "settings: expected one of 'activation'"),
        ("s5-pytorch", drop("layers.1.seq.C"), {}, {}, "layers.1.seq.C: expected this array"),
        ("s5-pytorch", put("layers.0.seq.BH", np.zeros(2)), {}, {}, "BH.*a factorized layer"),
        ("s5-pytorch", put("layers.0.ff_enc.weight", np.zeros(2)), {}, {}, "S5Block"),
        ("s5-pytorch", put("layers.0.seq.C", np.zeros((5, 8))), {}, {}, "C: expected complex"),
        (
            "s5-pytorch",
            put("layers.0.seq.C", np.zeros((5, 8), complex)),
            {},
            {},
            r"layers.0.seq.C: expected \(5, 4, 2\), got \(5, 8, 2\)",
        ),
        (
            "s5-pytorch",
            put("layers.0.seq.C", np.zeros((5, 8), complex)),
            {},
            {"conj_sym": True},
            r"layers.0.seq.C: expected \(5, 4, 2\), got \(5, 8, 2\)",
        ),
        (
            "s5-pytorch",
            put("layers.1.seq.log_step", np.arange(4.0)),
            {},
            {"conj_sym": True},
            "conj_sym: expected layers.1.seq.Lambda, B, C, log_step in conjugate pairs",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, to, change, core, settings, message):
    path = tmp_path / "x.npz"
    changed(path, to, change, **core)
    if message is None:  # the shapes are the same: nothing can tell
        assert import_weights(path, BOX, FOUR, **settings).config.core_config.ssm_size == 2
        return
    with pytest.raises(ValueError, match=message) as error:
        import_weights(path, BOX, FOUR, **settings)
    assert "\n" not in str(error.value)


def test_an_agent_keeps_its_weights_if_those_of_a_file_do_not_fit(tmp_path):
    path, agent = tmp_path / "x.npz", make_agent(seed=4)
    before = agent.parameter_vector.copy()
    changed(path, "flax", put(f"{LAYER}/D", np.full(5, np.inf)))
    with pytest.raises(ValueError, match="finite"):
        import_into(agent, path)
    changed(path, "flax", put("params/log_std", np.zeros(4)))
    with pytest.raises(ValueError, match="log_std: expected the names"):
        import_into(agent, path)
    changed(path, "s5-pytorch", len)
    with pytest.raises(ValueError, match=r"encoder\.0\.\S+: expected the names"):
        import_into(agent, path, layer=0)
    write_arrays(path, {"seq.D": np.zeros(5), "seq.Lambda": np.zeros(4, complex)})
    with pytest.raises(ValueError, match="seq.B"):
        import_into(agent, path, layer=0)
    with pytest.raises(ValueError, match="layer: expected a whole agent, got one S5 module"):
        import_into(agent, path)
    with pytest.raises(ValueError, match=r"layer: .*\[0, 1\].*got 2"):
        import_into(agent, path, layer=2)
    assert np.array_equal(agent.parameter_vector, before)


def test_what_others_cannot_compute_is_not_exported(tmp_path):
    path = tmp_path / "x.npz"

    def refused(message, agent, to="flax", layer=None):
        with pytest.raises(ValueError, match=message):
            export_weights(agent, path, to, layer)
        assert not path.exists()

    def with_config(**options):
        config = minis5.AgentConfig(**{"core_config": minis5.S5Config(1, 4), **options})
        return minis5.ActorCritic(BOX, FOUR, config)

    gru = with_config(core="gru", core_config=minis5.GRUConfig(hidden=3))
    refused("core: expected 's5', got 'gru'", gru)
    refused("core: expected 's5', got 'gru'", gru, "s5-pytorch", 0)
    refused("normalize_observations: expected False", with_config(normalize_observations=True))
    refused("activation: expected 'leaky_relu', got 'relu'", with_config(activation="relu"))
    refused("prenorm, postnorm", make_agent(norms=("prenorm", "postnorm")))
    agent = make_agent(norms=("prenorm", "gtrxl_norm"))
    agent.parameters()["core/layers/1/gtrxl_norm/bias"][2] += 1e-9
    refused("core/layers/1/gtrxl_norm/bias: expected the numbers of the layer's other norm", agent)
    refused("discretization: expected 'zoh'", make_agent(discretization="bilinear"), "s5-pytorch")
    agent = make_agent(clip_eigs=True)
    export_weights(agent, path, "s5-pytorch")
    path.unlink()
    agent.parameters()["core/layers/0/ssm/Lambda_re"][0] = 0.5
    refused("clip_eigs: expected eigenvalues that need no clipping", agent, "s5-pytorch")
    refused("to: expected one of 'flax', 's5-pytorch', got 'jax'", agent, "jax")
    refused("to: expected one of 's5-pytorch', got 'flax'", agent, "flax", 0)


def test_both_states_of_a_pair_compute_what_one_does():
    layer = minis5.s5.init_ssm(np.random.default_rng(1), 3, 6, dtype=np.float64)
    both = layer_to_torch(layer, True)
    assert np.array_equal(both["Lambda"][3:], both["Lambda"][:3].conj())
    assert both["B"].shape == (6, 3, 2) and np.array_equal(both["B"][3:, :, 1], -layer["B"][..., 1])
