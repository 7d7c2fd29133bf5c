"""CuPys for tests of what is missing, and of the memory of recorded graphs. They compute nothing.

One tells how many GPUs there are, one records graphs and counts bytes. And there is a process with
a GPU in which CUDA's compiler cannot be loaded.
"""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace


def fake_cupy(count):
    """Return a CuPy that sees ``count`` GPUs, or raises ``count`` if it is an error."""

    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=device_count)),
        asarray=lambda x: ("asarray", x),
        from_dlpack=lambda x: ("from_dlpack", x),
    )


WITHOUT_LIBNVVM = """
import sys
from cuda import pathfinder

load = pathfinder.load_nvidia_dynamic_lib

def refuse(name):
    if name == "nvvm":
        raise RuntimeError("nothing named nvvm is here")
    return load(name)

pathfinder.load_nvidia_dynamic_lib = refuse  # before cuda.bindings takes it
from numba import cuda
from simulated_driver import fake_cupy

cuda.is_available, sys.modules["cupy"] = lambda: True, fake_cupy(1)
"""


def without_libnvvm(code):
    """Return what ``code`` prints in a process that has one GPU but no libnvvm."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [sys.executable, "-c", path + WITHOUT_LIBNVVM + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class Pool:
    """A memory pool that keeps what was freed until it is told to give it back, as CuPy's does."""

    def __init__(self):
        self.taken = self.free = 0  # bytes that arrays have; that the pool keeps for coming arrays

    def malloc(self, size):
        """Return an array of ``size`` bytes, which goes to the free ones with its last holder."""
        self.taken += size
        return _Array(self, size)

    def free_all_blocks(self):
        """Give the free bytes back to the GPU."""
        self.free = 0


class _Array:
    def __init__(self, pool, size):
        self.pool, self.size = pool, size

    def __del__(self):
        self.pool.taken -= self.size
        self.pool.free += self.size


class Stream:
    """A stream on which work can be recorded; no work is done."""

    ptr = 4096

    def begin_capture(self, mode):
        self.mode = mode

    def end_capture(self):
        return SimpleNamespace(launch=lambda: None)


def recording_cupy():
    """Return a CuPy on whose current stream graphs can be recorded, and a list of its pools."""
    pools, stream, allocators = [], Stream(), [None]

    def make_pool():
        pools.append(Pool())
        return pools[-1]

    @contextmanager
    def using_allocator(malloc):
        allocators.append(malloc)
        yield
        allocators.pop()

    runtime = SimpleNamespace(streamCaptureModeRelaxed=2, CUDARuntimeError=RuntimeError)
    cuda = SimpleNamespace(
        MemoryPool=make_pool,
        using_allocator=using_allocator,
        get_current_stream=lambda: stream,
        runtime=runtime,
    )
    return SimpleNamespace(cuda=cuda, empty=lambda size: allocators[-1](size)), pools
