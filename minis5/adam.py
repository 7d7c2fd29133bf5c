"""Adam with clipping by the global norm, on one flat vector of parameters, in place.

    g ← g·min(1, max_norm/|g|)         m ← β₁m + (1 - β₁)g        v ← β₂v + (1 - β₂)g²
    θ ← θ - lr·(m/(1 - β₁ᵗ))/(√(v/(1 - β₂ᵗ)) + ε)

Source: 1412.6980, algorithm 1; the clipping 1211.5063. Specification: reference.adam_step, reference.clip_by_global_norm.
Tests: tests/test_adam.py.
"""

import importlib
import math

import numpy as np

from .arrays import fast

BETA1, BETA2 = 0.9, 0.999


@fast
def _update(theta, g, m, v, scale, step, b1, b2, root, eps):
    """``step`` = lr/(1 - β₁ᵗ); ``root`` = 1/√(1 - β₂ᵗ); all scalars have the dtype of theta."""
    for i in range(theta.size):
        gi = scale * g[i]
        m[i] += (gi - m[i]) * b1
        v[i] += (gi * gi - v[i]) * b2
        theta[i] -= step * m[i] / (math.sqrt(v[i]) * root + eps)


class Adam:
    """Moments and step count for a flat vector of ``size`` parameters, where ``xp`` (numpy or cupy) keeps its arrays."""

    def __init__(self, size, dtype=np.float32, eps=1e-5, xp=np):
        self.m, self.v, self.eps = xp.zeros(size, dtype), xp.zeros(size, dtype), eps
        self.count = xp.zeros(1, np.int64)  # steps taken

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
        """
        norm = math.sqrt(float(np.dot(grad, grad)))
        check_norm(norm)
        scale = 1.0 if max_norm is None or norm <= max_norm else max_norm / norm
        self.count += 1
        t = int(self.count[0])
        scalars = (scale, lr / (1 - BETA1**t), 1 - BETA1, 1 - BETA2, 1 / math.sqrt(1 - BETA2**t), self.eps)
        _update(theta, grad, self.m, self.v, *map(theta.dtype.type, scalars))
        return norm

    def step_on_gpu(self, theta, grad, settings, norm):
        """The same on a GPU, without waiting; a gradient that is not finite changes nothing, and ``norm`` tells.

        Parameters
        ----------
        theta, grad : (size,) CuPy arrays of one dtype
        settings : float64 (3,) CuPy array
            lr; bound on the norm, inf for none; epsilon.
        norm : float64 (1,) CuPy array
            Gets the norm before clipping.
        """
        step = importlib.import_module("minis5_cuda.adam").step
        step(theta, grad, self.m, self.v, self.count, settings, norm, BETA1, BETA2)


def check_norm(norm):
    """Raise FloatingPointError unless a gradient's norm is finite."""
    if not math.isfinite(norm):
        raise FloatingPointError("gradient: expected finite values, got NaN, Inf or an overflow; lower lr or check the rewards")
