"""The S5 layer: its cases, and the faults that people make.

Where the steps are so small or so large that (exp(z) - 1)/Λ cancels or underflows, expected values
were computed with 50 digits and are kept in exact_ssm.json. Those cases do not depend on the seed.

Expected values: minis5.reference.ssm, else exact_ssm.json (tests/verify/exact_ssm.py makes it).
Tests: tests/verify/test_ssm.py.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import minis5.reference as reference
from minis5.nn.s5 import ssm_forward
from minis5.verify.case import Case, Operation, draws, invoke, on_circle, rounded, uniform
from minis5.verify.operations.scan import RESETS, reset_pattern, resets_at
from minis5.verify.operations.ssm_faults import FORWARD_CAUSES
from minis5.verify.operations.ssm_stages import DEFAULTS, LAYER

LENGTHS = (1, 2, 3, 33, 63, 257)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"discretization": "bilinear"},
    {"conj_sym": False},
    {"clip_eigs": True},
    {"step_rescale": 0.5},
)
EXACT = Path(__file__).with_name("exact_ssm.json")
STEPS = {"small-steps": -9.0, "tiny-steps": -18.0, "large-steps": 6.0}  # log_step


class Shape(NamedTuple):
    """Sizes and kinds of a case."""

    T: int
    B: int
    H: int
    P: int
    reset: str = "none"  # one of RESETS
    start: bool = False  # there is an initial state
    irregular: bool = False  # the time between inputs differs
    option: int = 0  # index in OPTIONS
    small: bool = True  # in the small set

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a case with finite numbers."""
        given = OPTIONS[self.option]
        features = {
            "initial_state": self.start,
            "reset": self.reset != "none",
            "chunked": self.T in (33, 63, 257),
            "irregular": self.irregular,
            "bilinear": "discretization" in given,
            "options": bool(given) and "discretization" not in given,
        }
        return tuple(flag for flag, there in features.items() if there) or ("core",)

    def name(self, dtype: str) -> str:
        """Return a case's name."""
        option = "-".join(str(part) for pair in OPTIONS[self.option].items() for part in pair)
        parts = [option or "plain", f"reset-{self.reset}", "start" if self.start else "zero"]
        parts += ["irregular" if self.irregular else "regular"]
        return "-".join(parts) + f"-T{self.T}-B{self.B}-H{self.H}-P{self.P}-{dtype}"

    @property
    def options(self) -> dict[str, Any]:
        """The columns of cases.tsv."""
        sizes = {"T": self.T, "B": self.B, "H": self.H, "P": self.P}
        return sizes | DEFAULTS | OPTIONS[self.option]


class Trial(NamedTuple):
    """The inputs of a case; ssm and ssm_vjp make a case of it."""

    name: str
    flags: tuple[str, ...]
    shape: Shape
    inputs: dict[str, np.ndarray]


