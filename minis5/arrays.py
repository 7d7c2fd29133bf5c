"""Arrays on the CPU (NumPy) and on a GPU (CuPy): which library an array belongs to, and moving it.

The model and the trainer are written once. Where they compute with whole arrays they take
``xp = array_module(x)``, which is numpy or cupy. Loops and matrix products are operations (ops.py).
CuPy is imported when the first array on a GPU is met.

Leaves out: several GPUs.
Tests: tests/test_arrays.py; on a simulated GPU tests/rl/test_cuda_training.py.
"""

import numpy as np

Array = np.ndarray  # in type hints; cupy.ndarray is meant too, which type checkers do not know
DLPACK_CUDA = 2  # kDLCUDA in DLPack's DLDeviceType
EIGHT = 8  # cupy.concatenate of more arrays sends their addresses from the host


class DeviceError(RuntimeError):
    """A GPU, or something that it needs, is missing, or its memory is full."""


def on_gpu(x):
    """Return whether ``x`` is on a GPU: CuPy's, Numba's, any with ``__cuda_array_interface__``."""
    return hasattr(type(x), "__cuda_array_interface__")


def array_module(x):
    """Return numpy, or cupy if ``x`` lives on a GPU."""
    return _cupy() if on_gpu(x) else np


def _cupy():
    import cupy

    return cupy


def concatenate(parts, axis=-1):
    """Return ``parts`` joined along ``axis``, without copies from the host (for CUDA graphs)."""
    xp = array_module(parts[0])
    while len(parts) > EIGHT:
        groups = [parts[i : i + EIGHT] for i in range(0, len(parts), EIGHT)]
        parts = [xp.concatenate(group, axis=axis) for group in groups]
    return xp.concatenate(parts, axis=axis)


def as_array(x):
    """Return an array on a GPU (by its interface or DLPack) as CuPy's, not copied; others as is."""
    if type(x) is np.ndarray:
        return x
    if hasattr(x, "__cuda_array_interface__"):
        return _cupy().asarray(x)
    if hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == DLPACK_CUDA:
        return _cupy().from_dlpack(x)
    return x


def to_host(x):
    """Return ``x`` as a NumPy array; waits for the GPU if it has to be copied from there."""
    x = as_array(x)
    return x.get() if on_gpu(x) else np.asarray(x)


def move(x, device):
    """Return an array on ``device``, "cpu" or "cuda"; ``x`` itself if it is there already."""
    return to_host(x) if device == "cpu" else _cupy().asarray(as_array(x))
