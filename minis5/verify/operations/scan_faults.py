"""Wrong recurrences: a step that went wrong, or wrong arguments of a right one.

Tests: tests/verify/test_scan.py.
"""

import numpy as np


def states(z, step):
    """Return x (T, B, P) of a step, step(z, t, previous) → x[t], for rows and states at once.

    ``z`` are the inputs as :func:`complete` returns them.
    """
    x, previous = np.empty_like(z["b"]), z["x0"]
    for t in range(len(x)):
        x[t] = previous = step(z, t, previous)
    return x


def stepwise(step):
    """Return a cause: the recurrence with a wrong step."""
    return lambda case: {"x": states(complete(case.inputs), step)}


def complete(inputs):
    """Return inputs with nothing left out: a (T, B, P), reset (T, B, 1), x0 (B, P)."""
    b = inputs["b"]
    reset = inputs.get("reset", np.zeros(b.shape[:2], bool))
    a = np.broadcast_to(inputs["a"], b.shape)
    x0 = inputs.get("x0", np.zeros(b.shape[1:], b.dtype))
    return {"a": a, "b": b, "reset": reset[..., None], "x0": x0}


def right_step(z, t, previous):
    """Return x[t] = a[t] x[t-1] + b[t], the first term absent where reset[t]."""
    return np.where(z["reset"][t], 0.0, z["a"][t] * previous) + z["b"][t]


def instead(**changes):
    """Return a cause: the right recurrence of changed inputs, name=function(z) → array."""

    def outputs(case):
        z = complete(case.inputs)
        new = {name: np.broadcast_to(change(z), z[name].shape) for name, change in changes.items()}
        return {"x": states(z | new, right_step)}

    return outputs


def later(z, n=1, fill=0):
    """Return an array shifted by n steps of time to later ones (earlier ones if n < 0)."""
    shifted = np.full_like(z, fill)
    if n > 0:
        shifted[n:] = z[:-n]
    else:
        shifted[:n] = z[-n:]
    return shifted


def _multiplied(z, t, previous):
    return z["a"][t] * (previous * (1.0 - z["reset"][t])) + z["b"][t]


def _first_only(name):
    """Return a step which takes the values of the first row of the batch for all."""
    return instead(**{name: lambda z: z[name][..., :1, :]})


def chunk_lost(size):
    """Return a step that forgets the state where a chunk begins."""
    return stepwise(lambda z, t, p: right_step(z, t, p * 0.0 if t and t % size == 0 else p))


def chunk_reset_ignored(size):
    """Return a step that does not see a reset at a chunk's first step."""
    return instead(
        reset=lambda z: z["reset"] & (np.arange(len(z["reset"])) % size > 0)[:, None, None]
    )


def _state_before(case):
    z = complete(case.inputs)
    return {"x": np.concatenate([z["x0"][None], states(z, right_step)])[:-1]}


def _cut_from_its_start(size):
    """Return a step that cuts what enters a chunk if there is a reset anywhere in the chunk."""

    def reset(z):
        chunks = [z["reset"][i : i + size] for i in range(0, len(z["reset"]), size)]
        first = [np.concatenate([c.any(axis=0, keepdims=True), c[1:]]) for c in chunks]
        return np.concatenate(first)

    return instead(reset=reset)


def _replacing(z, t, previous):
    return np.where(z["reset"][t], 0.0, np.nan_to_num(z["a"][t] * previous)) + z["b"][t]


def _backwards(case):
    z = complete(case.inputs)
    z |= {name: z[name][::-1] for name in ("a", "b", "reset")}
    return {"x": states(z, right_step)[::-1]}


def _tail_missing(case):
    x = states(complete(case.inputs), right_step)
    x[1 << (len(x).bit_length() - 1) :] = 0.0
    return {"x": x}


def _carry_passes_resets(size):
    """Return outputs of chunks whose carry is multiplied by all a, resets or not."""

    def outputs(case):
        z = complete(case.inputs)
        x, carry = np.empty_like(z["b"]), z["x0"]
        for start in range(0, len(x), size):
            local, product = np.zeros_like(carry), np.ones_like(carry)
            for t in range(start, min(start + size, len(x))):
                local, product = right_step(z, t, local), product * z["a"][t]
                x[t] = local + product * carry
            carry = x[t]
        return {"x": x}

    return outputs