def shapes() -> Iterator[Shape]:
    """Yield the sizes and kinds of the cases with finite numbers."""
    for i, T in enumerate(LENGTHS):
        for j, kind in enumerate(RESETS):
            if T > 1 or kind in ("none", "all"):
                sizes = ((2, 3, 2), (1, 1, 2), (3, 2, 2), (1, 2, 3))[(i + j + i // 2) % 4]
                start, irregular = (i // 2 + j) % 2 == 1, (i + j) % 2 == 1
                small = T == 1 or (T, kind) in ((3, "random"), (3, "first"), (33, "edges"))
                option = (i + 2 * j) % len(OPTIONS)
                yield Shape(T, *sizes, kind, start, irregular, option, small)
    for T in (2, 8):
        yield Shape(T, 2, 2, 3, small=T == 2)
    yield Shape(4, 2, 2, 3, start=True)
    yield Shape(4, 2, 2, 3, reset="random")
    yield Shape(4, 2, 2, 3, irregular=True)
    for option in range(1, len(OPTIONS)):  # each feature alone, and with irregular steps
        yield Shape(4, 2, 2, 3, option=option)
        yield Shape(4, 2, 2, 3, start=True, irregular=True, option=option, small=option == 1)


def problem(shape: Shape, dtype: str, seed: int, name: str) -> dict[str, np.ndarray]:
    """Return the inputs of a case."""
    rng = draws(seed, "ssm", name)
    T, B, H, P = shape[:4]
    inputs = {  # |ΛΔ| is at least 0.05: smaller ones are tried in cases of their own
        "Lambda_re": -(0.05 + rng.random(P)),
        "Lambda_im": (1.0 + 4.0 * rng.random(P)) * on_circle(rng, P, is_complex=False),
        "B": uniform(rng, (P, H, 2)),
        "C": uniform(rng, (H, P, 2)),
        "D": uniform(rng, H),
        "log_step": -3.0 + 2.0 * rng.random((P, 1)),
        "u": uniform(rng, (T, B, H)),
    }
    if "clip_eigs" in OPTIONS[shape.option]:  # some are above the bound, one is right of zero
        inputs["Lambda_re"][::2] = 0.125 * rng.random((P + 1) // 2)
    if shape.reset != "none":
        inputs["reset"] = reset_pattern(shape.reset, T, B, rng)
    if shape.start:
        inputs["x0"] = uniform(rng, (B, P), is_complex=True)
    if shape.irregular:
        inputs["dt"] = 0.25 + 1.75 * rng.random((T, B))
    return {key: rounded(z, dtype) for key, z in inputs.items()}


def special(dtype: str, seed: int) -> Iterator[Trial]:
    """Yield cases with NaN before a reset, and with extreme steps."""
    for irregular in (False, True):
        shape = Shape(6, 2, 2, 2, start=True, irregular=irregular)
        name = f"nan-before-reset-{'irregular' if irregular else 'regular'}-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        inputs["reset"] = resets_at(shape, (3, 0), (4, 1))
        inputs["u"][2, 0, 1] = np.nan
        yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)
    shape = Shape(3, 2, 2, 2, start=True)
    name = f"nan-in-initial-state-before-reset-{dtype}"
    inputs = problem(shape, dtype, seed, name)
    inputs["reset"] = resets_at(shape, (0, 1))
    inputs["x0"][1] = np.nan
    yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)
    for word, log_step in STEPS.items():
        for irregular in (False, True):
            shape = Shape(3, 1, 1, 2, irregular=irregular)
            name = f"{word}-{'irregular' if irregular else 'regular'}-{dtype}"
            inputs = problem(shape, dtype, 0, name)  # of any seed: exact_ssm.json has the outputs
            inputs["D"][:] = 0.0  # the skip would hide what is so small
            inputs["log_step"] = rounded(0.25 * inputs["log_step"] + log_step, dtype)
            yield Trial(name, ("extreme", *shape.flags), shape, inputs)
    shape = Shape(3, 1, 1, 2)
    name = f"zero-and-positive-eigenvalue-{dtype}"
    inputs = problem(shape, dtype, seed, name)
    inputs["Lambda_re"][:], inputs["Lambda_im"][0] = (0.0, 0.125), 0.0
    yield Trial(name, ("extreme", *shape.flags), shape, inputs)


def trials(dtype: str, seed: int, small: bool) -> Iterator[Trial]:
    """Yield the inputs of every case; ssm_vjp.py has the same."""
    for shape in shapes():
        if shape.small or not small:
            name = shape.name(dtype)
            yield Trial(name, shape.flags, shape, problem(shape, dtype, seed, name))
    yield from special(dtype, seed)
    if not small:
        shape = Shape(4096, 1, 1, 1, start=True, small=False)
        name = f"long-{shape.name(dtype)}"
        yield Trial(name, ("long", *shape.flags), shape, problem(shape, dtype, seed, name))


@cache
def exact() -> dict[str, dict[str, list]]:
    """Return the outputs that were computed with 50 digits, {case: {output: flat list}}."""
    return json.loads(EXACT.read_text(encoding="utf-8"))


def exact_outputs(case_id: str, expected: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return outputs with 50 digits, rounded, where there are any; else ``expected``."""
    kept = exact().get(case_id)
    if kept is None:
        return expected
    return {
        name: np.array(kept[name]).view(z.dtype).reshape(z.shape) for name, z in expected.items()
    }


def reference_ssm(inputs: dict[str, np.ndarray], options: dict[str, Any]):
    """Return y and x_last of minis5.reference.ssm."""
    layer = {name: inputs[name] for name in LAYER}
    how = {name: options[name] for name in DEFAULTS}
    u, reset, x0, dt = (inputs.get(name) for name in ("u", "reset", "x0", "dt"))
    return reference.ssm(layer, u, reset, x0, dt=dt, **how)


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases."""
    for name, flags, shape, inputs in trials(dtype, seed, small):
        with np.errstate(all="ignore"):
            y, x_last = reference_ssm(inputs, shape.options)
        expected = exact_outputs(f"ssm/{name}", {"y": y, "x_last": x_last})
        yield Case("ssm", name, flags, dtype, shape.options, inputs, expected, steps=shape.T)


ARGUMENTS = ("layer", "u", "reset", "x0")


def arguments(case: Case) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments layer, u, reset, x0 of a call, and its keywords that are no defaults."""
    z = case.cast()
    keywords = {n: case.options[n] for n in DEFAULTS if case.options[n] != DEFAULTS[n]}
    if "dt" in z:
        keywords["dt"] = z["dt"]
    layer = {name: z[name] for name in LAYER}
    return [layer, z["u"], z.get("reset"), z.get("x0")], keywords


def call(function, case: Case) -> dict[str, Any]:
    """Return y and x_last of function(layer, u, reset, x0, **options) → y, x_last, …."""
    positional, keywords = arguments(case)
    results = invoke(function, *positional, names=ARGUMENTS, **keywords)
    if not isinstance(results, tuple | list) or len(results) < 2:
        got = f"{len(results)}" if isinstance(results, tuple | list) else type(results).__name__
        raise TypeError(f"expected at least 2 results, y and x_last, got {got}; return a tuple")
    return {"y": results[0], "x_last": results[1]}


OPERATION = Operation(
    name="ssm",
    about="""y, x_last = ssm_forward(layer, u, reset, x0, *, discretization="zoh", conj_sym=True,
                        clip_eigs=False, step_rescale=1.0, dt=None), the S5 layer:
    x[t] = Λ̄·x[t-1] + w·(B̃ u[t]),  the first term absent where reset[t],  x[-1] = x0;
    y[t] = 2 Re(C̃ x[t]) + D·u[t],  x_last = x[T-1];  without conj_sym 1 instead of 2;
    zoh: Λ̄ = exp(Λ Δ), w = (Λ̄ - 1)/Λ;  bilinear: r = 1/(1 - ΛΔ/2), Λ̄ = r (1 + ΛΔ/2), w = r Δ;
    Δ = step_rescale exp(log_step), times dt[t] if given;  clip_eigs: Re Λ is at most -1e-4.
layer: Lambda_re (P,), Lambda_im (P,), B (P, H, 2), C (H, P, 2), D (H,), log_step (P, 1); the last
axis of B and C is (real, imaginary): B̃ = B[..., 0] + i B[..., 1], C̃ likewise, Λ = Lambda_re + i
Lambda_im. u, y (T, B, H) real; reset (T, B) bool or None; x0 complex (B, P) or None for zero;
x_last complex (B, P); dt (T, B), one for all P. w is Δ at Λ = 0, and exact where Λ Δ is small:
Λ̄ - 1 needs expm1. In the test vectors each array of layer is an input, B and C real ones. Keywords
come only in cases that need them (flags bilinear, options, irregular). More results than two are
not looked at.""",
    cases=cases,
    call=call,
    causes=FORWARD_CAUSES,
    ours=ssm_forward,
)
