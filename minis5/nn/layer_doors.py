"""What may enter an S5 layer, a dense layer, a norm and a gate: arrays that fit each other.

The loops below do not look at sizes. The S5 layer's functions check all that they are given. Dense
layers, norms and gates are called so often that they compare a few shapes themselves; here is what
they say then.

Leaves out: values, but for the steps `dt`. NaN and infinite numbers are computed with.
Tests: tests/nn/test_doors.py.
"""

from collections import Counter

import numpy as np

from minis5.arrays import array_module, as_array
from minis5.checks import (
    COMPLEXES,
    FLOATS,
    check_array,
    check_choice,
    check_float_type,
    check_instance,
    check_integer,
    check_number,
    take_array,
)

NAMES = ("Lambda_re", "Lambda_im", "B", "C", "D", "log_step")  # of a layer's arrays


# The S5 layer


def layer_shapes(P, H):
    """Return the shapes of a layer's arrays for P states and H features."""
    shapes = (P,), (P,), (P, H, 2), (H, P, 2), (H,), (P, 1)
    return dict(zip(NAMES, shapes, strict=True))


def check_layer(layer, features):
    """Return a layer with arrays of NumPy or CuPy, their module, dtype, and its sizes P and H.

    P and H are what most of the arrays say, so that the one that differs is named. ``features`` is
    the input's H.

    Raises
    ------
    TypeError, ValueError
        An array is missing, or differs from the others in library, shape or dtype.
    """
    if not isinstance(layer, dict) or set(layer) != set(NAMES):
        got = ", ".join(map(str, layer)) if isinstance(layer, dict) else type(layer).__name__
        remedy = "init_ssm returns such a dict"
        raise ValueError(f"layer: expected a dict of {', '.join(NAMES)}, got {got}; {remedy}")
    layer = {name: as_array(value, name) for name, value in layer.items()}
    sizes = {name: getattr(value, "shape", ()) for name, value in layer.items()}
    P = _most(sizes, (("Lambda_re", 0), ("Lambda_im", 0), ("log_step", 0), ("B", 0), ("C", 1)))
    H = _most(sizes | {"u": (features,)}, (("D", 0), ("u", 0), ("B", 1), ("C", 0)))
    xp = array_module(layer["D"])
    dtypes = Counter(getattr(value, "dtype", np.dtype(object)).type for value in layer.values())
    dtype = next((d for d, _ in dtypes.most_common() if d in FLOATS), np.float32)
    remedies = {
        "C": "stack real and imaginary parts on the last axis",
        "B": "stack real and imaginary parts on the last axis",
        "log_step": "log_step[:, None] has that shape",
    }
    for name, shape in layer_shapes(P, H).items():
        remedy = remedies.get(name, "make all arrays of a layer for one P and H, in one dtype")
        check_array(name, layer[name], shape, (dtype,), remedy, xp)
    if 0 in (P, H):
        raise ValueError(f"layer: expected states and features, got P = {P}, H = {H}; add some")
    return layer, xp, dtype, P, H


def _most(sizes, axes):
    """Return the size that most arrays have on their axis; the first ones decide a tie."""
    found = [sizes[name][axis] for name, axis in axes if len(sizes[name]) > axis]
    return Counter(found).most_common(1)[0][0] if found else 1


def check_options(known, discretization, conj_sym, clip_eigs, step_rescale):
    """Raise unless the options of an S5 layer are what they should be."""
    check_choice("discretization", discretization, known)
    check_choice("conj_sym", conj_sym, (True, False))
    check_choice("clip_eigs", clip_eigs, (True, False))
    tiny, huge = np.finfo(np.float64).tiny, np.finfo(np.float64).max
    check_number("step_rescale", step_rescale, tiny, huge, "1 leaves the steps as they are")


def take_ssm(layer, u, reset, x0, dt, clip_eigs=False):
    """Return layer, u, reset, x0 and dt as ssm_forward takes them: arrays that fit each other.

    Raises
    ------
    TypeError, ValueError
        As ssm_forward.
    """
    u = as_array(u, "u")
    layer, xp, dtype, P, H = check_layer(layer, u.shape[-1] if getattr(u, "ndim", 0) else 0)
    remedy = "order the axes time, batch, features and cast to the layer's dtype"
    T, B, _ = check_array("u", u, ("T", "B", H), (dtype,), remedy, xp).shape
    if 0 in (T, B):
        wanted = "at least one step, one sequence and one feature"
        raise ValueError(f"u: expected {wanted}, got {u.shape}; leave out empty batches")
    if reset is None:
        reset = xp.zeros((T, B), bool)
    reset = take_array("reset", reset, (T, B), np.bool_, "transpose and cast", xp)
    x0 = xp.zeros((B, P), np.result_type(dtype, np.complex64)) if x0 is None else as_array(x0, "x0")
    kind = getattr(getattr(x0, "dtype", None), "kind", "f")  # a type's dtype has no kind
    width = P if kind == "c" else 2 * P
    check_array("x0", x0, (B, width), FLOATS + COMPLEXES, "(B, P) complex or (B, 2P) planar", xp)
    if dt is not None:
        dt = take_array("dt", dt, (T, B), dtype, "one step for each input", xp)
        if xp is np:  # on a GPU, looking would mean waiting
            check_steps(dt, layer["Lambda_re"], clip_eigs)
            dt = plain(dt)
    if xp is np:
        layer, u, reset = {name: plain(z) for name, z in layer.items()}, plain(u), plain(reset)
    return layer, u, reset, x0, dt


