"""The specification itself: numbers by hand, laws of ⊕, the adjoint against differences."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from minis5 import reference as ref
from minis5.verify.gradients import assert_close, check_gradients, random_like

HALF_PLUS_I = 0.5 + 1j


def test_combine_by_hand():
    early, late = (2.0, 3.0, True), (5.0, 7.0, False)
    assert ref.combine(early, late) == (10.0, 22.0, True)
    assert ref.combine(early, (5.0, 7.0, True)) == (5.0, 7.0, True)


@pytest.mark.parametrize("c_i, c_j, c_k", list(itertools.product((False, True), repeat=3)))
def test_combine_is_associative(c_i, c_j, c_k):
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = random_like(rng, np.zeros(3, complex)), random_like(rng, np.zeros(3, complex))
        i, j, k = zip(a, b, (c_i, c_j, c_k), strict=True)
        left, right = ref.combine(ref.combine(i, j), k), ref.combine(i, ref.combine(j, k))
        assert left[2] is right[2] is (c_i or c_j or c_k)
        np.testing.assert_allclose(left[:2], right[:2], rtol=1e-14)


@pytest.mark.parametrize("c_j, c_k", [(True, False), (False, True), (True, True)])
def test_combine_selects(c_j, c_k):
    """NaN before a reset is gone in both bracketings of three elements."""
    i, j, k = (np.nan, np.nan, False), (2.0, 3.0, c_j), (5.0, 7.0, c_k)
    assert np.isfinite(ref.combine(ref.combine(i, j), k)[1])
    assert np.isfinite(ref.combine(i, ref.combine(j, k))[1])


def test_scan_by_hand():
    """Five steps, a reset before step 2; worked on paper with a = 1/2 + i and x0 = 2."""
    a, b = np.array([HALF_PLUS_I]), np.array([1, 2, 3, 4j, 0], complex).reshape(5, 1, 1)
    reset = np.array([0, 0, 1, 0, 0], bool).reshape(5, 1)
    x = ref.scan(a, b, reset, np.array([[2 + 0j]]))
    np.testing.assert_array_equal(x[:, 0, 0], [2 + 2j, 1 + 3j, 3, 1.5 + 7j, -6.25 + 5j])
    np.testing.assert_array_equal(
        ref.scan(a, b, reset)[:, 0, 0], [1, 2.5 + 1j, 3, 1.5 + 7j, -6.25 + 5j]
    )


def test_scan_vjp_by_hand():
    """The same five steps with dx = 1 at the last two, then at step 1.

    Nothing passes the reset.
    """
    a, b = np.array([HALF_PLUS_I]), np.array([1, 2, 3, 4j, 0], complex).reshape(5, 1, 1)
    reset, x0 = np.array([0, 0, 1, 0, 0], bool).reshape(5, 1), np.array([[2 + 0j]])
    x = ref.scan(a, b, reset, x0)
    dx = np.array([0, 0, 0, 1, 1], complex).reshape(5, 1, 1)
    da, db, dx0 = ref.scan_vjp(a, b, reset, x0, x, dx)
    # g3 = 1 + conj(a), g2 = conj(a) g3
    np.testing.assert_array_equal(db[:, 0, 0], [0, 0, -0.25 - 2j, 1.5 - 1j, 1])
    np.testing.assert_array_equal(da, [(1.5 - 1j) * 3 + (1.5 - 7j)])  # g3 conj(x2) + g4 conj(x3)
    assert dx0[0, 0] == 0
    da, db, dx0 = ref.scan_vjp(
        a, b, reset, x0, x, np.array([0, 1, 0, 0, 0], complex).reshape(5, 1, 1)
    )
    np.testing.assert_array_equal(db[:, 0, 0], [0.5 - 1j, 1, 0, 0, 0])
    assert dx0[0, 0] == (0.5 - 1j) ** 2
    np.testing.assert_array_equal(da, [(2 - 2j) + (0.5 - 1j) * 2])


@pytest.mark.parametrize("resets", ["none", "all", "some"])
def test_fold_is_loop(resets):
    rng = np.random.default_rng(2)
    T = 33
    a, b = (random_like(rng, np.zeros((T, 2, 3), complex)) for _ in range(2))
    x0 = random_like(rng, np.zeros((2, 3), complex))
    reset = {
        "none": np.zeros((T, 2), bool),
        "all": np.ones((T, 2), bool),
        "some": rng.random((T, 2)) < 0.2,
    }[resets]
    x = ref.scan(a, b, reset, x0)
    for n, p in np.ndindex(2, 3):
        assert_close(ref.scan_fold(a[:, n, p], b[:, n, p], reset[:, n], x0[n, p]), x[:, n, p], T=T)


def test_fold_any_bracketing():
    """A tree of ⊕, as a parallel scan forms it, ends where the loop ends."""
    rng = np.random.default_rng(3)
    elements = [
        (*random_like(rng, np.zeros(2, complex)), bool(rng.random() < 0.2)) for _ in range(37)
    ]

    def tree(part):
        if len(part) == 1:
            return part[0]
        cut = int(rng.integers(1, len(part)))
        return ref.combine(tree(part[:cut]), tree(part[cut:]))

    a, b, c = zip(*elements, strict=True)
    assert_close(
        tree([(1.0, 0.3j, False), *elements])[1],
        np.complex128(ref.scan_fold(a, b, c, 0.3j)[-1]),
        T=37,
    )


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("varying", [False, True])
def test_scan_vjp_is_the_adjoint(varying, dtype):
    rng = np.random.default_rng(4)
    T, B, P = 7, 3, 2
    reset = rng.random((T, B)) < 0.3
    inputs = {
        "a": random_like(rng, np.zeros((T, B, P) if varying else P, dtype)),
        "b": random_like(rng, np.zeros((T, B, P), dtype)),
        "x0": random_like(rng, np.zeros((B, P), dtype)),
    }

    def forward(z):
        return (ref.scan(z["a"], z["b"], reset, z["x0"]),)

    def backward(z, cotangents):
        grads = ref.scan_vjp(z["a"], z["b"], reset, z["x0"], forward(z)[0], cotangents[0])
        return dict(zip(("a", "b", "x0"), grads, strict=True))

    check_gradients(forward, backward, inputs)


def test_discretize():
    """ZOH at lam = -1, step ln 2: lam_bar = w = 1/2; bilinear at lam = -2, step 1: 0 and 1/2."""
    np.testing.assert_allclose(ref.discretize(-1.0, np.log(2.0), "zoh"), (0.5, 0.5), rtol=1e-15)
    np.testing.assert_allclose(ref.discretize(-2.0, 1.0, "bilinear"), (0.0, 0.5), rtol=1e-15)
    # x' = lam x + 1 over one step; bilinear to O(step³)
    for kind, error in (("zoh", 1e-13), ("bilinear", 1e-6)):
        lam, step = -0.5 + 2j, 1e-2
        lam_bar, w = ref.discretize(lam, step, kind)
        exact = (np.exp(lam * step) * (1 + 1 / lam)) - 1 / lam
        assert abs(lam_bar + w - exact) < 10 * error
    with pytest.raises(ValueError, match="discretization"):
        ref.discretize(-1.0, 1.0, "euler")


def one_state_layer():
    """One real mode -1, step ln 2: lam_bar = w = 1/2; B = 2, C = 3, D = 5."""
    return {
        "Lambda_re": np.array([-1.0]),
        "Lambda_im": np.array([0.0]),
        "B": np.array([[[2.0, 0.0]]]),
        "C": np.array([[[3.0, 0.0]]]),
        "D": np.array([5.0]),
        "log_step": np.array([[np.log(np.log(2.0))]]),
    }


def test_ssm_by_hand():
    u = np.array([1.0, 0.0, 4.0]).reshape(3, 1, 1)
    reset = np.array([False, False, True]).reshape(3, 1)
    x0 = np.array([[2 + 0j]])
    y, last = ref.ssm(one_state_layer(), u, reset, x0)  # x = 2, 1, 4
    np.testing.assert_allclose(
        y[:, 0, 0], [2 * 3 * 2 + 5, 2 * 3 * 1, 2 * 3 * 4 + 5 * 4], rtol=1e-14
    )
    np.testing.assert_allclose(last, [[4.0]], rtol=1e-14)
    y, _ = ref.ssm(one_state_layer(), u, reset, x0, conj_sym=False)
    np.testing.assert_allclose(y[:, 0, 0], [3 * 2 + 5, 3 * 1, 3 * 4 + 5 * 4], rtol=1e-14)


def test_ssm_step_and_clip():
    """dt and step_rescale multiply the step; clipping stops growth.

    Two half steps with a held input equal one step.
    """
    layer, u = one_state_layer(), np.ones((1, 1, 1))
    whole, x_whole = ref.ssm(layer, u, None, None)
    _, x_halves = ref.ssm(layer, np.ones((2, 1, 1)), None, None, dt=np.full((2, 1), 0.5))
    _, x_rescaled = ref.ssm(layer, np.ones((2, 1, 1)), None, None, step_rescale=0.5)
    np.testing.assert_allclose(x_halves, x_whole, rtol=1e-14)
    np.testing.assert_allclose(x_rescaled, x_whole, rtol=1e-14)
    growing = layer | {"Lambda_re": np.array([1.0])}
    _, x = ref.ssm(growing, u, None, np.array([[1 + 0j]]), clip_eigs=True)
    _, expected = ref.ssm(layer | {"Lambda_re": np.array([-1e-4])}, u, None, np.array([[1 + 0j]]))
    np.testing.assert_array_equal(x, expected)


def test_ssm_conjugate_pair():
    """Half of the states with conj_sym give what all of them, in conjugate pairs, give without."""
    rng = np.random.default_rng(5)
    half = {
        "Lambda_re": -rng.random(2),
        "Lambda_im": rng.random(2),
        "B": rng.standard_normal((2, 3, 2)),
        "C": rng.standard_normal((3, 2, 2)),
        "D": rng.standard_normal(3),
        "log_step": rng.standard_normal((2, 1)),
    }
    conj = np.array([1.0, -1.0])
    full = {
        "Lambda_re": np.tile(half["Lambda_re"], 2),
        "Lambda_im": np.concatenate([half["Lambda_im"], -half["Lambda_im"]]),
        "B": np.concatenate([half["B"], half["B"] * conj], axis=0),
        "C": np.concatenate([half["C"], half["C"] * conj], axis=1),
        "D": half["D"],
        "log_step": np.tile(half["log_step"], (2, 1)),
    }
    u = rng.standard_normal((5, 2, 3))
    reset = rng.random((5, 2)) < 0.3
    x0 = random_like(rng, np.zeros((2, 2), complex))
    y, _ = ref.ssm(half, u, reset, x0)
    y_full, _ = ref.ssm(full, u, reset, np.concatenate([x0, x0.conj()], axis=1), conj_sym=False)
    np.testing.assert_allclose(y, y_full, rtol=1e-12)


def test_pointwise_layers():
    p = {"kernel": np.array([[1.0, -2.0], [3.0, 4.0]]), "bias": np.array([0.5, -20.0])}
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(ref.dense(p, x), [7.5, -14.0])
    np.testing.assert_array_equal(ref.dense(p, x, "relu"), [7.5, 0.0])
    np.testing.assert_array_equal(ref.dense(p, x, "leaky_relu"), [7.5, -0.14])
    norm = {"scale": np.array([1.0, 2.0]), "bias": np.array([0.0, 1.0])}
    np.testing.assert_allclose(ref.layer_norm(norm, np.array([3.0, 5.0]), eps=0.0), [-1.0, 3.0])
    np.testing.assert_allclose(ref.layer_norm(norm, np.array([3.0, 5.0]), eps=3.0), [-0.5, 2.0])
    x = np.array([0.0, 1.0, -1.0, 50.0])
    np.testing.assert_allclose(ref.gelu(x), [0, 0.8411919906082768, -0.15880800939172324, 50])
    with pytest.raises(ValueError, match="activation"):
        ref.activate(x, "swish")


def test_gates():
    """Kernels 0: sigmoid(0) = 1/2 and out1's bias show which factor is which."""
    s = np.array([1.0])
    p = {
        "out1": {"kernel": np.zeros((1, 1)), "bias": np.array([6.0])},
        "out2": {"kernel": np.zeros((1, 1)), "bias": np.zeros(1)},
    }
    h = 0.8411919906082768
    for kind, expected in (
        ("full_glu", 3.0),
        ("half_glu1", h / 2),
        ("half_glu2", 0.5),
        ("gelu", h),
    ):
        np.testing.assert_allclose(ref.gate(p, s, kind), [expected], rtol=1e-14)
    one = {"out2": {"kernel": np.ones((1, 1)), "bias": np.zeros(1)}}  # sigmoid of h, not of s
    np.testing.assert_allclose(ref.gate(one, s, "half_glu2"), [1 / (1 + np.exp(-h))], rtol=1e-14)
    with pytest.raises(ValueError, match="gate"):
        ref.gate(p, s, "glu")


