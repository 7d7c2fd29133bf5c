"""The resettable recurrence: its cases, and the faults that people make.

Lengths and resets go together in every way. Real or complex numbers, a constant or a varying
multiplier, and the initial state alternate over them.

Expected values: minis5.reference.scan; for long sequences exact.py, in integers of 200 bits.
Tests: tests/verify/test_scan.py.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import minis5.reference as reference
from minis5.nn.scan import scan as our_scan
from minis5.verify.case import Case, Operation, draws, invoke, on_circle, rounded, uniform
from minis5.verify.operations.exact import exact_scan
from minis5.verify.operations.scan_faults import CAUSES

CHUNK = 32  # the edges that matter: kernels take chunks of 32 steps, or of a multiple
LENGTHS = (1, 2, 3, 31, 32, 33, 63, 257)
RESETS = ("none", "all", "first", "last", "edges", "random")
SMALL = ((33, "first"), (33, "edges"))  # of the longer ones, in the small set
RADII = {"near 1": (0.999, 1.0), "near 0": (0.0, 1e-3), "any": (0.0, 1.0)}
ARGUMENTS = ("a", "b", "reset", "x0")
LONG = (0.99999, 1.0)  # so that thousands of steps are remembered


def reset_pattern(kind: str, T: int, B: int, rng: np.random.Generator) -> np.ndarray:
    """Return resets (T, B), a bool array; ``kind`` is one of RESETS."""
    reset = np.zeros((T, B), bool)
    if kind == "all":
        reset[:] = True
    elif kind == "first":
        reset[0] = True
    elif kind == "last":
        reset[-1] = True
    elif kind == "edges":  # the first steps of chunks in the one half, their last in the other
        reset[::CHUNK, : (B + 1) // 2] = True
        reset[CHUNK - 1 :: CHUNK, B // 2 :] = True
    elif kind == "random":
        reset[:] = rng.random((T, B)) < 0.15
        reset[int(T * rng.random()), int(B * rng.random())] = True
    return reset


def multipliers(rng, shape, radius, is_complex):
    """Return numbers of a size in RADII[radius], at any angle."""
    low, high = LONG if radius == "long" else RADII[radius]
    return (low + (high - low) * rng.random(shape)) * on_circle(rng, shape, is_complex=is_complex)


class Shape(NamedTuple):
    """Sizes and kinds of a case."""

    T: int
    B: int
    P: int
    reset: str = "none"  # one of RESETS
    is_complex: bool = False
    varying: bool = False  # the multiplier
    start: bool = True  # there is an initial state
    radius: str = "any"  # one of RADII
    small: bool = True  # in the small set

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a case with finite numbers."""
        at_edges = self.reset == "edges" and self.T >= CHUNK
        features = {
            "complex": self.is_complex,
            "initial_state": self.start,
            "varying": self.varying,
            "reset": self.reset != "none",
            "chunked": self.T in (31, 33, 63, 97, 257) or at_edges,
        }
        return tuple(flag for flag, there in features.items() if there) or ("core",)

    @property
    def kind(self) -> str:
        """Numbers and multiplier in words."""
        numbers = "complex" if self.is_complex else "real"
        return f"{numbers}-{'varying' if self.varying else 'constant'}"

    def name(self, dtype: str) -> str:
        """Return a case's name."""
        start = "start" if self.start else "zero"
        sizes = f"T{self.T}-B{self.B}-P{self.P}"
        return f"{self.kind}-reset-{self.reset}-{start}-{sizes}-{dtype}"

    @property
    def options(self) -> dict[str, Any]:
        """The columns of cases.tsv."""
        numbers = "complex" if self.is_complex else "real"
        return {"T": self.T, "B": self.B, "P": self.P, "numbers": numbers}


class Trial(NamedTuple):
    """The inputs of a case; scan and scan_vjp make a case of it."""

    name: str
    flags: tuple[str, ...]
    shape: Shape
    inputs: dict[str, np.ndarray]


