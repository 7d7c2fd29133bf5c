"""Complaints about arguments at the public boundary: what was expected, what came, what to do.

Tests: tests/test_checks.py, and the tests of bad arguments of each public function.
"""

import operator

import numpy as np

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
        Not an array of that module.
    ValueError
        Wrong dtype or shape.
    """
    if isinstance(value, xp.ndarray) and value.ndim == len(shape) and value.dtype.type in dtypes:
        if all(isinstance(w, str) or w == s for w, s in zip(shape, value.shape, strict=True)):
            return value
    wanted = f"{' or '.join(np.dtype(d).name for d in dtypes)} ({', '.join(map(str, shape))})"
    end = f"; {remedy}" if remedy else ""
    if not isinstance(value, xp.ndarray):
        wanted = f"a {'NumPy' if xp is np else 'CuPy'} array {wanted}"
        raise TypeError(f"{name}: expected {wanted}, got {type(value).__name__}{end}")
    raise ValueError(f"{name}: expected {wanted}, got {value.dtype.name} {value.shape}{end}")


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


def check_choice(name, value, choices):
    """Return ``value``; raise ValueError unless it is one of ``choices``."""
    if value not in choices:
        known = ", ".join(map(repr, choices))
        raise ValueError(f"{name}: expected one of {known}, got {value!r}; choose one of them")
    return value
