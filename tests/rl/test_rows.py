"""What distributions are given: shapes, dtypes and values that cannot be used are named."""

import numpy as np
import pytest

from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical

KINDS = {
    "categorical": Categorical(3),
    "multi": MultiCategorical((2, 3)),
    "gaussian": DiagGaussian(2),
}
kinds = pytest.mark.parametrize("dist", KINDS.values(), ids=KINDS)
BAD = (TypeError, ValueError)


def example(dist, *lead):
    """Return parameters, actions, and gradients of log-probability and entropy."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal((*lead, dist.num_params)).astype(np.float32)
    return params, dist.mode(params), *rng.standard_normal((2, *lead)).astype(np.float32)


@kinds
@pytest.mark.parametrize("rows", [(), (0,), (2,), (2, 3)])
def test_any_number_of_rows(dist, rows):
    params, action, *gradients = example(dist, *rows)
    assert dist.sample(params, np.random.default_rng(0)).shape == np.shape(action)
    assert np.shape(dist.log_prob(params, action)) == np.shape(dist.entropy(params)) == rows
    assert dist.backward(params, action, *gradients).shape == params.shape
    assert dist.encode(np.asarray(action)).shape == (*rows, dist.encoded_size)


@kinds
def test_parameters_that_do_not_fit(dist):
    params, action, *gradients = example(dist, 4)
    for bad in (
        params[:, :-1],
        np.tile(params, 2),
        params.astype(np.float16),
        params.astype(int),
        params + 1j,
        params.tolist(),
        None,
    ):
        for call in (
            lambda p: dist.sample(p, np.random.default_rng(0)),
            dist.mode,
            dist.entropy,
            lambda p: dist.log_prob(p, action),
            lambda p: dist.backward(p, action, *gradients),
        ):
            with pytest.raises(BAD, match=r"^(logits|params): expected .*got .*; "):
                call(bad)


@kinds
def test_rows_that_differ(dist):
    """The compiled loops would read, and the last would write, beyond the end."""
    params, action, *gradients = example(dist, 2)
    many = np.concatenate([action] * 3)
    for bad in (many, action[:1], action[..., None], action.tolist(), None, action + 1j):
        with pytest.raises(BAD, match=r"^action: expected .*got .*; "):
            dist.log_prob(params, bad)
        with pytest.raises(BAD, match=r"^action: expected .*got .*; "):
            dist.backward(params, bad, *gradients)
    for i, name in enumerate(("dlog_prob", "dentropy")):
        for bad in (np.ones(6, np.float32), np.ones(2, int), gradients[i][None], 1.0):
            changed = [*gradients]
            changed[i] = bad
            with pytest.raises(BAD, match=rf"^{name}: expected .*got .*; "):
                dist.backward(params, action, *changed)


@pytest.mark.parametrize("kind", ["categorical", "multi"])
@pytest.mark.parametrize("bad", [-1, 3, 2**40, -(2**40)])
def test_actions_out_of_range(kind, bad):
    dist = KINDS[kind]
    params, action, *gradients = example(dist, 2, 4)
    action.reshape(8, -1)[5, -1] = bad
    for call in (
        lambda: dist.log_prob(params, action),
        lambda: dist.backward(params, action, *gradients),
        lambda: dist.encode(action),
    ):
        with pytest.raises(ValueError, match=rf"^action: expected .*got {bad}\b.*; "):
            call()


@pytest.mark.parametrize("kind", ["categorical", "multi"])
@pytest.mark.parametrize("dtype", [np.float32, bool, complex, object])
def test_actions_that_are_no_integers(kind, dtype):
    dist = KINDS[kind]
    params, action, *gradients = example(dist, 4)
    for call in (
        lambda a: dist.log_prob(params, a),
        lambda a: dist.backward(params, a, *gradients),
        dist.encode,
    ):
        with pytest.raises(ValueError, match=r"^action: expected integers .*got .*; "):
            call(action.astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_any_integers_are_actions(dtype):
    dist = KINDS["categorical"]
    params, action, *_ = example(dist, 4)
    one, two = (dist.log_prob(params, a) for a in (action, action.astype(dtype)))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(dist.encode(action), dist.encode(action.astype(dtype)))


@kinds
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_is_named(dist, dtype):
    params, action, *gradients = example(dist, 2, 4)
    params = params.astype(dtype)
    params[1, 2] = np.nan
    for call in (
        lambda: dist.sample(params, np.random.default_rng(0)),
        lambda: dist.mode(params),
        lambda: dist.log_prob(params, action),
        lambda: dist.entropy(params),
    ):
        with pytest.raises(ValueError, match=r"^(logits|params).*: expected .*(NaN|nan).*; "):
            call()


@pytest.mark.parametrize("kind", ["categorical", "multi"])
@pytest.mark.parametrize("fill, got", [(-np.inf, "only -inf"), (np.inf, "inf"), (np.nan, "NaN")])
def test_rows_without_a_possible_action(kind, fill, got):
    dist = KINDS[kind]
    params, action, *gradients = example(dist, 2, 4)
    params[1, 2, -3:] = fill
    for call in (
        lambda: dist.sample(params, np.random.default_rng(0)),
        lambda: dist.mode(params),
        lambda: dist.log_prob(params, action),
        lambda: dist.entropy(params),
        lambda: dist.backward(params, action, *gradients),
    ):
        with pytest.raises(ValueError, match=rf"^logits: .*got {got} at batch index \(1, 2\); "):
            call()


def test_gaussian_that_is_not_finite():
    dist = DiagGaussian(1)
    for params in ([[np.inf, 0]], [[0, 200]]):
        with pytest.raises(ValueError, match=r"^params: expected finite .* -?inf at \(0, 0\)"):
            dist.sample(np.array(params, np.float32), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"^params or action: expected numbers, got "):
        dist.log_prob(np.zeros((1, 2)), np.array([[np.nan]]))


@kinds
def test_other_byte_orders_and_masked_arrays(dist):
    params, action, *_ = example(dist, 4)
    swapped = [z.astype(z.dtype.newbyteorder(">")) for z in (params, action)]
    np.testing.assert_array_equal(dist.log_prob(*swapped), dist.log_prob(params, action))
    np.testing.assert_array_equal(dist.encode(swapped[1]), dist.encode(action))
    with pytest.raises(TypeError, match=r"^(logits|params): expected .*MaskedArray"):
        dist.log_prob(np.ma.masked_less(params, 0), action)
    with pytest.raises(TypeError, match=r"^action: expected .*MaskedArray"):
        dist.log_prob(params, np.ma.masked_less(action, 0))


def test_actions_to_encode_that_do_not_fit():
    for kind, bad in (("multi", np.zeros((4, 3), int)), ("gaussian", np.zeros((4, 3)))):
        with pytest.raises(ValueError, match=r"^action: expected .*got .*; "):
            KINDS[kind].encode(bad)
    for dist in KINDS.values():
        for bad in (None, [[1, 0]], "a"):
            with pytest.raises(TypeError, match=r"^action: expected .*got .*; "):
                dist.encode(bad)


@pytest.mark.parametrize("make", [Categorical, DiagGaussian])
@pytest.mark.parametrize("n", [0, -1, 2.5, True, None, "3"])
def test_sizes(make, n):
    with pytest.raises(ValueError, match=r"^n: expected an integer in \[1, .*; "):
        make(n)


@pytest.mark.parametrize("nvec", [(), (2, 0), (2.5,)])
def test_sizes_of_choices(nvec):
    with pytest.raises(ValueError, match=r"^n(vec)?: expected an integer in \[1, .*; "):
        MultiCategorical(nvec)


def test_sizes_of_choices_with_several_axes():
    """They are flat inside."""
    assert MultiCategorical([[2, 3], [4, 5]]).sizes == (2, 3, 4, 5)


def test_encoding_takes_memory_of_the_order_of_its_result():
    """100,000 actions: an identity matrix would have 10¹⁰ numbers."""
    dist, action = Categorical(100_000), np.array([[0, 99_999], [7, 50_000]])
    encoded = dist.encode(action)
    assert encoded.shape == (2, 2, 100_000) and encoded.dtype == np.float32
    np.testing.assert_array_equal(encoded.argmax(axis=-1), action)
    np.testing.assert_array_equal(encoded.sum(axis=-1), 1)
    assert not any(np.size(value) > 1 for value in vars(dist).values())  # nothing is kept
