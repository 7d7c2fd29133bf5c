"""Backward passes against central differences in float64, and comparison to rounding.

Every output gets a random cotangent w (real and imaginary parts apart), which makes the scalar
L = Σ Re(conj(w)·y). Each input is moved along a random direction and along single entries, with the
real and the imaginary part of a complex input apart. The change of L is summed from the changes
of y, so that rounding enters with the size of y, not of L.

Tests: tests/verify/test_gradients.py; the tests of every backward pass use it.
"""

import numpy as np

EPS = np.finfo(np.float64).eps


def require(condition, message):
    """Raise AssertionError with ``message`` unless ``condition`` holds, under ``python -O`` too."""
    if not condition:
        raise AssertionError(message)


def random_like(rng, z):
    """Return standard normal numbers with the shape and dtype of z."""
    w = rng.standard_normal(np.shape(z))
    return (w + 1j * rng.standard_normal(np.shape(z)) if np.iscomplexobj(z) else w).astype(
        np.asarray(z).dtype
    )


def inner(w, z):
    """Return Σ Re(conj(w)·z), the pairing of a gradient with a change."""
    return float(np.sum(np.real(np.conj(w) * z)))


def directions(rng, z, entries):
    """Yield names and unit vectors: a random direction and ``entries`` single entries.

    A complex z has them for its real and its imaginary part.
    """
    for unit, part in ((1.0, "re"), (1j, "im")) if np.iscomplexobj(z) else ((1.0, ""),):
        v = rng.standard_normal(z.shape)
        yield f"{part} random", unit * v / np.linalg.norm(v)
        for i in rng.choice(z.size, min(entries, z.size), replace=False):
            v = np.zeros(z.shape)
            v.flat[i] = 1.0
            yield f"{part} entry {np.unravel_index(i, z.shape)}", unit * v


def check_gradients(forward, backward, inputs, *, h=1e-6, rtol=1e-6, entries=3, seed=0):
    """Assert that ``backward`` is the adjoint of ``forward`` at ``inputs``.

    forward(inputs) → tuple of arrays; backward(inputs, cotangents) → dict with the keys of
    ``inputs``. A derivative along a unit vector may differ by rtol of the larger of two numbers:
    the derivative itself, and the root mean square over all unit vectors. To this comes the
    rounding of the difference quotient.
    """
    rng = np.random.default_rng(seed)
    outputs = forward(inputs)
    cotangents = tuple(random_like(rng, y) for y in outputs)
    grads = backward(inputs, cotangents)
    rounding = (
        4
        * EPS
        / h
        * np.sqrt(sum(np.sum(np.abs(w * y) ** 2) for w, y in zip(cotangents, outputs, strict=True)))
    )
    require(set(grads) == set(inputs), f"gradients of {sorted(grads)}, not of {sorted(inputs)}")
    for name, z in inputs.items():
        dz = grads[name]
        require(dz.shape == z.shape, f"d{name}: shape {dz.shape}, expected {z.shape}")
        require(np.iscomplexobj(dz) == np.iscomplexobj(z), f"d{name}: {dz.dtype} for {z.dtype}")
        scale = np.linalg.norm(dz) / np.sqrt(dz.size)
        for label, v in directions(rng, z, entries):
            ahead, behind = forward(inputs | {name: z + h * v}), forward(inputs | {name: z - h * v})
            expected = sum(
                inner(w, p - m) for w, p, m in zip(cotangents, ahead, behind, strict=True)
            ) / (2 * h)
            got = inner(dz, v)
            tolerance = rtol * max(abs(expected), scale) + rounding
            error = abs(got - expected)
            require(
                error <= tolerance,
                f"d{name} ({label}): {got}, not {expected}: {error:.1e} > {tolerance:.1e}",
            )


def assert_close(got, expected, *, T=2, c=8, dtype=None, name=""):
    """Assert |got - expected| ≤ c·eps·log2(T + 1)·max|expected| everywhere.

    eps is that of ``dtype``; by default that of ``got``.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    require(got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}")
    if got.size == 0:
        return
    eps = np.finfo(dtype or got.dtype).eps
    tolerance = c * eps * np.log2(T + 1) * max(np.abs(expected).max(), np.finfo(np.float32).tiny)
    error = np.abs(got - expected).max()
    # NaN fails too
    require(error <= tolerance, f"{name}: differs by {error:.3e}, allowed {tolerance:.3e}")
