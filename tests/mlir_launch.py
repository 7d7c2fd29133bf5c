"""A draft of launch.py for numba-cuda-mlir, NVIDIA's successor of numba-cuda. It compiles only.

numba-cuda-mlir has no simulator, and nothing of it has run on a GPU. mlir_report.py puts this file
in the place of minis5_cuda/launch.py and compiles all kernels. So this file has those names of
launch.py that recording and compiling need, and shows what a move would change.

Leaves out: launching; compiling without contraction. Source, specification:
cuda/minis5_cuda/launch.py. Tests: tests/test_mlir.py.
"""

from functools import cache
from types import CellType, FunctionType

from numba.core.dispatcher import Dispatcher
from numba_cuda_mlir import cuda, tools

SIMULATED = False
OPTIONS = "launch_bounds", "fastmath", "opt", "lineinfo"  # of cuda.jit, that compile_ptx takes too


def kernel(function, **bounds):
    """Return ``function`` as a kernel; ``bounds`` as in launch.py."""
    return cuda.jit(with_device_functions(function), lto=False, **bounds)


def device(function):
    """Return ``function`` as one that kernels call."""
    return cuda.jit(with_device_functions(function), device=True)


def with_device_functions(function):
    """Return a copy of ``function`` that calls GPU forms of what Numba compiles for the CPU.

    Kernels call scalar functions of minis5, and numba-cuda-mlir does not know Numba's functions.
    """
    used = {
        name: value
        for name, value in function.__globals__.items()
        if name in function.__code__.co_names
    }
    values = {**function.__globals__, **{name: _on_gpu(value) for name, value in used.items()}}
    cells = tuple(CellType(_on_gpu(cell.cell_contents)) for cell in function.__closure__ or ())
    code, defaults = function.__code__, function.__defaults__
    return FunctionType(code, values, function.__name__, defaults, cells)


def _on_gpu(value):
    return _device_form(value.py_func) if isinstance(value, Dispatcher) else value


_device_form = cache(device)


def launch(kernel, grid, block, *arguments):
    """Queue ``kernel``: here only for ptx.py to record it."""
    queue(kernel, grid, block, arguments)


def queue(kernel, grid, block, arguments):
    """ptx.py puts its recorder here."""
    raise NotImplementedError("launch: this draft only compiles; see mlir_report.py")


def use_device(number):
    """Have this thread's kernels run on that GPU; here none runs."""
    cuda.select_device(number)


def as_numba(value):
    """Return the value itself."""
    return value


def is_cuda_ndarray(value):
    """Return whether it is a device array: here there are none."""
    return False


def stream():
    """Return the default stream's handle."""
    return 0


def configured(kernel, configuration):
    """Return ``kernel[configuration]``."""
    return kernel[configuration]


def blocks(count, size):
    """Return the number of blocks of ``size`` that cover ``count``."""
    return -(-count // size)


def no_contraction():
    """numba-cuda-mlir has no such option."""
    raise NotImplementedError("no_contraction: this draft only compiles")


def signature(kernel, arguments):
    """Return the types, the compiler's own, that ``kernel`` is compiled for by such arguments."""
    return tuple(kernel.typeof_pyval(argument) for argument in arguments)


def compile_ptx(kernel, types, targets, exact):
    """Return {compute capability: PTX} of a kernel; ``exact`` is without effect."""
    del exact
    given, found = kernel.targetoptions, {}
    options = {name: given[name] for name in OPTIONS if given.get(name) is not None}
    for target in targets:
        tools._cached_cc = target  # instead of asking a GPU
        found[target] = cuda.compile_ptx(kernel.py_func, types, cc=target, **options)[0]
    return found
