"""What may enter a memory core: checks in front of its public methods.

The loops below them do not look at sizes. Training passes through the checks in each minibatch, so
that an array that is right costs 0.3 µs.

Leaves out: values. NaN and infinite numbers are computed with.
Tests: tests/nn/test_doors.py.
"""

from functools import wraps
from typing import Any, NamedTuple

import numpy as np

from minis5.arrays import array_module, as_array
from minis5.checks import (
    FLOATS,
    check_array,
    check_float_type,
    check_instance,
    check_integer,
    check_tree,
    take_array,
)


class CoreCache(NamedTuple):
    """What a core's forward keeps for its backward, and what that belongs to."""

    core: Any
    u: Any  # (T, B, H), the input: its shape, dtype and library are asked
    state: Any  # the initial state, likewise
    kept: Any  # the core's own cache


class OwnParameters(dict):
    """A core's parameters that its agent made and keeps: they are not checked again each time."""


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
        dtype = check_float_type("dtype", dtype)
        try:
            return method(self, batch, dtype)
        except (MemoryError, ValueError) as error:  # too much for this machine, or for any
            got = f"one of {batch} sequences for {self.config} ({error})"
            remedy = "take a smaller batch or a smaller core"
            expected = "expected a state that fits into memory"
            raise ValueError(f"batch: {expected}, got {got}; {remedy}") from error

    return initial_state


def _forward(method):
    def forward(self, params, u, reset, state, dt=None):
        u = _features(self, u, ("T", "B"))
        xp, dtype, options = array_module(u), u.dtype, {}
        if type(params) is not OwnParameters:
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
        if type(params) is not OwnParameters:
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
