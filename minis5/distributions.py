"""Action distributions: sampling, log-probability, entropy, and the gradients of the two by hand.

Each works on arrays of parameters (..., num_params) and actions, and holds only sizes. ``backward`` returns the gradient with
respect to the parameters, given those with respect to log-probability and entropy.

Left out: squashed Gaussians. Specification: reference.py (categorical, multi_categorical, gaussian). Tests:
tests/test_distributions.py.
"""

import math

import numpy as np

LOG_2PI = math.log(2 * math.pi)


def log_softmax(logits):
    """Over the last axis, without overflow."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


class Categorical:
    """One of n actions. Parameters: logits (..., n); action: integer (...)."""

    def __init__(self, n):
        self.num_params = self.encoded_size = int(n)

    def sample(self, logits, rng):
        """Inverse of the cumulative distribution at one uniform number each."""
        cumulative = np.exp(log_softmax(logits.astype(np.float64))).cumsum(axis=-1)
        below = cumulative < rng.random(logits.shape[:-1])[..., None] * cumulative[..., -1:]
        return below.sum(axis=-1)

    def mode(self, logits):
        return logits.argmax(axis=-1)

    def log_prob(self, logits, action):
        return np.take_along_axis(log_softmax(logits), action[..., None], axis=-1)[..., 0]

    def entropy(self, logits):
        logp = log_softmax(logits)
        return -(np.exp(logp) * logp).sum(axis=-1)

    def backward(self, logits, action, dlog_prob, dentropy):
        """With p = softmax: d logits = dlogp·(onehot - p) - dH·p·(log p + H)."""
        logp = log_softmax(logits)
        p = np.exp(logp)
        entropy = -(p * logp).sum(axis=-1, keepdims=True)
        d = -p * (dlog_prob[..., None] + dentropy[..., None] * (logp + entropy))
        chosen = np.take_along_axis(d, action[..., None], axis=-1)
        np.put_along_axis(d, action[..., None], chosen + dlog_prob[..., None], axis=-1)
        return d

    def encode(self, action, dtype=np.float32):
        """One-hot (..., n)."""
        return np.eye(self.num_params, dtype=dtype)[action]


class MultiCategorical:
    """Several independent choices. Parameters: their logits side by side (..., Σn); action: integers (..., k)."""

    def __init__(self, nvec):
        self.parts = [Categorical(n) for n in nvec]
        self.edges = np.cumsum(nvec)[:-1].tolist()
        self.num_params = self.encoded_size = int(sum(nvec))

    def _split(self, params):
        return zip(self.parts, np.split(params, self.edges, axis=-1), strict=True)

    def sample(self, params, rng):
        return np.stack([c.sample(logits, rng) for c, logits in self._split(params)], axis=-1)

    def mode(self, params):
        return np.stack([c.mode(logits) for c, logits in self._split(params)], axis=-1)

    def log_prob(self, params, action):
        return sum(c.log_prob(logits, action[..., i]) for i, (c, logits) in enumerate(self._split(params)))

    def entropy(self, params):
        return sum(c.entropy(logits) for c, logits in self._split(params))

    def backward(self, params, action, dlog_prob, dentropy):
        """Side by side: each choice has its own logits."""
        parts = enumerate(self._split(params))
        return np.concatenate([c.backward(z, action[..., i], dlog_prob, dentropy) for i, (c, z) in parts], axis=-1)

    def encode(self, action, dtype=np.float32):
        return np.concatenate([c.encode(action[..., i], dtype) for i, c in enumerate(self.parts)], axis=-1)


class DiagGaussian:
    """Independent normals. Parameters: [mean | log of the deviation] (..., 2A); action: (..., A), not clipped to the space."""

    def __init__(self, n):
        self.encoded_size, self.num_params = int(n), 2 * int(n)

    def _split(self, params):
        return params[..., : self.encoded_size], params[..., self.encoded_size :]

    def sample(self, params, rng):
        mean, log_std = self._split(params)
        return mean + np.exp(log_std) * rng.standard_normal(mean.shape).astype(mean.dtype)

    def mode(self, params):
        return self._split(params)[0].copy()

    def log_prob(self, params, action):
        mean, log_std = self._split(params)
        z = (action - mean) * np.exp(-log_std)
        return -(0.5 * z * z + log_std + 0.5 * LOG_2PI).sum(axis=-1)

    def entropy(self, params):
        return (self._split(params)[1] + 0.5 * (1 + LOG_2PI)).sum(axis=-1)

    def backward(self, params, action, dlog_prob, dentropy):
        """With z = (action - mean)/σ: d mean = dlogp·z/σ; d log σ = dlogp·(z² - 1) + dH."""
        mean, log_std = self._split(params)
        z = (action - mean) * np.exp(-log_std)
        dlog_std = dlog_prob[..., None] * (z * z - 1) + dentropy[..., None]
        return np.concatenate([dlog_prob[..., None] * z * np.exp(-log_std), dlog_std], axis=-1)

    def encode(self, action, dtype=np.float32):
        """The values themselves."""
        return np.asarray(action, dtype)
