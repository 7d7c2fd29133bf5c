"""Action distributions: sampling, log-probability, entropy, and their gradients by hand.

Each works on arrays of parameters (..., num_params) and actions, and holds nothing but sizes.
``backward`` returns the gradient of the parameters, given those of log-probability and entropy.
A logit of -inf masks its action: probability 0, gradient 0. All methods raise a TypeError or a
ValueError if shapes or dtypes differ, or if a row has NaN or no possible action (rows.py).

Leaves out: squashed Gaussians.
Specification: reference.categorical, multi_categorical and diag_gaussian.
GPU form: cuda/minis5_cuda/rl/distributions.py. Tests: tests/rl/test_distributions.py.
"""

import math

import numpy as np

from minis5.arrays import array_module, concatenate
from minis5.checks import FLOATS, check_draws
from minis5.ops import fast, operation
from minis5.rl import rows

LOG_2PI = math.log(2 * math.pi)


@fast
def _log_normaliser(row):
    """Return log Σ exp(row), without overflow; NaN if no action is possible."""
    top = row[0]
    for x in row:
        top = max(top, x)
    total = top - top  # 0 in the dtype of the arrays
    for x in row:
        total += math.exp(x - top)
    return top + math.log(total)


@fast
def _entropy(row, log_z):
    """Return -Σ p log p; the limit of p log p at p = 0 is 0."""
    total = log_z - log_z
    for x in row:
        if x - log_z > -math.inf:
            total -= math.exp(x - log_z) * (x - log_z)
    return total


# The loops return the number of the first row that has no distribution, or whose action is none of
# n. They return -1 if there is no such row.


@operation
def categorical_log_prob(logits, action, out):
    """Write log p[action] of each row."""
    for i in range(out.size):
        log_z = _log_normaliser(logits[i])
        if not (math.isfinite(log_z) and 0 <= action[i] < logits.shape[1]):
            return i
        out[i] = logits[i, action[i]] - log_z
    return -1


@operation
def categorical_entropy(logits, out):
    """Write -Σ p log p of each row."""
    for i in range(out.size):
        log_z = _log_normaliser(logits[i])
        if not math.isfinite(log_z):
            return i
        out[i] = _entropy(logits[i], log_z)
    return -1


@operation
def categorical_sample(logits, uniform, out):
    """Write the first action whose cumulative probability exceeds the uniform number."""
    for i in range(out.size):
        log_z, left, k = _log_normaliser(logits[i]), uniform[i], 0
        if not math.isfinite(log_z):
            return i
        while k < logits.shape[1] - 1:
            left -= math.exp(logits[i, k] - log_z)
            if left < 0:
                break
            k += 1
        # Rounding may leave a rest at the end. It belongs to the last action that is possible.
        while left >= 0 and math.exp(logits[i, k] - log_z) == 0:
            k -= 1
        out[i] = k
    return -1


@operation
def categorical_backward(logits, action, dlog_prob, dentropy, out):
    """Write d logits = dlogp·(onehot - p) - dH·p·(log p + H), with p = softmax(logits)."""
    for i in range(action.size):
        log_z, n = _log_normaliser(logits[i]), logits.shape[1]
        if not (math.isfinite(log_z) and 0 <= action[i] < n):
            return i
        entropy = _entropy(logits[i], log_z)
        for k in range(n):
            log_p, out[i, k] = logits[i, k] - log_z, 0
            if log_p > -math.inf:  # else the action is masked
                out[i, k] = -math.exp(log_p) * (dlog_prob[i] + dentropy[i] * (log_p + entropy))
                if k == action[i]:
                    out[i, k] += dlog_prob[i]
    return -1


class Categorical:
    """One of n actions. Parameters: logits (..., n); action: integer (...)."""

    has_log_std = False

    def __init__(self, n):
        self.num_params = self.encoded_size = rows.check_count("n", n)

    def sample(self, logits, rng):
        """Draw actions: the inverse of the cumulative distribution at one uniform number each."""
        logits, vectors, out = rows.as_rows(self.num_params, logits)
        xp = array_module(logits)
        action = xp.empty(out.shape, np.int64)
        uniform = xp.ascontiguousarray(check_draws(rng).random(action.shape)).ravel()
        rows.check_row(categorical_sample(*vectors, uniform, action.ravel()), logits)
        return action

    def mode(self, logits):
        """Return the most probable actions."""
        logits = rows.take_parameters("logits", logits, self.num_params)
        return rows.check_mode(logits, logits.argmax(axis=-1))

    def log_prob(self, logits, action):
        """Return log p(action) (...), -inf for a masked action."""
        logits, vectors, out = rows.as_rows(self.num_params, logits, action=action)
        rows.check_row(categorical_log_prob(*vectors, out.ravel()), logits, action)
        return out

    def entropy(self, logits):
        """Return the entropy (...)."""
        logits, vectors, out = rows.as_rows(self.num_params, logits)
        rows.check_row(categorical_entropy(*vectors, out.ravel()), logits)
        return out

    def backward(self, logits, action, dlog_prob, dentropy):
        """Return the gradient of the logits."""
        others = {"action": action, "dlog_prob": dlog_prob, "dentropy": dentropy}
        logits, vectors, _ = rows.as_rows(self.num_params, logits, **others)
        out = array_module(logits).empty_like(vectors[0])
        rows.check_row(categorical_backward(*vectors, out), logits, action)
        return out.reshape(logits.shape)

    def encode(self, action, dtype=np.float32):
        """Return one-hot vectors (..., n)."""
        action = rows.take_actions(action)
        vectors = rows.one_hot_rows(action.reshape(-1, 1), (self.num_params,), dtype)
        return vectors.reshape(*action.shape, self.num_params)


