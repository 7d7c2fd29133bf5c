"""Wrong PPO losses: in words, and what each gives for a case.

Each is the right loss (ppo_parts.py) with one part replaced, or with other options than asked for.
Tests: tests/verify/test_ppo_loss.py.
"""

import numpy as np

from minis5.verify.operations.ppo_parts import EPSILON, critic, normalise, policy, spread
from minis5.verify.operations.ppo_policy_faults import DISTRIBUTIONS, asked, with_parts


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


def _two_clips(log_ratio, advantage, clip):
    terms, slopes = policy(log_ratio, advantage, clip)
    capped = (advantage < 0) & (terms > -3 * advantage)
    return np.where(capped, -3 * advantage, terms), np.where(capped, 0.0, slopes)


def _blind(log_ratio, advantage, clip):
    terms, slopes = policy(log_ratio, advantage, clip)
    ratio = np.exp(log_ratio)
    return terms, np.where(abs(ratio - 1) <= clip, -ratio * advantage, 0.0 * slopes)


def _huber(value, old, target, reach):
    error = value - target
    far = abs(error) > 1
    return np.where(far, abs(error) - 0.5, 0.5 * error**2), np.where(far, np.sign(error), error)


def _absolute(value, old, target, reach):
    return abs(value - target), np.sign(value - target)


def _larger_mean(value, old, target, reach):
    free, clipped = (
        _unclipped_value(value, old, target, reach),
        _clipped_value(value, old, target, reach),
    )
    return free if free[0].mean() >= clipped[0].mean() else clipped


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


def _normalised(change):
    """Return the cause whose advantages are change(advantages, counted, deviation)."""

    def part(advantages, valid, how):
        counted = advantages[valid]
        return advantages if how == "none" else change(advantages, counted, spread(counted, how))

    return with_parts(normalise=part)


def _swapped(wanted, used):
    """Return the cause that takes another deviation than the one that is wanted."""
    return with_parts(
        normalise=lambda a, valid, how: normalise(a, valid, used if how == wanted else how)
    )


CAUSES = {
    "the policy term has the wrong sign": with_parts(factors=(-1.0, 1.0, -1.0)),
    "the ratio is not clipped": with_parts(policy=_unclipped),
    "the clipped ratio alone, without the minimum": with_parts(
        policy=_clipped_alone(lambda c: 1 - c, lambda c: 1 + c)
    ),
    "the larger of the two objectives, not the smaller": with_parts(
        policy=_two_sided(lambda c: 1 - c, lambda c: 1 + c, larger=True)
    ),
    "the ratio is clipped from above for negative advantages too, not from below": with_parts(
        policy=_clipped_alone(lambda c: -np.inf, lambda c: 1 + c)
    ),
    "the lower bound of the ratio is 1/(1 + clip), not 1 - clip": with_parts(
        policy=_two_sided(lambda c: 1 / (1 + c), lambda c: 1 + c)
    ),
    "the logarithm of the ratio is clipped, not the ratio": with_parts(policy=_clipped_logarithm),
    "the ratio is old to new, not new to old": with_parts(policy=_inverted),
    "the ratio is a difference of log-probabilities, without exp": with_parts(
        policy=_no_exponential
    ),
    "the gradient passes the clipped ratio": with_parts(policy=_leaky),
    "no gradient wherever the ratio is beyond the clip, whichever is smaller": with_parts(
        policy=_blind
    ),
    "the objective of a negative advantage is bounded by 3 A (dual clip)": with_parts(
        policy=_two_clips
    ),
    "the ratio is detached: the policy term has no gradient": with_parts(slopes=(0.0, 1.0, 1.0)),
    "the value loss lacks the factor 1/2 (if yours has none, halve value_coef)": with_parts(
        critic=_unhalved
    ),
    "the value loss is Huber's, not a square": with_parts(critic=_huber),
    "the value loss is |value - return|, not a square": with_parts(critic=_absolute),
    "the larger mean of the two value losses, not the mean of the larger ones": with_parts(
        critic=_larger_mean
    ),
    "value_coef is not applied": asked(value_coef=1.0),
    "the smaller of the two value losses, not the larger": with_parts(critic=_smaller),
    "the clipped value alone, without the maximum": with_parts(critic=_clipped_value),
    "the gradient passes the clipped value": with_parts(critic=_leaky_value),
    "the value is clipped around the return, not around the old value": with_parts(
        critic=_near_target
    ),
    "the value loss is not clipped": asked(clip_value=False),
    "the value loss is clipped without being asked to": asked(clip_value=True),
    "the entropy has the wrong sign: it is punished": with_parts(factors=(1.0, 1.0, 1.0)),
    "the entropy is left out": asked(entropy_coef=0.0),
    "entropy_coef is not applied": asked(entropy_coef=1.0),
    "the entropy has no gradient": with_parts(slopes=(1.0, 1.0, 0.0)),
    "summed over the steps, not averaged": with_parts(shares=lambda valid: 1.0 * valid),
    "divided by all steps, not by those that count": with_parts(
        shares=lambda valid: valid / valid.size
    ),
    "steps that do not count are averaged too": with_parts(
        shares=lambda valid: np.full(valid.size, 1 / valid.size)
    ),
    "steps that do not count are multiplied by 0 instead of left out: NaN passes": with_parts(
        selects=False
    ),
    "the advantages are normalised without being asked to, by std with n": _swapped(
        "none", "population"
    ),
    "the advantages are normalised without being asked to, by std with n - 1": _swapped(
        "none", "sample"
    ),
    "the advantages are not normalised": asked(normalize="none"),
    "the deviation of the advantages divides by n, not by n - 1": _swapped("sample", "population"),
    "the deviation of the advantages divides by n - 1, not by n": _swapped("population", "sample"),
    "the advantages are divided by their variance, not their deviation": _normalised(
        lambda a, counted, s: (a - counted.mean()) / (s**2 + EPSILON)
    ),
    "the mean of the advantages is not subtracted": _normalised(
        lambda a, counted, s: a / (s + EPSILON)
    ),
    "the advantages are not divided by their deviation": _normalised(
        lambda a, counted, s: a - counted.mean()
    ),
    "1e-5 is added to the deviation of the advantages, not 1e-8": _normalised(
        lambda a, counted, s: (a - counted.mean()) / (s + 1e-5)
    ),
    "1e-8 is inside the root of the advantages' variance": _normalised(
        lambda a, counted, s: (a - counted.mean()) / np.sqrt(s**2 + EPSILON)
    ),
    "nothing is added to the deviation of the advantages": _normalised(
        lambda a, counted, s: (a - counted.mean()) / s
    ),
    "advantages of steps that do not count enter mean and deviation": with_parts(
        normalise=lambda a, valid, how: normalise(a, np.ones_like(valid), how)
    ),
} | DISTRIBUTIONS
