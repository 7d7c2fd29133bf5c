"""Checks of what learns: PPO's loss, Adam, a whole update. checks.py says how checks are used.

Tests: tests/verify/test_ppo_loss.py, tests/verify/test_adam.py,
tests/verify/test_training.py.
"""

from collections.abc import Callable
from typing import Any

from minis5.verify.checks import check_operation
from minis5.verify.operations import adam, ppo_loss, training
from minis5.verify.report import Report


def check_ppo_loss(loss: Callable, *, gradients: bool = True, **options: Any) -> Report:
    """Check PPO's loss and its gradients against minis5's specification.

    A right one, without what the flags ask for beyond ``core``, for a torch user (verify.torch
    takes the gradients)::

        def loss(params, value, batch, *, clip, value_coef, entropy_coef):
            log_p = torch.log_softmax(params, -1)
            log_prob = log_p.gather(-1, batch.actions[:, None])[:, 0]
            ratio = (log_prob - batch.log_probs).exp()
            clipped = ratio.clamp(1 - clip, 1 + clip)
            policy = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
            value = 0.5 * ((value - batch.returns) ** 2).mean()
            entropy = -(log_p.exp() * log_p).sum(-1).mean()
            return policy + value_coef * value - entropy_coef * entropy

        check_ppo_loss(verify_torch.loss(loss), flags="core")

    Parameters
    ----------
    loss : callable
        ``loss(params, value, batch, *, clip, value_coef, entropy_coef)`` → (loss, d_params,
        d_value). params (N, A) float: logits. value (N,). batch: a NamedTuple of actions int64
        (N,), log_probs, values, advantages, returns (N,) and valid bool (N,), True where a step
        counts. loss is the mean over the steps that count, d_params and d_value its gradients.
        Keywords that come only in the cases that need them: ``clip_value=True``,
        ``distribution="gaussian"`` (params (N, 2A) are [mean | log σ], actions (N, A)),
        ``normalize="population"`` or ``"sample"``. operations/ppo_loss.py says what they mean.
    gradients : bool
        False: ``loss`` returns the loss alone, and no gradient is checked.
    **options
        dtypes, seed, small, flags and xfail, as of :func:`minis5.verify.check_scan`.
        ``flags="no-normalized,no-normalized_sample"`` is for a loss that gets advantages as they
        are.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        A case failed or is not implemented; the message is the report.
    """
    operation = ppo_loss.OPERATION if gradients else ppo_loss.LOSS_ALONE
    return check_operation(operation, loss, **options)


def check_optimizer(make_optimizer: Callable, **options: Any) -> Report:
    """Check Adam: bias correction, eps, clipping by the global norm, rates of single parameters.

    Parameters
    ----------
    make_optimizer : callable
        ``make_optimizer(params, *, lr, eps)`` → a function step(grads) → params, or an object with
        that method. params and grads are dicts of arrays with the same names and shapes. Keywords
        that come only in the cases that need them: ``beta1=``, ``beta2=``, ``max_norm=``,
        ``rates={name: factor}``. operations/adam.py says what they mean.
    **options
        As :func:`check_ppo_loss`. ``flags="no-max_norm_exact"`` is for one that clips as
        ``torch.nn.utils.clip_grad_norm_`` does, which adds 1e-6 to the norm.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_ppo_loss`.
    """
    return check_operation(adam.OPERATION, make_optimizer, **options)


def check_training(train: Callable, **options: Any) -> Report:
    """Check a whole PPO update of a tiny agent with memory, minibatch by minibatch.

    Parameters
    ----------
    train : callable
        ``train(params, rollout, groups, *, lr, eps, clip, value_coef, entropy_coef, normalize,
        gamma, lam)``, a generator of the params after each minibatch, or a list of them. The agent,
        what is in ``params`` and ``rollout``, and the keywords that come only in the cases that
        need them (``clip_value=True``, ``max_norm=``) are in operations/training.py.
    **options
        As :func:`check_ppo_loss`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        As :func:`check_ppo_loss`.
    """
    return check_operation(training.OPERATION, train, **options)
