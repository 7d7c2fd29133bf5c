"""The adjoint of the resettable recurrence: its cases, which are those of the scan with a gradient
of every state, and the faults that people make.

The gradient of a complex z is ∂L/∂Re z + i ∂L/∂Im z. (JAX's is its conjugate; PyTorch's is this.)

Expected values: minis5.reference.scan_vjp; for long sequences exact.py.
Tests: tests/verify/test_scan_vjp.py.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

import minis5.reference as reference
from minis5.nn.scan import scan_vjp as our_scan_vjp
from minis5.verify.case import Case, Operation, draws, invoke, rounded, uniform
from minis5.verify.operations.exact import exact_scan_vjp
from minis5.verify.operations.scan import ARGUMENTS, Shape, Trial, problem, resets_at, trials
from minis5.verify.operations.scan_faults import complete, later, right_step, states

OUTPUTS = ("da", "db", "dx0")


def poisoned(dtype: str, seed: int) -> Iterator[Trial]:
    """Yield cases where gradients after a reset are NaN or Inf."""
    for used, bad in enumerate((np.nan, np.inf, np.nan, -np.inf)):
        shape = Shape(7, 2, 2, is_complex=used < 2, varying=used % 2 == 0)
        word = "nan" if np.isnan(bad) else "inf" if bad > 0 else "minus-inf"
        name = f"{word}-after-reset-{shape.kind}-{dtype}"
        inputs = problem(shape, dtype, seed, name)
        inputs["reset"] = resets_at(shape, (4, 0), (5, 1))
        inputs["dx"] = gradient_of(inputs["b"], dtype, seed, name)
        inputs["dx"][5, 0] = bad
        yield Trial(name, ("reset_selects", *shape.flags), shape, inputs)


def gradient_of(b: np.ndarray, dtype: str, seed: int, name: str) -> np.ndarray:
    """Return dx, the gradient of every state."""
    rng = draws(seed, "scan_vjp", name)
    return rounded(uniform(rng, b.shape, is_complex=b.dtype.kind == "c"), dtype)


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases."""
    for trial in (*trials(dtype, seed, small), *poisoned(dtype, seed)):
        yield _case(trial, dtype, seed)


def _case(trial, dtype, seed):
    name, flags, shape, inputs = trial
    a, b, reset, x0 = (inputs.get(key) for key in ("a", "b", "reset", "x0"))
    with np.errstate(invalid="ignore", over="ignore"):
        x = rounded(states(complete(inputs), right_step), dtype)
        dx = inputs["dx"] if "dx" in inputs else gradient_of(b, dtype, seed, name)
        make = exact_scan_vjp if "long" in flags else reference.scan_vjp
        results = make(a, b, reset, x0, x, dx)
    expected = dict(zip(OUTPUTS, results, strict=True))
    inputs = inputs | {"x": x, "dx": dx}
    gradients = frozenset(OUTPUTS)
    return Case("scan_vjp", name, flags, dtype, shape.options, inputs, expected, gradients, shape.T)


def call(function, case: Case) -> dict[str, Any]:
    """Return the three gradients by name."""
    z = case.cast()
    names = (*ARGUMENTS, "x", "dx")
    return named(invoke(function, *(z.get(name) for name in names), names=names), OUTPUTS)


def named(results, names) -> dict[str, Any]:
    """Return the results of a function by name; raise TypeError if they are of another number."""
    if not isinstance(results, tuple | list) or len(results) != len(names):
        got = f"{len(results)}" if isinstance(results, tuple | list) else type(results).__name__
        wanted = f"{len(names)} results, {', '.join(names)}"
        raise TypeError(f"expected {wanted}, got {got}; return a tuple of them")
    return dict(zip(names, results, strict=True))


# Faults


def right_carry(z, t, g):
    """Return what flows from step t to step t-1."""
    return np.where(z["reset"][t], 0.0, z["a"][t].conj() * g)


def right_product(z, t, g, previous):
    """Return da[t]."""
    return np.where(z["reset"][t], 0.0, g * previous.conj())


def backward_states(z, carry=right_carry, product=right_product):
    """Return da (T, B, P), db, dx0; ``z`` as from scan_faults.complete, with x and dx."""
    da, db, later = np.empty_like(z["dx"]), np.empty_like(z["dx"]), np.zeros_like(z["x0"])
    for t in reversed(range(len(db))):
        db[t] = g = z["dx"][t] + later
        da[t] = product(z, t, g, z["x"][t - 1] if t else z["x0"])
        later = carry(z, t, g)
    return da, db, later


