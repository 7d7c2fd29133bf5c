"""What must hold of a memory core that is a one-step function and a sequence function.

    steps-forget      a step with the reset flag is a step from the initial state
    replay            a sequence is its steps, without resets and with them
    stored-state      ... from a state that steps have left
    two-parts         a sequence cut in two, the second part from the first one's last state
    columns           some rows of the batch alone give what they give among all
    before-a-reset    what was before a reset does not matter, not even NaN and Inf
    arguments         neither function writes into its arguments

Last states are compared by what they lead to: the outputs of two more steps from them.

Tests: tests/verify/test_replay.py.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from minis5.verify.case import draws, rounded
from minis5.verify.states import States, copied, leaves_of

B = 4  # rows of the batch
LENGTHS = (1, 7, 33, 64)
AFTER = 2  # steps that compare last states


class Property(NamedTuple):
    """Two ways to the same numbers."""

    name: str
    flags: tuple[str, ...]
    steps: int
    got: Callable[[], dict[str, Any]]
    expected: Callable[[], dict[str, Any]]
    causes: dict[str, Callable[[], dict[str, Any]]] = {}  # noqa: RUF012  never written to


class Core:
    """A user's functions, and inputs for them."""

    def __init__(self, step, sequence, initial_state, width, dtype, seed):
        self.step, self.sequence, self.width = step, sequence, width
        self.states, self.dtype, self.seed = States(initial_state, dtype), dtype, seed

    def inputs(self, T, name, batch=B):
        """Return random inputs (T, batch, width) and resets (T, batch), at edges and in a row."""
        rng = draws(self.seed, "core", T, name)
        u = rounded(4.0 * rng.random((T, batch, self.width)) - 2.0, self.dtype).astype(self.dtype)
        reset = np.zeros((T, batch), bool)
        for t, row in ((0, 0), (T // 2, 1), (min(T // 2 + 1, T - 1), 1), (T - 1, 2)):
            reset[t, row % batch] = True
        return u, reset

    def left(self, batch=B):
        """Return a state that three steps have left."""
        u, reset = self.inputs(3, "before", batch)
        return self.stepped(u, np.zeros_like(reset), self.states.initial(batch))[1]

    def stepped(self, u, reset, state):
        """Return outputs and last state of the one-step function, step by step."""
        outputs = []
        for t in range(len(u)):
            y, state = pair(self.step(u[t].copy(), reset[t].copy(), state), "step_fn")
            outputs.append(np.array(y))
        return np.stack(outputs), state

    def replayed(self, u, reset, state):
        """Return outputs and last state of the sequence function."""
        return pair(self.sequence(u.copy(), reset.copy(), state), "sequence_fn")

    def outcome(self, y, state):
        """Return outputs, and those of two more steps."""
        batch = np.shape(y)[1]
        u, reset = self.inputs(AFTER, "after", batch)
        return {"y": y, "y of later steps": self.stepped(u, np.zeros_like(reset), state)[0]}

    def by_steps(self, u, reset, state):
        """Return what steps give, as :meth:`outcome` does."""
        return self.outcome(*self.stepped(u, reset, copied(state)))

    def by_sequence(self, u, reset, state):
        """Return what the sequence function gives, as :meth:`outcome` does."""
        return self.outcome(*self.replayed(u, reset, copied(state)))


def pair(result, name):
    """Return the two things that a function returned."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(f"{name}: expected (y, state), got {type(result).__name__}; return both")
    return result


def properties(core: Core) -> Iterator[Property]:
    """Yield all that must hold."""
    for T in LENGTHS:
        yield from _replays(core, T)
    yield from _forgetting(core)
    yield from _parts(core)
    yield from _columns(core)
    for bad in (np.nan, np.inf):
        yield from _poison(core, bad)


def _replays(core, T):
    chunked = ("chunked",) if T > 32 else ()
    u, reset = core.inputs(T, "replay")
    none, zero, left = np.zeros_like(reset), core.states.initial(B), core.left()
    late = np.concatenate([none[:1], reset[:-1]])
    early = np.concatenate([reset[1:], none[:1]])
    for name, flags, flag, state in (
        ("replay", ("core",), none, zero),
        ("replay-with-resets", ("reset",), reset, zero),
        ("stored-state", ("initial_state",), none, left),
        ("stored-state-with-resets", ("initial_state", "reset"), reset, left),
    ):
        fed = (u, flag, state)
        changed = {
            "sequence_fn ignores resets": (u, none, state),
            "sequence_fn ignores the state that it is given": (u, flag, zero),
            "sequence_fn resets one step late": (u, late, state),
            "sequence_fn resets one step early": (u, early, state),
            "sequence_fn resets all rows where one is reset": (
                u,
                np.broadcast_to(flag.any(axis=1, keepdims=True), flag.shape),
                state,
            ),
        }
        causes = {c: lambda fed=fed: core.by_steps(*fed) for c, fed in changed.items()}
        backwards = u[::-1], flag[::-1], state
        causes["sequence_fn takes time backwards"] = lambda fed=backwards: _reversed(core, *fed)
        if name == "replay":
            causes["sequence_fn has batch and time exchanged"] = lambda: {"y": _exchanged(core, u)}
        yield Property(
            f"{name}-T{T}",
            (*flags, *chunked) if flags != ("core",) or not chunked else chunked,
            T,
            lambda fed=fed: core.by_sequence(*fed),
            lambda fed=fed: core.by_steps(*fed),
            causes,
        )


def _reversed(core, u, reset, state):
    y, last = core.stepped(u, reset, copied(state))
    return core.outcome(y[::-1], last)


def _exchanged(core, u):
    if len(u) != B:
        raise ValueError("only a square can hide it")
    v = np.swapaxes(u, 0, 1)
    return np.swapaxes(core.stepped(v, np.zeros((B, B), bool), core.states.initial(B))[0], 0, 1)


def _afterwards(core, u, state):
    """Return what steps give that forget after the first one."""
    none = np.zeros(u.shape[:2], bool)
    one, _ = core.stepped(u[:1], none[:1], copied(state))
    others, last = core.stepped(u[1:], none[1:], core.states.initial(B))
    return core.outcome(np.concatenate([one, others]), last)


def _forgetting(core):
    u, _ = core.inputs(3, "forget")
    reset, left = np.zeros((3, B), bool), core.left()
    first = reset.copy()
    first[0] = True
    fresh = core.states.initial(B)
    causes = {
        "step_fn ignores the reset flag": lambda: core.by_steps(u, reset, left),
        "step_fn forgets after the step, not before it": lambda: _afterwards(core, u, left),
    }
    yield Property(
        "steps-forget",
        ("reset",),
        3,
        lambda: core.by_steps(u, first, left),
        lambda: core.by_steps(u, reset, fresh),
        causes,
    )
    u, _ = core.inputs(9, "packed", 1)
    edges, reset, state = (0, 2, 3, 9), np.zeros((9, 1), bool), core.left(1)
    reset[list(edges[:-1])] = True
    none = np.zeros_like(reset)

    def separate():
        parts = [
            core.stepped(u[a:b], none[a:b], core.states.initial(1))
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]
        return core.outcome(np.concatenate([y for y, _ in parts]), parts[-1][1])

    for name, run in (("steps", core.by_steps), ("sequence", core.by_sequence)):
        yield Property(
            f"packed-is-separate-{name}",
            ("reset",),
            9,
            lambda run=run: run(u, reset, state),
            separate,
        )


def _parts(core):
    u, reset = core.inputs(33, "parts")
    state = core.left()
    for cut in (1, 16, 17, 32):

        def parts(cut=cut):
            one, middle = core.replayed(u[:cut], reset[:cut], copied(state))
            two, last = core.replayed(u[cut:], reset[cut:], middle)
            return core.outcome(np.concatenate([np.asarray(one), np.asarray(two)]), last)

        forgotten = reset.copy()
        forgotten[cut] = True
        yield Property(
            f"two-parts-{cut}",
            ("initial_state", "reset", "chunked"),
            33,
            parts,
            lambda: core.by_sequence(u, reset, state),
            {
                "the second part does not begin with the first one's last state": (
                    lambda forgotten=forgotten: core.by_sequence(u, forgotten, state)
                )
            },
        )


def _columns(core):
    u, reset = core.inputs(7, "columns")
    state = core.left()
    for rows in ([3, 0], [2]):
        some = core.states.take(state, rows)

        def alone(run, rows=rows, some=some):
            return run(u[:, rows], reset[:, rows], some)

        def among(run, rows=rows):
            found = run(u, reset, state)
            return {"y": np.asarray(found["y"])[:, rows]}

        for name, run in (("step", core.by_steps), ("sequence", core.by_sequence)):
            yield Property(
                f"columns-{''.join(map(str, rows))}-{name}",
                ("initial_state", "reset"),
                7,
                lambda run=run, alone=alone: {"y": alone(run)["y"]},
                lambda run=run, among=among: among(run),
            )


def _poison(core, bad):
    word = "nan" if np.isnan(bad) else "inf"
    u, _ = core.inputs(9, "poison")
    state, at = core.left(), 4
    reset = np.zeros((9, B), bool)
    reset[at, 1] = reset[0, 2] = True
    poisoned = u.copy()
    poisoned[:at, 1] = bad
    states = core.states.poisoned(core.states.poisoned(state, 1, bad), 2, bad)

    def cut(found):
        y = np.array(found["y"])
        y[:at, 1] = 0  # before the reset it may be anything
        return found | {"y": y}

    def finite(run):
        return cut(run(u, reset, state))

    for name, run in (("step", core.by_steps), ("sequence", core.by_sequence)):
        yield Property(
            f"{word}-before-a-reset-{name}",
            ("reset_selects", "initial_state"),
            9,
            lambda run=run: cut(run(poisoned, reset, states)),
            lambda run=run: finite(run),
            {
                f"the reset multiplies the old state by zero instead of selecting: {word} passes": (
                    lambda run=run: _passed(finite(run), at)
                )
            },
        )


def _passed(found, at):
    """Return outputs which are NaN in the poisoned rows: from the reset on, or from the start."""
    y, later = np.array(found["y"]), np.array(found["y of later steps"])
    y[at:, 1] = y[:, 2] = later[:, 1:3] = np.nan
    return {"y": y, "y of later steps": later}


def untouched(core: Core) -> str:
    """Return which argument a function writes into, in words; empty if none."""
    u, reset = core.inputs(5, "arguments")
    for name, function, arrays in (
        ("step_fn", core.step, (u[0], reset[0], core.left())),
        ("sequence_fn", core.sequence, (u, reset, core.left())),
    ):
        kept = copied(arrays)
        function(*arrays)
        for argument, before, after in zip(("u", "reset", "state"), kept, arrays, strict=True):
            pairs = zip(leaves_of(before), leaves_of(after), strict=True)
            if not all(np.array_equal(one, other) for one, other in pairs):
                return f"{name} writes into its argument {argument}"
    return ""
