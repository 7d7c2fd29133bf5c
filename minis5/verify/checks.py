"""Checks for your own tests: ``check_scan(my_scan)`` is one line, and one AssertionError with the
whole report if something is wrong.

A function gets NumPy arrays in float32 or complex64 for the one half of the cases, in float64 or
complex128 for the other, and has the signature of minis5's own. Arguments that a case does not need
are left out, from the last one on. An argument that the function does not take, or a
NotImplementedError, means "not implemented": that fails, unless ``flags`` leaves such cases out or
``xfail`` expects it.

Leaves out: files of other programs (folders.py). Tests: tests/verify/test_checks.py.
"""

from collections.abc import Callable, Iterable
from os import PathLike
from typing import Any

from minis5.checks import check_choice, check_integer
from minis5.verify.case import DTYPES, Case, Operation
from minis5.verify.flags import is_selected
from minis5.verify.judge import judge, not_implemented, raised
from minis5.verify.operations import OPERATIONS, gae, scan, scan_vjp, ssm, ssm_vjp
from minis5.verify.report import Report, Result, check_xfail
from minis5.verify.vectors import SMALL, Vectors

OWN_LIMITS = ("betas",)  # the decay rates of minis5's Adam are fixed


def run_operation(
    operation: Operation,
    function: Callable,
    *,
    dtypes: Iterable[str] = DTYPES,
    seed: int = 0,
    small: bool = False,
    flags: Iterable[str] | None = None,
    xfail: Iterable[str] = (),
) -> Report:
    """Return the report on a function that claims to be ``operation``.

    Parameters
    ----------
    operation : Operation
        One of minis5.verify.operations.OPERATIONS.
    function : callable
    dtypes : names
        The precisions to try: "float32", "float64".
    seed : int
        Of the inputs.
    small : bool
        Only the small set of cases.
    flags : names or None
        What the function can do (flags.py): only cases that need nothing else; ``no-NAME`` leaves
        out what needs NAME. None: all cases.
    xfail : names
        Expected failures: cases, patterns of cases, flags.

    Raises
    ------
    TypeError, ValueError
        ``function`` cannot be called, or an option is not known.
    """
    if not callable(function):
        kind = type(function).__name__
        raise TypeError(f"function: expected a callable, got {kind}; pass the function itself")
    check_integer("seed", seed, 0, 2**63, "0 is the seed of the set that minis5 ships")
    xfail = check_xfail(xfail)
    results = []
    for dtype in [dtypes] if isinstance(dtypes, str) else dtypes:
        check_choice("dtypes", dtype, DTYPES)
        for case in operation.cases(dtype, seed, small):
            if is_selected(case.flags, flags):
                results.append(try_case(operation, function, case))
    return Report(results, xfail)


def try_case(operation: Operation, function: Callable, case: Case) -> Result:
    """Return the result of one case."""
    try:
        outputs = operation.call(function, case)
    except NotImplementedError as error:
        return not_implemented(case, " ".join(str(error).split()) or "NotImplementedError")
    except Exception as error:  # whatever the user's function raises is its result
        return raised(case, error)
    return judge(operation, case, outputs)


def check_operation(operation: Operation, function: Callable, **options: Any) -> Report:
    """Return the report on a function; raise AssertionError with it unless all is right.

    ``options`` are those of :func:`run_operation`.
    """
    return checked(run_operation(operation, function, **options), function)


class Failed(AssertionError):
    """A check failed; the message is the report's text, ``report`` the report."""

    report: Report


def checked(report: Report, function: Callable | None = None) -> Report:
    """Return ``report``; raise Failed, an AssertionError, unless it passed."""
    if not report.passed:
        name = getattr(function, "__qualname__", "")
        error = Failed("\n".join([name, report.text(most=30)]).strip())
        error.report = report
        raise error
    return report


