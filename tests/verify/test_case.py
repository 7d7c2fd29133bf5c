"""Cases: rounding, tolerances, names; what a function is called with."""

import numpy as np
import pytest

from minis5.verify.case import DTYPES, Case, cast, draws, invoke, on_circle, rounded, uniform
from minis5.verify.operations import OPERATIONS


def test_tolerance():
    expected = {"x": np.ones(2), "dx": np.ones(2), "n": np.arange(2), "yes": np.ones(2, bool)}
    case = Case("scan", "a", (), "float32", {}, {}, expected, frozenset({"dx"}), 10)
    assert case.tolerance("x") == pytest.approx(64 * 2.0**-23 * 10)
    assert case.tolerance("dx") == pytest.approx(256 * 2.0**-23 * 10)
    assert case.tolerance("n") == case.tolerance("yes") == 0.0
    assert case._replace(dtype="float64").tolerance("x") == pytest.approx(640 * 2.0**-52)
    assert case.id == "scan/a"


def test_cast_copies():
    z = {"a": np.ones(2), "z": np.ones(2, complex), "n": np.arange(2), "yes": np.ones(2, bool)}
    case = Case("", "", (), "float32", {}, z, {})
    for name, kind in {"a": "float32", "z": "complex64", "n": "int64", "yes": "bool"}.items():
        got = case.cast()[name]
        assert got.dtype == kind and not np.shares_memory(got, z[name])


def test_rounded():
    assert rounded(0.1, "float32") == np.float64(np.float32(0.1)) != 0.1
    assert rounded(0.1, "float64") == 0.1
    z = rounded(np.array([0.1 + 0.2j]), "float32")
    assert z.dtype == complex and z[0] == complex(np.complex64(0.1 + 0.2j))
    assert rounded(np.array([True]), "float32").dtype == bool


def test_draws_depend_on_every_word():
    first = [draws(*words).random() for words in ((0, "a"), (1, "a"), (0, "b"), (0, "a", "b"))]
    assert len(set(first)) == 4 and draws(0, "a").random() == first[0]


def test_sizes():
    rng = draws(0)
    z = uniform(rng, (50, 2), is_complex=True)
    assert z.shape == (50, 2) and np.abs(z.real).max() < 2 and z.imag.std() > 0.5
    z = on_circle(rng, 50)
    np.testing.assert_allclose(np.abs(z), 1.0, rtol=1e-15)
    assert (z.imag > 0).any() and (z.imag < 0).any()
    assert set(on_circle(rng, 50, is_complex=False)) == {-1.0, 1.0}


def test_invoke_leaves_out_what_is_not_needed():
    def defaults(a, reset=1, x0=2):
        return a, reset, x0

    def bare(a, reset, x0):
        return a, reset, x0

    def short(a):
        return a

    assert invoke(defaults, 0, None, None) == (0, 1, 2)
    assert invoke(defaults, 0, None, 3) == (0, None, 3)
    assert invoke(bare, 0, None, None) == (0, None, None)
    assert invoke(short, 0, None, None) == 0
    assert invoke(max, 3, 4) == 4  # it has no signature
    with pytest.raises(NotImplementedError, match="does not take these arguments: too many"):
        invoke(short, 0, 1)
    with pytest.raises(NotImplementedError, match="unexpected keyword argument 'dt'"):
        invoke(short, 0, None, dt=1)


def test_arguments_are_given_by_name_where_a_function_has_them_elsewhere():
    names = ("a", "reset", "x0")
    for function in (
        lambda a, *, reset=None, x0=None: (a, reset, x0),
        lambda a, x0=None, reset=None: (a, reset, x0),
        lambda *, x0=None, reset=None, a: (a, reset, x0),
        lambda a, resets=None, h0=None: (a, resets, h0),
        lambda *z: (*z, None, None)[:3],
        lambda a, *z, **more: (a, *z, None, None)[:3],
    ):
        assert invoke(function, 0, None, None, names=names) == (0, None, None)
        assert invoke(function, 0, 1, None, names=names) == (0, 1, None)
        assert invoke(function, 0, 1, 2, names=names) == (0, 1, 2)
        assert invoke(function, 0, None, 2, names=names) == (0, None, 2)
    without = [lambda a, x0=None: (a, x0), lambda a, *, x0=None: (a, x0)]
    for function in without:
        assert invoke(function, 0, None, 2, names=names) == (0, 2)
        with pytest.raises(NotImplementedError, match="argument|too many"):
            invoke(function, 0, 1, None, names=names)


def test_a_type_error_inside_is_the_function_s_own():
    with pytest.raises(TypeError, match="inside"):
        invoke(lambda a: cast_badly(a), 1)


def cast_badly(a):
    raise TypeError("inside")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_cases_are_in_order(operation):
    """Names are unique, arrays have 64 bits and are rounded already, inputs are not outputs."""
    names = set()
    for dtype in DTYPES:
        for case in operation.cases(dtype, 0, True):
            assert case.operation == operation.name and case.dtype == dtype
            assert case.id not in names and case.expected and case.gradients <= set(case.expected)
            assert not set(case.inputs) & set(case.expected)
            names.add(case.id)
            for z in (*case.inputs.values(), *case.expected.values()):
                assert z.dtype in (np.float64, np.complex128, np.int64, np.bool_), case.id
            for name, z in case.inputs.items():
                np.testing.assert_array_equal(cast(z, dtype), z, err_msg=f"{case.id} {name}")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_seeds_make_different_cases(operation):
    one, other = (next(operation.cases("float64", seed, True)) for seed in (0, 1))
    assert one.name == other.name
    assert any(not np.array_equal(z, other.inputs[name]) for name, z in one.inputs.items())
