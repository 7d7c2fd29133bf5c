"""Action distributions: sampling, log-probability, entropy, and their gradients by hand.

Each works on arrays of parameters (..., num_params) and actions, and holds sizes (Categorical its
one-hot vectors too). ``backward`` returns the gradient of the parameters, given those of
log-probability and entropy.

Leaves out: squashed Gaussians.
Specification: reference.categorical, reference.multi_categorical, reference.diag_gaussian.
GPU form: cuda/minis5_cuda/rl/distributions.py. Tests: tests/rl/test_distributions.py.
"""

import math

import numpy as np

from minis5.arrays import array_module, concatenate, on_gpu
from minis5.ops import fast, operation

LOG_2PI = math.log(2 * math.pi)


@fast
def _log_normaliser(row):
    """Return log Σ exp(row), without overflow."""
    top = row[0]
    for x in row:
        top = max(top, x)
    total = top - top  # 0 in the dtype of the arrays
    for x in row:
        total += math.exp(x - top)
    return top + math.log(total)


@operation
def categorical_log_prob(logits, action, out):
    """Write log p[action] of each row."""
    for i in range(action.size):
        out[i] = logits[i, action[i]] - _log_normaliser(logits[i])


@operation
def categorical_entropy(logits, out):
    """Write -Σ p log p of each row."""
    for i in range(out.size):
        log_z = _log_normaliser(logits[i])
        out[i] = 0
        for x in logits[i]:
            out[i] -= math.exp(x - log_z) * (x - log_z)


@operation
def categorical_sample(logits, uniform, out):
    """Write the first action whose cumulative probability exceeds the uniform number."""
    for i in range(out.size):
        log_z, left, k = _log_normaliser(logits[i]), uniform[i], 0
        while k < logits.shape[1] - 1:
            left -= math.exp(logits[i, k] - log_z)
            if left < 0:
                break
            k += 1
        out[i] = k


@operation
def categorical_backward(logits, action, dlog_prob, dentropy, out):
    """Write d logits = dlogp·(onehot - p) - dH·p·(log p + H), with p = softmax(logits)."""
    for i in range(action.size):
        log_z = _log_normaliser(logits[i])
        entropy = log_z - log_z
        for x in logits[i]:
            entropy -= math.exp(x - log_z) * (x - log_z)
        for k in range(logits.shape[1]):
            log_p = logits[i, k] - log_z
            out[i, k] = -math.exp(log_p) * (dlog_prob[i] + dentropy[i] * (log_p + entropy))
        out[i, action[i]] += dlog_prob[i]


class Categorical:
    """One of n actions. Parameters: logits (..., n); action: integer (...)."""

    has_log_std = False

    def __init__(self, n):
        self.num_params = self.encoded_size = int(n)
        self._one_hot = {}

    def _rows(self, logits, *others):
        xp = array_module(logits)
        rows = xp.ascontiguousarray(logits).reshape(-1, self.num_params)
        return [rows, *(xp.ascontiguousarray(other).ravel() for other in others)]

    def _checked(self, action):
        """Return ``action``; the loops do not check it. (On a GPU, to look would mean to wait.)"""
        if array_module(action) is np and action.size:
            low, high = action.min(), action.max()
            if not (0 <= low and high < self.num_params):
                wanted = f"integers from 0 to {self.num_params - 1}"
                raise IndexError(f"action: expected {wanted}, got {low} to {high}")
        return action

    def sample(self, logits, rng):
        """Draw actions: the inverse of the cumulative distribution at one uniform number each."""
        action = array_module(logits).empty(logits.shape[:-1], np.int64)
        categorical_sample(*self._rows(logits, rng.random(action.shape)), action.ravel())
        return action

    def mode(self, logits):
        """Return the most probable actions."""
        return logits.argmax(axis=-1)

    def log_prob(self, logits, action):
        """Return log p(action) (...)."""
        out = array_module(logits).empty(action.shape, logits.dtype)
        categorical_log_prob(*self._rows(logits, self._checked(action)), out.ravel())
        return out

    def entropy(self, logits):
        """Return the entropy (...)."""
        out = array_module(logits).empty(logits.shape[:-1], logits.dtype)
        categorical_entropy(*self._rows(logits), out.ravel())
        return out

    def backward(self, logits, action, dlog_prob, dentropy):
        """Return the gradient of the logits."""
        out = array_module(logits).empty(logits.shape, logits.dtype)
        rows = self._rows(logits, self._checked(action), dlog_prob, dentropy)
        categorical_backward(*rows, out.reshape(-1, self.num_params))
        return out

    def encode(self, action, dtype=np.float32):
        """Return one-hot vectors (..., n)."""
        key = dtype, on_gpu(action)
        if key not in self._one_hot:
            self._one_hot[key] = array_module(action).eye(self.num_params, dtype=dtype)
        return self._one_hot[key].take(action, axis=0)


