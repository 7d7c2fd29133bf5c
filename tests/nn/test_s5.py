"""The S5 layer: initial values, against the specification, gradients, laws, errors, kernels."""

import itertools

import numpy as np
import pytest
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.nn.discretize import DISCRETIZATIONS
from minis5.nn.hippo import hippo_eigen
from minis5.nn.s5 import init_ssm, ssm_backward, ssm_forward
from minis5.nn.scan import planar
from minis5.verify.gradients import assert_close, check_gradients, random_like

OPTIONS = [
    dict(zip(("discretization", "conj_sym", "clip_eigs", "step_rescale"), values, strict=True))
    for values in itertools.product(DISCRETIZATIONS, (True, False), (False, True), (1.0, 1.7))
]


def problem(seed, T=9, B=3, H=4, P=3, dtype=np.float64):
    """Return a layer and its inputs: layer, u, reset, x0, dt, rng.

    It has eigenvalues of every kind; one grows.
    """
    rng = np.random.default_rng(seed)
    layer = {
        "Lambda_re": np.concatenate([-rng.random(P - 1), [0.05]]),
        "Lambda_im": 3 * rng.standard_normal(P),
        "B": rng.standard_normal((P, H, 2)),
        "C": rng.standard_normal((H, P, 2)),
        "D": rng.standard_normal(H),
        "log_step": rng.uniform(np.log(0.01), np.log(0.5), (P, 1)),
    }
    reset = rng.random((T, B)) < 0.25
    x0 = random_like(rng, np.zeros((B, P), complex)).astype(np.result_type(dtype, np.complex64))
    u, dt = (
        rng.standard_normal((T, B, H)).astype(dtype),
        rng.uniform(0.3, 3.0, (T, B)).astype(dtype),
    )
    return {name: z.astype(dtype) for name, z in layer.items()}, u, reset, x0, dt, rng


def wide(z):
    return z.astype(np.result_type(z.dtype, np.float64)) if z is not None else None


