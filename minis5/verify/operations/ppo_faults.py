"""Wrong PPO losses: in words, and what each gives for a case.

Each is the right loss (ppo_parts.py) with one part replaced, or with other options than asked for.
Tests: tests/verify/test_ppo_loss.py.
"""

import numpy as np

from minis5.verify.operations.ppo_parts import (
    EPSILON,
    LOG_2PI,
    Batch,
    Discrete,
    Gaussian,
    Loss,
    critic,
    normalise,
    policy,
    spread,
)

OPTIONS = ("distribution", "clip", "value_coef", "entropy_coef", "clip_value", "normalize")
OUTPUTS = ("loss", "d_params", "d_value")


def outputs(case, loss=None, **changed):
    """Return what a loss, the right one if None, gives for a case with other options."""
    batch = Batch(*(case.inputs[name] for name in Batch._fields))
    options = {name: case.options[name] for name in OPTIONS} | changed
    found = (loss or Loss())(case.inputs["params"], case.inputs["value"], batch, **options)
    return {name: np.asarray(found[name]) for name in OUTPUTS}


def _with(**parts):
    return lambda case: outputs(case, Loss(**parts))


def _asked(**options):
    return lambda case: outputs(case, **options)


def _two_sided(low, high, larger=False):
    """Return the policy's part with the bounds low(ε) and high(ε), or with max instead of min."""

    def part(log_ratio, advantage, clip):
        ratio = np.exp(log_ratio)
        free, clipped = ratio * advantage, np.clip(ratio, low(clip), high(clip)) * advantage
        free, clipped = (-free, -clipped) if larger else (free, clipped)
        sign = 1 if larger else -1
        return sign * np.minimum(free, clipped), np.where(free > clipped, 0.0, sign * free)

    return part


def _clipped_alone(low, high):
    """Return the policy's part without the minimum: -clip(ρ)A."""

    def part(log_ratio, advantage, clip):
        ratio = np.exp(log_ratio)
        clipped = np.clip(ratio, low(clip), high(clip))
        return -clipped * advantage, np.where(clipped == ratio, -ratio * advantage, 0.0)

    return part


def _unclipped(log_ratio, advantage, clip):
    return policy(log_ratio, advantage, np.inf)


def _leaky(log_ratio, advantage, clip):
    return policy(log_ratio, advantage, clip)[0], -np.exp(log_ratio) * advantage


def _inverted(log_ratio, advantage, clip):
    terms, slopes = policy(-log_ratio, advantage, clip)
    return terms, -slopes


def _no_exponential(log_ratio, advantage, clip):
    free, clipped = log_ratio * advantage, np.clip(log_ratio, 1 - clip, 1 + clip) * advantage
    return -np.minimum(free, clipped), np.where(free > clipped, 0.0, -advantage)


def _clipped_logarithm(log_ratio, advantage, clip):
    ratio, clipped = np.exp(log_ratio), np.exp(np.clip(log_ratio, -clip, clip))
    free, clipped = ratio * advantage, clipped * advantage
    return -np.minimum(free, clipped), np.where(free > clipped, 0.0, -free)


def _unhalved(value, old, target, reach):
    return tuple(2 * z for z in critic(value, old, target, reach))


def _smaller(value, old, target, reach):
    error, clipped, inside = _errors(value, old, target, reach)
    slopes = np.where(inside | (error**2 <= clipped**2), error, 0.0)
    return 0.5 * np.minimum(error**2, clipped**2), slopes


def _clipped_value(value, old, target, reach):
    error, clipped, inside = _errors(value, old, target, reach)
    return 0.5 * clipped**2, np.where(inside, error, 0.0)


def _leaky_value(value, old, target, reach):
    error, clipped, inside = _errors(value, old, target, reach)
    slopes = np.where(inside | (error**2 >= clipped**2), error, clipped)
    return critic(value, old, target, reach)[0], slopes


def _near_target(value, old, target, reach):
    error = value - target
    clipped = np.clip(error, -reach, reach)
    return 0.5 * clipped**2, np.where(clipped == error, error, 0.0)


def _unclipped_value(value, old, target, reach):
    return critic(value, old, target, np.inf)


def _errors(value, old, target, reach):
    moved = value - old
    return value - target, old + np.clip(moved, -reach, reach) - target, abs(moved) <= reach


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


def _gaussian(**wrong):
    def of(params, action):
        fixed = {k: f(action.shape[1]) if callable(f) else f for k, f in wrong.items()}
        return Gaussian(action, *np.split(params, 2, axis=1), **fixed)

    return _with(gaussian=of)


def _normalised(change):
    """Return the cause whose advantages are change(advantages, counted, deviation)."""

    def part(advantages, valid, how):
        counted = advantages[valid]
        return advantages if how == "none" else change(advantages, counted, spread(counted, how))

    return _with(normalise=part)


def _swapped(wanted, used):
    """Return the cause that takes another deviation than the one that is wanted."""
    return _with(
        normalise=lambda a, valid, how: normalise(a, valid, used if how == wanted else how)
    )


