"""Complaints about arguments name the argument, what was expected, what came, and the remedy."""

import math

import numpy as np
import pytest

from minis5.checks import COMPLEXES, FLOATS, check_array, check_choice, check_integer, check_number


def test_an_array_that_is_right_is_returned_itself():
    x = np.zeros((2, 3), np.float32)
    assert check_array("x", x, (2, 3), FLOATS) is x
    assert check_array("x", x, ("T", 3), FLOATS) is x


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([[1.0]], TypeError, "x: expected a NumPy array float32 or float64 (T, 3), got list; cast"),
        (np.zeros(3), ValueError, "x: expected float32 or float64 (T, 3), got float64 (3,); cast"),
        (
            np.zeros((4, 2)),
            ValueError,
            "x: expected float32 or float64 (T, 3), got float64 (4, 2); cast",
        ),
        (
            np.zeros((4, 3), int),
            ValueError,
            "x: expected float32 or float64 (T, 3), got int64 (4, 3); cast",
        ),
    ],
    ids=["no array", "axes", "size", "dtype"],
)
def test_arrays_that_are_wrong(value, error, message):
    with pytest.raises(error) as caught:
        check_array("x", value, ("T", 3), FLOATS, "cast")
    assert str(caught.value) == message


def test_without_a_remedy_the_sentence_ends_earlier():
    with pytest.raises(ValueError) as caught:
        check_array("x", np.zeros(2), (2,), COMPLEXES)
    assert str(caught.value) == "x: expected complex64 or complex128 (2), got float64 (2,)"


@pytest.mark.parametrize("value", [0, 5, np.int8(3)])
def test_integers_that_are_right(value):
    got = check_integer("n", value, 0, 5, "choose another")
    assert type(got) is int and got == value


@pytest.mark.parametrize("value", [-1, 6, 2.0, "2", None, True, np.True_])
def test_integers_that_are_wrong(value):
    with pytest.raises(ValueError) as caught:
        check_integer("n", value, 0, 5, "choose another")
    assert str(caught.value) == f"n: expected an integer in [0, 5], got {value!r}; choose another"


@pytest.mark.parametrize("value", [0, 0.5, 1, np.float32(0.25)])
def test_numbers_that_are_right(value):
    got = check_number("p", value, 0, 1, "choose another")
    assert type(got) is float and got == value


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, "0.5", None, True])
def test_numbers_that_are_wrong(value):
    with pytest.raises(ValueError) as caught:
        check_number("p", value, 0, 1, "choose another")
    assert str(caught.value) == f"p: expected a number in [0, 1], got {value!r}; choose another"


def test_choices():
    assert check_choice("mode", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match="^mode: expected one of 'a', 'b', got 'c'; choose one"):
        check_choice("mode", "c", ("a", "b"))
