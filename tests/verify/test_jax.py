"""JAX's functions under the checks: right ones pass, faulty ones are caught; its gradients are
conjugated.

Skipped without JAX.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from minis5.verify import (
    check_optimizer,
    check_ppo_loss,
    check_scan,
    check_scan_vjp,
    check_ssm,
    check_ssm_vjp,
)
from minis5.verify.checks import run_operation
from minis5.verify.operations import scan, scan_vjp

jax = pytest.importorskip("jax")
verify_jax = pytest.importorskip("minis5.verify.jax")
jnp = jax.numpy


@pytest.fixture
def wide():
    """64-bit numbers, for the time of a test."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@jax.jit
def selecting(a, b, reset=None, x0=None):
    """jax.lax.scan; the reset selects before the product and after it."""
    x0 = jnp.zeros_like(b[0]) if x0 is None else x0
    reset = jnp.zeros(b.shape[:2], bool) if reset is None else reset

    def step(x, z):
        a, b, begins = z[0], z[1], z[2][:, None]
        x = jnp.where(begins, b, a * jnp.where(begins, 0, x) + b)
        return x, x

    return jax.lax.scan(step, x0, (jnp.broadcast_to(a, b.shape), b, reset))[1]


@jax.jit
def multiplying(a, b, reset=None, x0=None):
    """popjaxrl's way: an associative scan whose elements are multiplied by 1 - c."""
    a = jnp.broadcast_to(a, b.shape)
    c = jnp.zeros(b.shape[:2], bool) if reset is None else reset
    c = jnp.broadcast_to(c[..., None], b.shape).astype(b.real.dtype)
    if x0 is not None:
        a, b = (jnp.concatenate([first[None], z]) for first, z in ((jnp.ones_like(x0), a), (x0, b)))
        c = jnp.concatenate([jnp.zeros_like(c[:1]), c])

    def combine(i, j):
        (a_i, b_i, c_i), (a_j, b_j, c_j) = i, j
        a = (a_j * a_i) * (1 - c_j) + a_j * c_j
        return a, (a_j * b_i + b_j) * (1 - c_j) + b_j * c_j, c_i * (1 - c_j) + c_j

    x = jax.lax.associative_scan(combine, (a, b, c))[1]
    return x if x0 is None else x[1:]


@jax.jit
def layer_forward(layer, u, reset=None, x0=None):
    """An S5 layer with zero-order hold."""
    lam = layer["Lambda_re"] + 1j * layer["Lambda_im"]
    B, C = (layer[name][..., 0] + 1j * layer[name][..., 1] for name in ("B", "C"))
    z = lam * jnp.exp(layer["log_step"][:, 0])
    x = selecting(jnp.exp(z), u @ ((jnp.exp(z) - 1) / lam * B.T), reset, x0)
    return 2 * (x @ C.T).real + layer["D"] * u, x[-1]


def loss(
    params, value, batch, *, clip, value_coef, entropy_coef, clip_value=False, normalize="none"
):
    log_p = jax.nn.log_softmax(params)
    possible = jnp.where(jnp.isfinite(log_p), log_p, 0.0)
    log_prob = jnp.take_along_axis(possible, batch.actions[:, None], -1)[:, 0]
    count = batch.valid.sum()

    def mean(z):
        return jnp.where(batch.valid, z, 0.0).sum() / count

    A = jnp.where(batch.valid, batch.advantages, 0.0)
    if normalize != "none":
        square = jnp.where(batch.valid, (A - mean(A)) ** 2, 0.0).sum()
        A = (A - mean(A)) / (jnp.sqrt(square / (count - (normalize == "sample"))) + 1e-8)
    ratio = jnp.exp(log_prob - jnp.where(batch.valid, batch.log_probs, log_prob))
    policy = mean(jnp.minimum(ratio * A, jnp.clip(ratio, 1 - clip, 1 + clip) * A))
    old, returns = (jnp.where(batch.valid, z, 0.0) for z in (batch.values, batch.returns))
    error = (value - returns) ** 2
    if clip_value:
        error = jnp.maximum(error, (old + jnp.clip(value - old, -clip, clip) - returns) ** 2)
    entropy = -(jnp.exp(log_p) * possible).sum(-1)
    return -policy + 0.5 * value_coef * mean(error) - entropy_coef * mean(entropy)


