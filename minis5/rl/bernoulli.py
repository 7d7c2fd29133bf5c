"""Independent bits as an action distribution, for MultiBinary spaces.

It has the methods of the distributions in distributions.py. All of them are whole-array operations,
the same on the CPU and on a GPU. Probabilities are computed as exp(-log(1 + exp(x))), which keeps
its digits where a bit is all but certain.

Leaves out: dependence between the bits.
Specification: reference.bernoulli. Tests: tests/rl/test_distributions.py.
"""

import numpy as np

from minis5.arrays import array_module
from minis5.checks import FLOATS
from minis5.rl.rows import (
    INTEGERS,
    check_bits,
    check_count,
    check_numbers,
    check_parameters,
    check_shaped,
)


def _softplus(x):
    """Return log(1 + exp(x)), which is -log p of an event with log-odds -x."""
    with np.errstate(invalid="ignore"):  # NaN is named by the caller
        return array_module(x).logaddexp(x.dtype.type(0), x)


class Bernoulli:
    """Independent bits. Parameters: the log-odds of a 1 (..., n); action: 0 or 1 (..., n).

    Log-odds of -inf mask a 1, those of inf a 0.
    """

    has_log_std = False

    def __init__(self, n):
        self.num_params = self.encoded_size = check_count("n", n)

    def _signed(self, odds, action):
        """Return ±1 for bits 1 and 0, in the dtype of the log-odds."""
        check_parameters("params", odds, self.num_params)
        check_shaped("action", action, odds.shape, INTEGERS, array_module(odds))
        check_bits(action)
        return (2 * action - 1).astype(odds.dtype)

    def sample(self, odds, rng):
        xp = check_parameters("params", odds, self.num_params)
        p = check_numbers("params", xp.exp(-_softplus(-odds)), odds)
        return (rng.random(odds.shape) < p).astype(np.int64)

    def mode(self, odds):
        check_parameters("params", odds, self.num_params)
        return (check_numbers("params", odds, odds) > 0).astype(np.int64)

    def log_prob(self, odds, action):
        odds_of_action = self._signed(odds, action) * odds
        return check_numbers("params", -_softplus(-odds_of_action).sum(axis=-1), odds)

    def entropy(self, odds):
        xp = check_parameters("params", odds, self.num_params)
        m = abs(odds)  # H = log(1 + exp(-m)) + m·p, with p the probability of the rarer bit
        rare = xp.where(m < np.inf, m, odds.dtype.type(0)) * xp.exp(-_softplus(m))
        return check_numbers("params", (_softplus(-m) + rare).sum(axis=-1), odds)

    def backward(self, odds, action, dlog_prob, dentropy):
        """Return the gradient of the log-odds: dlogp·(action - p) - dH·odds·p·(1 - p)."""
        signs, xp = self._signed(odds, action), array_module(odds)
        dlog_prob, dentropy = (
            check_shaped(name, value, odds.shape[:-1], FLOATS, xp)[..., None]
            for name, value in (("dlog_prob", dlog_prob), ("dentropy", dentropy))
        )
        finite = abs(odds) < np.inf
        z = xp.where(finite | (odds != odds), odds, odds.dtype.type(0))
        slope = signs * xp.exp(-_softplus(signs * z))  # action - p
        variance = xp.exp(-_softplus(z) - _softplus(-z))  # p·(1 - p)
        dodds = dlog_prob * slope - dentropy * (z * variance)
        return xp.where(finite, dodds, odds.dtype.type(0))

    def encode(self, action, dtype=np.float32):
        """Return the bits themselves."""
        shape = (*np.shape(action)[:-1], self.num_params)
        check_shaped("action", action, shape, INTEGERS, array_module(action))
        return check_bits(action).astype(dtype)
