"""Arrays on the CPU (NumPy) and on a GPU (CuPy) for one source: which module an array belongs to, and where a loop runs.

The model and the trainer are written once. Where they compute with whole arrays they take ``xp = array_module(x)``, which is
numpy or cupy; matrix products go through :func:`matmul`; and what lies between is a *loop*: a function over array elements that
Numba compiles for the CPU where it stands, and that has a kernel of the same name, in the file of the same name, in
cuda/minis5_cuda. A loop takes its outputs as arguments, so that both forms are called alike.

Leaves out: several GPUs. Nothing of CUDA is imported before the first array on a GPU is met.
Tested in tests/test_cuda_agent.py (with Numba's simulator in the place of a GPU) and tests/gpu.
"""

import functools
import importlib

import numpy as np
from numba import njit

fast = njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")  # contract: a·b + c in one rounding


def on_gpu(x):
    """Whether ``x`` is an array on a GPU: CuPy's, Numba's, or any with ``__cuda_array_interface__``."""
    return hasattr(type(x), "__cuda_array_interface__")


def array_module(x):
    """numpy, or cupy where ``x`` lives on a GPU."""
    return importlib.import_module("cupy") if on_gpu(x) else np


def loop(function):
    """A loop over arrays, compiled for the CPU; given arrays on a GPU, its kernel of the same name in minis5_cuda.

    ``minis5/layers.py: _bias_act`` is ``minis5_cuda/layers.py: bias_act`` there. The first argument decides.
    """
    compiled = fast(function)
    module, name = function.__module__.rpartition(".")[2], function.__name__.lstrip("_")

    @functools.wraps(function)
    def call(first, *rest):
        if type(first) is np.ndarray or not on_gpu(first):
            return compiled(first, *rest)
        return getattr(importlib.import_module(f"minis5_cuda.{module}"), name)(first, *rest)

    call.compiled = compiled  # for other compiled functions to call
    return call


def matmul(a, b):
    """a @ b for matrices (N, K), (K, M), or transposed views of such; on a GPU by cuBLAS (minis5_cuda/blas.py)."""
    if on_gpu(a):
        return importlib.import_module("minis5_cuda.blas").matmul(a, b)
    return a @ b


def to_host(x):
    """``x`` as a NumPy array; waits for the GPU where it has to be copied from there."""
    return x.get() if hasattr(x, "get") else x.copy_to_host() if hasattr(x, "copy_to_host") else np.asarray(x)