def adam(*, lr, eps, beta1=0.9, beta2=0.999):
    """An optimiser with Optax's two functions."""

    def init(params):
        zeros = {key: jnp.zeros_like(z) for key, z in params.items()}
        return 0, zeros, zeros

    def update(grads, state, params):
        t, m, v = state[0] + 1, {}, {}
        for key, g in grads.items():
            m[key] = beta1 * state[1][key] + (1 - beta1) * g
            v[key] = beta2 * state[2][key] + (1 - beta2) * g**2
        changes = {
            key: -lr * m[key] / (1 - beta1**t) / (jnp.sqrt(v[key] / (1 - beta2**t)) + eps)
            for key in grads
        }
        return changes, (t, m, v)

    return SimpleNamespace(init=init, update=update)


FLAGS = "no-long,no-chunked"


def test_a_selecting_scan_passes_forward_and_backward(wide):
    for check, function in (
        (check_scan, verify_jax.wrap(selecting)),
        (check_scan_vjp, verify_jax.vjp(selecting)),
    ):
        report = check(function, small=True, flags=FLAGS)
        assert report.counts["passed"] + report.counts["informational"] == len(report.results) > 40


def test_a_multiplying_scan_fails_where_it_must_and_nowhere_else(wide):
    function = verify_jax.wrap(multiplying)
    report = run_operation(scan.OPERATION, function, small=True, dtypes="float64", flags=FLAGS)
    failed = [result for result in report.results if result.status == "failed"]
    finite = [r for r in failed if "reset_selects" not in r.flags and "extreme" not in r.flags]
    assert failed and not finite
    assert any("multiplies" in result.cause for result in failed), report.text()


def test_a_gradient_that_is_not_conjugated_is_named(wide):
    def raw(a, b, reset, x0, x, dx):
        x0 = np.zeros_like(b[0]) if x0 is None else x0
        _, pull = jax.vjp(lambda a, b, x0: selecting(a, b, reset, x0), a, b, x0)
        return verify_jax.to_numpy(pull(jnp.array(dx)))

    flags = f"{FLAGS},no-reset_selects,no-extreme"
    report = run_operation(scan_vjp.OPERATION, raw, small=True, dtypes="float64", flags=flags)
    failed = [result for result in report.results if result.status == "failed"]
    assert failed and all("complex" in result.flags for result in failed), report.text()
    assert all("conjugated" in result.cause for result in failed), report.text()


def test_an_s5_layer_passes_forward_and_backward(wide):
    flags = "initial_state,reset,reset_selects"
    for check, function in (
        (check_ssm, verify_jax.wrap(layer_forward)),
        (check_ssm_vjp, verify_jax.ssm_vjp(layer_forward)),
    ):
        report = check(function, small=True, flags=flags, dtypes="float64")
        assert report.counts["passed"] == len(report.results) > 4


def test_a_loss_passes(wide):
    flags = "no-gaussian,no-normalized_sample"
    report = check_ppo_loss(verify_jax.loss(loss), flags=flags, small=True, dtypes="float64")
    assert report.counts["passed"] == len(report.results) > 10


def test_adam_passes(wide):
    report = check_optimizer(verify_jax.optimizer(adam), flags="core,betas,extreme")
    assert report.counts["passed"] == len(report.results) > 25
    report = check_optimizer(
        verify_jax.optimizer(lambda *, lr, eps: adam(lr=lr, eps=eps)), flags="core"
    )
    assert report.passed


def test_float64_that_is_off_is_said():
    if jax.config.jax_enable_x64:
        pytest.skip("64-bit JAX")
    report = run_operation(scan.OPERATION, verify_jax.wrap(selecting), small=True, flags="core")
    assert report.counts["passed"] and report.counts["missing"]
    for result in report.results:
        if result.dtype == "float64":
            assert 'float64 switched off; set jax.config.update("jax_enable_x64"' in result.message


def test_memory_is_not_shared_and_dtypes_are_kept(wide):
    for dtype in ("float32", "float64", "complex64", "complex128", "int64", "bool"):
        z = np.zeros(3, dtype)
        array = verify_jax.to_jax({"z": [z]})["z"][0]
        z[:] = 1
        got = verify_jax.to_numpy((array,))[0]
        got[:] = 1
        assert got.dtype == z.dtype and not np.asarray(array).any()