def test_distributions_by_hand():
    log_prob, entropy = ref.categorical(np.log([0.5, 0.25, 0.25]) + 7.0, 1)
    np.testing.assert_allclose((log_prob, entropy), (np.log(0.25), 1.5 * np.log(2.0)), rtol=1e-14)
    log_prob, entropy = ref.multi_categorical(np.log([0.5, 0.5, 0.25, 0.25, 0.5]), (0, 2), (2, 3))
    np.testing.assert_allclose((log_prob, entropy), (np.log(0.25), 2.5 * np.log(2.0)), rtol=1e-14)
    log_prob, entropy = ref.diag_gaussian(np.array([1.0, 0.0, np.log(2.0), 0.0]), (3.0, 0.0))
    half = 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(log_prob, -0.5 - np.log(2.0) - 2 * half, rtol=1e-14)
    np.testing.assert_allclose(entropy, np.log(2.0) + 1.0 + 2 * half, rtol=1e-14)


def test_gae_by_hand():
    """γ = λ = 1/2, four steps: step 1 truncated, step 3 terminated.

    Step 1 is bootstrapped with 8; the next value of step 3 is not read.
    """
    column = lambda *z: np.array(z).reshape(4, 1)  # noqa: E731
    advantages = ref.gae(
        rewards=column(1.0, 2.0, 3.0, 4.0),
        values=column(1.0, 2.0, 3.0, 1.0),
        next_values=column(2.0, 8.0, 1.0, np.nan),
        terminated=column(False, False, False, True),
        done=column(False, True, False, True),
        gamma=0.5,
        lam=0.5,
    )
    np.testing.assert_array_equal(advantages[:, 0], [1 + 4 / 4, 4, 0.5 + 3 / 4, 3])