class MultiCategorical:
    """Independent choices; parameters: logits side by side (..., Σn); action: integers (..., k)."""

    has_log_std = False

    def __init__(self, nvec):
        self.parts = [Categorical(n) for n in nvec]
        edges = np.cumsum([0, *nvec]).tolist()
        self.columns = [slice(*pair) for pair in zip(edges, edges[1:], strict=False)]
        self.num_params = self.encoded_size = edges[-1]

    def _split(self, params):
        return [(c, params[..., z]) for c, z in zip(self.parts, self.columns, strict=True)]

    def sample(self, params, rng):
        return concatenate([c.sample(logits, rng)[..., None] for c, logits in self._split(params)])

    def mode(self, params):
        return concatenate([c.mode(logits)[..., None] for c, logits in self._split(params)])

    def log_prob(self, params, action):
        choices = enumerate(self._split(params))
        return sum(c.log_prob(logits, action[..., i]) for i, (c, logits) in choices)

    def entropy(self, params):
        return sum(c.entropy(logits) for c, logits in self._split(params))

    def backward(self, params, action, dlog_prob, dentropy):
        """Return the gradients side by side: each choice has its own logits."""
        choices = enumerate(self._split(params))
        grads = [c.backward(z, action[..., i], dlog_prob, dentropy) for i, (c, z) in choices]
        return concatenate(grads)

    def encode(self, action, dtype=np.float32):
        return concatenate([c.encode(action[..., i], dtype) for i, c in enumerate(self.parts)])


class DiagGaussian:
    """Independent normals. Parameters: [mean | log σ] (..., 2A); action: (..., A), not clipped."""

    has_log_std = True

    def __init__(self, n):
        self.encoded_size, self.num_params = int(n), 2 * int(n)

    def _split(self, params):
        return params[..., : self.encoded_size], params[..., self.encoded_size :]

    def sample(self, params, rng):
        mean, log_std = self._split(params)
        noise = rng.standard_normal(mean.shape).astype(mean.dtype)
        return mean + array_module(mean).exp(log_std) * noise

    def mode(self, params):
        return self._split(params)[0].copy()

    def log_prob(self, params, action):
        mean, log_std = self._split(params)
        z = (action - mean) * array_module(mean).exp(-log_std)
        return -(0.5 * z * z + log_std + 0.5 * LOG_2PI).sum(axis=-1)

    def entropy(self, params):
        return (self._split(params)[1] + 0.5 * (1 + LOG_2PI)).sum(axis=-1)

    def backward(self, params, action, dlog_prob, dentropy):
        """Return the gradients of mean and log σ, side by side."""
        mean, log_std = self._split(params)
        inverse = array_module(mean).exp(-log_std)  # 1/σ
        z = (action - mean) * inverse
        dmean = dlog_prob[..., None] * z * inverse  # log p = -z²/2 - log σ - …
        dlog_std = dlog_prob[..., None] * (z * z - 1) + dentropy[..., None]  # H = log σ + …
        return concatenate([dmean, dlog_std])

    def encode(self, action, dtype=np.float32):
        """Return the values themselves."""
        return array_module(action).asarray(action, dtype)
