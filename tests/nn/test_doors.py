"""What an S5 layer and the memory cores refuse: every array against every other, in one sentence.

Each wrong argument made compiled loops read or write memory that is not theirs, or was named by
NumPy in its own words. What is not usual but right (strides, byte order, memory maps) is taken.
"""

import re

import numpy as np
import pytest

from minis5.nn import s5
from minis5.nn.attention import AttentionConfig
from minis5.nn.cores import CORES, NoConfig
from minis5.nn.gru import GRUConfig, GRUCore
from minis5.nn.layers import dense_forward, gate_forward, layer_norm_forward
from minis5.nn.lstm import LSTMConfig, LSTMCore
from minis5.nn.mlp import MLPConfig
from minis5.nn.parameters import flatten_tree, unflatten_tree
from minis5.nn.s5_core import S5Config

SENTENCE = r"expected .*, got .*; "  # what, what came, what to do
RNG = np.random.default_rng(0)
T, B, H, N = 4, 2, 6, 32  # N states before conjugate symmetry, P = 16


def layer(dtype=np.float32):
    return s5.init_ssm(np.random.default_rng(0), H, N, dtype=dtype)


def inputs(dtype=np.float32):
    return np.ones((T, B, H), dtype)


LAYERS = {  # name of the array: ways to get it wrong
    "C": [
        lambda w: {"C": np.ascontiguousarray(w["C"].swapaxes(0, 1))},
        lambda w: {"C": w["C"][:-1].copy()},
        lambda w: {"C": w["C"][:, :-3].copy()},
        lambda w: {"C": w["C"][..., 0] + 1j * w["C"][..., 1]},
        lambda w: {"C": w["C"][..., :1]},
        lambda w: {"C": w["C"].astype(np.float64)},
        lambda w: {"C": w["C"].tolist()},
        lambda w: {"C": None},
    ],
    "B": [
        lambda w: {"B": np.ascontiguousarray(w["B"].swapaxes(0, 1))},
        lambda w: {"B": w["B"][:0]},
        lambda w: {"B": w["B"][:, :2]},
        lambda w: {"B": w["B"].astype(int)},
    ],
    "Lambda_re": [
        lambda w: {"Lambda_re": w["Lambda_re"][:3]},
        lambda w: {"Lambda_re": np.repeat(w["Lambda_re"], 4000)},
        lambda w: {"Lambda_re": w["Lambda_re"][:, None]},
        lambda w: {"Lambda_re": np.ma.masked_array(w["Lambda_re"], w["Lambda_re"] > 0)},
    ],
    "Lambda_im": [lambda w: {"Lambda_im": w["Lambda_im"][:1].copy()}],
    "log_step": [
        lambda w: {"log_step": w["log_step"][:1].copy()},
        lambda w: {"log_step": w["log_step"][:, 0].copy()},
        lambda w: {"log_step": np.repeat(w["log_step"], 2, axis=1)},
    ],
    "D": [
        lambda w: {"D": w["D"][:2].copy()},
        lambda w: {"D": w["D"][:1].copy()},
        lambda w: {"D": np.float32(1)},
        lambda w: {"D": "ones"},
    ],
}


@pytest.mark.parametrize(
    "name, change", [(name, change) for name, changes in LAYERS.items() for change in changes]
)
def test_the_array_of_a_layer_that_does_not_fit_is_named(name, change):
    wrong = layer()
    wrong |= change(wrong)
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: {SENTENCE}"):
        s5.ssm_forward(wrong, inputs(), None, None)


def test_several_arrays_that_do_not_fit():
    """The spectrum of another size than B and C, as in the script heap_corruption_layer."""
    wrong = layer()
    for name in ("Lambda_re", "Lambda_im", "log_step"):
        wrong[name] = np.repeat(wrong[name], 4000, axis=0)
    with pytest.raises(ValueError, match=rf"^[BC]: {SENTENCE}"):
        s5.ssm_forward(wrong, inputs(), None, None)
    wrong = layer()
    wrong["B"], wrong["C"] = wrong["C"], wrong["B"]
    with pytest.raises(ValueError, match=rf"^[BC]: {SENTENCE}"):
        s5.ssm_forward(wrong, inputs(), None, None)


