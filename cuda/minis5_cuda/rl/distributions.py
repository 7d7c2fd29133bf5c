"""Kernels of the categorical distribution: log-probability, entropy, their gradient, samples.

The launchers at the end take the arguments of the operations of the same names in
minis5/rl/distributions.py: arrays on the GPU, C-contiguous; logits (N, n) of one float dtype with
`out`; actions int64. A thread has a row of logits, because there are few actions. This is right for
any number of actions, but slow for many.

Nothing is reported, because to look would mean to wait: every launcher returns -1, no row. Rows
without a possible action give NaN, and a sample of theirs is some action from 0 to n - 1.

Leaves out: Gaussians and bits, which are a few whole-array operations.
Source: the definitions, log p = logits - log Σ exp(logits), H = -Σ p·log p. Specification:
categorical in minis5/reference/s5_ppo.py. CPU form: minis5/rl/distributions.py.
Tests: tests/rl/test_distributions.py, tests/gpu/test_kernels.py.
"""

import math

from minis5.ops import form_of
from minis5.rl import distributions as cpu
from minis5_cuda.launch import device, kernel, launch
from minis5_cuda.reduce import flat, walk


@device
def log_normaliser(row):
    """Return log Σ exp(row), without overflow."""
    top, total = row[0], type(row[0])(0)
    for x in row:
        top = x if x > top else top
    for x in row:
        total += type(total)(math.exp(x - top))
    return top + type(total)(math.log(total))


@device
def row_entropy(row, log_z):
    """Return -Σ p·log p with log p = row - log_z; masked actions, whose p is 0, add nothing."""
    total = type(log_z)(0)
    for x in row:
        if x - log_z != -math.inf:  # true of NaN too, which must reach the sum
            total -= type(log_z)(math.exp(x - log_z)) * (x - log_z)
    return total


@kernel
def categorical_log_prob_kernel(logits, action, out):
    """Write out = logits[action] - log Σ exp(logits), NaN for an action that does not exist."""
    first, step = walk()
    for i in range(first, out.size, step):
        out[i] = math.nan
        if 0 <= action[i] < logits.shape[1]:
            out[i] = logits[i, action[i]] - log_normaliser(logits[i])


@kernel
def categorical_entropy_kernel(logits, out):
    """Write out = -Σ p·log p."""
    first, step = walk()
    for i in range(first, out.size, step):
        out[i] = row_entropy(logits[i], log_normaliser(logits[i]))


@kernel
def categorical_backward_kernel(logits, action, dlog_prob, dentropy, out):
    """Write d logits = dlogp·(onehot - p) - dH·p·(log p + H), with p = softmax(logits)."""
    first, step = walk()
    for i in range(first, action.size, step):
        row, log_z = logits[i], log_normaliser(logits[i])
        entropy = row_entropy(row, log_z)
        for k in range(row.size):
            # log p(a) = logits[a] - log Σ exp(logits): its gradient is onehot(a) - p. The entropy's
            # is -p·(log p + H)
            log_p, slope = row[k] - log_z, type(log_z)(0)
            if log_p != -math.inf:  # else the action is masked
                slope = -type(log_z)(math.exp(log_p)) * (
                    dlog_prob[i] + dentropy[i] * (log_p + entropy)
                )
                if k == action[i]:
                    slope += dlog_prob[i]  # onehot(a)
            out[i, k] = slope


@device
def sample(row, uniform):
    """Return the first action whose cumulative probability exceeds the uniform number."""
    log_z, left, k = log_normaliser(row), uniform, 0
    while k < row.size - 1:
        left -= type(log_z)(math.exp(row[k] - log_z))
        if left < type(left)(0):
            break
        k += 1
    # Rounding may leave a rest at the end. It belongs to the last action that is possible.
    while k > 0 and left >= type(left)(0) and math.exp(row[k] - log_z) == 0:
        k -= 1
    return k


@kernel
def categorical_sample_kernel(logits, uniform, out):
    """Write a sample of each row's action."""
    first, step = walk()
    for i in range(first, out.size, step):
        out[i] = sample(logits[i], uniform[i])


@form_of(cpu.categorical_log_prob)
def categorical_log_prob(logits, action, out):
    """Write to out (N,) the log-probability of action (N,) under logits (N, n)."""
    launch(categorical_log_prob_kernel, *flat(out.size), logits, action, out)
    return -1


@form_of(cpu.categorical_entropy)
def categorical_entropy(logits, out):
    """Write to out (N,) the entropy under logits (N, n)."""
    launch(categorical_entropy_kernel, *flat(out.size), logits, out)
    return -1


@form_of(cpu.categorical_backward)
def categorical_backward(logits, action, dlog_prob, dentropy, out):
    """Write to out (N, n) the logits' gradient, from those of log-probability and entropy (N,)."""
    launch(
        categorical_backward_kernel, *flat(action.size), logits, action, dlog_prob, dentropy, out
    )
    return -1


@form_of(cpu.categorical_sample)
def categorical_sample(logits, uniform, out):
    """Write to out (N,) actions drawn from logits (N, n).

    uniform (N,): random numbers from [0, 1), of any float dtype.
    """
    launch(categorical_sample_kernel, *flat(out.size), logits, uniform, out)
    return -1
