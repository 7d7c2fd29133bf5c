"""Generalised advantage estimation: its cases, and the faults that people make.

``next_values[t]`` is the value of the observation that truly followed step t: values[t+1] inside an
episode, that of its own last observation where a time limit cut it, and any number where it ended.

Expected values: minis5.reference.gae. Tests: tests/verify/test_gae.py.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

import minis5.reference as reference
from minis5.rl.gae import gae as our_gae
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform

LENGTHS = (1, 2, 3, 31, 32, 33, 63, 257)
ENDS = ("none", "terminated", "truncated", "both", "last-terminated", "last-truncated", "all")
FACTORS = ((0.99, 0.95), (0.9, 0.0), (1.0, 1.0), (0.5, 0.9), (0.0, 0.5), (0.95, 1.0))
NAMES = ("rewards", "values", "next_values", "terminated", "done")


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
    return {"advantages": invoke(function, *(z[key] for key in NAMES), *factors)}


# Faults: one of the four terms gone wrong, or wrong arguments


def faulty(after: Callable | None = None, **terms: Callable) -> Callable:
    """Return a cause.

    Parameters
    ----------
    after : callable, optional
        What is done to the advantages at the end: after(advantages, z) → advantages.
    **terms
        Wrong terms, each a function of (z, t): ``bootstrap``, what is added to the reward;
        ``keep``, where the next step's advantage is added (bool); ``decay``, its factor; ``base``,
        what is subtracted; or inputs to change, functions of z.
    """

    def outputs(case):
        z = dict(case.inputs) | {name: case.options[name] for name in ("gamma", "lam")}
        inputs = {name: change(z) for name, change in terms.items() if name not in RIGHT}
        z |= {k: np.broadcast_to(v, z[k].shape) if k in NAMES else v for k, v in inputs.items()}
        use = RIGHT | {name: term for name, term in terms.items() if name in RIGHT}
        advantages = np.zeros(z["rewards"].shape)
        later = np.zeros(advantages.shape[1])
        for t in reversed(range(len(advantages))):
            flowing = use["flow"](z, t, use["decay"](z, t) * later)
            later = z["rewards"][t] + use["bootstrap"](z, t) - use["base"](z, t) + flowing
            advantages[t] = later
        return {"advantages": advantages if after is None else after(advantages, z)}

    return outputs


RIGHT: dict[str, Callable] = {
    "bootstrap": lambda z, t: np.where(z["terminated"][t], 0.0, z["gamma"] * z["next_values"][t]),
    "flow": lambda z, t, later: np.where(z["done"][t], 0.0, later),
    "decay": lambda z, t: z["gamma"] * z["lam"],
    "base": lambda z, t: z["values"][t],
}


def _next_of_batch(z):
    """Return values[t+1], whatever episode it belongs to; the true next value of the last step."""
    return np.concatenate([z["values"][1:], z["next_values"][-1:]])


def _early(z):
    """Return flags one step early, False at the end."""
    return np.concatenate([z[1:], np.zeros_like(z[:1])])


def _late(z):
    return np.concatenate([np.zeros_like(z[:1]), z[:-1]])


def _normalised(advantages, z):
    return (advantages - advantages.mean()) / (advantages.std() + 1e-8)


def _forwards(case):
    z = {name: value[::-1] for name, value in case.inputs.items()}
    return {"advantages": faulty()(case._replace(inputs=z))["advantages"][::-1]}


def _chunk_lost(size):
    return faulty(
        flow=lambda z, t, later: RIGHT["flow"](z, t, later) * (1.0 if (t + 1) % size else 0.0)
    )


CAUSES = {
    "truncation is treated as termination: no value follows a time limit": faulty(
        bootstrap=lambda z, t: np.where(z["done"][t], 0.0, z["gamma"] * z["next_values"][t])
    ),
    "termination is ignored: a value follows the end of an episode": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t]
    ),
    "where an episode is cut, the value of the new episode's first observation follows": faulty(
        next_values=_next_of_batch
    ),
    "the new episode's first value follows every end, terminated or not": faulty(
        bootstrap=lambda z, t: z["gamma"] * _next_of_batch(z)[t]
    ),
    "advantages leak from the next episode: done is ignored": faulty(
        flow=lambda z, t, later: later
    ),
    "advantages leak over time limits: only termination cuts them": faulty(
        flow=lambda z, t, later: np.where(z["terminated"][t], 0.0, later)
    ),
    "episodes' ends are ignored altogether": faulty(
        flow=lambda z, t, later: later, bootstrap=lambda z, t: z["gamma"] * z["next_values"][t]
    ),
    "ends are ignored, and the next value is that of the next step in the batch": faulty(
        flow=lambda z, t, later: later, bootstrap=lambda z, t: z["gamma"] * _next_of_batch(z)[t]
    ),
    "termination multiplies the next value by zero: its NaN and Inf pass": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t] * (1.0 - z["terminated"][t])
    ),
    "an end multiplies the next advantage by zero: its NaN and Inf pass": faulty(
        flow=lambda z, t, later: later * (1.0 - z["done"][t])
    ),
    "an end multiplies by zero instead of selecting: NaN and Inf pass it": faulty(
        bootstrap=lambda z, t: z["gamma"] * z["next_values"][t] * (1.0 - z["terminated"][t]),
        flow=lambda z, t, later: later * (1.0 - z["done"][t]),
    ),
    "λ and γ are exchanged": faulty(gamma=lambda z: z["lam"], lam=lambda z: z["gamma"]),
    "λ is missing: advantages decay with γ alone": faulty(decay=lambda z, t: z["gamma"]),
    "γ is missing in the decay: advantages decay with λ alone": faulty(decay=lambda z, t: z["lam"]),
    "advantages do not decay": faulty(decay=lambda z, t: 1.0),
    "γ is missing in front of the next value": faulty(
        bootstrap=lambda z, t: np.where(z["terminated"][t], 0.0, z["next_values"][t])
    ),
    "γ is applied twice to the next value": faulty(
        bootstrap=lambda z, t: z["gamma"] * RIGHT["bootstrap"](z, t)
    ),
    "γ is applied twice in the decay": faulty(decay=lambda z, t: z["gamma"] ** 2 * z["lam"]),
    "advantages are one-step errors: nothing flows back (λ = 0)": faulty(decay=lambda z, t: 0.0),
    "λ-returns are returned: the values are not subtracted": faulty(
        after=lambda advantages, z: advantages + z["values"]
    ),
    "values are not subtracted in the one-step errors": faulty(base=lambda z, t: 0.0),
    "values are added instead of subtracted": faulty(base=lambda z, t: -z["values"][t]),
    "nothing follows the last step: its next value is left out": faulty(
        next_values=lambda z: np.concatenate([z["next_values"][:-1], 0.0 * z["next_values"][-1:]])
    ),
    "no next value is used at all": faulty(bootstrap=lambda z, t: 0.0),
    "values[t] is used as the next value": faulty(next_values=lambda z: z["values"]),
    "ends act one step late": faulty(
        done=lambda z: _late(z["done"]), terminated=lambda z: _late(z["terminated"])
    ),
    "ends act one step early (done is read as 'an episode begins here')": faulty(
        done=lambda z: _early(z["done"]), terminated=lambda z: _early(z["terminated"])
    ),
    "done acts one step early, termination in its place": faulty(done=lambda z: _early(z["done"])),
    "rewards are one step late": faulty(rewards=lambda z: _late(z["rewards"])),
    "rewards are one step early": faulty(rewards=lambda z: _early(z["rewards"])),
    "an end in one row of the batch cuts all rows": faulty(
        done=lambda z: z["done"].any(axis=1, keepdims=True)
    ),
    "the ends of the batch's first row cut all rows": faulty(
        done=lambda z: z["done"][:, :1], terminated=lambda z: z["terminated"][:, :1]
    ),
    "time runs forwards": _forwards,
    "advantages are normalised already": faulty(after=_normalised),
}
for _size in (16, 32, 64, 128):
    CAUSES[f"nothing flows back between chunks of {_size} steps"] = _chunk_lost(_size)

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
