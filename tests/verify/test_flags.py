"""Flags: which cases a selection takes, and what is no flag."""

import re

import pytest

from minis5.verify.flags import FLAGS, INFORMATIONAL, check_flags, is_selected
from minis5.verify.operations import OPERATIONS


@pytest.mark.parametrize(
    "case, flags, expected",
    [
        (("reset", "complex"), None, True),
        (("core",), "complex", True),
        (("complex",), ["complex"], True),
        (("complex", "reset"), "complex", False),
        (("complex", "reset"), "complex, reset", True),
        (("complex", "reset"), "no-reset", False),
        (("complex",), "no-reset,no-long", True),
        (("complex", "reset"), ["complex", "reset", "no-reset"], False),
        (("core",), ["core"], True),
        (("reset",), ["core"], False),
    ],
)
def test_selection(case, flags, expected):
    assert is_selected(case, flags) is expected


@pytest.mark.parametrize("flags", ["resets", ["core", "no-"], ["no_long"], [""]])
def test_what_is_no_flag(flags):
    with pytest.raises(ValueError, match=re.escape("flags: expected names of flags, got")):
        check_flags(flags)


def test_core_cannot_be_left_out():
    with pytest.raises(ValueError, match="got 'no-core'; core is always tried; take it out of the"):
        check_flags("no-core")


def test_every_case_has_flags_and_every_flag_a_case():
    used = set()
    for operation in OPERATIONS.values():
        for case in operation.cases("float32", 0, False):
            assert case.flags and set(case.flags) <= set(FLAGS), case.id
            assert len(set(case.flags)) == len(case.flags), case.id
            used |= set(case.flags)
    assert used == set(FLAGS) and set(FLAGS) >= INFORMATIONAL
