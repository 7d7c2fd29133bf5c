"""How kernels are compiled and launched: Numba's compiler, CuPy's arrays, CuPy's current stream.

Nothing else in minis5 imports numba.cuda (a test in tests/test_house.py): other files take ``cuda``
and what they need of the compiler from here. numba-cuda is only maintained, and its successor
numba-cuda-mlir will need another launch.py; tests/mlir_launch.py is its draft.

A kernel is a function under ``@kernel``; the functions that kernels call are under ``@device``.
`launch` queues a kernel on CuPy's current stream and does not wait. Kernels and CuPy's own
operations therefore run in the order of their calls, and a CUDA graph can record both (graphs.py).

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1, and NUMBA_DISABLE_JIT=1 for the functions of minis5
that kernels call) arrays are NumPy's, or have ``view(numpy.ndarray)``. Nothing is copied there
either.

Leaves out: several GPUs in one process; Numba's cache on disk.
Tests: tests/test_launch.py, tests/test_ptx.py, and all tests of kernels: tests/nn, tests/rl,
tests/envs, tests/gpu.
"""

import sys
import warnings
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from unittest import mock
from weakref import WeakKeyDictionary

import numba_cuda  # noqa: F401  without it, numba.cuda is another module
import numpy as np
from numba import cuda
from numba.cuda import dispatcher
from numba.cuda.core import config
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.core.errors import NumbaPerformanceWarning
from numba.cuda.cudadrv import nvvm
from numba.cuda.cudadrv.devicearray import is_cuda_ndarray

from minis5.arrays import on_gpu

__all__ = ["cuda", "is_cuda_ndarray"]  # for other files; the rest is made here

# numba-cuda 0.30 still uses numpy.row_stack, another name of vstack, which NumPy 2.5 has removed:
# without it no kernel compiles. numba-cuda looks for it when it compiles the first kernel, and
# every kernel is made by this file.
vars(np).setdefault("row_stack", np.vstack)

SIMULATED = bool(config.ENABLE_CUDASIM)


def kernel(function, **bounds):
    """Return ``function`` as a kernel, compiled without link-time optimisation.

    Link-time optimisation would compile the code anew, with other options than asked for. The call
    below is no decorator: as a decorator, ``cuda.jit(lto=False)`` loses the option. The simulator
    does not know it.

    Parameters
    ----------
    **bounds
        ``launch_bounds=(threads, resident)``: a block has that many threads, and each of them gets
        so few registers that that many blocks fit a multiprocessor.
    """
    return cuda.jit(function) if SIMULATED else cuda.jit(function, lto=False, **bounds)


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
        _configured(kernel, grid, block)(*map(as_numba, arguments))


def use_device(number):
    """Have this thread's kernels run on that one of the visible GPUs, before the first is compiled.

    CuPy is told by itself.
    """
    if not SIMULATED:
        cuda.select_device(number)


def as_numba(value):
    """Return a CuPy array, or a tuple of them, as Numba's device array: same memory, no waiting.

    Scalars, and what is Numba's already, are returned as they are.
    """
    if isinstance(value, tuple):
        return each(as_numba, value)
    if is_cuda_ndarray(value):
        return value
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
    return getattr(_stream(), "ptr", 0)


def _stream():
    cupy = sys.modules.get("cupy")
    return cupy.cuda.get_current_stream() if cupy else _NO_STREAM


class _NoStream:
    """Stands for the default stream where there is no CuPy."""


_NO_STREAM = _NoStream()
# CuPy's stream: {(kernel, grid, block): the kernel ready to be launched there}. It ends with the
# stream.
_CONFIGURED: WeakKeyDictionary[object, dict] = WeakKeyDictionary()


def _configured(kernel, grid, block):
    """Return a kernel ready to be launched on CuPy's current stream."""
    current = _stream()
    known, key = _CONFIGURED.setdefault(current, {}), (kernel, grid, block)
    if key not in known:
        handle = getattr(current, "ptr", 0)
        numba_stream = cuda.external_stream(handle) if handle else 0
        known[key] = configured(kernel, (grid, block, numba_stream))
    return known[key]


def configured(kernel, configuration):
    """Return ``kernel[configuration]``: (grid, block) or (grid, block, Numba's stream).

    Numba would warn of small grids, once for each. But a batch is as large as it is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NumbaPerformanceWarning)
        return kernel[configuration]


def blocks(count, size):
    """Return the number of blocks of ``size`` that cover ``count``."""
    return -(-count // size)


# --- what the compiler is asked for, beyond a launch ---


def missing_compiler():
    """Return, in one line, why no kernel can be compiled; None if nothing is missing.

    The compiler is NVIDIA's library libnvvm with its file libdevice.
    """
    if SIMULATED:
        return None
    try:
        nvvm.NVVM(), nvvm.LibDevice()
    except Exception as error:  # every way of finding a library has errors of its own
        return " ".join(str(error).split())[:200] or type(error).__name__
    return None


@contextmanager
def no_contraction():
    """Have kernels that are compiled within round a * b before they add c, as the CPU does.

    NVVM would fuse the two. cuda.jit does not offer NVVM's option fma yet
    (github.com/NVIDIA/numba-cuda, issue 118), so it is added on the way, in the function that hands
    the code to NVVM. The lock keeps other threads from compiling meanwhile.
    """
    with global_compiler_lock:
        compile_ir = nvvm.compile_ir
        nvvm.compile_ir = lambda *code, **options: compile_ir(*code, **{**options, "fma": False})
        try:
            yield
        finally:
            nvvm.compile_ir = compile_ir


OPTIONS = "launch_bounds", "fastmath", "opt", "lineinfo"  # of cuda.jit, that compile_ptx takes too


def signature(kernel, arguments):
    """Return the types, the compiler's own, that ``kernel`` is compiled for by such arguments."""
    return tuple(kernel.typeof_pyval(argument) for argument in arguments)


def compile_ptx(kernel, types, targets, exact):
    """Return {compute capability: PTX} of a kernel for a :func:`signature`, without a GPU.

    ``exact``: without contraction. The input of LLVM is the same for all targets, and is made once.
    """
    first, found, compile_ir = targets[0], {}, nvvm.compile_ir

    def compile_for_each(irs, **options):
        for target in targets:
            ptx = compile_ir(irs, **{**options, "arch": "compute_{}{}".format(*target)})
            found[target] = ptx.decode().strip("\0")
        return ptx

    given = kernel.targetoptions
    options = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    # for what compiles the functions that the kernel calls
    device = SimpleNamespace(compute_capability=first)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(dispatcher, "get_current_device", lambda: device))
        stack.enter_context(mock.patch.object(nvvm, "compile_ir", compile_for_each))
        if exact:
            stack.enter_context(no_contraction())
        cuda.compile_ptx(kernel.py_func, types, cc=first, **options)
    return found
