"""Columns of arrays, which are environments if the axes are (T, B, ...).

Source: minis5's own. GPU form: cuda/minis5_cuda/columns.py. Tests: tests/test_columns.py.
"""

from minis5.ops import array_operation


@array_operation
def take_columns(arrays, numbers):
    """Return the ``numbers`` (n,) of axis 1 of each of ``arrays`` (T, B, ...), as (T, n, ...)."""
    return [array.take(numbers, axis=1) for array in arrays]
