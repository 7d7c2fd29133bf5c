"""Trees of parameters, their names, and their initial values."""

import numpy as np

from minis5.nn.parameters import flatten_tree, lecun_normal, orthogonal, unflatten_tree


def test_flatten_and_back():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten_tree(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert unflatten_tree(flatten_tree(nested)) == nested


def test_initial_weights():
    rng = np.random.default_rng(8)
    x = lecun_normal(rng, (400, 300), 400)
    np.testing.assert_allclose(x.std(), 1 / 20, rtol=0.01)
    # a normal cut at two deviations, then stretched
    assert np.abs(x).max() <= 2 / 0.87962566 / 20 + 1e-12
    for shape in ((6, 4), (4, 6), (5, 5)):
        q = orthogonal(rng, shape, 2.0)
        assert q.shape == shape
        np.testing.assert_allclose(
            q.T @ q if shape[0] >= shape[1] else q @ q.T, 4 * np.eye(min(shape)), atol=1e-13
        )
