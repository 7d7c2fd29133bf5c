"""Wrong policies in PPO's loss, log-probability, entropy and their gradients; and how a wrong loss
is made of ppo_parts.py.

Tests: tests/verify/test_ppo_loss.py.
"""

import numpy as np

from minis5.verify.operations.ppo_parts import LOG_2PI, Batch, Discrete, Gaussian, Loss

OPTIONS = ("distribution", "clip", "value_coef", "entropy_coef", "clip_value", "normalize")
OUTPUTS = ("loss", "d_params", "d_value")


def outputs(case, loss=None, **changed):
    """Return what a loss, the right one if None, gives for a case with other options."""
    batch = Batch(*(case.inputs[name] for name in Batch._fields))
    options = {name: case.options[name] for name in OPTIONS} | changed
    found = (loss or Loss())(case.inputs["params"], case.inputs["value"], batch, **options)
    return {name: np.asarray(found[name]) for name in OUTPUTS}


def with_parts(**parts):
    return lambda case: outputs(case, Loss(**parts))


def asked(**options):
    return lambda case: outputs(case, **options)


class _Overflowing(Discrete):
    """Log-probabilities from exp(logits), the largest not subtracted."""

    @classmethod
    def of(cls, params, action):
        return cls(params - np.log(np.exp(params).sum(axis=1, keepdims=True)), action)


class _Naive(Discrete):
    """0·(-inf) = NaN for p log p where p is 0."""

    def entropy(self):
        return -(np.exp(self.log_p) * self.log_p).sum(axis=1)

    def backward(self, d_log_prob, d_entropy):
        p = np.exp(self.log_p)
        spread = 0.0 * (p * self.log_p).sum(axis=1)  # softmax carries a NaN to the whole row
        return super().backward(d_log_prob, d_entropy) + (d_entropy * spread)[:, None]


class _NaiveGradient(_Naive):
    """The entropy is right, but its gradient is NaN in a row with p = 0."""

    def entropy(self):
        return Discrete.entropy(self)


class _Logged(_Naive):
    """The logarithm of the probabilities, which may have become 0."""

    @classmethod
    def of(cls, params, action):
        return cls(np.log(np.exp(Discrete.of(params, action).log_p)), action)


class _Sampled(Discrete):
    """-log p of the action that was taken, for the entropy."""

    def entropy(self):
        return -self.log_prob()

    def backward(self, d_log_prob, d_entropy):
        return super().backward(d_log_prob - d_entropy, 0.0 * d_entropy)


class _Unnormalised(Discrete):
    """Logits taken for log-probabilities."""

    @classmethod
    def of(cls, params, action):
        return cls(params, action)

    def backward(self, d_log_prob, d_entropy):
        hot = np.eye(self.log_p.shape[1])[self.action]
        slopes = np.exp(self.log_p) * (np.where(np.isfinite(self.log_p), self.log_p, 0.0) + 1.0)
        return d_log_prob[:, None] * hot - d_entropy[:, None] * slopes


def _scaled_entropy(factor):
    """Return the cause whose entropy is multiplied by factor(number of actions)."""

    class Scaled(Discrete):
        def entropy(self):
            return super().entropy() * factor(self.log_p.shape[1])

        def backward(self, d_log_prob, d_entropy):
            right = Discrete(self.log_p, self.action)
            return right.backward(d_log_prob, d_entropy * factor(self.log_p.shape[1]))

    return with_parts(discrete=Scaled.of)


class _Exchanged(Gaussian):
    """[log σ | mean]."""

    @classmethod
    def of(cls, params, action):
        return cls(action, *np.split(params, 2, axis=1)[::-1])

    def backward(self, d_log_prob, d_entropy):
        return np.roll(super().backward(d_log_prob, d_entropy), self.mean.shape[1], axis=1)


class _Interleaved(Gaussian):
    """[mean, log σ] of one number after the other."""

    @classmethod
    def of(cls, params, action):
        return cls(action, params[:, ::2], params[:, 1::2])

    def backward(self, d_log_prob, d_entropy):
        halves = np.split(super().backward(d_log_prob, d_entropy), 2, axis=1)
        return np.stack(halves, axis=-1).reshape(len(d_log_prob), -1)


class _Squashed(Gaussian):
    """The action is taken for a tanh's input: its log-probability has the tanh's volume."""

    def log_prob(self):
        return super().log_prob() - np.log(1 - np.tanh(self.action) ** 2 + 1e-6).sum(axis=1)


def _within_one(params, action):
    return Gaussian.of(params, np.clip(action, -1, 1))


def _gaussian(**wrong):
    def of(params, action):
        fixed = {k: f(action.shape[1]) if callable(f) else f for k, f in wrong.items()}
        return Gaussian(action, *np.split(params, 2, axis=1), **fixed)

    return with_parts(gaussian=of)


DISTRIBUTIONS = {
    "the entropy is -log p of the action that was taken": with_parts(discrete=_Sampled.of),
    "the entropy is averaged over the actions, not summed": _scaled_entropy(lambda A: 1 / A),
    "the entropy is in bits: the logarithm has base 2": _scaled_entropy(lambda A: 1 / np.log(2)),
    "the entropy is divided by its largest value, log A": _scaled_entropy(lambda A: 1 / np.log(A)),
    "logits are taken for log-probabilities: log_softmax is missing": with_parts(
        discrete=_Unnormalised.of
    ),
    "exp of the logits overflows: subtract the largest first": with_parts(discrete=_Overflowing.of),
    "p log p is NaN where p is 0": with_parts(discrete=_Naive.of),
    "the logarithm of a probability that became 0: take log_softmax": with_parts(
        discrete=_Logged.of
    ),
    "the gradient of p log p is NaN where p is 0": with_parts(discrete=_NaiveGradient.of),
    "the log-probability is averaged over the action's numbers, not summed": _gaussian(
        weight=lambda A: 1 / A
    ),
    "the second half of params is taken as log σ², not log σ": _gaussian(variance=0.5),
    "params are taken as [log σ | mean], not [mean | log σ]": with_parts(gaussian=_Exchanged.of),
    "params are taken as mean, log σ, mean, log σ, …": with_parts(gaussian=_Interleaved.of),
    "the log-probability is that of the tanh of a normal number": with_parts(gaussian=_Squashed.of),
    "actions are clipped to ±1 before their log-probability": with_parts(gaussian=_within_one),
    "the log-probability lacks -log σ": _gaussian(volume=0.0),
    "the log-probability lacks -log(2π)/2": _gaussian(constants=(0.0, 0.5 * (LOG_2PI + 1))),
    "the entropy lacks its constant log(2πe)/2": _gaussian(constants=(0.5 * LOG_2PI, 0.0)),
    "the entropy has log(2π)/2 instead of log(2πe)/2": _gaussian(
        constants=(0.5 * LOG_2PI, 0.5 * LOG_2PI)
    ),
}