CAUSES = {  # of two that explain as many cases the first is named: special ones come first
    "the reset multiplies the old state by zero instead of selecting: NaN and Inf pass it": (
        stepwise(_multiplied)
    ),
    "a reset at the first step does not clear the initial state": instead(
        reset=lambda z: z["reset"] & (np.arange(len(z["reset"])) > 0)[:, None, None]
    ),
    "a reset acts only where all rows of the batch have one": instead(
        reset=lambda z: z["reset"].all(axis=1, keepdims=True)
    ),
    "resets are ignored": instead(reset=lambda z: np.zeros_like(z["reset"])),
    "a single step ignores the initial state": instead(x0=lambda z: z["x0"] * (len(z["b"]) > 1)),
    "the initial state is ignored": instead(x0=lambda z: np.zeros_like(z["x0"])),
    "a reset acts one step late, after the step instead of before it": instead(
        reset=lambda z: later(z["reset"], 1)
    ),
    "a reset acts one step early": instead(reset=lambda z: later(z["reset"], -1)),
    "a reset drops the input of its own step too": stepwise(
        lambda z, t, p: np.where(z["reset"][t], 0.0, z["a"][t] * p + z["b"][t])
    ),
    "a reset goes back to the initial state instead of forgetting": stepwise(
        lambda z, t, p: z["a"][t] * np.where(z["reset"][t], z["x0"], p) + z["b"][t]
    ),
    "a reset takes up the initial state as it is, without a": stepwise(
        lambda z, t, p: np.where(z["reset"][t], z["x0"], z["a"][t] * p) + z["b"][t]
    ),
    "resets are read as their opposite: True keeps the state, False forgets it": instead(
        reset=lambda z: ~z["reset"]
    ),
    "a reset acts in its own step and in the next one": instead(
        reset=lambda z: z["reset"] | later(z["reset"], 1)
    ),
    "NaN and Inf in the state are replaced by numbers: they should stay": stepwise(_replacing),
    "the input is multiplied by 1 - a, as in a moving average": instead(
        b=lambda z: (1.0 - z["a"]) * z["b"]
    ),
    "the input is multiplied by √(1 - |a|²), as the LRU does": instead(
        b=lambda z: np.sqrt(1.0 - np.abs(z["a"]) ** 2) * z["b"]
    ),
    "the initial state is conjugated": instead(x0=lambda z: z["x0"].conj()),
    "a is multiplied twice": instead(a=lambda z: z["a"] ** 2),
    "|a| is used": instead(a=lambda z: np.abs(z["a"])),
    "only the real part of the state is kept": stepwise(lambda z, t, p: right_step(z, t, p).real),
    "the a of the first state is used in all states": instead(a=lambda z: z["a"][..., :1]),
    "the initial state is not multiplied by a[0]": stepwise(
        lambda z, t, p: right_step(z, t, p) if t else z["b"][0] + np.where(z["reset"][0], 0.0, p)
    ),
    "the initial state is taken for x[0]": stepwise(
        lambda z, t, p: right_step(z, t, p) if t else z["x0"]
    ),
    "the state before each step is returned, not the one after it": _state_before,
    "the input is multiplied by a too: a (x + b)": instead(b=lambda z: z["a"] * z["b"]),
    "a is conjugated": instead(a=lambda z: z["a"].conj()),
    "the product of imaginary parts has the wrong sign": stepwise(
        lambda z, t, p: (
            right_step(z, t, p) + np.where(z["reset"][t], 0.0, 2.0 * z["a"][t].imag * p.imag)
        )
    ),
    "the imaginary part of a is ignored": instead(a=lambda z: z["a"].real),
    "a[t-1] is used in step t": instead(a=lambda z: later(z["a"], 1, 1)),
    "a[t+1] is used in step t": instead(a=lambda z: later(z["a"], -1, 1)),
    "a[0] is used in every step": instead(a=lambda z: z["a"][:1]),
    "the a of the batch's first row is used in all rows": _first_only("a"),
    "the resets of the batch's first row act on all rows": _first_only("reset"),
    "a reset in one row of the batch acts on all rows": instead(
        reset=lambda z: z["reset"].any(axis=1, keepdims=True)
    ),
    "the initial state of the batch's first row is used in all rows": _first_only("x0"),
    "time runs backwards": _backwards,
    "steps after the largest power of two are missing": _tail_missing,
}
for _size in (16, 32, 64, 128):
    CAUSES[f"the state is lost between chunks of {_size} steps"] = chunk_lost(_size)
    CAUSES[f"a reset at the first step of a chunk of {_size} steps is ignored"] = (
        chunk_reset_ignored(_size)
    )
    CAUSES[f"a reset cuts what enters its chunk of {_size} steps from the chunk's start on"] = (
        _cut_from_its_start(_size)
    )
    CAUSES[f"what enters a chunk of {_size} steps passes the resets inside it"] = (
        _carry_passes_resets(_size)
    )