@pytest.mark.parametrize("conj_sym", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_initial_values(blocks, conj_sym):
    rng = np.random.default_rng(0)
    H, size = 50, 64
    layer = init_ssm(
        rng, H, size, blocks=blocks, conj_sym=conj_sym, dt_min=0.01, dt_max=0.2, dtype=np.float64
    )
    P = size // 2 if conj_sym else size
    shapes = {
        "Lambda_re": (P,),
        "Lambda_im": (P,),
        "B": (P, H, 2),
        "C": (H, P, 2),
        "D": (H,),
        "log_step": (P, 1),
    }
    assert {name: z.shape for name, z in layer.items()} == shapes
    lam, V = hippo_eigen(size, blocks, conj_sym)
    np.testing.assert_allclose(layer["Lambda_re"], -0.5, rtol=1e-14)
    np.testing.assert_array_equal(layer["Lambda_im"], lam.imag)
    assert np.log(0.01) <= layer["log_step"].min() < layer["log_step"].max() <= np.log(0.2)
    B, C = (layer[name] @ np.array([1, 1j]) for name in "BC")
    np.testing.assert_allclose(np.sqrt(np.mean(np.abs(B) ** 2)), 1 / np.sqrt(size), rtol=0.1)
    np.testing.assert_allclose(np.sqrt(np.mean(np.abs(C) ** 2)), np.sqrt(2 / (H * size)), rtol=0.1)
    np.testing.assert_allclose(layer["D"].std(), 1.0, rtol=0.3)
    if not conj_sym:
        np.testing.assert_allclose((V @ B).imag, 0, atol=1e-13)  # B̃ = V⁻¹B of a real B


def test_initial_values_follow_the_generator():
    one, two = (init_ssm(np.random.default_rng(3), 6, 8) for _ in range(2))
    for name in one:
        assert one[name].dtype == np.float32
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_equals_reference(options, dtype):
    T = 33
    layer, u, reset, x0, dt, _ = problem(1, T, dtype=dtype)
    for start, step in ((x0, None), (None, None), (x0, dt)):
        expected, last = ref.ssm(
            {name: wide(z) for name, z in layer.items()},
            wide(u),
            reset,
            wide(start),
            dt=wide(step),
            **options,
        )
        y, x_last, _ = ssm_forward(layer, u, reset, start, dt=step, **options)
        assert y.dtype == dtype and x_last.dtype == x0.dtype
        assert_close(y, expected, T=T, name="y")
        assert_close(x_last, last, T=T, name="x_last")


@pytest.mark.parametrize("with_dt", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def test_backward(options, with_dt):
    """Every parameter, the input, the initial state; cotangents on y and on the last state."""
    layer, u, reset, x0, dt, _ = problem(2)
    dt = dt if with_dt else None

    def run(z):
        layer = {name: z[name] for name in z if name not in ("u", "x0")}
        return ssm_forward(layer, z["u"], reset, z["x0"], dt=dt, **options)

    def backward(z, cotangents):
        du, dx0, grads = ssm_backward(*cotangents, run(z)[2])
        return {"u": du, "x0": dx0} | grads

    check_gradients(lambda z: run(z)[:2], backward, {"u": u, "x0": x0} | layer)


@pytest.mark.parametrize("with_dt", [False, True])
def test_backward_in_32_bits(with_dt):
    T = 65
    layer, u, reset, x0, dt, rng = problem(3, T)
    layer = layer | {"Lambda_re": -np.abs(layer["Lambda_re"])}
    dy, dx_last = rng.standard_normal(u.shape), random_like(rng, x0)
    grads = []
    for dtype in (np.float64, np.float32):
        narrow = {name: z.astype(dtype) for name, z in layer.items()}
        _, last, cache = ssm_forward(
            narrow, u.astype(dtype), reset, x0, dt=dt.astype(dtype) if with_dt else None
        )
        du, dx0, g = ssm_backward(dy.astype(dtype), dx_last.astype(last.dtype), cache)
        grads.append({"u": du, "x0": dx0} | g)
    for name, expected in grads[0].items():
        assert grads[1][name].dtype in (np.float32, np.complex64)
        assert_close(grads[1][name], expected, T=T, c=32, name=name)


@pytest.mark.parametrize("discretization", DISCRETIZATIONS)
def test_step_that_is_the_same_everywhere(discretization):
    """dt = c everywhere is step_rescale = c, in values and gradients."""
    layer, u, reset, x0, _, rng = problem(4)
    dy = rng.standard_normal(u.shape)
    y, last, cache = ssm_forward(
        layer, u, reset, x0, discretization=discretization, step_rescale=1.5
    )
    dt = np.full(u.shape[:2], 1.5)
    y_dt, last_dt, cache_dt = ssm_forward(layer, u, reset, x0, discretization=discretization, dt=dt)
    assert_close(y_dt, y, T=9)
    assert_close(last_dt, last, T=9)
    one, two = ssm_backward(dy, None, cache), ssm_backward(dy, None, cache_dt)
    for name in layer:
        assert_close(two[2][name], one[2][name], T=9, c=32, name=name)
    assert_close(two[0], one[0], T=9, c=32)
    assert_close(two[1], one[1], T=9, c=32)


def test_irregular_steps_sample_one_continuous_system():
    """With a held input, steps 1, 2, 0.5 end where 7 steps of 0.5 end: ZOH is exact."""
    layer, u, _, x0, _, _ = problem(5, 1)
    held = np.repeat(u, 7, axis=0)
    steps = np.repeat(np.array([[1.0], [2.0], [0.5]]), 3, axis=1)
    _, irregular, _ = ssm_forward(layer, held[:3], None, x0, dt=steps)
    _, regular, _ = ssm_forward(layer, held, None, x0, step_rescale=0.5)
    assert_close(irregular, regular, T=7)


def test_planar_and_complex_states():
    layer, u, reset, x0, _, rng = problem(6)
    y, last, cache = ssm_forward(layer, u, reset, x0)
    y2, last2, cache2 = ssm_forward(layer, u, reset, planar(x0))
    np.testing.assert_array_equal(y, y2)
    np.testing.assert_array_equal(planar(last), last2)
    dy, dlast = rng.standard_normal(u.shape), random_like(rng, last)
    (du, dx0, grads), (du2, dx02, grads2) = (
        ssm_backward(dy, dlast, cache),
        ssm_backward(dy, planar(dlast), cache2),
    )
    np.testing.assert_array_equal(du, du2)
    np.testing.assert_array_equal(planar(dx0), dx02)
    for name in grads:
        np.testing.assert_array_equal(grads[name], grads2[name])
    y, last, cache = ssm_forward(layer, u, reset, None)
    np.testing.assert_array_equal(y, ssm_forward(layer, u, reset, np.zeros_like(x0))[0])
    assert np.iscomplexobj(last) and np.iscomplexobj(ssm_backward(dy, None, cache)[1])
    never = np.zeros_like(reset)
    np.testing.assert_array_equal(
        ssm_forward(layer, u, None, x0)[0], ssm_forward(layer, u, never, x0)[0]
    )


@pytest.mark.parametrize("with_dt", [False, True])
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_two_parts_are_the_whole(cut, with_dt):
    layer, u, reset, x0, dt, rng = problem(7)
    dt = dt if with_dt else None
    first, second = (None, None) if dt is None else (dt[:cut], dt[cut:])
    dy, dlast = rng.standard_normal(u.shape), random_like(rng, x0)
    y, last, cache = ssm_forward(layer, u, reset, x0, dt=dt)
    y1, middle, cache1 = ssm_forward(layer, u[:cut], reset[:cut], x0, dt=first)
    y2, last2, cache2 = ssm_forward(layer, u[cut:], reset[cut:], middle, dt=second)
    assert_close(np.concatenate([y1, y2]), y, T=9)
    assert_close(last2, last, T=9)
    du, dx0, grads = ssm_backward(dy, dlast, cache)
    du2, dmiddle, grads2 = ssm_backward(dy[cut:], dlast, cache2)
    du1, dx01, grads1 = ssm_backward(dy[:cut], dmiddle, cache1)
    assert_close(np.concatenate([du1, du2]), du, T=9)
    assert_close(dx01, dx0, T=9)
    for name in grads:
        assert_close(grads1[name] + grads2[name], grads[name], T=9, c=32, name=name)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_does_not_pass_a_reset(poison):
    layer, u, reset, x0, dt, rng = problem(8)
    reset[:] = False
    reset[5, 0] = True
    dy = rng.standard_normal(u.shape)
    for step in (None, dt):
        y, _, cache = ssm_forward(layer, u, reset, x0, dt=step)
        du, dx0, _ = ssm_backward(dy, None, cache)
        bad_u, bad_x0, bad_dy = u.copy(), x0.copy(), dy.copy()
        bad_u[2, 0] = bad_x0[0] = bad_dy[7, 0] = poison
        with np.errstate(invalid="ignore"):
            y2, _, _ = ssm_forward(layer, bad_u, reset, bad_x0, dt=step)
            du2, dx02, _ = ssm_backward(bad_dy, None, cache)
        assert not np.isfinite(y2[:5, 0]).any() and not np.isfinite(du2[5:8, 0]).any()
        assert_close(y2[5:], y[5:], T=9)
        assert_close(du2[:5], du[:5], T=9)
        assert_close(dx02, dx0, T=9)


def test_inputs_are_not_changed():
    layer, u, reset, x0, dt, rng = problem(9)
    dy, dlast = rng.standard_normal(u.shape), random_like(rng, x0)
    everything = [*layer.values(), u, reset, x0, dt, dy, dlast]
    copies = [z.copy() for z in everything]
    y, last, cache = ssm_forward(layer, u, reset, x0, dt=dt)
    first = ssm_backward(dy, dlast, cache)
    second = ssm_backward(dy, dlast, cache)
    for z, copy in zip(everything, copies, strict=True):
        np.testing.assert_array_equal(z, copy)
    for name in layer:
        np.testing.assert_array_equal(first[2][name], second[2][name])


@pytest.mark.parametrize(
    "name, change",
    [
        ("u", lambda a: a | {"u": a["u"][0]}),
        ("u", lambda a: a | {"u": a["u"][..., :2]}),
        ("u", lambda a: a | {"u": a["u"].astype(np.float32)}),
        ("u", lambda a: a | {"u": a["u"].tolist()}),
        ("u", lambda a: a | {"u": a["u"][:0], "reset": a["reset"][:0], "dt": None}),
        ("reset", lambda a: a | {"reset": a["reset"].T}),
        ("reset", lambda a: a | {"reset": a["reset"].astype(float)}),
        ("x0", lambda a: a | {"x0": a["x0"][:, :2]}),
        ("x0", lambda a: a | {"x0": a["x0"].real}),
        ("dt", lambda a: a | {"dt": a["dt"].T}),
        ("dt", lambda a: a | {"dt": 0 * a["dt"]}),
        ("dt", lambda a: a | {"dt": np.nan * a["dt"]}),
        ("discretization", lambda a: a | {"discretization": "euler"}),
    ],
)
def test_bad_arguments_are_named(name, change):
    layer, u, reset, x0, dt, _ = problem(10)
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*got "):
        ssm_forward(layer, **change({"u": u, "reset": reset, "x0": x0, "dt": dt}))


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"ssm_size": 7}, "ssm_size"),
        ({"dt_min": 0.0}, "dt_min"),
        ({"dt_min": 1.0, "dt_max": 0.1}, "dt_min"),
    ],
)
def test_bad_initial_values(kwargs, match):
    with pytest.raises(ValueError, match=match):
        init_ssm(np.random.default_rng(0), 4, **{"ssm_size": 8} | kwargs)


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    check_in_simulator("s5", tmp_path)