def shapes() -> Iterator[Shape]:
    """Yield the sizes and kinds of the cases with finite numbers."""
    for i, T in enumerate(LENGTHS):
        for j, kind in enumerate(RESETS):
            if T == 1 and kind in ("last", "edges", "random"):
                continue  # these are "first" there
            sizes = ((2, 3), (1, 2), (3, 1), (1, 1))[(i + j + i // 2) % 4]
            yield Shape(
                T,
                *sizes,
                reset=kind,
                is_complex=(i + 2 * j) % 3 != 1,
                varying=(i + j) % 2 == 1,
                start=(i // 2 + j) % 2 == 1,
                radius=tuple(RADII)[(i // 3 + j) % 3],
                small=T in (1, 3) or (T, kind) in SMALL,
            )
    yield Shape(1, 2, 2, varying=True)  # a single step goes on from the initial state
    for T in (97, 257):  # what enters a chunk outlives the chunks that follow
        yield Shape(T, 1, 2, is_complex=T == 97, radius="near 1", small=T == 97)
    for is_complex in (False, True):  # each feature alone, so that a library learns which it lacks
        for T, small in ((4, True), (16, False), (32, False)):
            yield Shape(T, 2, 2, is_complex=is_complex, start=False, small=small)
        yield Shape(4, 2, 2, is_complex=is_complex, start=False, varying=True)
        yield Shape(4, 2, 2, is_complex=is_complex)
        for start in (False, True):
            yield Shape(9, 2, 2, is_complex=is_complex, start=start, reset="random")


def problem(shape: Shape, dtype: str, seed: int, name: str) -> dict[str, np.ndarray]:
    """Return the inputs a, b, reset (unless none), x0 (unless zero) of a case."""
    rng, is_complex = draws(seed, "scan", name), shape.is_complex
    T, B, P = shape[:3]
    size = (T, B, P) if shape.varying else (P,)
    inputs = {
        "a": multipliers(rng, size, shape.radius, is_complex),
        "b": uniform(rng, (T, B, P), is_complex=is_complex),
    }
    if shape.reset != "none":
        inputs["reset"] = reset_pattern(shape.reset, T, B, rng)
    if shape.start:
        inputs["x0"] = uniform(rng, (B, P), is_complex=is_complex)
    return {key: rounded(z, dtype) for key, z in inputs.items()}


def resets_at(shape: Any, *places: tuple[int, int]) -> np.ndarray:
    """Return resets at places (t, row), a bool array (T, B)."""
    reset = np.zeros(shape[:2], bool)
    for place in places:
        reset[place] = True
    return reset


def poisoned(dtype: str, seed: int) -> Iterator[Trial]:
    """Yield cases with NaN or Inf before a reset, in one row of the batch."""
    for is_complex, varying, bad in product((False, True), (False, True), (np.nan, np.inf)):
        small = bool(np.isnan(bad)) or not varying
        shape = Shape(7, 2, 2, is_complex=is_complex, varying=varying, small=small)
        name = f"{'nan' if np.isnan(bad) else 'inf'}-before-reset-{shape.kind}-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        inputs["reset"] = resets_at(shape, (4, 0), (5, 1))
        inputs["b"][3, 0] = bad
        yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)
    shape = Shape(5, 2, 2, is_complex=True)
    name = f"nan-in-initial-state-before-reset-{dtype}"
    inputs = problem(shape, dtype, seed, name)
    inputs["reset"] = resets_at(shape, (0, 1))
    inputs["x0"][1] = np.nan
    yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)
    shape = Shape(6, 2, 2, is_complex=True, varying=True)
    name = f"nan-in-multiplier-at-reset-{dtype}"
    inputs = problem(shape, dtype, seed, name)
    inputs["reset"] = resets_at(shape, (3, 0), (4, 1))
    inputs["a"][3, 0] = inputs["a"][4, 1] = np.nan  # not read there
    inputs["b"][2, 0] = np.nan
    yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)


def extremes(dtype: str, seed: int) -> Iterator[Trial]:
    """Yield cases with numbers of extreme size and without resets."""
    big = {"float32": 1e30, "float64": 1e290}[dtype]
    tiny = float(np.finfo(dtype).tiny)
    small = tiny / float(np.finfo(dtype).eps)  # sums that cancel may become 0, as XLA makes them
    for word, scale in (("huge", big), ("tiny", small), ("subnormal", tiny / 64)):
        shape = Shape(7, 2, 2, is_complex=word == "huge", varying=word != "subnormal")
        name = f"{word}-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        if word != "huge":  # products stay representable: steps are kept or halved
            inputs["a"] = np.where(inputs["a"] < 0, -0.5, 1.0)
        for key in ("b", "x0"):
            inputs[key] = rounded(inputs[key] * scale, dtype)
        flag = "subnormal" if word == "subnormal" else "extreme"
        yield Trial(name, (flag, *shape.flags), shape, inputs)
    for word, bad in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        shape = Shape(7, 2, 2, is_complex=word == "nan")
        name = f"{word}-stays-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        inputs["a"] = rounded(0.5 + 0.25 * np.abs(inputs["a"]), dtype).astype(inputs["a"].dtype)
        inputs["b"][2, 0] = bad
        yield Trial(name, ("extreme", *shape.flags), shape, inputs)
    shape = Shape(7, 2, 2, is_complex=True, varying=True)
    name = f"zero-multiplier-{dtype}"
    inputs = problem(shape, dtype, seed, name)
    inputs["a"][3] = 0.0  # dividing by cumulative products breaks here
    yield Trial(name, ("extreme", *shape.flags), shape, inputs)


def trials(dtype: str, seed: int, small: bool) -> Iterator[Trial]:
    """Yield the inputs of every case; scan_vjp.py has the same."""
    chosen = list(shapes())
    long = [Shape(4096, 1, 2, is_complex=True, radius="near 1", small=False)]
    long += [Shape(8192, 1, 2, radius="long", small=False)]
    for shape in [*chosen, *long]:
        name, flags = shape.name(dtype), shape.flags
        if shape.T > 1000:
            name, flags = f"long-{name}", ("long", *flags)
        if shape.small or not small:
            yield Trial(name, flags, shape, problem(shape, dtype, seed, name))
    for trial in (*poisoned(dtype, seed), *extremes(dtype, seed)):
        if trial.shape.small or not small:
            yield trial


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases."""
    for name, flags, shape, inputs in trials(dtype, seed, small):
        a, b, reset, x0 = (inputs.get(key) for key in ("a", "b", "reset", "x0"))
        with np.errstate(invalid="ignore"):
            x = (exact_scan if "long" in flags else reference.scan)(a, b, reset, x0)
        yield Case("scan", name, flags, dtype, shape.options, inputs, {"x": x}, steps=shape.T)


def call(function, case: Case) -> dict[str, Any]:
    """Return {"x": function(a, b, reset, x0)}."""
    z = case.cast()
    return {"x": invoke(function, *(z.get(name) for name in ARGUMENTS), names=ARGUMENTS)}


OPERATION = Operation(
    name="scan",
    about="""x = scan(a, b, reset=None, x0=None), the resettable recurrence:
    x[t] = a[t]·x[t-1] + b[t],  x[t] = b[t] where reset[t],  x[-1] = x0 (zero if not given).
a (P,), the same at every step, or (T, B, P); b, x (T, B, P); reset (T, B) bool; x0 (B, P); a, b, x0
and x all real or all complex. Where reset[0] is set, x0 is not read.
T is time, B the batch, P the states. A reset selects: x[t-1] is not read, NaN and Inf included.""",
    cases=cases,
    call=call,
    causes=CAUSES,
    ours=our_scan,
)
