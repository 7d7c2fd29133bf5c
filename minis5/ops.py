"""Operations: one name for a computation that has a CPU form and a GPU form.

    @operation                          minis5/nn/gru.py: the CPU form, a loop that Numba compiles
    def gru_forward(...): ...

    @form_of(cpu.gru_forward)           minis5_cuda/nn/gru.py: the GPU form, which launches a kernel
    def gru_forward(...): ...

A call looks at its first argument. An array on a GPU goes to the GPU form, any other to the CPU
form; of a list or tuple of arrays the first one counts. Both forms take the same arguments and
write to the same outputs, so that the model is written once. `array_operation` is the same for a
function of whole arrays, which Numba does not compile. A class may have a GPU form too.

minis5_cuda holds the GPU forms. It is imported when the first one is needed, by a function that
minis5/__init__ hands to `arrays.set_loader`. So no file that defines operations knows of CUDA.

Leaves out: several GPUs in one process. Tests: tests/test_ops.py.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.core.compiler_lock import global_compiler_lock

from minis5.arrays import Array, load_gpu_forms, on_gpu

# contract: a·b + c may be rounded once. error_model: division by zero gives inf, as in NumPy.
FLAGS: Any = {"nogil": True, "cache": True, "no_cfunc_wrapper": True}  # C calls no loop
fast = njit(**FLAGS, fastmath={"contract"}, error_model="numpy")


def compiling() -> bool:
    """Return whether Numba compiles: an exception of a signal handler may be lost, or crash it."""
    return global_compiler_lock.is_locked()


operations: list[Callable] = []  # all that have been defined, for the tests
_gpu_forms: dict[Any, Any] = {}  # CPU form: GPU form


def operation(function):
    """Compile a loop over arrays for the CPU, and send calls on GPU arrays to its GPU form."""
    return _dispatching(fast(function), function)


def array_operation(function):
    """Do the same for a function of whole arrays, which is not compiled."""
    return _dispatching(function, function)


def _dispatching(cpu_form, function):
    @functools.wraps(function)
    def call(*args, **options):
        if type(first := args[0]) is not Array:
            if on_gpu(first[0] if isinstance(first, list | tuple) else first):
                return gpu_form(call)(*args, **options)
        return call.cpu_form(*args, **options)

    call.cpu_form = cpu_form  # a profile wraps it (run/profile.py)
    operations.append(call)
    return call


def form_of(cpu):
    """Return a decorator that makes a function or class the GPU form of ``cpu``."""

    def register(gpu):
        _gpu_forms[cpu] = gpu
        return gpu

    return register


def gpu_form(cpu):
    """Return the GPU form of an operation or a class.

    Raises
    ------
    DeviceError
        Something that a GPU needs is missing; the message says what, and how to get it.
    NotImplementedError
        ``cpu`` runs on the CPU only.
    """
    if cpu not in _gpu_forms:
        load_gpu_forms()
    if cpu not in _gpu_forms:
        name = f"{cpu.__module__}.{cpu.__qualname__}"
        raise NotImplementedError(f"{name} has no GPU form; use device='cpu'")
    return _gpu_forms[cpu]


def form_for(device, cpu):
    """Return the form of a class for "cpu" or "cuda": ``cpu`` itself if it has no GPU form."""
    return _gpu_forms.get(cpu, cpu) if array_library(device) is not np else cpu


def array_library(device):
    """Return numpy for "cpu"; cupy for "cuda", once everything that a GPU needs has been found.

    Raises
    ------
    ValueError
        Another name.
    DeviceError
        CuPy, numba-cuda, the driver or a GPU is missing; the message says how to get it.
    """
    if not isinstance(device, str) or device not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
    return np if device == "cpu" else load_gpu_forms()


@array_operation
def matmul(a, b):
    """Return a @ b for matrices (N, K), (K, M), or transposed views; K = 1 is slow by ``@``."""
    return np.dot(a, b)


@array_operation
def concatenate_vectors(parts):
    """Return the arrays ``parts`` (one dtype, any shapes) end to end in one vector."""
    return np.concatenate([part.ravel() for part in parts])
