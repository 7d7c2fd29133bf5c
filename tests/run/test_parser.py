"""Command lines: numbers as people write them, and errors that name the closest option."""

import argparse

import pytest

from minis5.run.parser import Parser, count, integer, real


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (integer, "1_000", 1000),
        (integer, "0", 0),
        (count, "1e6", 10**6),
        (count, "10M", 10**7),
        (count, "2.3M", 2_300_000),
        (count, "500k", 500_000),
        (count, "1B", 10**9),
        (count, "1_000K", 10**6),
        (real, "-2.5", -2.5),
    ],
)
def test_numbers(kind, text, value):
    assert kind(text) == value and type(kind(text)) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (integer, "1.5", "expected an integer of at least 0, got '1.5'"),
        (integer, "-1", "expected an integer of at least 0, got '-1'"),
        (count, "0", "expected a count of at least 1, got '0'"),
        (count, "inf", "expected a count of at least 1, got 'inf'"),
        (count, "nan", "expected a count of at least 1, got 'nan'"),
        (count, "M", "expected a count of at least 1, got 'M'"),
        (count, "3T", "expected a count of at least 1, got '3T'"),
        (real, "x", "expected a number, got 'x'"),
    ],
)
def test_wrong_numbers(kind, text, message):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{message}$"):
        kind(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spede", "3"], "unknown argument --spede; did you mean --speed?"),
        (["--zzz=3"], "unknown argument --zzz; program --help lists what there is"),
        (["--mode", "fats"], "unknown mode 'fats'; did you mean fast?"),
        (["--mode", "q"], "unknown mode 'q'; expected one of slow, fast"),
        (["--speed"], "argument -s/--speed: expected one argument"),
    ],
)
def test_mistakes(arguments, message):
    parser = Parser(prog="program", allow_abbrev=False)
    parser.add_argument("-s", "--speed")
    parser.add_argument("--mode", choices=("slow", "fast"))
    with pytest.raises(ValueError) as caught:
        parser.parse_args(arguments)
    assert str(caught.value) == message