def test_the_majority_decides_which_arrays_do_not_fit():
    """Two arrays say 15 states, three say 16: the two are wrong."""
    wrong = layer()
    for name in ("Lambda_re", "Lambda_im"):
        wrong[name] = wrong[name][:-1].copy()
    with pytest.raises(ValueError, match=r"^Lambda_re: expected float32 .16., got float32 .15,."):
        s5.ssm_forward(wrong, inputs(), None, None)
    wrong = layer()  # of features: C and the input against B and D
    wrong["B"], wrong["D"] = wrong["B"][:, :-1].copy(), wrong["D"][:-1].copy()
    with pytest.raises(ValueError, match=rf"^[CBDu]: {SENTENCE}"):
        s5.ssm_forward(wrong, inputs(), None, None)


@pytest.mark.parametrize("change", ["pop", "add", "none", "list"])
def test_a_layer_has_six_arrays(change):
    wrong = layer()
    five = {name: value for name, value in wrong.items() if name != "D"}
    wrong = {"pop": five, "add": wrong | {"E": wrong["D"]}, "none": None, "list": [1]}[change]
    with pytest.raises(ValueError, match=rf"^layer: {SENTENCE}"):
        s5.ssm_forward(wrong, inputs(), None, None)


@pytest.mark.parametrize(
    "name, value",
    [
        ("u", None),
        ("u", "text"),
        ("u", np.ones((T, B, H, 1), np.float32)),
        ("u", np.ones((T, 0, H), np.float32)),
        ("reset", np.zeros((T, B + 1), bool)),
        ("reset", [[False] * B] * T),
        ("x0", np.zeros((B, N - 2), np.float32)),
        ("x0", np.zeros((B, N // 2 + 1), complex)),
        ("x0", np.zeros((0, N), np.float32)),
        ("x0", np.zeros((B, N), int)),
        ("x0", "text"),
        ("dt", np.ones((T, B + 1), np.float32)),
        ("dt", np.ones((T, B))),
        ("conj_sym", None),
        ("conj_sym", np.ones(3)),
        ("clip_eigs", "yes"),
        ("step_rescale", 0),
        ("step_rescale", np.nan),
        ("step_rescale", "1"),
        ("discretization", ["zoh"]),
        ("discretization", None),
    ],
)
def test_other_arguments_of_a_layer(name, value):
    arguments = {"u": inputs(), "reset": None, "x0": None} | {name: value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: {SENTENCE}"):
        s5.ssm_forward(layer(), **arguments)


@pytest.mark.parametrize("x0", [None, np.zeros((B, N), np.float32)], ids=["complex", "planar"])
def test_arguments_of_the_layers_backward(x0):
    y, last, cache = s5.ssm_forward(layer(), inputs(), None, x0)
    for name, dy, dx_last, kept in [
        ("dy", y[:-1], None, cache),
        ("dy", y.astype(np.float64), None, cache),
        ("dy", None, None, cache),
        ("dx_last", y, last[:1], cache),
        ("dx_last", y, np.zeros((B, N + 1), np.float32), cache),
        ("dx_last", y, last.astype(np.float16 if x0 is not None else np.complex128), cache),
        ("dx_last", y, 0, cache),
        ("cache", y, None, None),
        ("cache", y, None, tuple(cache)),
    ]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: {SENTENCE}"):
            s5.ssm_backward(dy, dx_last, kept)


def unusual(x):
    """Yield the same array as others have it: other strides, byte order, read-only, memory map."""
    yield np.asfortranarray(x)
    yield np.flip(np.flip(x, 0).copy(), 0)
    yield np.repeat(x, 2, axis=-1)[..., ::2]
    yield x.astype(x.dtype.newbyteorder("S"))
    yield x.view(np.memmap)
    fixed = x.copy()
    fixed.flags.writeable = False
    yield fixed


def test_unusual_arrays_are_taken():
    w, u = layer(), RNG.standard_normal((T, B, H)).astype(np.float32)
    reset, x0 = RNG.random((T, B)) < 0.3, RNG.standard_normal((B, N)).astype(np.float32)
    dt = RNG.uniform(0.5, 1, (T, B)).astype(np.float32)
    y, _, cache = s5.ssm_forward(w, u, reset, x0, dt=dt)
    _, _, grads = s5.ssm_backward(y, x0, cache)
    for value in zip(*map(unusual, (u, reset, x0, dt, *w.values())), strict=True):
        u2, reset2, x02, dt2, *rest = value
        other = dict(zip(w, rest, strict=True))
        y2, _, cache2 = s5.ssm_forward(other, u2, reset2, x02, dt=dt2)
        np.testing.assert_array_equal(y2, y)
        _, _, grads2 = s5.ssm_backward(next(unusual(y)), x02, cache2)
        for name in grads:
            np.testing.assert_array_equal(grads2[name], grads[name])


@pytest.mark.parametrize(
    "name, value",
    [
        ("rng", None),
        ("rng", 0),
        ("H", 0),
        ("H", 2.0),
        ("H", 2**40),
        ("ssm_size", -2),
        ("ssm_size", None),
        ("ssm_size", "8"),
        ("blocks", 0),
        ("blocks", 1.5),
        ("dt_min", np.nan),
        ("dt_min", None),
        ("dt_max", np.inf),
        ("dt_max", [1]),
        ("conj_sym", "no"),
        ("dtype", np.int32),
        ("dtype", "float8"),
        ("dtype", None),
        ("dtype", np.zeros(0)),
        ("dtype", np.zeros(2)),
    ],
)
def test_arguments_of_init_ssm(name, value):
    arguments = {"rng": RNG, "H": 4, "ssm_size": 8} | {name: value}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: {SENTENCE}"):
        s5.init_ssm(**arguments)


CONFIGS = {
    "s5": S5Config(n_layers=2, ssm_size=4, prenorm=True, gtrxl_norm=True, postnorm=True),
    "gru": GRUConfig(hidden=3),
    "lstm": LSTMConfig(),
    "mlp": MLPConfig((4,)),
    "attention": AttentionConfig(n_heads=2, window=5, mlp_width=4),
    "none": NoConfig(),
}
cores = pytest.mark.parametrize("name", CORES)


def arguments(name, dtype=np.float32):
    """Return a core and the arguments of its forward."""
    core = CORES[name][1](CONFIGS[name], H)
    flat = flatten_tree(core.init(np.random.default_rng(1)))
    params = unflatten_tree({key: value.astype(dtype) for key, value in flat.items()})
    state = core.initial_state(B, dtype)
    return core, {"params": params, "u": inputs(dtype), "reset": np.zeros((T, B), bool)} | {
        "state": state
    }


@cores
def test_shapes_are_those_of_init(name):
    core, right = arguments(name)
    expected = {key: value.shape for key, value in flatten_tree(right["params"]).items()}
    assert flatten_tree(core.shapes()) == expected


WRONG = {
    "u": [
        lambda u: u[0],
        lambda u: u[:0],
        lambda u: u[..., :-1],
        lambda u: u.astype(np.float16),
        lambda u: u.tolist(),
        lambda u: None,
    ],
    "reset": [
        lambda r: r.T,
        lambda r: r[:-1],
        lambda r: r.astype(np.float32),
        lambda r: r[:, :1],
        lambda r: None,
    ],
    "state": [
        lambda s: np.zeros((s.shape[0], B + 1, s.shape[2]), s.dtype),
        lambda s: np.zeros((s.shape[0] + 1, B, s.shape[2]), s.dtype),
        lambda s: np.zeros((s.shape[0], B, s.shape[2] + 1), s.dtype),
        lambda s: s.astype(complex),
        lambda s: s[None],
        lambda s: None,
    ],
}


@cores
@pytest.mark.parametrize("argument", WRONG)
def test_arguments_of_forward_and_of_a_step(name, argument):
    core, right = arguments(name)
    step = core.stepper(right["params"])
    for change in WRONG[argument]:
        wrong = right | {argument: change(right[argument])}
        with pytest.raises((TypeError, ValueError), match=rf"^{argument}: {SENTENCE}"):
            core.forward(**wrong)
        u, reset = (x if x is None or len(x) == 0 else x[0] for x in (wrong["u"], wrong["reset"]))
        if np.shape(reset) == (B,) and argument == "reset" and reset.dtype == bool:
            continue  # the step that is left out is not the first
        with pytest.raises((TypeError, ValueError), match=rf"^{argument}: {SENTENCE}"):
            step(u, reset, wrong["state"])
        step(right["u"][0], right["reset"][0], right["state"])


@cores
def test_each_parameter_has_its_shape_and_dtype(name):
    core, right = arguments(name)
    flat = flatten_tree(right["params"])
    for key, value in flat.items():
        path = "".join(rf"\['{part}'\]" for part in key.split("/"))
        for wrong in (value[:-1], value[..., None], value.astype(np.float64), None):
            params = unflatten_tree(flat | {key: wrong})
            with pytest.raises((TypeError, ValueError), match=f"^params{path}: {SENTENCE}"):
                core.forward(**right | {"params": params})
            with pytest.raises((TypeError, ValueError), match="^params"):
                core.stepper(params)
        with pytest.raises(ValueError, match=rf"^params.*: {SENTENCE}"):
            core.forward(**right | {"params": unflatten_tree({**flat, f"{key}s": value})})
    for wrong in (None, [], {"x": np.ones(3)}):
        with pytest.raises(ValueError, match=f"^params: {SENTENCE}"):
            core.forward(**right | {"params": wrong})
        with pytest.raises(ValueError, match=f"^params: {SENTENCE}"):
            core.stepper(wrong)


@cores
def test_arguments_of_backward(name):
    core, right = arguments(name)
    y, last, cache = core.forward(**right)
    other, _ = arguments("gru" if name != "gru" else "lstm")
    for argument, wrong in [
        ("dy", (y[:-1], cache)),
        ("dy", (y.astype(np.float64), cache)),
        ("dy", (None, cache)),
        ("dlast", (y, cache, last[:, :1])),
        ("dlast", (y, cache, 1.0)),
        ("cache", (y, None)),
        ("cache", (y, cache.kept)),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{argument}: {SENTENCE}"):
            core.backward(*wrong)
    with pytest.raises(ValueError, match=f"^cache: {SENTENCE}"):
        other.backward(y, cache)


@cores
def test_arguments_of_a_core(name):
    config, core = CORES[name]
    for wrong, argument in [((None, 4), "config"), ((CONFIGS[name], 0), "d_model")]:
        with pytest.raises((TypeError, ValueError), match=f"^{argument}: {SENTENCE}"):
            core(*wrong)
    made, _ = arguments(name)
    for batch, dtype, argument in [(-1, np.float32, "batch"), (2, int, "dtype")]:
        with pytest.raises(ValueError, match=f"^{argument}: {SENTENCE}"):
            made.initial_state(batch, dtype)
    with pytest.raises(TypeError, match=f"^config: {SENTENCE}"):
        core(PAIR[config is PAIR[0]](), 4)


PAIR = (GRUConfig, MLPConfig)  # a configuration that is another core's


def test_the_time_between_inputs_of_a_core():
    core, right = arguments("s5")
    for dt in (np.ones((T, B + 1), np.float32), np.ones((T, B)), [1.0]):
        with pytest.raises((TypeError, ValueError), match=f"^dt: {SENTENCE}"):
            core.forward(**right, dt=dt)


def test_messages_are_sentences():
    with pytest.raises(ValueError) as caught:
        s5.ssm_forward(layer() | {"log_step": layer()["log_step"][:, 0]}, inputs(), None, None)
    assert re.fullmatch(
        r"log_step: expected float32 \(16, 1\), got float32 \(16,\); "
        r"log_step\[:, None\] has that shape",
        str(caught.value),
    )


def test_layers_whose_parameters_do_not_fit():
    x, square = np.ones((2, 3), np.float32), np.ones((3, 3), np.float32)
    three, two = np.ones(3, np.float32), np.ones(2, np.float32)
    dense = {"kernel": square, "bias": three}
    for name, call in [
        ("bias", lambda: dense_forward({"kernel": square, "bias": two}, x)),
        ("bias", lambda: dense_forward({"kernel": square, "bias": square}, x)),
        ("activation", lambda: dense_forward(dense, x, "tanh")),
        ("scale, bias", lambda: layer_norm_forward({"scale": two, "bias": three}, x)),
        ("scale, bias", lambda: layer_norm_forward({"scale": three, "bias": two}, x)),
        ("scale, bias", lambda: layer_norm_forward({"scale": two, "bias": two}, x)),
        ("gate", lambda: gate_forward({"out2": {"kernel": square, "bias": two}}, x, "half_glu1")),
        ("gate", lambda: gate_forward({"out2": dense | {"kernel": x.T}}, x, "half_glu2")),
        (
            "gate",
            lambda: gate_forward(
                {"out1": dense, "out2": {"kernel": x.T, "bias": two}}, x, "full_glu"
            ),
        ),
    ]:
        with pytest.raises(ValueError, match=f"^{name}: {SENTENCE}"):
            call()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: S5Config(n_layers=2**31), "n_layers: expected an integer in"),
        (lambda: AttentionConfig(n_layers=2**31), "n_layers: expected an integer in"),
        (lambda: S5Config(ssm_size=-1), "ssm_size: expected at least 1"),
        (lambda: GRUCore(GRUConfig(2**62), 6), "batch: expected a state that fits into memory"),
        (lambda: LSTMCore(LSTMConfig(2**40), 6).initial_state(2**31), "batch: expected a state"),
    ],
)
def test_sizes_that_no_machine_has(make, name):
    """They are named at once: no memory is taken, and no list of layers is made."""
    with pytest.raises(ValueError, match=name):
        make()
