"""Scalar functions of compiled loops: the approximations in float32."""

import numpy as np

from minis5.nn.scalars import exp
from minis5.ops import fast


@fast
def exp_of_each(x, y):
    for i in range(x.size):
        y[i] = exp(x[i])


def test_exp_of_float32():
    x = np.concatenate(
        [np.linspace(-90, 88, 200_001), [0, -87.0001, -1e30, -np.inf, np.nan]]
    ).astype(np.float32)
    y = np.empty_like(x)
    exp_of_each(x, y)
    expected, inside = np.exp(x.astype(np.float64)), x > -87
    assert (np.abs(y - expected) <= 2 * np.spacing(expected.astype(np.float32)))[inside].all()
    assert not y[x <= -87].any() and np.isnan(y[-1]) and y[-5] == 1
