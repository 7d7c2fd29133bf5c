"""Operations: one name for a computation that has a CPU form and a GPU form.

    @operation                          minis5/nn/gru.py: the CPU form, a loop that Numba compiles
    def gru_forward(step, out): ...

    @form_of(cpu.gru_forward)           minis5_cuda/nn/gru.py: the GPU form, which launches a kernel
    def gru_forward(step, out): ...

A call looks at its first argument: an array on a GPU goes to the GPU form, every other to the CPU form. (A list or a tuple of
arrays counts as its first.) Both forms take the same arguments and write to the same outputs, so that the model is written once.
A class may have a GPU form too: `gpu_form` finds it.

The GPU forms are in the package minis5_cuda. It is imported when the first one is asked for, by the function that minis5/__init__
hands to `set_loader`; so nothing in this file, or in the files that define operations, knows of CUDA.

Leaves out: several GPUs. Tests: tests/test_ops.py.
"""

import functools

import numpy as np
from numba import njit

from minis5.arrays import on_gpu

# contract: a·b + c may be rounded once. error_model: division by zero gives inf, as in NumPy.
fast = njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")

_gpu_forms = {}  # CPU form: GPU form
_load = None  # imports minis5_cuda, which fills _gpu_forms, and returns cupy


def operation(function):
    """Return ``function``, a loop over arrays, compiled for the CPU, with calls on GPU arrays sent to its GPU form."""
    return _dispatching(fast(function), function)


def array_operation(function):
    """Return ``function``, written with whole arrays and not compiled, with calls on GPU arrays sent to its GPU form."""
    return _dispatching(function, function)


def _dispatching(cpu_form, function):
    @functools.wraps(function)
    def call(first, *rest, **options):
        if type(first) is np.ndarray or not on_gpu(
            first[0] if isinstance(first, list | tuple) else first
        ):
            return cpu_form(first, *rest, **options)
        return gpu_form(call)(first, *rest, **options)

    call.cpu_form = cpu_form  # for other compiled functions to call
    operations.append(call)
    return call


operations = []  # every operation that has been defined, for tests


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
        What a GPU needs is missing; the message says what, and how to get it.
    NotImplementedError
        ``cpu`` runs on the CPU only.
    """
    if cpu not in _gpu_forms:
        _load()
    if cpu not in _gpu_forms:
        raise NotImplementedError(
            f"{cpu.__module__}.{cpu.__qualname__} has no GPU form; use device='cpu'"
        )
    return _gpu_forms[cpu]


def set_loader(load):
    """Have ``load``, which imports the GPU forms and returns cupy, called when the first of them is asked for."""
    global _load
    _load = load


def array_library(device):
    """Return numpy for "cpu"; cupy for "cuda", once everything that a GPU needs has been found.

    Raises
    ------
    ValueError
        Another name.
    DeviceError
        CuPy, numba-cuda, the driver or a GPU is missing: says which, and how to get it.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
    return np if device == "cpu" else _load()


@array_operation
def matmul(a, b):
    """Return a @ b for matrices (N, K), (K, M), or transposed views of such."""
    return a @ b


@array_operation
def concatenate_vectors(parts):
    """Return the arrays ``parts`` (one dtype, any shapes) end to end in one vector."""
    return np.concatenate([part.ravel() for part in parts])