class MultiCategorical:
    """Independent choices; parameters: logits side by side (..., Σn); action: integers (..., k)."""

    has_log_std = False

    def __init__(self, nvec):
        self.parts = [Categorical(n) for n in np.ravel(nvec).tolist()]
        self.sizes = tuple(part.num_params for part in self.parts)
        edges = np.cumsum([0, *self.sizes]).tolist()
        self.columns = [slice(*pair) for pair in zip(edges, edges[1:], strict=False)]
        self.num_params = self.encoded_size = rows.check_count("nvec", edges[-1])

    def _split(self, params):
        params = rows.take_parameters("params", params, self.num_params)
        return [(c, params[..., z]) for c, z in zip(self.parts, self.columns, strict=True)]

    def _choices(self, params, action):
        split = self._split(params)
        shape = (*split[0][1].shape[:-1], len(self.parts))
        action = rows.take_shaped("action", action, shape, rows.INTEGERS, array_module(params))
        return [(c, logits, action[..., i]) for i, (c, logits) in enumerate(split)]

    def sample(self, params, rng):
        return concatenate([c.sample(logits, rng)[..., None] for c, logits in self._split(params)])

    def mode(self, params):
        return concatenate([c.mode(logits)[..., None] for c, logits in self._split(params)])

    def log_prob(self, params, action):
        return sum(c.log_prob(logits, a) for c, logits, a in self._choices(params, action))

    def entropy(self, params):
        return sum(c.entropy(logits) for c, logits in self._split(params))

    def backward(self, params, action, dlog_prob, dentropy):
        """Return the gradients side by side: each choice has its own logits."""
        choices = self._choices(params, action)
        return concatenate([c.backward(z, a, dlog_prob, dentropy) for c, z, a in choices])

    def encode(self, action, dtype=np.float32):
        """Return the one-hot vectors of all choices side by side (..., Σn)."""
        action = rows.take_actions(action, len(self.parts))
        vectors = rows.one_hot_rows(action.reshape(-1, len(self.parts)), self.sizes, dtype)
        return vectors.reshape(*action.shape[:-1], self.num_params)


class DiagGaussian:
    """Independent normals. Parameters: [mean | log σ] (..., 2A); action: (..., A), not clipped."""

    has_log_std = True

    def __init__(self, n):
        self.encoded_size = rows.check_count("n", n)
        self.num_params = 2 * self.encoded_size

    def _split(self, params):
        params = rows.take_parameters("params", params, self.num_params)
        return params[..., : self.encoded_size], params[..., self.encoded_size :]

    def _standardised(self, params, action):
        """Return z = (action - mean)/σ, and log σ."""
        mean, log_std = self._split(params)
        action = rows.take_shaped("action", action, mean.shape, rows.REAL, array_module(mean))
        with np.errstate(invalid="ignore"):
            return self._over_std(action - mean, log_std), log_std

    def _over_std(self, x, log_std):
        """Return x/σ, without the overflow of 1/σ alone. 0 stays 0, however small σ is."""
        xp = array_module(x)
        with np.errstate(over="ignore", invalid="ignore"):
            inverse = xp.exp(-log_std)
            if xp is np and np.isfinite(inverse).all():
                return x * inverse
            root = xp.exp(-0.5 * log_std)
            far = xp.where(inverse < np.inf, x * inverse, x * root * root)
        return xp.where(x == 0, x, far)

    def sample(self, params, rng):
        mean, log_std = self._split(params)
        noise = check_draws(rng, "standard_normal").standard_normal(mean.shape).astype(mean.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            action = mean + array_module(mean).exp(log_std) * noise
        return rows.check_finite("params", action)

    def mode(self, params):
        return rows.check_finite("params", self._split(params)[0].copy())

    def log_prob(self, params, action):
        z, log_std = self._standardised(params, action)
        with np.errstate(over="ignore"):
            out = -(0.5 * z * z + log_std + 0.5 * LOG_2PI).sum(axis=-1)
        return rows.check_numbers("params or action", out)

    def entropy(self, params):
        out = (self._split(params)[1] + 0.5 * (1 + LOG_2PI)).sum(axis=-1)
        return rows.check_numbers("params", out)

    def backward(self, params, action, dlog_prob, dentropy):
        """Return the gradients of mean and log σ, side by side."""
        (z, log_std), xp = self._standardised(params, action), array_module(params)
        g, dentropy = (
            rows.take_shaped(name, value, params.shape[:-1], FLOATS, xp)[..., None]
            for name, value in (("dlog_prob", dlog_prob), ("dentropy", dentropy))
        )
        with np.errstate(over="ignore", invalid="ignore"):  # where z overflows, 0·z is still 0
            dmean = self._over_std(xp.where(g == 0, g, g * z), log_std)  # log p = -z²/2 - log σ - …
            dlog_std = xp.where(g == 0, g, g * (z * z - 1))
        return concatenate([dmean, dlog_std + dentropy])  # H = log σ + …

    def encode(self, action, dtype=np.float32):
        """Return the values themselves."""
        xp, shape = array_module(action), (*rows.shape_of(action)[:-1], self.encoded_size)
        return xp.asarray(rows.take_shaped("action", action, shape, rows.REAL, xp), dtype)
