"""Parameters as trees of arrays (nested dicts): their names, and their initial values.

Source: flax's and JAX's initialisers of the same names. Tests: tests/nn/test_parameters.py.
"""

import math

import numpy as np

TRUNCATED = 0.87962566103423978  # standard deviation of a normal truncated at ±2


def flatten_tree(nested, prefix=""):
    """Return a tree's leaves by path: {"a": {"b": x}} → {"a/b": x}."""
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flatten_tree(value, f"{prefix}{key}/")
        else:
            flat[prefix + key] = value
    return flat


def unflatten_tree(flat):
    """Return the tree of leaves by path: {"a/b": x} → {"a": {"b": x}}."""
    nested = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        node = nested
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value
    return nested


def lecun_normal(rng, shape, fan_in):
    """Return normal numbers truncated at two deviations, rescaled to the deviation 1/√fan_in."""
    x = rng.standard_normal(shape)
    while (far := np.abs(x) > 2).any():
        x[far] = rng.standard_normal(far.sum())
    return x / (TRUNCATED * math.sqrt(fan_in))


def orthogonal(rng, shape, gain):
    """Return a matrix with orthonormal rows or columns, times ``gain``."""
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T)
