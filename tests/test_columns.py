"""Columns of arrays: the CPU's, and the kernels in the simulator."""

import columns_checks
import numpy as np
from simulator import simulated

from minis5.columns import take_columns


def test_taken_columns():
    arrays, numbers = columns_checks.arrays(), np.array([4, 0, 1])
    for array, taken in zip(arrays, take_columns(arrays, numbers), strict=True):
        np.testing.assert_array_equal(taken, array[:, [4, 0, 1]])


def test_kernels_in_the_simulator():
    simulated(columns_checks.__file__, "taken()")
    simulated(columns_checks.__file__, "joined()")
