"""Processes and threads: how processes are started, and pools of threads that survive a fork.

A forked process is there in milliseconds, with all that its parent has imported. After CUDA has
been initialised it cannot be used: every CUDA call in the child fails (CUDA's programming guide),
and what CUDA's own threads held at the fork stays locked. A forked process has none of its parent's
threads either: work given to a pool of theirs would wait for ever.

Leaves out: forkserver. Tests: tests/test_processes.py.
"""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache

CUDA = "libcuda.so.1"  # the driver's library: CuPy, Numba, torch and JAX all load it
NOT_INITIALISED = 3  # CUDA_ERROR_NOT_INITIALIZED


def cuda_initialised(library: str = CUDA) -> bool:
    """Return whether something in this process has initialised CUDA; nothing is loaded for it."""
    try:
        driver = ctypes.CDLL(library, mode=os.RTLD_LAZY | os.RTLD_NOLOAD)
    except OSError:
        return False  # nobody has loaded the driver
    return driver.cuCtxGetCurrent(ctypes.byref(ctypes.c_void_p())) != NOT_INITIALISED


# what mpiexec of MPICH, Intel MPI and Open MPI, srun, and PMIx tell the processes that they start
RANK_NAMES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "MPI_LOCALRANKID")


def started_by_mpi() -> bool:
    """Return whether MPI has started this process; nothing of MPI is imported for it."""
    return any(name in os.environ for name in RANK_NAMES)


def start_method() -> str:
    """Return "fork" or "spawn", for ``multiprocessing.get_context``.

    It is "spawn" where CUDA has been initialised in this process, and on systems other than Linux.
    """
    return "fork" if sys.platform == "linux" and not cuda_initialised() else "spawn"


@cache
def thread_pool(n: int) -> ThreadPoolExecutor:
    """Return this process's pool of ``n`` threads, which lives as long as the process does.

    Functions that run in a pool must not wait for others that do.
    """
    return ThreadPoolExecutor(n, thread_name_prefix="minis5")


if hasattr(os, "register_at_fork"):  # Windows has neither fork nor this function
    os.register_at_fork(after_in_child=thread_pool.cache_clear)
