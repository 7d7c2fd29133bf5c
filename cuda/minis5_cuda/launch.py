"""How kernels are compiled and launched: Numba's compiler, CuPy's arrays, CuPy's current stream.

A kernel is a function under ``@kernel``; helpers inside kernels are under ``@device``. `launch` queues one on the stream that CuPy
is working on, without waiting, so that kernels and CuPy's own operations follow each other in order, and can be captured into a
CUDA graph together (graphs.py).

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1, and NUMBA_DISABLE_JIT=1 for the functions of minis5 that kernels call) the
arrays are NumPy's, or have ``view(numpy.ndarray)``, and nothing is copied either.
Tested by all tests of kernels: tests/test_cuda_*.py, tests/gpu.
"""

import sys
import warnings
from functools import cache

import numpy as np
from numba import cuda
from numba.cuda.core import config
from numba.cuda.core.errors import NumbaPerformanceWarning

SIMULATED = bool(config.ENABLE_CUDASIM)


def kernel(function):
    """cuda.jit without link-time optimisation, which would compile the code anew, with other options than asked for.

    The option is lost when cuda.jit(lto=False) is used as a decorator, and the simulator does not know it.
    """
    return cuda.jit(function) if SIMULATED else cuda.jit(function, lto=False)


def device(function):
    """A function that kernels call."""
    return cuda.jit(function, device=True)


def launch(kernel, grid, block, *arguments):
    """Queue ``kernel`` with ``grid`` blocks of ``block`` threads (int or tuple of int) on CuPy's current stream.

    Arguments are arrays on the device (CuPy's, or any with ``__cuda_array_interface__``), which are not copied, and scalars.
    A Python float is float64 in a kernel: pass ``dtype.type(value)`` where the arithmetic should not become float64.
    """
    _queue(kernel, grid, block, arguments)


def _queue(kernel, grid, block, arguments):
    """What `launch` does; ptx.py puts a recorder in its place."""
    if SIMULATED:
        from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

        def wrapped(a):
            if isinstance(a, tuple):
                return each(wrapped, a)
            return (
                FakeCUDAArray(a.view(np.ndarray))
                if getattr(a, "ndim", 0) and hasattr(a, "view")
                else a
            )

        kernel[grid, block](*map(wrapped, arguments))
    else:
        _configured(kernel, grid, block, stream())(*map(as_numba, arguments))


def as_numba(value):
    """A CuPy array, or a tuple of such, as Numba's device array: the same memory, no waiting. Scalars as they are."""
    if isinstance(value, tuple):
        return each(as_numba, value)
    if isinstance(value, np.ndarray):  # Numba would copy it there and back, and wait
        raise TypeError(
            f"array: expected one on the GPU, got a NumPy array {value.dtype} {value.shape}; move it with cupy.asarray"
        )
    return (
        cuda.as_cuda_array(value, sync=False)
        if hasattr(type(value), "__cuda_array_interface__")
        else value
    )


def each(function, values):
    """``function`` of every member of a tuple or NamedTuple; the tuple itself where nothing changes."""
    results = list(map(function, values))
    if all(new is old for new, old in zip(results, values, strict=True)):
        return values
    return tuple(results) if type(values) is tuple else type(values)(*results)


def stream():
    """Handle of the stream that CuPy is working on; 0, the default stream, without CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy.cuda.get_current_stream().ptr if cupy else 0


@cache
def _configured(kernel, grid, block, handle):
    # Numba warns of small grids, once for each: the batch is as large as it is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)
        return kernel[grid, block, cuda.external_stream(handle) if handle else 0]


def blocks(count, size):
    """Number of blocks of ``size`` that cover ``count``."""
    return -(-count // size)
