"""What arrays.py tells where something for the GPU is missing, and where it finds arrays; without a GPU."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from numba import cuda

from minis5.arrays import DLPACK_CUDA, DeviceError, array_module, as_array, move, on_gpu, to_host
from minis5.ops import array_library, matmul
from minis5.run import cli


def fake_cupy(count):
    """A CuPy that sees ``count`` GPUs, or raises it."""

    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=device_count)),
        asarray=lambda x: ("asarray", x),
        from_dlpack=lambda x: ("from_dlpack", x),
    )


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"numba_cuda": None},
            r"'cuda' needs numba-cuda, which could not be imported .*pip install 'minis5\[cuda\]'",
        ),
        (
            {"cupy": None},
            r"'cuda' needs CuPy, which could not be imported .*pip install 'minis5\[cuda\]'",
        ),
        (
            {"cupy": fake_cupy(RuntimeError("too old"))},
            "'cuda' needs an NVIDIA GPU and its driver, .*too old.*580 or newer",
        ),
        (
            {"cupy": fake_cupy(0)},
            "'cuda' needs an NVIDIA GPU, and CUDA sees none .*CUDA_VISIBLE_DEVICES",
        ),
        (
            {"cupy": fake_cupy(1)},
            r"'cuda' needs CUDA's libraries, which numba-cuda did not find: pip install",
        ),
    ],
)
def test_one_sentence_says_what_is_missing(modules, message, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DeviceError, match=message + ".*; or use device='cpu'$"):
        array_library("cuda")
    assert cli.main("train MemoryChain --device cuda".split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("minis5: error: device: 'cuda' needs ")


def test_nothing_missing(monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    assert array_library("cuda") is sys.modules["cupy"] and array_library("cpu") is np
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        array_library("gpu")


def test_minis5_imports_nothing_of_cuda():
    """Importing the library and training on the CPU need neither CuPy nor numba-cuda."""
    import subprocess

    code = "import sys; sys.modules.update(cupy=None, numba_cuda=None); import minis5, minis5.train, minis5.bench; "
    code += "bad = [m for m in sys.modules if m.startswith(('cupy', 'numba.cuda', 'minis5_cuda')) and sys.modules[m]]; "
    code += "assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)


class Interface:
    __cuda_array_interface__ = {}  # noqa: RUF012  as little as is looked at


class Exported:
    def __init__(self, device):
        self.device = device

    def __dlpack_device__(self):
        return self.device, 0


def test_arrays_are_found_where_they_live(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    host, there, exported, other = np.ones(3), Interface(), Exported(DLPACK_CUDA), Exported(1)
    assert as_array(host) is host and to_host(host) is host and move(host, "cpu") is host
    assert (
        as_array(there) == ("asarray", there)
        and as_array(exported) == ("from_dlpack", exported)
        and as_array(other) is other
    )
    assert (
        on_gpu(there)
        and not on_gpu(host)
        and array_module(host) is np
        and array_module(there) is sys.modules["cupy"]
    )
    assert move(host, "cuda")[0] == "asarray"


@loop
def _double(x, y):
    for i in range(x.size):
        y[i] = 2 * x[i]


def test_a_loop_goes_where_its_first_argument_is(monkeypatch):
    x, y = np.arange(3.0), np.zeros(3)
    _double(x, y)
    assert y.tolist() == [0, 2, 4] and _double.__name__ == "_double" and _double.__doc__ is None
    called = []
    monkeypatch.setitem(
        sys.modules,
        "minis5_cuda.test_arrays",
        SimpleNamespace(double=lambda *args: called.append(args)),
    )
    there = Interface()
    _double(there, y)
    assert called == [(there, y)] and y.tolist() == [0, 2, 4]


def test_matmul():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(matmul(a, b.T), a @ b.T)
