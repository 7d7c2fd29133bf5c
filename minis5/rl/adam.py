"""Adam with clipping by the global norm, on one vector of parameters, in place.

    g ← g·min(1, max_norm/|g|)         m ← β₁m + (1 - β₁)g        v ← β₂v + (1 - β₂)g²
    θ ← θ - lr·r·(m/(1 - β₁ᵗ))/(√(v/(1 - β₂ᵗ)) + ε)         r: the parameter's own factor, or 1

Source: 1412.6980, algorithm 1; the clipping 1211.5063.
Specification: reference.adam_step, reference.clip_by_global_norm.
GPU form: cuda/minis5_cuda/rl/adam.py. Tests: tests/rl/test_adam.py.
"""

import math
from typing import NamedTuple

import numpy as np

from minis5.arrays import Array
from minis5.ops import array_operation, fast
from minis5.rl.learning_doors import check_adam, check_step

BETA1, BETA2 = 0.9, 0.999


class Moments(NamedTuple):
    """What Adam remembers."""

    m: Array  # (n,): running mean of g
    v: Array  # (n,): running mean of g²
    steps: Array  # int64 (1,): how many were taken


@fast
def _update(theta, g, m, v, rates, scale, step, rest1, rest2, root, eps):
    """Update theta, m and v in place. All scalars have the dtype of theta.

    step = lr/(1 - β₁ᵗ); rest1 = 1 - β₁; rest2 = 1 - β₂; root = 1/√(1 - β₂ᵗ).
    """
    for i in range(theta.size):
        gi = scale * g[i]
        m[i] += (gi - m[i]) * rest1  # m ← β₁m + (1 - β₁)g
        v[i] += (gi * gi - v[i]) * rest2  # v ← β₂v + (1 - β₂)g²
        rate = step if rates is None else step * rates[i]
        theta[i] -= rate * m[i] / (math.sqrt(v[i]) * root + eps)


def gradient_norm(grad, bound):
    """Return |g|; inf or NaN if g is not finite, or if v could not hold g² after clipping."""
    limits = np.finfo(grad.dtype)
    with np.errstate(over="ignore"):
        square = float(np.dot(grad, grad))
        if not limits.smallest_normal <= square < math.inf:  # too small or too large for the dtype
            square = float(np.sum(np.square(grad, dtype=np.float64)))
    size = math.sqrt(square)
    return size if not min(size, bound) ** 2 > float(limits.max) else math.inf


@array_operation
def adam_step(theta, grad, moments, settings, norm, rates=None):
    """Take one step of Adam in place, or none if the gradient is not finite.

    Parameters
    ----------
    theta, grad : (n,) arrays of one float dtype
        Parameters and their gradient.
    moments : Moments
        Its arrays are updated too.
    settings : float64 (3,) array
        Learning rate; bound on the gradient's Euclidean norm, inf for none, -inf for no step; ε.
    norm : float64 (1,) array
        Gets the norm before clipping. If that is not finite, nothing else has been changed.
    rates : (n,) array or None
        Factor of the learning rate for each parameter; None: all are 1.
    """
    lr, bound, eps = settings.tolist()
    norm[0] = size = gradient_norm(grad, bound)
    if not math.isfinite(size):
        return
    scale = 1.0 if size <= bound else bound / size
    moments.steps[0] += 1
    t = int(moments.steps[0])
    corrected = (lr / (1 - BETA1**t), 1 - BETA1, 1 - BETA2, 1 / math.sqrt(1 - BETA2**t))
    scalars = map(theta.dtype.type, (scale, *corrected, eps))
    _update(theta, grad, moments.m, moments.v, rates, *scalars)


class Adam:
    """Adam for a vector of ``size`` parameters; ``xp`` (numpy or cupy) keeps its arrays."""

    def __init__(self, size, dtype=np.float32, eps=1e-5, xp=np, rates=None):
        check_adam(size, dtype, eps, rates, xp)
        self.moments = Moments(xp.zeros(size, dtype), xp.zeros(size, dtype), xp.zeros(1, np.int64))
        self.eps, self.rates = eps, rates

    def step(self, theta, grad, lr, max_norm=None):
        """Update ``theta`` in place; return the gradient's norm before clipping.

        Parameters
        ----------
        theta, grad : (size,) arrays of one dtype
        lr : float
        max_norm : float or None
            Bound on the gradient's Euclidean norm; None: no clipping.

        Raises
        ------
        FloatingPointError
            The gradient is not finite; nothing has been changed.
        TypeError, ValueError
            Another size or dtype than Adam was made for, or ``lr`` or ``max_norm`` is no number.
        """
        check_step(self.moments, theta, grad, lr, max_norm)
        norm, bound = np.zeros(1), np.inf if max_norm is None else max_norm
        settings = np.array([lr, bound, self.eps])
        adam_step(theta, grad, self.moments, settings, norm, self.rates)
        return check_norm(float(norm[0]))


def check_norm(norm):
    """Return a gradient's norm; raise FloatingPointError unless it is finite."""
    if not math.isfinite(norm):
        raise FloatingPointError(
            "gradient: expected finite values, got NaN, Inf or an overflow; "
            "lower lr or check the rewards"
        )
    return norm
