"""The one door to the GPU: what it needs, what is missing, and the import of minis5_cuda.

minis5/__init__ hands `load` to arrays.py. Nothing else in minis5 imports minis5_cuda, and nothing
of it is imported before a GPU is asked for.

Leaves out: several GPUs in one process. Tests: tests/test_device.py.
"""

from minis5.arrays import DeviceError


def load():
    """Import the GPU forms of all operations and return cupy.

    Raises
    ------
    DeviceError
        CuPy, numba-cuda, the driver or a GPU is missing; the message says how to get it.
    """
    if reason := missing_for_cuda():
        raise DeviceError(f"device: 'cuda' needs {reason}; or use device='cpu'")
    import cupy
    import minis5_cuda.register  # noqa: F401  every file registers its GPU forms

    return cupy


def set_precision(name):
    """Let the GPU multiply float32 matrices as "float32", "tf32" or "bf16": minis5_cuda/blas.py."""
    load()
    from minis5_cuda import blas

    blas.set_precision(name)


def missing_for_cuda():
    """Return what device "cuda" lacks and how to install it, in one clause; None if nothing."""
    try:
        import minis5_cuda.launch as launch  # it imports numba-cuda
    except ImportError as error:
        return f"numba-cuda, which could not be imported ({error}): pip install 'minis5[cuda]'"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy, which could not be imported ({error}): pip install 'minis5[cuda]'"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy has an error class of its own for each library
        driver = "install NVIDIA's driver for CUDA 13, release 580 or newer (nvidia-smi shows it)"
        return f"an NVIDIA GPU and its driver, which CUDA could not use ({error}): {driver}"
    if not count:
        return "an NVIDIA GPU, and CUDA sees none (CUDA_VISIBLE_DEVICES may hide it)"
    install = "pip install 'minis5[cuda]'"
    if not launch.cuda.is_available():
        return f"CUDA's libraries, which numba-cuda did not find: {install}"
    if reason := launch.missing_compiler():
        toolkit = "or set CUDA_HOME to the folder of a CUDA 13 toolkit"
        return f"CUDA's compiler libnvvm, which was not found ({reason}): {install}, {toolkit}"
    return None
