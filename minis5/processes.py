"""How this machine starts processes: by fork, or by spawn where a forked process would not work.

A forked process is there in milliseconds, with all that its parent has imported. After CUDA has
been initialised it cannot be used: every CUDA call in the child fails (CUDA's programming guide),
and what CUDA's own threads held at the fork stays locked.

Leaves out: forkserver. Tests: tests/test_processes.py.
"""

import ctypes
import os
import sys

CUDA = "libcuda.so.1"  # the driver's library: CuPy, Numba, torch and JAX all load it
NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED


def cuda_initialised(library: str = CUDA) -> bool:
    """Return whether something in this process has initialised CUDA; nothing is loaded for it."""
    try:
        driver = ctypes.CDLL(library, mode=os.RTLD_LAZY | os.RTLD_NOLOAD)
    except OSError:
        return False  # nobody has loaded the driver
    return driver.cuCtxGetCurrent(ctypes.byref(ctypes.c_void_p())) != NOT_INITIALISED


def start_method() -> str:
    """Return "fork" or "spawn", for ``multiprocessing.get_context``.

    It is "spawn" where CUDA has been initialised in this process, and on systems other than Linux.
    """
    return "fork" if sys.platform == "linux" and not cuda_initialised() else "spawn"
