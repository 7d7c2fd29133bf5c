"""PPO's loss in parts, with its gradients by hand: any part may be replaced by a wrong one.

    L = policy loss + value_coef·value loss - entropy_coef·entropy, each a mean over valid steps

    policy loss   -min(ρA, clip(ρ, 1 ± ε)·A), ρ = exp(log π(a) - log π_old(a)), ε = ``clip``
    value loss    ½·max((V - R)², (V_c - R)²), V_c = V_old + clip(V - V_old, ±ε);
                  ½·(V - R)² without ``clip_value``
    normalize     "none": A enters as given; "population" and "sample": (A - mean)/(s + 1e-8) over
                  the valid steps of the batch first, where s divides by n or by n - 1

The specification, reference.ppo_loss, has no gradient; this file has it for the right loss and for
wrong ones. In float64 only, one row for each of N steps.

Leaves out: squashed Gaussians, several choices at a time.
Source: 1707.06347, eq. 7 and 9. Specification: reference.ppo_loss.
Tests: tests/verify/test_ppo_loss.py, by central differences of the reference.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LOG_2PI = np.log(2 * np.pi)
EPSILON = 1e-8  # beside the deviation of the advantages


class Batch(NamedTuple):
    """What the loss knows of the past; N steps."""

    actions: np.ndarray  # int64 (N,), or float (N, A)
    log_probs: np.ndarray  # (N,): of the policy that acted
    values: np.ndarray  # (N,): of that policy's critic
    advantages: np.ndarray  # (N,)
    returns: np.ndarray  # (N,): what the value should be
    valid: np.ndarray  # bool (N,): the other steps do not count


# Each part returns a term for every step and its slope.


def spread(x, how):
    """Return the deviation with n ("population") or n - 1 ("sample")."""
    return np.sqrt(((x - x.mean()) ** 2).sum() / np.float64(x.size - (how == "sample")))


def normalise(advantages, valid, how):
    """Return the advantages as they enter the loss."""
    if how == "none":
        return advantages
    counted = advantages[valid]
    return (advantages - counted.mean()) / (spread(counted, how) + EPSILON)


def policy(log_ratio, advantage, clip):
    """Return -min(ρA, clip(ρ)A), and its slope along log π."""
    ratio = np.exp(log_ratio)
    free, clipped = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
    return -np.minimum(free, clipped), np.where(free > clipped, 0.0, -free)


def critic(value, old, target, reach):
    """Return ½·max((V - R)², (V_c - R)²), and its slope along V; reach is ε, or inf: no clip."""
    error, moved = value - target, value - old
    if reach == np.inf:
        return 0.5 * error**2, error
    clipped = old + np.clip(moved, -reach, reach) - target
    free = (abs(moved) <= reach) | (error**2 >= clipped**2)
    return 0.5 * np.maximum(error**2, clipped**2), np.where(free, error, 0.0)


class Discrete(NamedTuple):
    """A choice among A at each step: log p of the action, entropy, and their gradient."""

    log_p: np.ndarray  # (N, A), -inf where masked
    action: np.ndarray  # (N,)

    @classmethod
    def of(cls, params, action):
        """Return it for logits (N, A)."""
        shifted = params - params.max(axis=1, keepdims=True)
        return cls(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), action)

    def log_prob(self):
        return self.log_p[np.arange(len(self.action)), self.action]

    def entropy(self):
        """Return -Σ p log p, where the limit of p log p at p = 0 is 0."""
        p = np.exp(self.log_p)
        return -(p * np.where(p > 0, self.log_p, 0.0)).sum(axis=1)

    def backward(self, d_log_prob, d_entropy):
        """Return dlogp·(onehot - p) - dH·p·(log p + H)."""
        p, hot = np.exp(self.log_p), np.eye(self.log_p.shape[1])[self.action]
        inner = np.where(p > 0, self.log_p, 0.0) + self.entropy()[:, None]
        return d_log_prob[:, None] * (hot - p) - d_entropy[:, None] * p * inner


class Gaussian(NamedTuple):
    """Independent normals at each step, and what a wrong one differs in."""

    action: np.ndarray  # (N, A)
    mean: np.ndarray
    log_std: np.ndarray
    weight: float = 1.0  # of a dimension in log-probability and entropy; wrong: 1/A
    variance: float = 1.0  # log σ is this times log_std; wrong: ½
    volume: float = 1.0  # of -log σ in the log-probability; wrong: 0
    constants: tuple = (0.5 * LOG_2PI, 0.5 * (LOG_2PI + 1))  # of log-probability and entropy

    @classmethod
    def of(cls, params, action):
        """Return it for [mean | log σ] (N, 2A)."""
        return cls(action, *np.split(params, 2, axis=1))

    def log_prob(self):
        log_std, z = self.variance * self.log_std, self.standardised()
        return self.weight * (-0.5 * z * z - self.volume * log_std - self.constants[0]).sum(axis=1)

    def standardised(self):
        return (self.action - self.mean) * np.exp(-self.variance * self.log_std)

    def entropy(self):
        return self.weight * (self.variance * self.log_std + self.constants[1]).sum(axis=1)

    def backward(self, d_log_prob, d_entropy):
        z, g, h = self.standardised(), self.weight * d_log_prob, self.weight * d_entropy
        d_mean = g[:, None] * z * np.exp(-self.variance * self.log_std)
        d_log_std = self.variance * (g[:, None] * (z * z - self.volume) + h[:, None])
        return np.concatenate([d_mean, d_log_std], axis=1)


def shares(valid):
    """Return the weight of each step in a mean over the valid ones."""
    return valid / max(valid.sum(), 1)


class Loss(NamedTuple):
    """The right loss; ``Loss(policy=...)`` is one with another part."""

    normalise: Callable = normalise
    policy: Callable = policy
    critic: Callable = critic
    discrete: Callable = Discrete.of
    gaussian: Callable = Gaussian.of
    shares: Callable = shares
    selects: bool = True  # wrong: what does not count is multiplied by 0
    factors: tuple = (1.0, 1.0, -1.0)  # of policy loss, value loss and entropy
    slopes: tuple = (1.0, 1.0, 1.0)  # of each term's gradient

    def __call__(
        self, params, value, batch, *, distribution, clip, value_coef, entropy_coef, clip_value,
        normalize="none",
    ):  # fmt: skip
        """Return loss, policy_loss, value_loss, entropy, d_params (N, ·) and d_value (N,)."""
        with np.errstate(all="ignore"):
            make = self.discrete if distribution == "categorical" else self.gaussian
            dist, share = make(params, batch.actions), self.shares(batch.valid)
            advantages = self.normalise(batch.advantages, batch.valid, normalize)
            reach, log_ratio = clip if clip_value else np.inf, dist.log_prob() - batch.log_probs
            entropy = dist.entropy()
            terms = (
                self.policy(log_ratio, advantages, clip),
                self.critic(value, batch.values, batch.returns, reach),
                (entropy, np.ones_like(entropy)),
            )
            parts, slopes, loss = [], [], 0.0
            coefficients = (1.0, value_coef, entropy_coef)
            for (term, slope), c, factor, passed in zip(
                terms, coefficients, self.factors, self.slopes, strict=True
            ):
                weighted = [share * term, c * factor * passed * share * slope]
                if self.selects:
                    weighted = [np.where(share == 0, 0.0, z) for z in weighted]
                parts.append(weighted[0].sum())
                slopes.append(weighted[1])
                loss += c * factor * parts[-1]
            d_params = dist.backward(slopes[0], slopes[2])
        named = dict(zip(("policy_loss", "value_loss", "entropy"), parts, strict=True))
        return {"loss": loss, **named, "d_params": d_params, "d_value": slopes[1]}
