"""Arrays on the CPU (NumPy) and on a GPU (CuPy): which library an array belongs to, and moving it.

The model and the trainer are written once. Where they compute with whole arrays they take
``xp = array_module(x)``, which is numpy or cupy. Loops and matrix products are operations (ops.py).
CuPy is imported when the first array on a GPU is met.

Leaves out: several GPUs in one process.
Tests: tests/test_arrays.py, tests/test_foreign_arrays.py; on a simulated GPU
tests/rl/test_cuda_training.py.
"""

from typing import Any

import numpy as np

Array = np.ndarray  # in type hints; cupy.ndarray is meant too, which type checkers do not know
DLPACK_CUDA = 2  # kDLCUDA in DLPack's DLDeviceType
ON_GPU = (DLPACK_CUDA, 13)  # and kDLCUDAManaged
ON_HOST = (1, 3, 11)  # kDLCPU; kDLCUDAHost and kDLROCMHost, which is pinned memory
UNKNOWN = -1
EIGHT = 8  # cupy.concatenate of more arrays sends their addresses from the host

_load: Any = None  # imports minis5_cuda, which registers its GPU forms, and returns cupy


class DeviceError(RuntimeError):
    """A GPU, or something that it needs, is missing, or its memory is full."""


def set_loader(load):
    """Call ``load``, which imports the GPU forms and returns cupy, when one is first needed."""
    global _load
    _load = load


def load_gpu_forms():
    """Import the GPU forms of all operations (ops.py) and return cupy.

    Raises
    ------
    DeviceError
        Something that a GPU needs is missing; the message says what, and how to get it.
    """
    return _load()


def on_gpu(x):
    """Return whether ``x`` is on a GPU: CuPy's, Numba's, any with ``__cuda_array_interface__``.

    PyTorch's and JAX's arrays have that attribute wherever they are, so that the array is asked.
    """
    kind = type(x)
    if kind is np.ndarray or not hasattr(kind, "__cuda_array_interface__"):
        return False
    if hasattr(kind, "__dlpack_device__"):
        return _dlpack_device(x) in ON_GPU
    return hasattr(x, "__cuda_array_interface__")


def _dlpack_device(x):
    """Return the type of device that ``x`` says it is on; UNKNOWN if DLPack has none for it."""
    try:
        return x.__dlpack_device__()[0]
    except (BufferError, RuntimeError, TypeError, ValueError):
        return UNKNOWN


def array_module(x):
    """Return numpy, or cupy if ``x`` lives on a GPU."""
    return np if type(x) is np.ndarray or not on_gpu(x) else _cupy()


def _cupy():
    try:
        import cupy
    except ModuleNotFoundError as error:
        remedy = "install CuPy (cuda/README.md says how), or move the array to the CPU"
        raise DeviceError(
            f"array: expected CuPy for an array on a GPU, got {error}; {remedy}"
        ) from None
    return cupy


def concatenate(parts, axis=-1):
    """Return ``parts`` joined along ``axis``, without copies from the host (for CUDA graphs)."""
    xp = array_module(parts[0])
    while len(parts) > EIGHT:
        groups = [parts[i : i + EIGHT] for i in range(0, len(parts), EIGHT)]
        parts = [xp.concatenate(group, axis=axis) for group in groups]
    return xp.concatenate(parts, axis=axis)


def as_array(x, name="array"):
    """Return an array of any library as NumPy's, or as CuPy's if it is on a GPU; others as is.

    Arrays come by ``__cuda_array_interface__`` or DLPack and are not copied, except those of
    foreign byte order, which are converted.

    Raises
    ------
    TypeError
        An array that cannot be taken: it has a mask, its dtype is unknown to NumPy (bfloat16), it
        needs a gradient, or it is on a device that is neither the CPU nor a CUDA GPU.
    """
    if type(x) is np.ndarray:
        return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without mask, got MaskedArray; use .filled(…)")
    if isinstance(x, np.ndarray):
        return as_array(x.view(np.ndarray), name)
    device = _dlpack_device(x) if hasattr(x, "__dlpack_device__") else None
    try:
        if on_gpu(x):
            return _cupy().asarray(x)
        if device in ON_GPU:
            return _cupy().from_dlpack(x)
        if device in ON_HOST and hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, DeviceError):
            raise
        kind, why = f"{type(x).__module__}.{type(x).__name__}", str(error).partition("\n")[0]
        dtype = getattr(x, "dtype", "unknown dtype")
        remedy = "detach it and cast it to float32, float64 or bool"
        got = f"{kind} of {dtype} ({why})"
        raise TypeError(
            f"{name}: expected an array that NumPy can take, got {got}; {remedy}"
        ) from error
    if device is not None and device not in ON_HOST:
        where = "an unknown device" if device == UNKNOWN else f"device type {device} of DLPack"
        got = f"{type(x).__name__} on {where}"
        raise TypeError(f"{name}: expected an array on the CPU or a CUDA GPU, got {got}; move it")
    return x


def to_host(x):
    """Return ``x`` as a NumPy array; waits for the GPU if it has to be copied from there."""
    x = as_array(x)
    return x.get() if on_gpu(x) else np.asarray(x)


def move(x, device):
    """Return an array on ``device``, "cpu" or "cuda"; ``x`` itself if it is there already."""
    return to_host(x) if device == "cpu" else _cupy().asarray(as_array(x))
