"""Flags: what a case asks of a function, so that a library learns "core passes, reset_selects
fails".

A case has the flag of every feature that it needs, and ``core`` alone if it needs none.

Source: the idea is Project Wycheproof's, whose test vectors for cryptography are labelled so.
Tests: tests/verify/test_flags.py.
"""

from collections.abc import Iterable

FLAGS = {
    "core": "the plain operation: no feature below is needed",
    "complex": "the numbers are complex",
    "initial_state": "the state before the first step is given and not zero",
    "varying": "a coefficient differs at every step and in every row of the batch",
    "reset": "episodes begin inside the sequence; all numbers are finite",
    "reset_selects": "NaN or Inf before a reset (after it, for gradients): none may pass it",
    "chunked": "lengths and resets around the edges of chunks of 32 steps, where kernels go wrong",
    "irregular": "the time between inputs differs",
    "bilinear": "the S5 layer is discretised by the bilinear method instead of zero-order hold",
    "options": "the S5 layer has other options: no conjugate symmetry, clipped Λ, rescaled steps",
    "truncation": "a time limit cuts episodes that have not ended",
    "same_step": "autoreset: the step that ends an episode returns the next one's beginning",
    "next_step": "autoreset: the step after the one that ends an episode only resets",
    "disabled": "autoreset: whoever steps the environments resets them",
    "clip_value": "PPO's loss clips the change of the value",
    "gaussian": "actions are real numbers, from a normal distribution",
    "masks": "some actions are illegal: their logits are -inf",
    "padding": "some steps do not count, whatever they hold",
    "normalized": "PPO's loss normalises the advantages, by a deviation that divides by n",
    "normalized_sample": "the same, by a deviation that divides by n - 1",
    "betas": "Adam's decay rates are not 0.9 and 0.999",
    "max_norm": "the gradient is clipped by its norm",
    "max_norm_exact": "the norm is not enlarged by 1e-6 before it clips, as torch's is",
    "rates": "parameters have learning rates of their own",
    "extreme": "NaN, Inf, huge or tiny numbers, or steps so small that differences cancel",
    "subnormal": "numbers below the smallest normal one: reported, does not fail",
    "long": "thousands of steps: the accuracy is reported beside minis5's, and does not fail",
}
INFORMATIONAL = frozenset({"long", "subnormal"})  # cases with one of these never fail
LEAVE_OUT = "no-"


def check_flags(flags: Iterable[str] | None) -> tuple[frozenset[str], frozenset[str]] | None:
    """Return the flags asked for and those left out; None if nothing was said.

    Raises
    ------
    ValueError
        A name is no flag.
    """
    if flags is None:
        return None
    names = [name.strip() for name in (flags.split(",") if isinstance(flags, str) else flags)]
    for name in names:
        if name.removeprefix(LEAVE_OUT) not in FLAGS:
            known = ", ".join(FLAGS)
            remedy = f"the flags are {known}; no-NAME leaves one out"
            raise ValueError(f"flags: expected names of flags, got {name!r}; {remedy}")
        if name == f"{LEAVE_OUT}core":
            wanted, remedy = "names of features", "core is always tried; take it out of the list"
            raise ValueError(f"flags: expected {wanted}, got {name!r}; {remedy}")
    without = frozenset(n.removeprefix(LEAVE_OUT) for n in names if n.startswith(LEAVE_OUT))
    return frozenset(n for n in names if not n.startswith(LEAVE_OUT)), without


def is_selected(case_flags: Iterable[str], flags: Iterable[str] | None) -> bool:
    """Return whether a case with ``case_flags`` belongs to the selection ``flags``.

    Parameters
    ----------
    case_flags : names
        What the case needs.
    flags : names, a text "name,name", or None
        What the function can do: only cases that need nothing else are taken; ``core`` is always
        there. ``no-NAME`` leaves out what needs NAME. None takes all cases.

    Raises
    ------
    ValueError
        A name is no flag.
    """
    asked = check_flags(flags)
    if asked is None:
        return True
    wanted, without = asked
    needs = set(case_flags) - {"core"}
    return not needs & without and (not wanted or needs <= wanted)