def test_ppo_loss_by_hand():
    """Ratios 2 and 1/2 with clip 0.2 and both signs of the advantage; one invalid step."""
    logits = np.tile(np.log([0.5, 0.5]), (1, 5, 1))
    old = np.log(0.5) - np.log([[2.0, 2.0, 0.5, 0.5, 1.0]])
    batch = SimpleNamespace(
        actions=np.zeros((1, 5), int),
        log_probs=old,
        values=np.array([[0.0, 0.0, 0.0, 0.0, 9.0]]),
        advantages=np.array([[1.0, -1.0, 1.0, -1.0, np.nan]]),
        returns=np.array([[1.0, 2.0, 0.0, -1.0, np.nan]]),
        valid=np.array([[True, True, True, True, False]]),
    )
    value = np.array([[1.0, 0.1, 0.4, 0.0, 9.0]])
    policy = np.mean([-1.2, 2.0, -0.5, 0.8])
    # v moved to 0.2, kept, moved but the unmoved is worse, kept
    squares = np.mean([0.8**2, 1.9**2, 0.4**2, 1.0])
    weights = {"clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.1}
    loss = ref.ppo_loss(ref.categorical, logits, value, batch, **weights)
    np.testing.assert_allclose(loss, policy + 0.25 * squares - 0.1 * np.log(2.0), rtol=1e-14)
    squares = np.mean([0.0, 1.9**2, 0.4**2, 1.0])
    loss = ref.ppo_loss(ref.categorical, logits, value, batch, clip_value=False, **weights)
    np.testing.assert_allclose(loss, policy + 0.25 * squares - 0.1 * np.log(2.0), rtol=1e-14)


def test_adam_by_hand():
    """The gradient is clipped to norm 1; two steps.

    The first moves each parameter by lr against its sign, the second by both averages.
    """
    grads, norm = ref.clip_by_global_norm({"w": np.array([3.0]), "b": np.array([-4.0])}, 1.0)
    assert norm == 5.0
    np.testing.assert_allclose([grads["w"][0], grads["b"][0]], [0.6, -0.8], rtol=1e-15)
    np.testing.assert_array_equal(ref.clip_by_global_norm(grads, 2.0)[0]["w"], grads["w"])
    params, zero = (
        {"w": np.array([1.0]), "b": np.array([1.0])},
        {"w": np.zeros(1), "b": np.zeros(1)},
    )
    params, m, v = ref.adam_step(params, grads, zero, zero, 1, lr=0.1, eps=0.0)
    np.testing.assert_allclose([params["w"][0], params["b"][0]], [0.9, 1.1], rtol=1e-14)
    params, m, v = ref.adam_step(
        params, {"w": np.zeros(1), "b": np.zeros(1)}, m, v, 2, lr=0.1, eps=0.0
    )
    # m = 0.9·0.1·g over 1 - 0.9², v = 0.999·0.001·g² over 1 - 0.999²
    moved = 0.1 * (0.09 / 0.19) / np.sqrt(0.000999 / 0.001999)
    np.testing.assert_allclose(
        [params["w"][0], params["b"][0]], [0.9 - moved, 1.1 + moved], rtol=1e-12
    )
