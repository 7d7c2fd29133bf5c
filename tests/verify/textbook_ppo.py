"""PPO's loss and Adam in NumPy as a textbook would write them; faults.py makes one edit in each.

They share nothing with minis5 but the signatures. Numbers of 32 and 64 bits.
"""

import numpy as np


def log_softmax(logits):
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def categorical(logits, actions):
    """Return log p(action), the entropy, and the gradients of both along the logits."""
    log_p = log_softmax(logits)
    p, finite = np.exp(log_p), np.where(np.isfinite(log_p), log_p, 0)
    entropy = -(p * finite).sum(axis=1)
    chosen = np.arange(logits.shape[1]) == actions[:, None]
    d_entropy = -p * (finite + entropy[:, None])
    return np.where(chosen, finite, 0).sum(axis=1), entropy, chosen - p, d_entropy


def gaussian(params, actions):
    """Return the same of independent normals, [mean | log σ]."""
    mean, log_std = np.split(params, 2, axis=1)
    z = (actions - mean) / np.exp(log_std)
    half = params.dtype.type(0.5 * np.log(2 * np.pi))
    log_prob = (-0.5 * z**2 - log_std - half).sum(axis=1)
    entropy = (log_std + half + params.dtype.type(0.5)).sum(axis=1)
    d_log_prob = np.concatenate([z / np.exp(log_std), z**2 - 1], axis=1)
    d_entropy = np.concatenate([np.zeros_like(z), np.ones_like(z)], axis=1)
    return log_prob, entropy, d_log_prob, d_entropy


def ppo_loss(
    params,
    value,
    batch,
    *,
    clip,
    value_coef,
    entropy_coef,
    clip_value=False,
    distribution="categorical",
    normalize="none",
):
    """The mean over valid steps of -min(r A, clip(r) A) + value_coef v - entropy_coef H."""
    actions, old_log_prob, old, advantage, target, valid = batch
    if normalize != "none":
        known = advantage[valid]
        deviation = known.std(ddof=1 if normalize == "sample" else 0)
        advantage = (advantage - known.mean()) / (deviation + 1e-8)
    kind = gaussian if distribution == "gaussian" else categorical
    log_prob, entropy, d_log_prob, d_entropy = kind(params, actions)

    ratio = np.exp(log_prob - old_log_prob)
    free, bound = ratio * advantage, np.clip(ratio, 1 - clip, 1 + clip) * advantage
    policy = -np.minimum(free, bound)
    d_policy = np.where(free <= bound, -free, 0)  # along log p

    error = value - target
    squared, d_squared = 0.5 * error**2, error
    if clip_value:
        moved = value - old
        near = old + np.clip(moved, -clip, clip) - target
        inside = np.abs(moved) <= clip
        larger = near**2 > error**2
        squared = 0.5 * np.maximum(error**2, near**2)
        d_squared = np.where(larger, np.where(inside, near, 0), error)

    share = valid / valid.sum()
    terms = policy + value_coef * squared - entropy_coef * entropy
    loss = np.where(valid, share * terms, 0).sum()
    d_params = d_policy[:, None] * d_log_prob - entropy_coef * d_entropy
    d_params = np.where(valid[:, None], share[:, None] * d_params, 0)
    return loss, d_params, np.where(valid, share * value_coef * d_squared, 0)


def adam(params, *, lr, eps, beta1=0.9, beta2=0.999, max_norm=None, rates=None):
    """Adam; gradients are scaled to the norm max_norm if theirs is larger."""
    params = {name: value.copy() for name, value in params.items()}
    m = {name: np.zeros_like(value) for name, value in params.items()}
    v = {name: np.zeros_like(value) for name, value in params.items()}
    count = 0

    def step(grads):
        nonlocal count
        count += 1
        norm = np.sqrt(sum(np.sum(np.square(g, dtype=float)) for g in grads.values()))
        scale = 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
        for name, g in grads.items():
            g = g * g.dtype.type(scale)
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g**2
            mean = m[name] / (1 - beta1**count)
            square = v[name] / (1 - beta2**count)
            rate = lr * (rates[name] if rates else 1.0)
            params[name] = params[name] - rate * mean / (np.sqrt(square) + eps)
        return params

    return step
