"""Action distributions: against the specification, gradients, frequencies of samples, kernels."""

import numpy as np
import pytest
from kernel_cases import extreme_logits, whole_array_distributions
from kernel_checks import check_in_simulator, mixed

from minis5 import reference as ref
from minis5.rl.distributions import Categorical, DiagGaussian, MultiCategorical
from minis5.verify.gradients import assert_close, check_gradients

NVEC = (2, 4, 3)
CASES = {
    "categorical": (Categorical(5), ref.categorical),
    "multi": (
        MultiCategorical(NVEC),
        lambda params, action: ref.multi_categorical(params, action, NVEC),
    ),
    "gaussian": (DiagGaussian(3), ref.diag_gaussian),
}
cases = pytest.mark.parametrize("dist, spec", CASES.values(), ids=CASES)
DTYPES = [np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@cases
def test_equals_reference(dist, spec, dtype):
    rng = np.random.default_rng(0)
    params = rng.standard_normal((7, 4, dist.num_params)).astype(dtype)
    action = dist.sample(params, rng)
    log_prob, entropy = dist.log_prob(params, action), dist.entropy(params)
    assert log_prob.shape == entropy.shape == (7, 4)
    assert log_prob.dtype == entropy.dtype == dtype
    for t, n in np.ndindex(7, 4):
        expected = spec(params[t, n].astype(np.float64), action[t, n])
        np.testing.assert_allclose(
            (log_prob[t, n], entropy[t, n]), expected, rtol=64 * np.finfo(dtype).eps
        )


@cases
def test_backward(dist, spec):
    """Cotangents on the log-probability and on the entropy."""
    rng = np.random.default_rng(1)
    params = rng.standard_normal((7, 4, dist.num_params))
    action = dist.sample(params, rng)
    check_gradients(
        lambda z: (dist.log_prob(z["params"], action), dist.entropy(z["params"])),
        lambda z, cotangents: {"params": dist.backward(z["params"], action, *cotangents)},
        {"params": params},
        entries=12,
    )
    params, zero = params.astype(np.float32), np.zeros((7, 4), np.float32)
    assert dist.backward(params, dist.sample(params, rng), zero, zero).dtype == np.float32


def test_only_normals_have_a_deviation_that_is_learnt():
    learnt = {name: dist.has_log_std for name, (dist, _) in CASES.items()}
    assert learnt == {"categorical": False, "multi": False, "gaussian": True}


@pytest.mark.parametrize("dtype", DTYPES)
def test_categorical_with_extreme_logits(dtype):
    """Neither values nor gradients overflow; a constant added to all logits changes nothing."""
    dist = Categorical(3)
    logits = np.array([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], dtype)
    action = np.array([0, 2])
    np.testing.assert_allclose(dist.log_prob(logits, action), [0.0, -np.log(3.0)], rtol=1e-6)
    np.testing.assert_allclose(dist.entropy(logits), [0.0, np.log(3.0)], rtol=1e-6)
    grads = dist.backward(logits, action, np.ones(2, dtype), np.ones(2, dtype))
    np.testing.assert_allclose(grads, [[0, 0, 0], [-1 / 3, -1 / 3, 2 / 3]], atol=1e-6)
    assert_close(dist.log_prob(logits + dtype(64), action), dist.log_prob(logits, action), c=256)
    np.testing.assert_array_equal(
        dist.sample(logits[:1].repeat(100, 0), np.random.default_rng(0)), 0
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_categorical_frequencies(dtype):
    p, N = np.array([0.5, 0.0625, 0.25, 0.1875]), 40_000
    logits = np.log(p).astype(dtype)
    samples = Categorical(4).sample(np.tile(logits, (N, 1)), np.random.default_rng(2))
    assert samples.shape == (N,) and np.issubdtype(samples.dtype, np.integer)
    counts = np.bincount(samples, minlength=4)
    assert (np.abs(counts - N * p) < 5 * np.sqrt(N * p * (1 - p))).all()


def test_multi_categorical_components_are_independent():
    dist, N = MultiCategorical((2, 3)), 40_000
    p = np.array([0.25, 0.75, 0.5, 0.25, 0.25])
    samples = dist.sample(np.tile(np.log(p), (N, 1)), np.random.default_rng(3))
    assert samples.shape == (N, 2)
    joint = np.histogram2d(*samples.T, bins=[[0, 1, 2], [0, 1, 2, 3]])[0]
    expected = N * np.outer(p[:2], p[2:])
    assert (np.abs(joint - expected) < 5 * np.sqrt(expected)).all()


def test_gaussian_moments():
    dist, N = DiagGaussian(2), 40_000
    params = np.array([1.0, -2.0, np.log(0.5), np.log(3.0)], np.float32)
    samples = dist.sample(np.tile(params, (N, 1)), np.random.default_rng(4))
    assert samples.dtype == np.float32
    std = np.exp(params[2:])
    assert (np.abs(samples.mean(axis=0) - params[:2]) < 5 * std / np.sqrt(N)).all()
    np.testing.assert_allclose(samples.std(axis=0), std, rtol=0.03)
    assert abs(np.corrcoef(samples.T)[0, 1]) < 5 / np.sqrt(N)


@cases
def test_mode_is_the_most_probable(dist, spec):
    rng = np.random.default_rng(5)
    params = rng.standard_normal((4, dist.num_params))
    mode = dist.mode(params)
    for _ in range(50):
        assert (
            dist.log_prob(params, mode) >= dist.log_prob(params, dist.sample(params, rng))
        ).all()
    before = params.copy()
    mode += 1  # a copy, not a view of the parameters
    np.testing.assert_array_equal(params, before)


@cases
def test_samples_follow_the_generator(dist, spec):
    params = np.random.default_rng(6).standard_normal((4, 3, dist.num_params))
    one, two = (dist.sample(params, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (dist.sample(params, np.random.default_rng(8)) != one).any()


def test_encoding():
    """The form of an action in the next observation."""
    np.testing.assert_array_equal(Categorical(3).encode(np.array([2, 0])), [[0, 0, 1], [1, 0, 0]])
    multi = MultiCategorical((2, 3))
    np.testing.assert_array_equal(
        multi.encode(np.array([[1, 0], [0, 2]])), [[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]
    )
    np.testing.assert_array_equal(DiagGaussian(2).encode(np.array([[0.5, -3.0]])), [[0.5, -3.0]])
    for dist in (Categorical(3), multi, DiagGaussian(2)):
        action = dist.mode(np.zeros((4, dist.num_params), np.float32))
        assert dist.encode(action).shape == (4, dist.encoded_size)
        assert dist.encode(action, np.float64).dtype == np.float64
    assert (Categorical(3).num_params, multi.num_params, DiagGaussian(2).num_params) == (3, 5, 4)


# Masked actions: logits of -inf


def masked(kind, dtype, seed=0):
    """Return a distribution, its parameters with masks, legal actions, and where masks are."""
    dist, rng = CASES[kind][0], np.random.default_rng(seed)
    params = rng.standard_normal((7, 4, dist.num_params)).astype(dtype)
    holes = rng.random(params.shape) < 0.4
    for columns in getattr(dist, "columns", [slice(None)]):
        part = holes[..., columns]
        part[part.all(axis=-1), 0] = False  # one action is left
    params[holes] = -np.inf
    return dist, params, dist.sample(params, rng), holes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["categorical", "multi"])
def test_masked_actions_equal_reference(kind, dtype):
    dist, params, action, holes = masked(kind, dtype)
    log_prob, entropy = dist.log_prob(params, action), dist.entropy(params)
    assert np.isfinite(log_prob).all() and np.isfinite(entropy).all()
    for at in np.ndindex(7, 4):
        expected = CASES[kind][1](params[at].astype(np.float64), action[at])
        np.testing.assert_allclose(
            (log_prob[at], entropy[at]), expected, rtol=64 * np.finfo(dtype).eps, atol=1e-300
        )
    one = np.ones((7, 4), dtype)
    grads = dist.backward(params, action, one, one)
    assert np.isfinite(grads).all() and not grads[holes].any()
    np.testing.assert_array_equal(dist.log_prob(params, dist.mode(params)) > -np.inf, True)


@pytest.mark.parametrize("kind", ["categorical", "multi"])
def test_masked_gradients_by_differences(kind):
    """The gradient of the logits that are not masked; masked ones do not move."""
    dist, params, action, holes = masked(kind, np.float64)

    def whole(z):
        return np.where(holes, -np.inf, z["params"])

    check_gradients(
        lambda z: (dist.log_prob(whole(z), action), dist.entropy(whole(z))),
        lambda z, cotangents: {"params": dist.backward(whole(z), action, *cotangents)},
        {"params": np.where(holes, 0, params)},
        entries=20,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_masked_action_has_log_probability_minus_infinity(dtype):
    logits = np.array([[0, -np.inf, 1]], dtype)
    for action, possible in ((0, True), (1, False), (2, True)):
        log_prob = Categorical(3).log_prob(logits, np.array([action]))
        assert np.isfinite(log_prob[0]) if possible else log_prob[0] == -np.inf
    grads = Categorical(3).backward(logits, np.array([1]), *np.ones((2, 1), dtype))
    assert grads[0, 1] == 0 and np.isfinite(grads).all()


class Fixed:
    """A generator that returns the same number again and again."""

    def __init__(self, number):
        self.number = number

    def random(self, shape):
        return np.full(shape, self.number)


@pytest.mark.parametrize("uniform", [0.0, 2.0**-60, 0.5, 1 - 2.0**-24, 1 - 2.0**-53])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_is_possible(dtype, uniform):
    """Probabilities in float32 may sum to less than the uniform number, before masked actions."""
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 1000, 30_000):
        logits = (10 * rng.standard_normal((40, n))).astype(dtype)
        logits[:20, n // 2 :] = -np.inf
        logits[20:, n - n // 3 :] = -5e3  # a probability of 0 in any dtype
        logits[::2, : n // 4] = -np.inf
        action = Categorical(n).sample(logits, Fixed(uniform))
        chosen = np.take_along_axis(logits, action[:, None], axis=1)
        assert (chosen > -1e3).all()


# Gaussians with very small deviations


@pytest.mark.parametrize("log_std", [-80.0, -88.7, -88.8, -95.0, -104.0, -120.0, -700.0, -800.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_with_a_tiny_deviation(dtype, log_std):
    """1/σ overflows, and 0·inf would be NaN."""
    dist, zero, one = DiagGaussian(1), np.zeros(1, dtype), np.ones(1, dtype)
    params, mean = np.array([[0.5, log_std]], dtype), np.array([[0.5]], dtype)
    expected = -float(params[0, 1]) - 0.5 * np.log(2 * np.pi)
    for got in (
        dist.log_prob(params, mean)[0],
        ref.diag_gaussian(params[0].astype(float), mean[0].astype(float))[0],
    ):
        np.testing.assert_allclose(got, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(dist.backward(params, mean, one, zero), [[0, -1]])
    np.testing.assert_array_equal(dist.backward(params, mean + one, zero, one), [[0, 1]])
    assert dist.sample(params, np.random.default_rng(0)) == 0.5
    far = dist.backward(params, mean + one, one, zero)
    assert (far > 0).all() and dist.log_prob(params, mean + one) < -1e30  # or rightly infinite


def test_gaussian_between_numbers_that_are_tiny_too():
    """(a - mean)/σ is a plain number, though 1/σ is none in float32."""
    params, action = np.array([[0, -95]], np.float32), np.array([[1e-41]], np.float32)
    z = float(action[0, 0]) * np.exp(95.0)
    expected = -0.5 * z * z + 95 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(DiagGaussian(1).log_prob(params, action)[0], expected, rtol=1e-5)


def test_kernels_in_the_simulator_are_the_loops(tmp_path):
    """All kernels, and logits at the ends of the numbers."""
    check_in_simulator("distributions", tmp_path, extreme_logits, whole_array_distributions)


def test_float64_beside_float32_is_for_uniform_numbers():
    """They may be float64, beside logits of float32."""
    assert mixed("distributions") == {"distributions.categorical_sample_kernel"}
