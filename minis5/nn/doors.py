"""What may enter an S5 layer and a memory core: checks in front of their public methods.

The loops below them do not look at sizes. `check_ssm` is for minis5.s5, `checked` for the cores:
training passes through it in each minibatch, so that an array that is right costs 0.3 µs.

Leaves out: values. NaN and infinite numbers are computed with.
Tests: tests/nn/test_doors.py.
"""

from collections import Counter
from functools import wraps
from typing import Any, NamedTuple

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
    check_tree,
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


def check_options(conj_sym, clip_eigs, step_rescale):
    """Raise unless the options of an S5 layer are what they should be."""
    check_choice("conj_sym", conj_sym, (True, False))
    check_choice("clip_eigs", clip_eigs, (True, False))
    tiny, huge = np.finfo(np.float64).tiny, np.finfo(np.float64).max
    check_number("step_rescale", step_rescale, tiny, huge, "1 leaves the steps as they are")


def check_ssm(layer, u, reset, x0, dt, clip_eigs=False):
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
    width = P if getattr(x0, "dtype", np.dtype(dtype)).kind == "c" else 2 * P
    check_array("x0", x0, (B, width), FLOATS + COMPLEXES, "(B, P) complex or (B, 2P) planar", xp)
    if dt is not None:
        dt = take_array("dt", dt, (T, B), dtype, "one step for each input", xp)
        if xp is np:  # on a GPU, looking would mean waiting
            check_steps(dt, layer["Lambda_re"], clip_eigs)
    return layer, u, reset, x0, dt


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


def check_init(rng, H, ssm_size, blocks, dt_min, dt_max, conj_sym, dtype):
    """Raise unless these are arguments for init_ssm; it looks at how the sizes divide itself."""
    check_instance("rng", rng, np.random.Generator, "pass numpy.random.default_rng(0)")
    for name, value in (("H", H), ("ssm_size", ssm_size), ("blocks", blocks)):
        check_integer(name, value, 1, 2**20, "try H=64, ssm_size=64, blocks=1")
    for name, value in (("dt_min", dt_min), ("dt_max", dt_max)):
        check_number(name, value, 0, np.finfo(np.float64).max, "try dt_min=0.001, dt_max=0.1")
    check_choice("conj_sym", conj_sym, (True, False))
    check_float_type("dtype", dtype)


# Memory cores


class CoreCache(NamedTuple):
    """What a core's forward keeps for its backward, and what that belongs to."""

    core: Any
    u: Any  # (T, B, H), the input: its shape, dtype and library are asked
    state: Any  # the initial state, likewise
    kept: Any  # the core's own cache


def checked(core):
    """Put checks in front of the methods of a core's class, a decorator (cores.py has the methods).

    The class has ``config_type`` and ``shapes()``, the shapes of its parameters, nested as they
    are. TypeError and ValueError name what is not as cores.py says.
    """
    for name, method in METHODS.items():
        setattr(core, name, wraps(getattr(core, name))(method(getattr(core, name))))
    return core


def _make(method):
    def __init__(self, config, d_model):
        check_instance("config", config, self.config_type, "cores.CORES has each core's")
        method(self, config, check_integer("d_model", d_model, 1, 2**20, "try d_model=64"))
        rows, _, width = self.initial_state(0).shape
        self.state_size, self.parameter_shapes = (rows, width), self.shapes()

    return __init__


def _init(method):
    def init(self, rng):
        if self.parameter_shapes:  # otherwise there is nothing to draw
            check_instance("rng", rng, np.random.Generator, "pass numpy.random.default_rng(0)")
        return method(self, rng)

    return init


def _initial_state(method):
    def initial_state(self, batch, dtype=np.float32):
        batch = check_integer("batch", batch, 0, 2**31, "give the number of environments")
        return method(self, batch, check_float_type("dtype", dtype))

    return initial_state


def _forward(method):
    def forward(self, params, u, reset, state, dt=None):
        u = _features(self, u, ("T", "B"))
        xp, dtype, options = array_module(u), u.dtype, {}
        check_tree("params", params, self.parameter_shapes, dtype, xp)
        reset, state = _past(self, u, reset, state, xp)
        if dt is not None:
            options["dt"] = take_array("dt", dt, reset.shape, dtype, "one step for each input", xp)
        y, last, kept = method(self, params, u, reset, state, **options)
        return y, last, CoreCache(self, u, state, kept)

    return forward


def _backward(method):
    def backward(self, dy, cache, dlast=None):
        check_instance("cache", cache, CoreCache, "pass the third result of forward")
        core = cache.core
        if core is not self and (type(core), core.config) != (type(self), self.config):
            remedy = "pass that of its own forward"
            raise ValueError(f"cache: expected this core's, got that of {core.config}; {remedy}")
        u, state, xp = cache.u, cache.state, array_module(cache.u)
        dy = take_array("dy", dy, u.shape, u.dtype, "it has the shape and dtype of y", xp)
        if dlast is not None:
            remedy = "it has the shape and dtype of the state"
            dlast = take_array("dlast", dlast, state.shape, state.dtype, remedy, xp)
        return method(self, dy, cache.kept, dlast)

    return backward


def _stepper(method):
    def stepper(self, params):
        sample = params
        while isinstance(sample, dict) and sample:
            sample = next(iter(sample.values()))
        xp, dtype = array_module(sample), getattr(sample, "dtype", None)
        check_tree("params", params, self.parameter_shapes, dtype, xp)
        dtypes = FLOATS if dtype is None else (check_float_type("params", dtype),)
        step = method(self, params)

        def checked_step(u, reset, state):
            where = array_module(u) if dtype is None else xp
            u = _features(self, u, ("B",), dtypes, where)
            return step(u, *_past(self, u, reset, state, where))

        return checked_step

    return stepper


METHODS = {
    "__init__": _make,
    "init": _init,
    "initial_state": _initial_state,
    "forward": _forward,
    "backward": _backward,
    "stepper": _stepper,
}
KINDS = {np.dtype(dtype) for dtype in FLOATS}
BOOL = np.dtype(bool)


def _features(core, u, axes, dtypes=FLOATS, xp=None):
    """Return a core's input, checked: (*axes, H)."""
    if (
        type(u) is np.ndarray
        and xp in (np, None)
        and u.ndim == len(axes) + 1
        and u.shape[-1] == core.d_model
    ):
        if u.dtype.type in dtypes and u.dtype in KINDS and u.size:
            return u
    u = as_array(u, "u")
    remedy = f"order the axes {', '.join(axes)}, features; cast to the parameters' dtype"
    check_array("u", u, (*axes, core.d_model), dtypes, remedy, xp or array_module(u))
    if 0 in u.shape:
        raise ValueError(f"u: expected at least one row, got {u.shape}; leave out empty batches")
    return u


def _past(core, u, reset, state, xp):
    """Return the flags and the state that come with an input, checked."""
    batch, (rows, width) = u.shape[:-1], core.state_size
    reset = take_array("reset", reset, batch, BOOL, "transpose and cast", xp)
    shape, remedy = (rows, batch[-1], width), "start from initial_state(batch, dtype)"
    dtype = u.dtype
    if rows == 0 and getattr(state, "dtype", None) in KINDS:  # an empty state may have either
        dtype = state.dtype
    return reset, take_array("state", state, shape, dtype, remedy, xp)
