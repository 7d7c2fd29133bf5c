"""Arrays on the CPU (NumPy) and on a GPU (CuPy) for one source: which module an array belongs to, and where a loop runs.

The model and the trainer are written once. Where they compute with whole arrays they take ``xp = array_module(x)``, which is
numpy or cupy; matrix products go through :func:`matmul`; and what lies between is a *loop*: a function over array elements that
Numba compiles for the CPU where it stands, and that has a kernel of the same name, in the file of the same name, in
cuda/minis5_cuda. A loop takes its outputs as arguments, so that both forms are called alike.

Leaves out: several GPUs. Nothing of CUDA is imported before the first array on a GPU is met.
Tested in tests/test_arrays.py, tests/test_cuda_training.py (Numba's simulator in the place of a GPU), tests/gpu.
"""

import functools
import importlib

import numpy as np
from numba import njit

DLPACK_CUDA = 2  # kDLCUDA in DLPack's DLDeviceType
EIGHT = 8  # cupy.concatenate of more arrays sends their addresses from the host
fast = njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")  # contract: a·b + c in one rounding


class DeviceError(RuntimeError):
    """A GPU, or what it takes to use one, is missing, or its memory is full; the message says what to do."""


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


def concatenate(parts, axis=-1):
    """The arrays ``parts`` side by side; on a GPU without copies from the host, as a recorded CUDA graph demands."""
    xp = array_module(parts[0])
    while len(parts) > EIGHT:
        parts = [xp.concatenate(parts[i : i + EIGHT], axis=axis) for i in range(0, len(parts), EIGHT)]
    return xp.concatenate(parts, axis=axis)


def gather(parts):
    """Arrays of one dtype and any shapes, end to end in one vector."""
    parts = [part.ravel() for part in parts]
    return importlib.import_module("minis5_cuda.gather").gather(parts) if on_gpu(parts[0]) else np.concatenate(parts)


def as_array(x):
    """What lives on a GPU (``__cuda_array_interface__`` or DLPack) as a CuPy array, not copied; anything else as it is."""
    if type(x) is np.ndarray:
        return x
    if hasattr(x, "__cuda_array_interface__"):
        return importlib.import_module("cupy").asarray(x)
    if hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == DLPACK_CUDA:
        return importlib.import_module("cupy").from_dlpack(x)
    return x


def to_host(x):
    """``x`` as a NumPy array; waits for the GPU where it has to be copied from there."""
    x = as_array(x)
    return x.get() if on_gpu(x) else np.asarray(x)


def move(x, device):
    """An array on ``device``, "cpu" or "cuda"; ``x`` itself if it is there."""
    return to_host(x) if device == "cpu" else importlib.import_module("cupy").asarray(as_array(x))


def device_module(device):
    """numpy for "cpu"; cupy for "cuda", once everything it needs has been found.

    Raises
    ------
    ValueError
        Another name.
    DeviceError
        CuPy, numba-cuda, the driver or a GPU is missing: says which, and how to get it.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device: expected 'cpu' or 'cuda', got {device!r}")
    if device == "cpu":
        return np
    if reason := missing_for_cuda():
        raise DeviceError(f"device: 'cuda' needs {reason}; or use device='cpu'")
    return importlib.import_module("cupy")


def missing_for_cuda():
    """What is missing for device "cuda" and how to install it, in one clause; None if nothing is."""
    for module in ("numba_cuda", "cupy"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            package = {"numba_cuda": "numba-cuda", "cupy": "CuPy"}[module]
            return f"{package}, which could not be imported ({error}): pip install 'minis5[cuda]'"
    cuda = importlib.import_module("numba.cuda")
    try:
        count = importlib.import_module("cupy").cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy has an error class of its own for each library
        driver = "install NVIDIA's driver for CUDA 13, release 580 or newer (nvidia-smi shows it)"
        return f"an NVIDIA GPU and its driver, which CUDA could not use ({error}): {driver}"
    if not count:
        return "an NVIDIA GPU, and CUDA sees none (CUDA_VISIBLE_DEVICES may hide it)"
    if not cuda.is_available():
        return "CUDA's libraries, which numba-cuda did not find: pip install 'minis5[cuda]'"
    return None
