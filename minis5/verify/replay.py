"""check_replay: does a memory core replay what its steps did? check_rollout: does a learner keep
what it needs for that?

A rollout is acted step by step and learnt from as a sequence. Both must give the same numbers, from
the state that was stored, with the same reset flags. What is right is found by the user's own
one-step function, fed with care (core_properties.py): check_replay needs no parameters, and works
with any core.

Leaves out: gradients (check_scan_vjp, check_ssm; memory_core.py for minis5's own cores).
Tests: tests/verify/test_replay.py.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minis5.checks import check_choice, check_integer
from minis5.verify.case import DTYPES, Case
from minis5.verify.checks import check_operation, checked
from minis5.verify.compare import accuracy, agrees, first_wrong
from minis5.verify.core_properties import Core, properties, untouched
from minis5.verify.flags import is_selected
from minis5.verify.judge import raised
from minis5.verify.operations import replay as rollout_operation
from minis5.verify.report import Report, Result, check_xfail


def check_replay(
    step_fn: Callable,
    sequence_fn: Callable,
    initial_state: Callable,
    width: int,
    *,
    dtypes: Iterable[str] = DTYPES,
    seed: int = 0,
    flags: Iterable[str] | None = None,
    xfail: Iterable[str] = (),
) -> Report:
    """Check that a memory core replays what its steps did.

    Parameters
    ----------
    step_fn : callable
        ``step_fn(u, reset, state)`` → y, state; u (B, width), reset (B,) bool: forget everything
        before this step; y (B, …).
    sequence_fn : callable
        ``sequence_fn(u, reset, state)`` → y, last state; u (T, B, width), reset (T, B), y (T, B, …)
    initial_state : callable
        ``initial_state(B)`` → the state of episodes that have not begun: an array, or arrays in
        dicts, tuples and lists, each with one axis that is as long as the batch.
    width : int
        Numbers of an input.
    dtypes : names
        Precisions of inputs and states: "float32", "float64".
    seed : int
        Of the inputs.
    flags, xfail
        As in :func:`minis5.verify.check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        Something is wrong; the message is the report.
    TypeError, ValueError
        An argument is wrong.
    """
    for name, function in (("step_fn", step_fn), ("sequence_fn", sequence_fn)):
        if not callable(function):
            kind = type(function).__name__
            raise TypeError(f"{name}: expected a callable, got {kind}; pass the function itself")
    check_integer("width", width, 1, 2**20, "pass the numbers of an input")
    check_integer("seed", seed, 0, 2**63, "pass seed=0")
    check_xfail(xfail)
    results = []
    for dtype in [dtypes] if isinstance(dtypes, str) else dtypes:
        check_choice("dtypes", dtype, DTYPES)
        core = Core(step_fn, sequence_fn, initial_state, width, dtype, seed)
        with np.errstate(invalid="ignore", over="ignore"):
            results += _results(core, flags)
    return checked(Report(results, xfail), sequence_fn)


def _results(core, flags):
    case = Case("core", f"arguments-{core.dtype}", ("core",), core.dtype, {}, {}, {})
    try:
        words = untouched(core)
    except Exception as error:  # whatever the user's function raises is its result
        yield raised(case, error)
        return  # nothing can be compared
    status = "failed" if words else "passed"
    yield Result("core", case.name, case.flags, core.dtype, status, words)
    for prop in properties(core):
        if is_selected(prop.flags, flags):
            yield _judged(core, prop)


def _judged(core, prop):
    """Return the result of one property."""
    name = f"{prop.name}-{core.dtype}"
    case = Case("core", name, prop.flags, core.dtype, {}, {}, {}, steps=prop.steps)
    try:
        case = case._replace(expected=_numbers(prop.expected()))
        got = _numbers(prop.got())
        wrong = first_wrong(case, got)
        found = () if wrong is None else tuple(_explaining(case, got, prop.causes))
    except Exception as error:
        return raised(case, error)
    return Result(
        *("core", name, prop.flags, core.dtype, "passed" if wrong is None else "failed"),
        message="" if wrong is None else wrong.words,
        wrong=wrong,
        causes=found,
        accuracy=accuracy(case, got),
    )


def _numbers(found):
    """Return outputs in 64 bits."""
    kinds = {"f": np.float64, "c": np.complex128}
    arrays = {name: np.asarray(z) for name, z in found.items()}
    return {name: z.astype(kinds.get(z.dtype.kind, z.dtype)) for name, z in arrays.items()}


def _explaining(case, got, causes):
    for cause, outputs in causes.items():
        try:
            if agrees(case, got, case.expected | _numbers(outputs())):
                yield cause
        except Exception:  # a change that this core cannot take explains nothing
            continue


def check_rollout(collect: Callable, **options: Any) -> Report:
    """Check what a recurrent learner keeps of its rollouts, in the three autoreset modes.

    Parameters
    ----------
    collect : callable
        ``collect(envs, network, length, rollouts)`` → dict of what was kept. It resets ``envs``, a
        gymnasium.vector.VectorEnv, and acts in it with ``network``, a toy network, for ``rollouts``
        rollouts of ``length`` steps. `minis5 verify --help` lists what is to be kept.
    **options
        As in :func:`minis5.verify.check_scan`; the flags are same_step, next_step and disabled too.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        A case failed; the message is the report.
    """
    return check_operation(rollout_operation.OPERATION, collect, **options)
