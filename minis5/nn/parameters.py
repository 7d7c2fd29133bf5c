"""Parameters as trees of arrays (nested dicts), their names, and their initial values.

Tests: tests/nn/test_layers.py.
"""

import math

import numpy as np


def flatten_tree(nested, prefix=""):
    """{"a": {"b": x}} → {"a/b": x}."""
    flat = {}
    for key, value in nested.items():
        flat |= (
            flatten_tree(value, f"{prefix}{key}/")
            if isinstance(value, dict)
            else {prefix + key: value}
        )
    return flat


def unflatten_tree(flat):
    """{"a/b": x} → {"a": {"b": x}}."""
    nested = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = nested
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return nested


def lecun_normal(rng, shape, fan_in):
    """Truncated normal (at two deviations) rescaled to standard deviation 1/√fan_in, as JAX's initialiser of this name."""
    x = rng.standard_normal(shape)
    while (far := np.abs(x) > 2).any():
        x[far] = rng.standard_normal(far.sum())
    # the deviation of a normal truncated at ±2
    return x / (0.87962566103423978 * math.sqrt(fan_in))


def orthogonal(rng, shape, gain):
    """Matrix with orthonormal rows or columns, times ``gain``."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T)
