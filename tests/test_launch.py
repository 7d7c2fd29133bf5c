"""Launching without a GPU: what is kept for a stream ends with it; small grids are no warning."""

import gc
import sys
import warnings
from types import SimpleNamespace

import pytest
from minis5_cuda import launch
from numba.cuda.core.errors import NumbaPerformanceWarning


class Stream:
    """A stream of CuPy's: equal to another one if their handles are equal."""

    def __init__(self, ptr):
        self.ptr = ptr

    def __eq__(self, other):
        return self.ptr == other.ptr

    def __hash__(self):
        return self.ptr


class Kernel:
    """A kernel that keeps its configurations and its launches."""

    def __init__(self):
        self.configurations, self.launches = [], []

    def __getitem__(self, configuration):
        warnings.warn("a small grid", NumbaPerformanceWarning, stacklevel=2)
        self.configurations.append(configuration)
        return lambda *arguments: self.launches.append((configuration[2], arguments))


@pytest.fixture
def current(monkeypatch):
    """A list whose only member is the current stream."""
    current = [Stream(16)]
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: current[0]))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(launch.cuda, "external_stream", lambda handle: f"Numba's {handle}")
    yield current
    launch._CONFIGURED.clear()


def test_a_configuration_is_made_once_for_a_stream_and_ends_with_it(current):
    launch._CONFIGURED.clear()
    kernel = Kernel()
    for _ in range(2):
        launch.launch(kernel, 3, (4, 2), 1.5)
    assert kernel.configurations == [(3, (4, 2), "Numba's 16")]
    assert kernel.launches == [("Numba's 16", (1.5,))] * 2
    for handle in (32, 48, 64):  # each stream dies when the next one is made
        current[0] = Stream(handle)
        launch.launch(kernel, 3, (4, 2), 1.5)
        gc.collect()
        assert [stream.ptr for stream in launch._CONFIGURED] == [handle]
    assert [stream for _, _, stream in kernel.configurations[1:]] == [
        f"Numba's {handle}" for handle in (32, 48, 64)
    ]


def test_a_small_grid_is_no_warning(current):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        launch.launch(Kernel(), 1, 32)


def test_without_cupy_work_goes_to_the_default_stream(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    kernel = Kernel()
    launch.launch(kernel, 1, 32)
    assert launch.stream() == 0 and kernel.launches == [(0, ())]
