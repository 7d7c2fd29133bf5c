"""The kernels of layers.py, s5.py and discretize.py in minis5_cuda against the loops of the same names in minis5, which have the
same arguments. Here in Numba's simulator, with blocks so small that every edge of theirs is met; in tests/gpu on a GPU.

A case makes the arguments; outputs among them are full of NaN. All arguments are compared after the call: those that the loop
leaves alone have to be the same to the last bit. The simulator needs a process of its own (simulator.py): arguments go there and
back in npz files.
"""

import importlib

import numpy as np
from minis5_cuda import ptx
from simulator import simulated

DTYPES = (np.float32, np.float64)
# around blocks of 2 x 2, at most 2 of them one below the other, 16 in flat arrays
SHAPES = [(1, 1), (4, 2), (13, 5)]


def blank(dtype, *shape):
    return np.full(shape, np.nan, dtype)


def bias_act(rng, dtype, N, H, slope):
    y, bias = rng.standard_normal((N, H)).astype(dtype), rng.standard_normal(H).astype(dtype)
    y[0, 0] = -bias[0]  # a sum of 0
    return [y, bias, dtype(slope)]


def bias_act_backward(rng, dtype, N, H, slope):
    y, _, slope = bias_act(rng, dtype, N, H, slope)
    y[-1, -1] = 0
    return [
        rng.standard_normal((N, H)).astype(dtype),
        y,
        slope,
        blank(dtype, N, H),
        np.zeros(H, dtype),
    ]


def norm_forward(rng, dtype, N, H):
    """Rows around 1 with a deviation that is not small, or little would be left of the numbers' precision."""
    x = (
        1
        + rng.permuted(np.tile(np.linspace(-1, 1, H), (N, 1)), axis=1)
        + 0.1 * rng.standard_normal((N, H))
    )
    scale, bias = rng.standard_normal(H), rng.standard_normal(H)
    outputs = blank(dtype, N, H), blank(dtype, N, H), blank(dtype, N)
    return [x.astype(dtype), scale.astype(dtype), bias.astype(dtype), dtype(1e-6), *outputs]


def norm_backward(rng, dtype, N, H):
    dy, scale, normal = (
        rng.standard_normal((N, H)),
        rng.standard_normal(H),
        rng.standard_normal((N, H)),
    )
    inputs = [z.astype(dtype) for z in (dy, scale, normal, rng.uniform(0.5, 2, N))]
    return [*inputs, blank(dtype, N, H), np.zeros(H, dtype), np.zeros(H, dtype)]


def gelu_forward(rng, dtype, N, H):
    return [3 * rng.standard_normal(N * H).astype(dtype), blank(dtype, N * H)]


def gelu_backward(rng, dtype, N, H):
    return [
        *(scale * rng.standard_normal(N * H).astype(dtype) for scale in (1, 3)),
        blank(dtype, N * H),
    ]


def glu_forward(rng, dtype, N, H):
    return [
        4 * rng.standard_normal((N, 2 * H)).astype(dtype),
        rng.standard_normal(2 * H).astype(dtype),
        blank(dtype, N, H),
    ]


def glu_backward(rng, dtype, N, H):
    dy, z = (
        rng.standard_normal((N, H)).astype(dtype),
        4 * rng.standard_normal((N, 2 * H)).astype(dtype),
    )
    return [dy, z, blank(dtype, N, 2 * H), np.zeros(2 * H, dtype)]


def sigmoid_gate_forward(rng, dtype, N, H):
    return [
        *(4 * rng.standard_normal(s).astype(dtype) for s in ((N, H), (N, H), H)),
        blank(dtype, N, H),
    ]


def sigmoid_gate_backward(rng, dtype, N, H):
    inputs = [4 * rng.standard_normal((N, H)).astype(dtype) for _ in range(3)]
    return [*inputs, blank(dtype, N, H), blank(dtype, N, H), np.zeros(H, dtype)]


def add_skip(rng, dtype, N, H):
    return [rng.standard_normal(s).astype(dtype) for s in ((N, H), H, (N, H))]


def skip_backward(rng, dtype, N, H):
    return [
        *(rng.standard_normal(s).astype(dtype) for s in ((N, H), H, (N, H), (N, H))),
        np.zeros(H, dtype),
    ]


