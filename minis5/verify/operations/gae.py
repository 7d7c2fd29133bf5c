"""Generalised advantage estimation: its cases, and how a function is tried on them.

``next_values[t]`` is the value of the observation that truly followed step t: values[t+1] inside an
episode, that of its own last observation where a time limit cut it, and any number where it ended.

Expected values: minis5.reference.gae. Wrong ones: gae_faults.py. Tests: tests/verify/test_gae.py.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import minis5.reference as reference
from minis5.rl.gae import gae as our_gae
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations.gae_faults import CAUSES, NAMES

LENGTHS = (1, 2, 3, 31, 32, 33, 63, 257)
ENDS = ("none", "terminated", "truncated", "both", "last-terminated", "last-truncated", "all")
FACTORS = ((0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.5, 0.9), (0.0, 0.5), (0.95, 1.0))


class Shape(NamedTuple):
    """Sizes and kinds of a case."""

    T: int
    B: int
    ends: str  # one of ENDS
    gamma: float
    lam: float
    small: bool = True  # in the small set

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of a case with finite numbers."""
        truncated = self.ends in ("truncated", "both", "last-truncated")
        inside = self.ends in ("terminated", "truncated", "both", "all") and self.T > 1
        chunked = self.T in (31, 33, 63, 257)
        features = {"reset": inside, "truncation": truncated, "chunked": chunked}
        return tuple(flag for flag, there in features.items() if there) or ("core",)

    def name(self, dtype: str) -> str:
        """Return a case's name."""
        return f"ends-{self.ends}-gamma{self.gamma}-lam{self.lam}-T{self.T}-B{self.B}-{dtype}"


def shapes() -> Iterator[Shape]:
    """Yield the sizes and kinds of the cases with finite numbers."""
    for i, T in enumerate(LENGTHS):
        for j, ends in enumerate(ENDS):
            gamma, lam = FACTORS[(i + j) % len(FACTORS)]
            small = T in (1, 3) or (T, ends) == (33, "both")
            yield Shape(T, (3, 1, 2)[(i + j) % 3], ends, gamma, lam, small)
    for gamma, lam in FACTORS:
        yield Shape(8, 2, "both", gamma, lam)


def ends_of(kind: str, T: int, B: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return where episodes terminate and where a time limit cuts them, bool (T, B)."""
    terminated, truncated = np.zeros((T, B), bool), np.zeros((T, B), bool)
    some, other = rng.random((T, B)) < 0.25, rng.random((T, B)) < 0.25
    some[int(T * rng.random()), 0] = True
    other[T // 2, B - 1] = True
    if kind in ("terminated", "both"):
        terminated |= some
    if kind in ("truncated", "both"):
        truncated |= other & ~terminated
    terminated[-1] |= kind == "last-terminated"
    truncated[-1] |= kind == "last-truncated"
    terminated |= kind == "all"
    return terminated, truncated


def problem(shape: Shape, dtype: str, seed: int, name: str) -> dict[str, np.ndarray]:
    """Return the inputs of a case."""
    rng = draws(seed, "gae", name)
    T, B = shape.T, shape.B
    terminated, truncated = ends_of(shape.ends, T, B, rng)
    done = terminated | truncated
    values = rounded(uniform(rng, (T + 1, B)), dtype)
    after = np.where(done, rounded(uniform(rng, (T, B)), dtype), values[1:])
    rewards = rounded(uniform(rng, (T, B)), dtype)
    return dict(zip(NAMES, (rewards, values[:-1], after, terminated, done), strict=True))


def special(dtype: str, seed: int) -> Iterator[tuple[str, tuple[str, ...], Shape, dict]]:
    """Yield cases with NaN, Inf, huge or tiny numbers, and long ones."""
    for bad, where in product((np.nan, np.inf), ("next-value", "next-episode")):
        shape = Shape(6, 2, "none", 0.9, 0.8)
        name = f"{'nan' if np.isnan(bad) else 'inf'}-in-{where}-{dtype}"
        z = problem(shape, dtype, seed, name)
        z["done"][2, 0] = z["terminated"][2, 0] = z["done"][3, 1] = True  # row 1 is truncated
        z["next_values"][3, 1] = 0.5
        if where == "next-value":  # no one asks what follows a termination
            z["next_values"][2, 0] = bad
        else:  # the episode that follows is broken, those before it are not
            z["rewards"][4, 0] = z["values"][4, 1] = bad
        yield name, ("reset_selects", "truncation"), shape, z
    limits, big = np.finfo(dtype), {"float32": 1e30, "float64": 1e290}[dtype]
    tiny = float(limits.tiny) / float(
        limits.eps
    )  # sums that cancel may become 0, as XLA makes them
    for word, scale in (("huge", big), ("tiny", tiny)):
        shape = Shape(6, 2, "both", 0.9, 0.8)
        name = f"{word}-{dtype}"
        z = problem(shape, dtype, seed, name)
        z |= {key: rounded(z[key] * scale, dtype) for key in NAMES[:3]}
        yield name, ("extreme", *shape.flags), shape, z
    for word, bad in (("nan", np.nan), ("inf", np.inf), ("minus-inf", -np.inf)):
        shape = Shape(6, 2, "none", 0.9, 0.8)
        name = f"{word}-reward-{dtype}"
        z = problem(shape, dtype, seed, name)
        z["rewards"][3, 0] = bad
        yield name, ("extreme",), shape, z
    shape = Shape(4096, 1, "none", 0.9999, 0.9999, small=False)
    name = f"long-{shape.name(dtype)}"
    yield name, ("long",), shape, problem(shape, dtype, seed, name)


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases."""
    plain = [s for s in shapes() if s.small or not small]
    named = [(s.name(dtype), s.flags, s, problem(s, dtype, seed, s.name(dtype))) for s in plain]
    for name, flags, shape, z in (*named, *special(dtype, seed)):
        if shape.small or not small:
            T, B, ends, gamma, lam, _ = shape
            options = {"T": T, "B": B, "ends": ends, "gamma": gamma, "lam": lam}
            with np.errstate(invalid="ignore"):
                expected = {"advantages": reference.gae(**z, gamma=gamma, lam=lam)}
            yield Case("gae", name, flags, dtype, options, z, expected, steps=T)


def call(function, case: Case) -> dict[str, Any]:
    """Return {"advantages": …}."""
    z = case.cast()
    factors = case.options["gamma"], case.options["lam"]
    names = (*NAMES, "gamma", "lam")
    return {"advantages": invoke(function, *(z[key] for key in NAMES), *factors, names=names)}


OPERATION = Operation(
    name="gae",
    about="""advantages = gae(rewards, values, next_values, terminated, done, gamma, lam):
    A[t] = δ[t] + γλ·A[t+1], the second term absent where done[t] or at the end;
    δ[t] = r[t] + γ·next_values[t] - values[t], the second term absent where terminated[t].
All arrays (T, B), terminated and done bool. next_values[t] is the value of the observation that
truly followed step t; done is terminated or cut by a time limit. The next value where terminated,
and whatever comes after an end, are not read: NaN and Inf there change nothing.""",
    cases=cases,
    call=call,
    causes=CAUSES,
    ours=our_gae,
)