def adjoint(carry=right_carry, product=right_product, after=None, **changes):
    """Return a cause.

    Parameters
    ----------
    carry, product : callable
        Wrong forms of right_carry and right_product.
    after : callable, optional
        What is done to {"da", "db", "dx0"} at the end; da still is (T, B, P). It gets z too.
    **changes
        Inputs to change, name=function(z) → array.
    """

    def outputs(case):
        z = complete(case.inputs) | {name: case.inputs[name] for name in ("x", "dx")}
        z |= {name: np.broadcast_to(change(z), z[name].shape) for name, change in changes.items()}
        results = dict(zip(OUTPUTS, backward_states(z, carry, product), strict=True))
        results |= after(results, z) if after else {}
        if case.inputs["a"].ndim == 1 and results["da"].ndim == 3:
            results["da"] = results["da"].sum(axis=(0, 1))
        return results

    return outputs


def _keep(z, t):
    return 1.0 - z["reset"][t]


def _all(change):
    return lambda results, z: {name: change(value) for name, value in results.items()}


def _chunk_lost(size):
    return adjoint(carry=lambda z, t, g: right_carry(z, t, g) * (1.0 if t % size else 0.0))


CAUSES = {
    "the reset multiplies by zero instead of selecting: NaN and Inf pass it backwards": adjoint(
        carry=lambda z, t, g: z["a"][t].conj() * g * _keep(z, t),
        product=lambda z, t, g, p: g * p.conj() * _keep(z, t),
    ),
    "the reset multiplies what flows back by zero: NaN and Inf pass it": adjoint(
        carry=lambda z, t, g: z["a"][t].conj() * g * _keep(z, t)
    ),
    "the reset multiplies the previous state by zero in da: its NaN and Inf pass": adjoint(
        product=lambda z, t, g, p: g * p.conj() * _keep(z, t)
    ),
    "gradients pass resets: resets are ignored": adjoint(reset=lambda z: np.zeros_like(z["reset"])),
    "gradients pass resets to earlier steps (da is cut)": adjoint(
        carry=lambda z, t, g: z["a"][t].conj() * g
    ),
    "da is not cut at resets": adjoint(product=lambda z, t, g, p: g * p.conj()),
    "the gradient of the initial state is not cut by a reset at the first step": adjoint(
        carry=lambda z, t, g: right_carry(z, t, g) if t else z["a"][0].conj() * g
    ),
    "the gradient of the initial state is missing": adjoint(
        after=lambda r, z: {"dx0": np.zeros_like(r["dx0"])}
    ),
    "the gradient of the initial state is that of x[0]: not multiplied by conj(a[0])": adjoint(
        carry=lambda z, t, g: right_carry(z, t, g) if t else np.where(z["reset"][0], 0.0, g)
    ),
    "the gradient of the initial state is summed over the batch": adjoint(
        after=lambda r, z: {"dx0": np.broadcast_to(r["dx0"].sum(axis=0), r["dx0"].shape)}
    ),
    "the resets are not shifted: what flows from t+1 to t is cut where reset[t]": adjoint(
        carry=lambda z, t, g: np.where(z["reset"][t - 1] if t else False, 0.0, z["a"][t].conj() * g)
    ),
    "a is not conjugated in what flows back": adjoint(
        carry=lambda z, t, g: np.where(z["reset"][t], 0.0, z["a"][t] * g)
    ),
    "x is not conjugated in da": adjoint(
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g * p)
    ),
    "nothing is conjugated, neither a nor x": adjoint(
        carry=lambda z, t, g: np.where(z["reset"][t], 0.0, z["a"][t] * g),
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g * p),
    ),
    "g is conjugated in da instead of x": adjoint(
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g.conj() * p)
    ),
    "the gradients are conjugated: ∂/∂Re z - i ∂/∂Im z, as JAX returns them": adjoint(
        after=_all(np.conj)
    ),
    "dx is taken and gradients are given as ∂/∂Re z - i ∂/∂Im z, as JAX does": adjoint(
        dx=lambda z: z["dx"].conj(), after=_all(np.conj)
    ),
    "the gradients are half: ∂/∂z̄ instead of ∂/∂Re z + i ∂/∂Im z": adjoint(
        after=_all(lambda z: 0.5 * z)
    ),
    "the gradients are the conjugate and half: ∂/∂z": adjoint(
        after=_all(lambda z: 0.5 * np.conj(z))
    ),
    "da of a constant a is the mean over steps and rows instead of the sum": adjoint(
        after=lambda r, z: {"da": r["da"] / r["da"][..., 0].size}
    ),
    "da of a constant a is the sum over steps, but the mean over the batch": adjoint(
        after=lambda r, z: {"da": r["da"] / r["da"].shape[1]}
    ),
    "da of a constant a is not summed over time: the first step's only": adjoint(
        after=lambda r, z: {"da": r["da"][:1]}
    ),
    "da of a constant a is not summed over time: the last step's only": adjoint(
        after=lambda r, z: {"da": r["da"][-1:]}
    ),
    "da of a constant a is not summed over the batch: the first row's only": adjoint(
        after=lambda r, z: {"da": r["da"][:, :1]}
    ),
    "da of a constant a is not summed over the batch: the last row's only": adjoint(
        after=lambda r, z: {"da": r["da"][:, -1:]}
    ),
    "da lacks the first step, with the initial state": adjoint(
        product=lambda z, t, g, p: right_product(z, t, g, p) * (t > 0)
    ),
    "da is taken with x[t] instead of x[t-1]": adjoint(
        product=lambda z, t, g, p: np.where(z["reset"][t], 0.0, g * z["x"][t].conj())
    ),
    "da is taken with dx[t] instead of g[t]": adjoint(
        product=lambda z, t, g, p: right_product(z, t, z["dx"][t], p)
    ),
    "a[t] flows back from step t+1 instead of a[t+1]": adjoint(
        carry=lambda z, t, g: np.where(z["reset"][t], 0.0, z["a"][max(t - 1, 0)].conj() * g)
    ),
    "db is dx: nothing flows back from later steps": adjoint(
        carry=lambda z, t, g: np.zeros_like(g) if t else right_carry(z, t, g)
    ),
    "nothing flows back from later steps, nor to the initial state": adjoint(
        carry=lambda z, t, g: np.zeros_like(g)
    ),
    "the gradient of the last step is ignored": adjoint(
        dx=lambda z: np.concatenate([z["dx"][:-1], np.zeros_like(z["dx"][:1])])
    ),
    "only the gradient of the last step is taken": adjoint(
        dx=lambda z: np.concatenate([np.zeros_like(z["dx"][:-1]), z["dx"][-1:]])
    ),
    "the gradient of the last step is taken twice": adjoint(
        dx=lambda z: np.concatenate([z["dx"][:-1], 2.0 * z["dx"][-1:]])
    ),
    "dx is conjugated": adjoint(dx=lambda z: z["dx"].conj()),
    "db is dx: nothing that flows back is in it": adjoint(after=lambda r, z: {"db": z["dx"]}),
    "db is multiplied by conj(a)": adjoint(after=lambda r, z: {"db": z["a"].conj() * r["db"]}),
    "db is zero at resets": adjoint(after=lambda r, z: {"db": np.where(z["reset"], 0.0, r["db"])}),
    "the imaginary part of da is missing": adjoint(after=lambda r, z: {"da": r["da"].real + 0.0j}),
    "da is taken with the initial state at resets": adjoint(
        product=lambda z, t, g, p: g * np.where(z["reset"][t], z["x0"], p).conj()
    ),
    "a[0] is not conjugated in the gradient of the initial state": adjoint(
        carry=lambda z, t, g: (
            right_carry(z, t, g) if t else np.where(z["reset"][0], 0.0, z["a"][0] * g)
        )
    ),
    "NaN and Inf in the gradients are replaced by numbers: they should stay": adjoint(
        after=_all(np.nan_to_num)
    ),
    "da and db are exchanged": adjoint(after=lambda r, z: {"da": r["db"], "db": r["da"]}),
    "dx is one step late": adjoint(dx=lambda z: later(z["dx"], 1)),
}
for _size in (16, 32, 64, 128):
    CAUSES[f"nothing flows back between chunks of {_size} steps"] = _chunk_lost(_size)

OPERATION = Operation(
    name="scan_vjp",
    about="""da, db, dx0 = scan_vjp(a, b, reset, x0, x, dx), the gradients of scan:
    g[t] = dx[t] + conj(a[t+1])·g[t+1], the second term absent where reset[t+1] or at the end;
    db = g;  da[t] = g[t]·conj(x[t-1]), 0 where reset[t];  dx0 = conj(a[0])·g[0], 0 where reset[0].
a (P,) or (T, B, P), da the same: a constant a gets the sum over t and the batch. b, x, dx, db
(T, B, P); reset (T, B) bool; x0, dx0 (B, P), dx0 also if x0 is None. x is what scan returned. The
gradient of a complex z is ∂L/∂Re z + i ∂L/∂Im z, of dx too (PyTorch's convention; JAX's is the
conjugate).""",
    cases=cases,
    call=call,
    causes=CAUSES,
    ours=our_scan_vjp,
)