def discretize(rng, dtype, N, H, tustin, clip=np.inf, compute=None):
    """`compute` is the dtype of the arithmetic, the parameters' unless given. Some |z| are small enough for the series of ZOH."""
    compute = compute or dtype
    re, im, log_step = (
        -rng.uniform(0, 1, H),
        3 * rng.standard_normal(H),
        rng.uniform(-7, -1, (H, 1)),
    )
    dt = rng.uniform(0.5, 2, N) * np.where(rng.random(N) < 0.5, 1, 1e-5)
    parameters = [z.astype(dtype) for z in (re, im, log_step)]
    scalars = [compute(s) for s in (1, clip, 0.7, np.finfo(compute).eps ** 0.5)]
    return [
        *parameters,
        dt.astype(compute),
        *scalars,
        np.bool_(tustin),
        blank(compute, N, 2 * H),
        blank(compute, N, 2 * H),
    ]


def discretize_backward(rng, dtype, N, H, tustin, clip=np.inf, compute=None):
    *inputs, a, w = discretize(rng, dtype, N, H, tustin, clip, compute)
    gradients = [rng.standard_normal((N, 2 * H)).astype(a.dtype) for _ in range(2)]
    return [*inputs, *gradients, np.zeros((3, H))]


def weights(rng, dtype, P, H):
    inputs = [rng.standard_normal(s).astype(dtype) for s in (2 * P, (P, H, 2), (H, P, 2))]
    return [*inputs, dtype(2), blank(dtype, 2 * P, H), blank(dtype, H, 2 * P)]


def weights_backward(rng, dtype, P, H):
    inputs = [
        rng.standard_normal(s).astype(dtype) for s in ((2 * P, H), (H, 2 * P), 2 * P, (P, H, 2))
    ]
    return [*inputs, dtype(2), blank(dtype, P, H, 2), blank(dtype, H, P, 2), np.zeros(2 * P, dtype)]


def gain(rng, dtype, N, P):
    return [
        *(rng.standard_normal((N, 2 * P)).astype(dtype) for _ in range(2)),
        blank(dtype, N, 2 * P),
    ]


def gain_backward(rng, dtype, N, P):
    return [
        *(rng.standard_normal((N, 2 * P)).astype(dtype) for _ in range(3)),
        *(blank(dtype, N, 2 * P) for _ in range(2)),
    ]


# name: (module, loop, arguments, further arguments of these)
CASES = {
    f.__name__: ("layers", f.__name__, f, {})
    for f in (norm_forward, norm_backward, gelu_forward, gelu_backward)
}
CASES |= {f.__name__: ("layers", f.__name__, f, {}) for f in (glu_forward, glu_backward)}
CASES |= {
    f.__name__: ("layers", f.__name__, f, {}) for f in (sigmoid_gate_forward, sigmoid_gate_backward)
}
CASES |= {
    f"{f.__name__} {k}": ("layers", f.__name__, f, {"slope": k})
    for f in (bias_act, bias_act_backward)
    for k in (0, 0.01)
}
CASES |= {f.__name__: ("s5", f.__name__, f, {}) for f in (add_skip, skip_backward)}
CASES |= {
    f.__name__: ("discretize", f.__name__, f, {})
    for f in (weights, weights_backward, gain, gain_backward)
}
for kind, options in {
    "zoh": {"tustin": False},
    "bilinear": {"tustin": True},
    "clipped": {"tustin": False, "clip": -0.5},
    "in double": {"tustin": False, "compute": np.float64},
}.items():
    CASES |= {
        f"{f.__name__} {kind}": ("discretize", f.__name__, f, options)
        for f in (discretize, discretize_backward)
    }


def arguments(cases, dtypes, shapes, seed=0):
    """{(case, dtype's name, N, H): arguments}"""
    made = {}
    for name, (_, _, make, options) in cases.items():
        for dtype in dtypes:
            for N, H in shapes:
                made[name, np.dtype(dtype).name, N, H] = make(
                    np.random.default_rng([seed, N, H]), dtype, N, H, **options
                )
    return made


def expected(cases, key, args):
    """The arguments after the call of the CPU's loop."""
    module, loop, *_ = cases[key[0]]
    args = [np.copy(a) if isinstance(a, np.ndarray) else a for a in args]
    getattr(importlib.import_module(f"minis5.{module}"), f"_{loop}")(*args)
    return args


def on_device(cases, key, args):
    """The same after the kernels, as CuPy's arrays; in the simulator, as those of its stand-in."""
    import cupy

    module, loop, *_ = cases[key[0]]
    args = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    getattr(importlib.import_module(f"minis5_cuda.{module}"), loop)(*args)
    return [a.get() if hasattr(a, "get") else a for a in args]


