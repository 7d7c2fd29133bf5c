"""Complaints about arguments at the public boundary: what was expected, what came, what to do.

Compiled loops do not look at sizes: an array that is too short makes them read or write memory that
is not its own. So every public function that leads to one checks its arrays first. `take_array` and
`check_tree` are made for functions that training calls too: 0.3 µs for an array that is right.

Tests: tests/test_checks.py, and the tests of bad arguments of each public function.
"""

import operator
import types
import typing

import numpy as np

from minis5.arrays import as_array

FLOATS = (np.float32, np.float64)
COMPLEXES = (np.complex64, np.complex128)


def check_array(name, value, shape, dtypes, remedy="", xp=np):
    """Return ``value``; raise unless it is an array of ``shape`` with one of ``dtypes``.

    Parameters
    ----------
    name : str
        The argument's name, as the caller knows it.
    value : object
        What the caller passed.
    shape : tuple of (int | str)
        Expected sizes; a string such as ``"T"`` stands for any size.
    dtypes : tuple of type
        Accepted scalar types.
    remedy : str
        What the caller can do about it.
    xp : module
        numpy or cupy: where the array has to live.

    Raises
    ------
    TypeError
        Not an array of that module, or a masked one.
    ValueError
        Wrong dtype, byte order or shape.
    """
    is_array = isinstance(value, xp.ndarray) and not isinstance(value, np.ma.MaskedArray)
    if is_array and value.ndim == len(shape) and value.dtype.type in dtypes:
        if all(isinstance(w, str) or w == s for w, s in zip(shape, value.shape, strict=True)):
            if value.dtype.isnative:
                return value
    wanted = f"{' or '.join(np.dtype(d).name for d in dtypes)} ({', '.join(map(str, shape))})"
    end = f"; {remedy}" if remedy else ""
    if not is_array:
        wanted = f"a {'NumPy' if xp is np else 'CuPy'} array {wanted}"
        raise TypeError(f"{name}: expected {wanted}, got {_kind(value)}{end}")
    dtype = value.dtype
    got = dtype.name if dtype.isnative else f"{dtype.name} in foreign byte order ({dtype.str})"
    raise ValueError(f"{name}: expected {wanted}, got {got} {value.shape}{end}")


def _kind(value):
    """Return the name of a value's type, with its module if two have that name."""
    kind = type(value)
    return f"ndarray of {kind.__module__}" if kind.__name__ == "ndarray" else kind.__name__


def take_array(name, value, shape, dtype, remedy="", xp=np):
    """Return ``value`` as an array of ``xp`` with ``shape`` and ``dtype``, or raise.

    Foreign arrays on the same device and foreign byte orders are taken as well. ``shape`` is that
    of :func:`check_array`.
    """
    if type(value) is xp.ndarray and value.shape == shape and value.dtype == dtype:
        return value
    return check_array(name, as_array(value, name), shape, (np.dtype(dtype).type,), remedy, xp)


def check_tree(name, tree, shapes, dtype, xp=np):
    """Raise unless ``tree``, nested dicts of arrays, has just the names and ``shapes`` and a dtype.

    ``shapes`` is nested in the same way.
    """
    if not isinstance(tree, dict) or tree.keys() != shapes.keys():
        wanted = f"a dict with the keys {', '.join(shapes)}" if shapes else "an empty dict"
        got = f"the keys {', '.join(map(str, tree))}" if isinstance(tree, dict) else _kind(tree)
        raise ValueError(f"{name}: expected {wanted}, got {got}; take what init returns as a model")
    for key, shape in shapes.items():
        value = tree[key]
        if isinstance(shape, dict):
            check_tree(f"{name}[{key!r}]", value, shape, dtype, xp)
        elif not (type(value) is xp.ndarray and value.shape == shape and value.dtype == dtype):
            kinds, remedy = (np.dtype(dtype).type,), "cast parameters and inputs to one dtype"
            check_array(f"{name}[{key!r}]", value, shape, kinds, remedy, xp)


def check_instance(name, value, kind, remedy):
    """Return ``value``; raise TypeError unless it is an instance of ``kind``, a type."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: expected a {kind.__name__}, got {_kind(value)}; {remedy}")
    return value


def check_integer(name, value, low, high, remedy):
    """Return ``value`` as an int; raise ValueError unless it is an integer in [low, high]."""
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}: expected an integer in [{low}, {high}], got {value!r}; {remedy}")
    return number


def check_number(name, value, low, high, remedy):
    """Return ``value`` as a float; raise ValueError unless it is a number in [low, high]."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    number = float(value) if is_number else None
    if number is None or not low <= number <= high:
        raise ValueError(f"{name}: expected a number in [{low}, {high}], got {value!r}; {remedy}")
    return number


def check_layers(n_layers):
    """Raise ValueError if there are so many layers that listing them would take for ever."""
    check_integer("n_layers", n_layers, 1, 4096, "take fewer, wider layers")


def check_choice(name, value, choices):
    """Return ``value``; raise ValueError unless it is one of ``choices``."""
    try:
        known = value in choices
    except (TypeError, ValueError):  # an array has no truth value
        known = False
    if not known:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: expected one of {known}, got {value!r}; choose one of them")
    return value


def check_float_type(name, dtype):
    """Return float32 or float64; raise ValueError for all that is neither."""
    if isinstance(dtype, type | np.dtype | str):  # an array has no truth value
        for known in FLOATS:
            if dtype is known or dtype == np.dtype(known):
                return known
    raise ValueError(f"{name}: expected float32 or float64, got {dtype!r}; pass numpy.float32")


def check_draws(rng, method="random"):
    """Return ``rng``; raise TypeError unless it has that method of numpy.random.Generator."""
    if not callable(getattr(rng, method, None)):
        remedy = "pass numpy.random.default_rng(0)"
        raise TypeError(f"rng: expected a random generator, got {_kind(rng)}; {remedy}")
    return rng


def check_fields(config):
    """Raise TypeError unless the fields of a dataclass have the types of their hints.

    Hints are int, float, bool, str, None, tuple[int, ...], unions of these, and Any.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        if not _is_a(value := getattr(config, name), hint):
            wanted = hint.__name__ if isinstance(hint, type) else str(hint)
            got = f"{_kind(value)} {value!r:.60}"
            kind = type(config).__name__
            raise TypeError(f"{name}: expected {wanted}, got {got}; see the fields of {kind}")


def _is_a(value, hint):
    """Return whether a value has the type of a hint; NumPy's numbers are numbers too."""
    if hint is typing.Any:
        return True
    if isinstance(hint, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple | list) and all(_is_a(part, int) for part in value)
    if hint in (int, float):
        kinds = int | np.integer if hint is int else int | float | np.integer | np.floating
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, bool | np.bool_ if hint is bool else hint)
