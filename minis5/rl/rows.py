"""What the methods of a distribution are given, row by row: checks, and one-hot vectors.

A row has the parameters of one distribution. Shapes and dtypes are checked at every call, because
compiled loops do not look at them. Values that a loop cannot use are found by the loop itself,
which returns the number of the row. (On a GPU, to look would mean to wait.)

Leaves out: the distributions (distributions.py). Tests: tests/rl/test_rows.py.
"""

from functools import cache

import numpy as np

from minis5.arrays import array_module, as_array
from minis5.checks import FLOATS, check_integer
from minis5.spaces import one_hot

INTEGERS = tuple(np.dtype(code).type for code in "bhilqBHILQ")
REAL = FLOATS + INTEGERS
BOOLS = (np.bool_,)
_WORDS = {BOOLS: "bool", FLOATS: "float32 or float64", INTEGERS: "integers", REAL: "real numbers"}
WEIGHTS = "check the observation and the agent's weights"
MASK = "each mask has to leave an action"


def take_shaped(name, value, shape, dtypes, xp, remedy="give one for each row of parameters"):
    """Return ``value`` as an array of ``xp`` (numpy or cupy), or raise.

    Raises
    ------
    TypeError
        Not an array, or one on another device.
    ValueError
        Another shape than ``shape``, or a dtype that is none of ``dtypes``.
    """
    if type(value) is not xp.ndarray or not value.dtype.isnative:
        value = xp.asarray(value) if isinstance(value, np.generic) else as_array(value, name)
    if isinstance(value, xp.ndarray) and value.shape == shape and value.dtype.type in dtypes:
        return value
    form = str(shape).replace("'", "")
    wanted = f"{_WORDS[dtypes]} {form}"
    if not isinstance(value, xp.ndarray):
        wanted = f"a {'NumPy' if xp is np else 'CuPy'} array of {wanted}"
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}; {remedy}")
    raise ValueError(f"{name}: expected {wanted}, got {value.dtype} {value.shape}; {remedy}")


def check_count(name, n):
    """Return the number of actions as an int; raise ValueError unless it is a positive integer."""
    return check_integer(name, n, 1, 2**31 - 1, "give the size of the action space")


def take_parameters(name, params, width):
    """Return ``params`` as a float array (..., width), or raise as :func:`take_shaped`."""
    params = as_array(params, name)
    xp = array_module(params)
    lead = params.shape[:-1] if isinstance(params, xp.ndarray) else ("...",)
    remedy = "the last axis has the parameters of one distribution"
    return take_shaped(name, params, (*lead, width), FLOATS, xp, remedy)


def shape_of(action):
    """Return the shape of an array; one that fits nothing for all that is none."""
    shape = getattr(action, "shape", None)
    return shape if isinstance(shape, tuple) else ("...",)


def take_actions(action, choices=None):
    """Return actions as an array of integers, whose last axis has that many choices, or raise."""
    shape = shape_of(action) if choices is None else (*shape_of(action)[:-1], choices)
    remedy = "give actions as sample returns them"
    return take_shaped("action", action, shape, INTEGERS, array_module(action), remedy)


def as_rows(n, logits, **others):
    """Return logits (..., n) and (rows, n), the others (rows,), and an empty array (...), or raise.

    The others, one for each row of logits, are ``action``, which has integers, and floats.
    """
    logits = take_parameters("logits", logits, n)
    xp, lead = array_module(logits), logits.shape[:-1]
    rows = [xp.ascontiguousarray(logits).reshape(-1, n)]
    for name, value in others.items():
        value = take_shaped(name, value, lead, INTEGERS if name == "action" else FLOATS, xp)
        rows.append(xp.ascontiguousarray(value).ravel())
    return logits, rows, xp.empty(lead, logits.dtype)


def check_row(row, logits, action=None):
    """Raise ValueError that says what is wrong with a row of logits (..., n), unless it is -1."""
    if row < 0:
        return
    n, at = logits.shape[-1], tuple(int(i) for i in np.unravel_index(row, logits.shape[:-1]))
    where = f"at batch index {at}" if at else "there"
    if action is not None and not 0 <= (chosen := np.ravel(as_array(action))[row]) < n:
        raise _illegal(chosen, n, where)
    found = logits[at]
    got = "NaN" if np.isnan(found).any() else "inf" if (found == np.inf).any() else "only -inf"
    wanted = "finite numbers, or -inf for actions that are masked"
    remedy = MASK if got == "only -inf" else WEIGHTS
    raise ValueError(f"logits: expected {wanted}, got {got} {where}; {remedy}")


def _illegal(chosen, n, where):
    remedy = "count actions from 0"
    wanted = f"integers from 0 to {n - 1}"
    return ValueError(f"action: expected {wanted}, got {chosen} {where}; {remedy}")


def check_mode(logits, mode):
    """Return ``mode``; raise ValueError unless each row's largest logit is a number."""
    if array_module(logits) is np:
        top = np.take_along_axis(logits, mode[..., None], axis=-1)
        if not np.isfinite(top).all():
            check_row(int(np.argmin(np.isfinite(top))), logits)
    return mode


def check_numbers(name, result):
    """Return what was computed of ``name``; raise ValueError if it has NaN, unless on a GPU."""
    if array_module(result) is np and np.isnan(result).any():
        raise ValueError(f"{name}: expected numbers, got NaN or what makes NaN; {WEIGHTS}")
    return result


def check_finite(name, action):
    """Return ``action``; raise ValueError if it has NaN or Inf, unless it is on a GPU."""
    if array_module(action) is np and not np.isfinite(action).all():
        at = tuple(np.argwhere(~np.isfinite(action))[0].tolist())
        got = f"what makes the action {action[at]} at {at}"
        raise ValueError(f"{name}: expected finite numbers, got {got}; {WEIGHTS}")
    return action


@cache
def _tables(sizes, xp):
    """Return start, sizes and offsets of choices whose one-hot vectors are side by side."""
    offsets = np.cumsum((0, *sizes[:-1]))
    return [xp.asarray(z, np.int64) for z in ([0] * len(sizes), list(sizes), offsets.tolist())]


def one_hot_rows(action, sizes, dtype):
    """Return the one-hot vectors (n, Σ sizes) of actions (n, k): each choice has a size."""
    xp = array_module(action)
    out = xp.zeros((action.shape[0], sum(sizes)), dtype)
    row, choice = one_hot(xp.ascontiguousarray(action), *_tables(sizes, xp), out)
    if row >= 0:
        raise _illegal(action[row, choice], sizes[choice], f"at row {row}, choice {choice}")
    return out