CAUSES = {
    "the policy term has the wrong sign": _with(factors=(-1.0, 1.0, -1.0)),
    "the ratio is not clipped": _with(policy=_unclipped),
    "the clipped ratio alone, without the minimum": _with(
        policy=_clipped_alone(lambda c: 1 - c, lambda c: 1 + c)
    ),
    "the larger of the two objectives, not the smaller": _with(
        policy=_two_sided(lambda c: 1 - c, lambda c: 1 + c, larger=True)
    ),
    "the ratio is clipped from above for negative advantages too, not from below": _with(
        policy=_clipped_alone(lambda c: -np.inf, lambda c: 1 + c)
    ),
    "the lower bound of the ratio is 1/(1 + clip), not 1 - clip": _with(
        policy=_two_sided(lambda c: 1 / (1 + c), lambda c: 1 + c)
    ),
    "the logarithm of the ratio is clipped, not the ratio": _with(policy=_clipped_logarithm),
    "the ratio is old to new, not new to old": _with(policy=_inverted),
    "the ratio is a difference of log-probabilities, without exp": _with(policy=_no_exponential),
    "the gradient passes the clipped ratio": _with(policy=_leaky),
    "the ratio is detached: the policy term has no gradient": _with(slopes=(0.0, 1.0, 1.0)),
    "the value loss lacks the factor 1/2 (if yours has none, halve value_coef)": _with(
        critic=_unhalved
    ),
    "value_coef is not applied": _asked(value_coef=1.0),
    "the smaller of the two value losses, not the larger": _with(critic=_smaller),
    "the clipped value alone, without the maximum": _with(critic=_clipped_value),
    "the gradient passes the clipped value": _with(critic=_leaky_value),
    "the value is clipped around the return, not around the old value": _with(critic=_near_target),
    "the value loss is not clipped": _asked(clip_value=False),
    "the value loss is clipped without being asked to": _asked(clip_value=True),
    "the entropy has the wrong sign: it is punished": _with(factors=(1.0, 1.0, 1.0)),
    "the entropy is left out": _asked(entropy_coef=0.0),
    "entropy_coef is not applied": _asked(entropy_coef=1.0),
    "the entropy has no gradient": _with(slopes=(1.0, 1.0, 0.0)),
    "summed over the steps, not averaged": _with(shares=lambda valid: 1.0 * valid),
    "divided by all steps, not by those that count": _with(shares=lambda valid: valid / valid.size),
    "steps that do not count are averaged too": _with(
        shares=lambda valid: np.full(valid.size, 1 / valid.size)
    ),
    "steps that do not count are multiplied by 0 instead of left out: NaN passes": _with(
        selects=False
    ),
    "the advantages are normalised without being asked to, by std with n": _swapped(
        "none", "population"
    ),
    "the advantages are normalised without being asked to, by std with n - 1": _swapped(
        "none", "sample"
    ),
    "the advantages are not normalised": _asked(normalize="none"),
    "the deviation of the advantages divides by n, not by n - 1": _swapped("sample", "population"),
    "the deviation of the advantages divides by n - 1, not by n": _swapped("population", "sample"),
    "the advantages are divided by their variance, not their deviation": _normalised(
        lambda a, counted, s: (a - counted.mean()) / (s**2 + EPSILON)
    ),
    "the mean of the advantages is not subtracted": _normalised(
        lambda a, counted, s: a / (s + EPSILON)
    ),
    "1e-8 is inside the root of the advantages' variance": _normalised(
        lambda a, counted, s: (a - counted.mean()) / np.sqrt(s**2 + EPSILON)
    ),
    "nothing is added to the deviation of the advantages": _normalised(
        lambda a, counted, s: (a - counted.mean()) / s
    ),
    "advantages of steps that do not count enter mean and deviation": _with(
        normalise=lambda a, valid, how: normalise(a, np.ones_like(valid), how)
    ),
    "exp of the logits overflows: subtract the largest first": _with(discrete=_Overflowing.of),
    "p log p is NaN where p is 0": _with(discrete=_Naive.of),
    "the logarithm of a probability that became 0: take log_softmax": _with(discrete=_Logged.of),
    "the gradient of p log p is NaN where p is 0": _with(discrete=_NaiveGradient.of),
    "the log-probability is averaged over the action's numbers, not summed": _gaussian(
        weight=lambda A: 1 / A
    ),
    "the second half of params is taken as log σ², not log σ": _gaussian(variance=0.5),
    "the log-probability lacks -log σ": _gaussian(volume=0.0),
    "the log-probability lacks -log(2π)/2": _gaussian(constants=(0.0, 0.5 * (LOG_2PI + 1))),
    "the entropy lacks its constant log(2πe)/2": _gaussian(constants=(0.5 * LOG_2PI, 0.0)),
    "the entropy has log(2π)/2 instead of log(2πe)/2": _gaussian(
        constants=(0.5 * LOG_2PI, 0.5 * LOG_2PI)
    ),
}
