"""The facts that results and times depend on: library versions, processor, CPUs, GPU.

Leaves out: the load of other processes. Tests: tests/run/test_machine.py.
"""

import os
import platform
from importlib import metadata

from minis5 import __version__


def versions(device: str = "cpu") -> dict[str, str]:
    """Return the versions that results depend on: of Python, minis5 and its dependencies."""
    libraries = {name: metadata.version(name) for name in ("numpy", "numba", "scipy", "gymnasium")}
    if device == "cuda":
        import cupy

        libraries |= {"numba-cuda": metadata.version("numba-cuda"), "cupy": cupy.__version__}
    return {"python": platform.python_version(), "minis5": __version__, **libraries}


def machine(device: str = "cpu") -> dict[str, str | int]:
    """Return the facts that times depend on.

    They are the system, the processor, the number of CPUs that this process may use and, for
    device "cuda", the GPU.
    """
    facts = {"system": platform.platform(), "processor": _processor(), "cpus": available_cpus()}
    return facts | (_gpu() if device == "cuda" else {})


def _gpu():
    import cupy

    runtime = cupy.cuda.runtime
    properties = runtime.getDeviceProperties(runtime.getDevice())
    facts = {"gpu": properties["name"].decode(), "gpu_memory": properties["totalGlobalMem"]}
    return facts | {
        "cuda_driver": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
    }


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def available_cpus() -> int:
    """Count the CPUs that this process may use: its affinity, or a container's quota if less.

    The quota is that of Linux cgroup v2.
    """
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="utf-8") as file:
            quota, period = file.read().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or the quota is "max"
        return count
