"""A case, which is inputs and what they must give, and an operation, which is how to try a function
on cases.

Every file in operations/ defines one ``OPERATION``. Its cases are made from a seed. Inputs are
rounded to the dtype under test first, so that a function is not blamed for what the rounding of its
inputs does. Random numbers are uniform, sums and products of them, and square roots: these are the
same bits on every machine.

Leaves out: how outputs are compared (compare.py) and told of (report.py).
Tests: tests/verify/test_case.py.
"""

import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

FORWARD, GRADIENT = 64, 256  # how many roundings for each step are allowed
DTYPES = ("float32", "float64")
COMPLEX = {"float32": np.complex64, "float64": np.complex128}


class Case(NamedTuple):
    """Inputs of one call, and the outputs that are right."""

    operation: str
    name: str  # unique in the operation, and a folder's name
    flags: tuple[str, ...]  # flags.py
    dtype: str  # precision under test: "float32" or "float64"
    options: dict[str, Any]  # sizes, numbers and words of the call: JSON scalars or short lists
    inputs: dict[str, np.ndarray]  # float64, complex128, bool or int64, rounded to ``dtype``
    expected: dict[str, np.ndarray]  # the same types, from minis5.reference
    gradients: frozenset[str] = frozenset()  # the expected arrays that are gradients
    steps: int = 1  # T in the tolerance: how many steps rounding errors add up over

    @property
    def id(self) -> str:
        """The case's name among the cases of all operations."""
        return f"{self.operation}/{self.name}"

    def cast(self) -> dict[str, np.ndarray]:
        """Return copies of the inputs in the dtype under test; integers and flags as they are."""
        return {name: cast(z, self.dtype) for name, z in self.inputs.items()}

    def tolerance(self, output: str) -> float:
        """Return the largest |error| / max |expected| that is allowed: c·eps·T.

        It is 0 for an output of integers or flags.
        """
        if self.expected[output].dtype.kind not in "fc":
            return 0.0
        factor = GRADIENT if output in self.gradients else FORWARD
        return float(factor * np.finfo(self.dtype).eps * self.steps)


class Operation(NamedTuple):
    """How to try a function that claims to be this operation."""

    name: str
    about: str  # what the function must do, its signature in words
    cases: Callable[[str, int, bool], Iterator[Case]]  # of dtype, seed, small
    call: Callable[[Callable, Case], dict[str, Any]]  # gives arguments, names outputs
    causes: dict[str, Callable[[Case], dict[str, np.ndarray]]]  # fault in words → its outputs
    ours: Callable | None = None  # minis5's own function


def cast(z: np.ndarray, dtype: str) -> np.ndarray:
    """Return a copy of ``z`` in real or complex ``dtype``; integers and flags as they are."""
    kinds = {"f": np.dtype(dtype).type, "c": COMPLEX[dtype]}
    with np.errstate(invalid="ignore"):
        return np.array(z, kinds.get(z.dtype.kind, z.dtype))


def rounded(z: Any, dtype: str) -> np.ndarray:
    """Return numbers rounded to ``dtype``, as float64 or complex128."""
    z = np.asarray(z)
    return cast(cast(z, dtype), "float64") if z.dtype.kind in "fc" else z


def draws(seed: int, *words: object) -> np.random.Generator:
    """Return a generator for a case, which depends on the seed and the case's name alone."""
    text = " ".join(map(str, (seed, *words))).encode()
    return np.random.default_rng(list(hashlib.sha256(text).digest()))


def uniform(rng: np.random.Generator, shape: Any, *, is_complex: bool = False) -> np.ndarray:
    """Return numbers in [-2, 2), in the real and in the imaginary part."""
    if not is_complex:
        return 4.0 * rng.random(shape) - 2.0
    return (4.0 * rng.random(shape) - 2.0) + 1j * (4.0 * rng.random(shape) - 2.0)


def on_circle(rng: np.random.Generator, shape: Any, *, is_complex: bool = True) -> np.ndarray:
    """Return complex numbers of size 1, or ±1."""
    cosine = 2.0 * rng.random(shape) - 1.0
    sign = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    return cosine + 1j * sign * np.sqrt(1.0 - cosine * cosine) if is_complex else sign


def invoke(
    function: Callable, *arguments: Any, names: tuple[str, ...] = (), **keywords: Any
) -> Any:
    """Return what a user's function returns.

    Last arguments that are None are left out, if the function has defaults for them or does not
    know them. With ``names`` of the arguments, one is given by its name if that is a keyword of the
    function, or stands elsewhere in its signature.

    Raises
    ------
    NotImplementedError
        It does not take so many arguments, or not these keywords.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # compiled functions may have none
        return function(*arguments, **keywords)
    arguments, by_name = _by_name(signature, arguments, names)
    keywords |= by_name
    needed = len(arguments)
    while needed and arguments[needed - 1] is None:
        needed -= 1
    reasons = []
    for n in range(needed, len(arguments) + 1):
        try:
            signature.bind(*arguments[:n], **keywords)
        except TypeError as error:
            reasons.append(str(error))
        else:
            return function(*arguments[:n], **keywords)
    raise NotImplementedError(f"the function does not take these arguments: {reasons[0]}")


def _by_name(signature, arguments, names):
    """Return the arguments to give by position, and those to give by name, {name: argument}."""
    taken = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    places = {p.name: i for i, p in enumerate(taken) if p.kind is not p.POSITIONAL_ONLY}
    fixed = {p.name for p in taken if p.kind is p.KEYWORD_ONLY}
    left, by_name = [], {}
    for i, (name, argument) in enumerate(zip(names, arguments, strict=bool(names))):
        if name in fixed or places.get(name, i) != i:
            if (
                argument is not None
                or signature.parameters[name].default is inspect.Parameter.empty
            ):
                by_name[name] = argument
        elif i < len(taken) and taken[i].name in set(names) - {name}:  # the place of another one
            if argument is not None:
                raise NotImplementedError(f"the function has no argument {name}")
        else:
            left.append(argument)
    return (tuple(left), by_name) if names else (arguments, {})