def plain(z):
    """Return ``z``, or a copy in C order that may be written to.

    Loops are compiled anew for other strides and for read-only arrays, and may then round
    differently: where a product and a sum become one operation is the compiler's choice.
    """
    return np.require(z, None, ("C", "A", "W", "E"))


def check_steps(dt, lam_re, clip_eigs):
    """Raise ValueError unless steps (T, B) are positive, and finite if a state has no limit."""
    if not (dt > 0).all():
        remedy = "give the time since the previous input"
        raise ValueError(f"dt: expected positive steps, got a minimum of {dt.min()}; {remedy}")
    if not clip_eigs and (lam_re >= 0).any() and np.isinf(dt).any():
        at, p = tuple(np.argwhere(np.isinf(dt))[0].tolist()), int(np.argmax(lam_re >= 0))
        wanted = f"finite steps, because Lambda_re[{p}] = {lam_re[p]} is not negative"
        remedy = "give a finite time, or clip_eigs=True"
        raise ValueError(f"dt: expected {wanted}, got inf at {at}; {remedy}")


def take_gradients(dy, dx_last, cache, kind):
    """Return the gradients that ssm_backward takes, checked; ``kind`` is SSMCache."""
    check_instance("cache", cache, kind, "pass the third result of ssm_forward")
    u, x0, xp = cache.u, cache.x0, array_module(cache.u)
    dy = take_array("dy", dy, u.shape, u.dtype, "it has the shape and dtype of y", xp)
    if dx_last is not None:
        dtype, shape = x0.dtype, x0.shape
        if cache.complex_state:
            dtype, shape = np.result_type(dtype, np.complex64), (len(x0), shape[1] // 2)
        dx_last = take_array("dx_last", dx_last, shape, dtype, "it has the form of x_last", xp)
    return dy, dx_last


def check_init(rng, H, ssm_size, blocks, dt_min, dt_max, conj_sym, dtype):
    """Raise unless these are arguments for init_ssm; it looks at how the sizes divide itself."""
    check_instance("rng", rng, np.random.Generator, "pass numpy.random.default_rng(0)")
    for name, value in (("H", H), ("ssm_size", ssm_size), ("blocks", blocks)):
        check_integer(name, value, 1, 2**20, "try H=64, ssm_size=64, blocks=1")
    for name, value in (("dt_min", dt_min), ("dt_max", dt_max)):
        check_number(name, value, 0, np.finfo(np.float64).max, "try dt_min=0.001, dt_max=0.1")
    check_choice("conj_sym", conj_sym, (True, False))
    check_float_type("dtype", dtype)


# Dense layers, norms and gates: training calls them so often that they compare shapes themselves


def refuse_dense(p, activation, known):
    """Raise ValueError: a dense layer's bias does not fit its kernel, or another activation."""
    check_choice("activation", activation, known)
    kernel, bias = p["kernel"].shape, p["bias"].shape
    wanted = f"one number for each column of the kernel {kernel}"
    raise ValueError(f"bias: expected {wanted}, got {bias}; kernel is (in, out), bias (out,)")


def refuse_norm(p, x):
    """Raise ValueError: a norm's parameters do not fit its input."""
    got = f"{p['scale'].shape} and {p['bias'].shape}"
    remedy = "the norm is over the last axis"
    raise ValueError(f"scale, bias: expected {x.shape[-1:]} as x has features, got {got}; {remedy}")


def refuse_gate(kind, kernel, bias, s):
    """Raise ValueError: the weights of a gate do not fit its input."""
    H = s.shape[1]
    wanted = f"dense layers ({H}, {H}) with biases ({H},) for {kind}"
    got = f"{kernel.shape} and {bias.shape} side by side"
    raise ValueError(f"gate: expected {wanted}, got {got}; gate_init makes such layers")
