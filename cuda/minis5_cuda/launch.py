"""How kernels are compiled and launched: Numba's compiler, CuPy's arrays, CuPy's current stream.

A kernel is a function under ``@kernel``; the functions that kernels call are under ``@device``.
`launch` queues a kernel on CuPy's current stream and does not wait. Kernels and CuPy's own
operations therefore run in the order of their calls, and a CUDA graph can record both (graphs.py).

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1, and NUMBA_DISABLE_JIT=1 for the functions of minis5
that kernels call) arrays are NumPy's, or have ``view(numpy.ndarray)``. Nothing is copied there
either.

Leaves out: several GPUs; Numba's cache on disk.
Tests: tests/test_ptx.py, and all tests of kernels: tests/nn, tests/rl, tests/envs, tests/gpu.
"""

import sys
import warnings
from functools import cache

import numpy as np
from numba import cuda
from numba.cuda.core import config
from numba.cuda.core.errors import NumbaPerformanceWarning

from minis5.arrays import on_gpu

# numba-cuda 0.30 still uses numpy.row_stack, another name of vstack, which NumPy 2.5 has removed:
# without it no kernel compiles. numba-cuda looks for it when it compiles the first kernel, and
# every kernel is made by this file.
vars(np).setdefault("row_stack", np.vstack)

SIMULATED = bool(config.ENABLE_CUDASIM)


def kernel(function):
    """Return ``function`` as a kernel, compiled without link-time optimisation.

    Link-time optimisation would compile the code anew, with other options than asked for. The call
    below is no decorator: as a decorator, ``cuda.jit(lto=False)`` loses the option. The simulator
    does not know it.
    """
    return cuda.jit(function) if SIMULATED else cuda.jit(function, lto=False)


def device(function):
    """Return ``function`` as one that kernels call."""
    return cuda.jit(function, device=True)


def launch(kernel, grid, block, *arguments):
    """Queue ``kernel`` on CuPy's current stream.

    Parameters
    ----------
    kernel
        What :func:`kernel` returned.
    grid, block : int or tuple of int
        Number of blocks; number of threads of a block.
    *arguments
        Scalars, arrays on the device (CuPy's, or any with ``__cuda_array_interface__``), tuples of
        these. Arrays are not copied. A Python float is float64 in a kernel: pass
        ``dtype.type(value)`` where the arithmetic should not become float64.
    """
    queue(kernel, grid, block, arguments)


def queue(kernel, grid, block, arguments):
    """Queue a kernel for :func:`launch`. Every launch passes here, so that ptx.py can record it."""
    if SIMULATED:
        kernel[grid, block](*map(as_simulated, arguments))
    else:
        _configured(kernel, grid, block, stream())(*map(as_numba, arguments))


def as_numba(value):
    """Return a CuPy array, or a tuple of them, as Numba's device array: same memory, no waiting.

    Scalars are returned as they are.
    """
    if isinstance(value, tuple):
        return each(as_numba, value)
    if isinstance(value, np.ndarray):  # Numba would copy it there and back, and wait
        raise TypeError(
            f"array: expected one on the GPU, got a NumPy array {value.dtype} {value.shape}; "
            "move it with cupy.asarray"
        )
    return cuda.as_cuda_array(value, sync=False) if on_gpu(value) else value


def as_simulated(value):
    """Return an array, or a tuple of them, as the simulator's device array: same memory.

    Scalars, and what is the simulator's already, are returned as they are.
    """
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    if isinstance(value, tuple):
        return each(as_simulated, value)
    if isinstance(value, np.ndarray) or on_gpu(value):
        return FakeCUDAArray(value.view(np.ndarray))
    return value


def each(function, values):
    """Return ``function`` of every member of a tuple or NamedTuple.

    If nothing changes, ``values`` itself is returned.
    """
    results = list(map(function, values))
    if all(new is old for new, old in zip(results, values, strict=True)):
        return values
    return tuple(results) if type(values) is tuple else type(values)(*results)


def stream():
    """Return the handle of CuPy's current stream; 0, the default stream, without CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy.cuda.get_current_stream().ptr if cupy else 0


@cache
def _configured(kernel, grid, block, handle):
    # Numba warns of small grids, once for each: the batch is as large as it is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)
        return kernel[grid, block, cuda.external_stream(handle) if handle else 0]


def blocks(count, size):
    """Return the number of blocks of ``size`` that cover ``count``."""
    return -(-count // size)