def run_own(
    vectors: str | PathLike = SMALL,
    *,
    flags: Iterable[str] | None = None,
    xfail: Iterable[str] = (),
) -> Report:
    """Return the report on minis5's own functions, on test vectors; by default those it ships.

    What they lack by intention, OWN_LIMITS, is expected.
    """
    there, results = Vectors(vectors), []
    for name in there.operations:
        operation = OPERATIONS[name]
        if operation.ours is not None:
            cases = (case for case in there.cases(name) if is_selected(case.flags, flags))
            results += [try_case(operation, operation.ours, case) for case in cases]
    return Report(results, (*OWN_LIMITS, *check_xfail(xfail)))


def check_scan(scan_function: Callable, **options: Any) -> Report:
    """Check ``x = scan(a, b, reset, x0)`` against minis5.scan's specification.

    Parameters
    ----------
    scan_function : callable
        As :func:`minis5.scan`, of NumPy arrays; ``reset`` and ``x0`` are left out, or None, where
        not needed.
    **options
        dtypes, names of precisions ("float32", "float64"; default: both). seed, int, of the inputs
        (0). small, bool: only the small set of cases (False). flags, names of what the function can
        do: only cases that need nothing else; "no-NAME" leaves out what needs NAME; None is all.
        xfail: expected failures, which are cases, patterns of cases or flags.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        A case failed or is not implemented; the message is the report.
    """
    return check_operation(scan.OPERATION, scan_function, **options)


def check_scan_vjp(vjp: Callable, **options: Any) -> Report:
    """Check ``da, db, dx0 = vjp(a, b, reset, x0, x, dx)`` against minis5.scan_vjp's specification.

    Parameters
    ----------
    vjp : callable
        As :func:`minis5.scan_vjp`; all six arguments are given, ``reset`` and ``x0`` may be None.
    **options
        As :func:`check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_scan`.
    """
    return check_operation(scan_vjp.OPERATION, vjp, **options)


def check_ssm(forward: Callable, backward: Callable | None = None, **options: Any) -> Report:
    """Check an S5 layer, ``y, x_last, … = forward(layer, u, reset, x0, **options)``.

    Parameters
    ----------
    forward : callable
        As :func:`minis5.nn.s5.ssm_forward`. ``layer`` is a dict of arrays, Lambda_re (P,),
        Lambda_im (P,), B (P, H, 2), C (H, P, 2), D (H,), log_step (P, 1). The keywords
        discretization, conj_sym, clip_eigs, step_rescale and dt come only where they are not the
        default (flags bilinear, options, irregular).
    backward : callable, optional
        As :func:`minis5.nn.s5.ssm_backward`: (dy, dx_last, cache) → du, dx0, grads, where cache
        is the last thing that ``forward`` returned. Without it gradients are not checked.
    **options
        As :func:`check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_scan`.
    """
    report = run_operation(ssm.OPERATION, forward, **options)
    if backward is not None:
        vjp = ssm_vjp.vjp_of(forward, backward)
        report += run_operation(ssm_vjp.OPERATION, vjp, **options)
    return checked(report, forward)


def check_ssm_vjp(vjp: Callable, **options: Any) -> Report:
    """Check the gradients of an S5 layer, du, dx0, grads of one function.

    Parameters
    ----------
    vjp : callable
        ``vjp(layer, u, reset, x0, dy, dx_last, **options)`` → du, dx0, grads, the gradients of
        Σ dy·y + Re(Σ conj(dx_last)·x_last). dx0 and dx_last are complex, ∂L/∂Re z + i ∂L/∂Im z.
    **options
        As :func:`check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_scan`.
    """
    return check_operation(ssm_vjp.OPERATION, vjp, **options)


def check_gae(gae_function: Callable, **options: Any) -> Report:
    """Check ``gae(rewards, values, next_values, terminated, done, gamma, lam)`` → advantages.

    Parameters
    ----------
    gae_function : callable
        As :func:`minis5.rl.gae.gae`. One that knows no truncation gets ``flags="no-truncation"``.
    **options
        As :func:`check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_scan`.
    """
    return check_operation(gae.OPERATION, gae_function, **options)