def test_kernels_for_float32_compute_in_float32():
    assert not mixed("s5")


# Steps at the ends of the numbers


def integrator(dtype=np.float64):
    """Return a layer with λ = 0 and Δ = 0.1."""
    one, zero = np.array([[[1.0, 0]]], dtype), np.zeros(1, dtype)
    step = np.log(np.array([[0.1]], dtype))
    return dict(Lambda_re=zero, Lambda_im=zero, B=one, C=one, D=zero, log_step=step)


@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_an_integrator(discretization):
    """λ = 0: w = Δ, in the library and in the specification."""
    layer, u, options = integrator(), np.ones((3, 1, 1)), {"discretization": discretization}
    for y in (
        ssm_forward(layer, u, None, None, **options)[0],
        ref.ssm(layer, u, None, None, **options)[0],
    ):
        np.testing.assert_allclose(y.ravel(), [0.2, 0.4, 0.6], rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("discretization", ["zoh", "bilinear"])
def test_infinite_steps(discretization, dtype):
    """The state is forgotten, or changes its sign; values and gradients are finite."""
    layer, u, reset, x0, dt, rng = problem(7, dtype=dtype)
    options = {"discretization": discretization, "clip_eigs": True}
    dt[2, 1], dt[5], dt[6, 0] = np.inf, np.finfo(dtype).max, 1e30
    with np.errstate(over="ignore", invalid="ignore"):
        expected = ref.ssm(
            {name: wide(z) for name, z in layer.items()},
            wide(u),
            reset,
            wide(x0),
            dt=np.where(wide(dt) > 1e20, np.inf, wide(dt)),
            **options,
        )
    y, x_last, cache = ssm_forward(layer, u, reset, x0, dt=dt, **options)
    assert_close(y, expected[0], T=9, dtype=dtype)
    assert_close(x_last, expected[1], T=9, dtype=dtype)
    du, dx0, grads = ssm_backward(np.ones_like(y), None, cache)
    assert all(np.isfinite(z).all() for z in (du, dx0, *grads.values()))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, -np.inf])
def test_steps_that_are_none(bad):
    layer, u, reset, x0, dt, _ = problem(7)
    dt[3, 1] = bad
    with pytest.raises(ValueError, match=rf"^dt: expected positive steps, got .*{bad}; give the"):
        ssm_forward(layer, u, reset, x0, dt=dt)


def test_infinite_steps_without_a_limit():
    layer, u, reset, x0, dt, _ = problem(7)
    layer["Lambda_re"][1], dt[3, 1] = 0.0, np.inf
    with pytest.raises(ValueError, match=r"^dt: .*Lambda_re\[1\] = 0.0 .*inf at \(3, 1\); give"):
        ssm_forward(layer, u, reset, x0, dt=dt)
    ssm_forward(layer, u, reset, x0, dt=dt, clip_eigs=True)
