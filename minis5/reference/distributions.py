"""The specification, continued: distributions over several choices, and over real numbers.

As ``categorical`` in s5_ppo.py, each takes one vector of parameters and one action, and returns the
log-probability of the action and the entropy.

Leaves out: sampling. It imports nothing of minis5 outside this folder.
Source: the definitions. Tests: tests/reference/test_s5_ppo.py.
"""

import numpy as np

from minis5.reference.s5_ppo import categorical


def multi_categorical(logits, action, nvec):
    """Return sums over independent categoricals, the nvec[i] logits of each side by side."""
    log_prob, entropy, start = 0.0, 0.0, 0
    for n, chosen in zip(nvec, action, strict=True):
        lp, h = categorical(logits[start : start + n], chosen)
        log_prob, entropy, start = log_prob + lp, entropy + h, start + n
    return log_prob, entropy


def diag_gaussian(params, action):
    """Return log-probability and entropy of [mean | log_std].

    Σ -((a - mean)/std)²/2 - log std - log(2π)/2 and Σ log std + log(2πe)/2. At the mean the first
    term is 0, even where std is too small a number to divide by.
    """
    n = len(params) // 2
    log_prob, entropy = 0.0, 0.0
    for mean, log_std, a in zip(params[:n], params[n:], action, strict=True):
        z = 0.0 if a == mean else (a - mean) / np.exp(log_std)
        log_prob += -0.5 * z**2 - log_std - 0.5 * np.log(2.0 * np.pi)
        entropy += log_std + 0.5 * np.log(2.0 * np.pi * np.e)
    return log_prob, entropy
