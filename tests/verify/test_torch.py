"""PyTorch's functions under the checks: right ones pass, faulty ones are caught; no shared memory.

Skipped without PyTorch.
"""

import numpy as np
import pytest

from minis5.verify import (
    check_optimizer,
    check_ppo_loss,
    check_scan,
    check_scan_vjp,
    check_ssm,
    check_ssm_vjp,
    check_training,
)
from minis5.verify.checks import run_operation
from minis5.verify.operations import adam, ppo_loss, scan, scan_vjp
from minis5.verify.operations.ppo_parts import Batch

torch = pytest.importorskip("torch")
verify_torch = pytest.importorskip("minis5.verify.torch")


def selecting(a, b, reset=None, x0=None):
    """The textbook scan whose reset selects, before the product and after it: autograd of
    ``where`` multiplies by zero, so NaN must not reach either factor.
    """
    x = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        new = (a if a.ndim == 1 else a[t]) * x + b[t]
        if reset is not None:
            begins, zero = reset[t][:, None], torch.zeros_like(x)
            new = (a if a.ndim == 1 else a[t]) * torch.where(begins, zero, x) + b[t]
            new = torch.where(begins, b[t], new)
        x = new
        states.append(x)
    return torch.stack(states)


def multiplying(a, b, reset=None, x0=None):
    x = torch.zeros_like(b[0]) if x0 is None else x0
    states = []
    for t in range(len(b)):
        keep = 1 if reset is None else (~reset[t][:, None]).to(b.real.dtype)
        x = (a if a.ndim == 1 else a[t]) * (keep * x) + b[t]
        states.append(x)
    return torch.stack(states)


def layer_forward(layer, u, reset=None, x0=None):
    """An S5 layer with zero-order hold, of the textbook scan."""
    lam = torch.complex(layer["Lambda_re"], layer["Lambda_im"])
    B, C = torch.view_as_complex(layer["B"]), torch.view_as_complex(layer["C"])
    z = lam * layer["log_step"][:, 0].exp()
    x = selecting(z.exp(), u.to(B.dtype) @ (((z.exp() - 1) / lam)[:, None] * B).T, reset, x0)
    return 2 * (x @ C.T).real + layer["D"] * u, x[-1]


def whole_loss(
    params, value, batch, *, clip, value_coef, entropy_coef,
    distribution="categorical", clip_value=False, normalize="none",
):  # fmt: skip
    if distribution == "categorical":
        dist = torch.distributions.Categorical(logits=params)
        log_prob, entropy = dist.log_prob(batch.actions), dist.entropy()
    else:
        mean, log_std = params.chunk(2, -1)
        dist = torch.distributions.Normal(mean, log_std.exp())
        log_prob, entropy = dist.log_prob(batch.actions).sum(-1), dist.entropy().sum(-1)
    counts, A = batch.valid, batch.advantages[batch.valid]
    if normalize != "none":
        A = (A - A.mean()) / (A.std(correction=int(normalize == "sample")) + 1e-8)
    ratio = (log_prob - batch.log_probs)[counts].exp()
    policy = torch.minimum(ratio * A, ratio.clamp(1 - clip, 1 + clip) * A).mean()
    value, old, returns = value[counts], batch.values[counts], batch.returns[counts]
    error = (value - returns) ** 2
    if clip_value:
        clipped = old + (value - old).clamp(-clip, clip)
        error = torch.maximum(error, (clipped - returns) ** 2)
    return -policy + 0.5 * value_coef * error.mean() - entropy_coef * entropy[counts].mean()


def test_a_selecting_scan_passes_forward_and_backward():
    flags = "no-long,no-chunked"  # their thousands of steps are slow in a Python loop
    for check, function in (
        (check_scan, verify_torch.wrap(selecting)),
        (check_scan_vjp, verify_torch.vjp(selecting)),
    ):
        report = check(function, small=True, flags=flags)
        assert report.counts["passed"] + report.counts["informational"] == len(report.results) > 45


def test_a_multiplying_scan_fails_where_it_must_and_nowhere_else():
    for operation, function in (
        (scan.OPERATION, verify_torch.wrap(multiplying)),
        (scan_vjp.OPERATION, verify_torch.vjp(multiplying)),
    ):
        report = run_operation(operation, function, small=True, dtypes="float64")
        failed = [result for result in report.results if result.status == "failed"]
        assert failed and all("reset_selects" in result.flags for result in failed)
        assert any("multiplies" in result.cause for result in failed), report.text()


def test_an_s5_layer_passes_forward_and_backward():
    flags = "initial_state,reset,reset_selects"
    for check, function in (
        (check_ssm, verify_torch.wrap(layer_forward)),
        (check_ssm_vjp, verify_torch.ssm_vjp(layer_forward)),
    ):
        report = check(function, small=True, flags=flags)
        assert report.counts["passed"] == len(report.results) > 8


def test_a_loss_with_torchs_distributions_passes():
    report = check_ppo_loss(verify_torch.loss(whole_loss))
    assert report.counts["passed"] == len(report.results) > 70