def assert_agrees(key, before, expected, got, c=16):
    """Within c·eps·√N·max|expected|, as sums over N rows go in another order; equal where it is an integer or was not written."""
    eps = np.finfo(key[1]).eps
    for i, (was, wanted, is_) in enumerate(zip(before, expected, got, strict=True)):
        wanted, is_ = np.asarray(wanted), np.asarray(is_)
        assert is_.dtype == wanted.dtype and is_.shape == wanted.shape, (key, i)
        if wanted.dtype.kind != "f" or not np.isfinite(wanted).all() or np.array_equal(was, wanted):
            assert np.array_equal(is_, wanted, equal_nan=wanted.dtype.kind == "f"), (key, i)
        else:
            bound = c * eps * np.sqrt(key[2]) * max(1, np.abs(wanted).max())
            assert np.abs(is_ - wanted).max() <= bound, (key, i, np.abs(is_ - wanted).max(), bound)


def shrink():
    """Blocks so small that every edge of theirs is met."""
    from minis5_cuda import reduce

    reduce.COLUMNS, reduce.ROWS, reduce.STRIPES = 2, 2, 2


def simulate(module, inputs, outputs):
    """Run the cases of a test module in the simulator: from and to npz files."""
    shrink()
    cases, given, results = importlib.import_module(module).CASES, np.load(inputs), {}
    for name in dict.fromkeys(entry.rpartition("|")[0] for entry in given):
        args = [
            given[f"{name}|{i}"]
            for i in range(sum(entry.startswith(f"{name}|") for entry in given))
        ]
        args = on_device(cases, name.split("|"), [a if a.ndim else a[()] for a in args])
        results |= {f"{name}|{i}": a for i, a in enumerate(args)}
    np.savez(outputs, **results)


def in_simulator(module, made, folder):
    """{key: arguments after the call in the simulator}"""
    named = {"|".join(map(str, key)): args for key, args in made.items()}
    np.savez(
        folder / "in.npz",
        **{f"{name}|{i}": a for name, args in named.items() for i, a in enumerate(args)},
    )
    simulated(
        __file__, f"simulate({module!r}, {str(folder / 'in.npz')!r}, {str(folder / 'out.npz')!r})"
    )
    out = np.load(folder / "out.npz")
    return {
        key: [out["|".join(map(str, (*key, i)))] for i in range(len(args))]
        for key, args in made.items()
    }


def mixed(modules):
    """Kernels of these modules that take float64 beside float32."""
    return {code.name for code in ptx.record(modules) if code.floats == ["float32", "float64"]}


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    made = arguments(CASES, DTYPES, SHAPES)
    results = in_simulator(__name__, made, tmp_path)
    for key, args in made.items():
        assert_agrees(key, args, expected(CASES, key, args), results[key])


def extremes():
    """Gates at the ends of the numbers."""
    import cupy
    from minis5_cuda.nn import layers

    for dtype in DTYPES:
        gate = np.array([-np.inf, -1e4, -100, 0, 100, 1e4, np.inf, np.nan], dtype)
        z, y, dz = (
            cupy.asarray(np.stack([np.ones_like(gate), gate], axis=1)),
            cupy.zeros((8, 1), dtype),
            cupy.zeros((8, 2), dtype),
        )
        layers.glu_forward(z, cupy.zeros(2, dtype), y)
        expected = np.array([0, 0, np.exp(-100), 0.5, 1, 1, 1, np.nan])
        np.testing.assert_allclose(y.get()[:, 0], expected, rtol=1e-5, atol=np.finfo(dtype).tiny)
        layers.glu_backward(cupy.asarray(np.ones((8, 1), dtype)), z, dz, cupy.zeros(2, dtype))
        np.testing.assert_array_equal(dz.get()[:, 0], y.get()[:, 0])
        assert np.all(dz.get()[[0, 1, 5, 6], 1] == 0) and np.isnan(dz.get()[7, 1])


def test_gates_at_the_ends_of_the_numbers():
    simulated(__file__, "extremes()")


def test_float64_beside_float32_is_for_the_discretisation_only():
    """One step for all is computed in float64, and so are sums for the parameters behind steps in time. (test_cuda_ptx.py: the
    other kernels for float32 hold no instruction for float64.)"""
    kernels = "discretize_kernel", "discretize_backward_kernel", "weights_backward_kernel"
    assert mixed(["layers", "s5", "discretize"]) == {f"discretize.{name}" for name in kernels}
