"""Adam with clipping by the global norm, in three kernels: sum of squares, scalars, update.

    g ← g·min(1, bound/|g|)         m ← β₁m + (1 - β₁)g        v ← β₂v + (1 - β₂)g²
    θ ← θ - lr·r·(m/(1 - β₁ᵗ))/(√(v/(1 - β₂ᵗ)) + ε)         r: the parameter's own factor, or 1

Nothing goes through the host. The kernels read the step count, the learning rate and the bound on
the device, so that a recorded graph can be replayed with other values. The norm and the scalars are
computed in float64, the update in the parameters' dtype, with the formulas of minis5/rl/adam.py.

Leaves out: several processes, whose gradients are summed before (ranks.py).
Source: 1412.6980, algorithm 1; clipping: 1211.5063. Specification: adam_step and
clip_by_global_norm in minis5/reference/s5_ppo.py. CPU form: minis5/rl/adam.py.
Tests: tests/rl/test_adam.py, tests/gpu/test_kernels.py.
"""

import math

import numpy as np

from minis5.arrays import array_module
from minis5.ops import form_of
from minis5.rl import adam as cpu
from minis5_cuda.launch import cuda, kernel, launch
from minis5_cuda.reduce import flat, over_lanes, over_rows, walk


@kernel
def squares_kernel(grad, partial):
    """Write this block's part of Σ grad² to partial, in float64: no element's square overflows."""
    total = np.float64(0)
    first, step = walk()
    for i in range(first, grad.size, step):
        total += np.float64(grad[i]) * np.float64(grad[i])
    total = over_rows(over_lanes(total, partial), partial)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        partial[cuda.blockIdx.y] = total


@kernel
def scalars_kernel(partial, count, settings, norm, b1, b2, scalars):
    """Write norm = √(Σ grad²) and the scalars of the update; count += 1. One block runs.

    scalars: the factor of the gradient (NaN: change nothing), lr/(1 - β₁ᵗ), 1/√(1 - β₂ᵗ), ε.
    settings: lr, bound, ε. A sum of squares that is too large for the parameters' dtype even after
    clipping counts as infinite, because v could not hold it.
    """
    total = np.float64(0)
    first, step = walk()
    for i in range(first, partial.size, step):
        total += partial[i]
    total = over_rows(over_lanes(total, partial), partial)
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        real = scalars.dtype.type
        lr, bound, eps = settings[0], settings[1], settings[2]
        size = math.sqrt(total)
        held = bound if bound < size else size  # NaN stays
        if math.isfinite(total) and math.isfinite(real(held * held)):
            norm[0] = size
            count[0] += 1
            t = np.float64(count[0])
            scalars[0] = real(1.0 if size <= bound else bound / size)  # min(1, bound/|g|)
            scalars[1] = real(lr / (1.0 - math.pow(b1, t)))
            scalars[2] = real(1.0 / math.sqrt(1.0 - math.pow(b2, t)))
            scalars[3] = real(eps)
        else:
            norm[0] = np.float64(math.inf if total == total else math.nan)
            scalars[0] = real(math.nan)


@kernel
def update_kernel(theta, grad, m, v, rates, has_rates, rest1, rest2, scalars):
    """Update theta, m and v in place; rest1, rest2 = 1 - β₁, 1 - β₂; has_rates: read rates."""
    factor, base, root, eps = scalars[0], scalars[1], scalars[2], scalars[3]
    first, step = walk()
    if factor == factor:  # not NaN
        for i in range(first, theta.size, step):
            g = factor * grad[i]
            mean = m[i] + (g - m[i]) * rest1  # m ← β₁m + (1 - β₁)g
            square = v[i] + (g * g - v[i]) * rest2  # v ← β₂v + (1 - β₂)g²
            m[i], v[i] = mean, square
            rate = base * rates[i] if has_rates else base
            # base = lr/(1 - β₁ᵗ), root = 1/√(1 - β₂ᵗ): θ ← θ - rate·m/(√v·root + ε)
            theta[i] -= rate * mean / (theta.dtype.type(math.sqrt(square)) * root + eps)


@form_of(cpu.adam_step)
def adam_step(theta, grad, moments, settings, norm, rates=None):
    """Take one step of Adam in place, or none if the gradient is not finite.

    Nothing waits for the GPU. A sum of squares that overflows the dtype of theta, even after
    clipping, counts as infinite.
    """
    grid, block = flat(theta.size, high=1)
    xp, real = array_module(theta), theta.dtype.type
    partial, scalars = xp.empty(grid[1], np.float64), xp.empty(4, theta.dtype)
    launch(squares_kernel, grid, block, grad, partial)
    betas = np.float64(cpu.BETA1), np.float64(cpu.BETA2)
    launch(scalars_kernel, (1, 1), block, partial, moments.steps, settings, norm, *betas, scalars)
    rest = real(1 - cpu.BETA1), real(1 - cpu.BETA2)
    factors = (theta, False) if rates is None else (rates, True)
    vectors = theta, grad, moments.m, moments.v, *factors
    launch(update_kernel, *flat(theta.size), *vectors, *rest, scalars)