def test_a_loss_with_the_mean_squared_error_of_torch_is_told_what_it_lacks():
    def unhalved(params, value, batch, **options):
        options["value_coef"] *= 2
        return whole_loss(params, value, batch, **options)

    report = run_operation(ppo_loss.OPERATION, verify_torch.loss(unhalved), small=True)
    causes = {result.cause for result in report.results if result.status == "failed"}
    assert causes == {"the value loss lacks the factor 1/2 (if yours has none, halve value_coef)"}


def exact_clip(parameters, max_norm):
    norm = torch.sqrt(sum((z.grad**2).sum() for z in parameters))
    for z in parameters:
        z.grad *= max_norm / norm if norm > max_norm else 1.0


def test_torchs_adam_passes():
    report = check_optimizer(verify_torch.optimizer(torch.optim.Adam), flags="no-max_norm_exact")
    assert report.counts["passed"] == len(report.results) > 45
    report = check_optimizer(verify_torch.optimizer(torch.optim.Adam, clip=exact_clip))
    assert report.counts["passed"] == len(report.results) > 45


def train(params, rollout, groups, *, lr, eps, normalize, gamma, lam, max_norm=None, **options):
    """PPO as one writes it with PyTorch: autograd, torch.optim, Module-free."""
    r, kept = rollout, {key: torch.nn.Parameter(z) for key, z in params.items()}
    adam_, advantages, later = torch.optim.Adam(kept.values(), lr=lr, eps=eps), [], 0.0
    zero = torch.zeros_like(r.values[0])
    for t in reversed(range(len(r.values))):
        bootstrap = torch.where(r.terminated[t], zero, gamma * r.next_values[t])
        later = (
            r.rewards[t]
            + bootstrap
            - r.values[t]
            + gamma * lam * torch.where(r.done[t], zero, later)
        )
        advantages.insert(0, later)
    advantages = torch.stack(advantages)
    targets = advantages + r.values
    for group in groups:
        a, w = (torch.complex(kept[f"{k}_re"], kept[f"{k}_im"]) for k in ("a", "w"))
        x = selecting(a, r.obs[:, group].to(w.dtype) @ w, r.reset[:, group], r.x0[group])
        f = torch.cat([x.real, x.imag], -1).flatten(0, 1)
        logits = f @ kept["actor"] + kept["actor_bias"]
        value = (f @ kept["critic"] + kept["critic_bias"])[:, 0]
        columns = (r.actions, r.log_probs, r.values, advantages, targets)
        flat = [z[:, group].flatten() for z in columns]
        batch = Batch(*flat, torch.ones_like(value, dtype=torch.bool))
        adam_.zero_grad()
        whole_loss(logits, value, batch, normalize=normalize, **options).backward()
        if max_norm is not None:
            exact_clip(kept.values(), max_norm)
        adam_.step()
        yield kept


def test_a_whole_update_of_torch_passes():
    report = check_training(verify_torch.wrap(train))
    assert report.counts["passed"] == len(report.results) > 25


def test_torchs_differences_are_named():
    for function, cause in (
        (verify_torch.optimizer(), "1e-6 is added to the norm before it clips, as torch does"),
        (verify_torch.optimizer(torch.optim.AdamW), "weights decay by 0.01 (AdamW)"),
        (verify_torch.optimizer(amsgrad=True), "the step has the largest v so far (AMSGrad)"),
    ):
        flags = None if "1e-6" in cause else "no-max_norm_exact"
        report = run_operation(adam.OPERATION, function, dtypes="float64", small=True, flags=flags)
        assert {r.cause for r in report.results if r.status == "failed"} == {cause}


def test_memory_is_not_shared():
    z = np.arange(3.0)
    tensor = verify_torch.to_torch({"z": (z,)})["z"][0]
    tensor += 1
    array = verify_torch.to_numpy([tensor])[0]
    tensor += 1
    np.testing.assert_array_equal(z, [0, 1, 2])
    np.testing.assert_array_equal(array, [1, 2, 3])
    kept = np.ones(2)
    verify_torch.wrap(lambda x: x.mul_(2))(kept)
    np.testing.assert_array_equal(kept, 1)


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "complex64", "complex128", "int64", "bool"]
)
def test_dtypes_are_kept(dtype):
    z = np.ones(2, dtype)
    assert verify_torch.wrap(lambda x: x)(z).dtype == z.dtype
    if dtype.startswith("complex"):
        got = verify_torch.wrap(lambda x: x.conj())(1j * z)
        np.testing.assert_array_equal(got, -1j * z)


def test_a_modules_arguments_are_seen():
    class Scan(torch.nn.Module):
        def forward(self, a, b):
            return selecting(a, b)

    report = run_operation(scan.OPERATION, verify_torch.wrap(Scan()), small=True, dtypes="float64")
    assert report.by_flag["core"]["passed"] and report.by_flag["reset"]["missing"]
    assert not report.by_flag["reset"]["failed"]


def test_results_without_gradient_or_numpys_dtype_are_named():
    report = run_operation(
        scan_vjp.OPERATION,
        verify_torch.vjp(lambda *z: selecting(*z).detach()),
        small=True,
        flags="core",
    )
    assert all("expected a tensor with a gradient" in result.message for result in report.results)
    with pytest.raises(TypeError, match=r"expected a dtype of NumPy, got torch.bfloat16; cast"):
        verify_torch.wrap(lambda x: x.to(torch.bfloat16))(np.ones(2))
