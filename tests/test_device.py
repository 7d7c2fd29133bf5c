"""The door to the GPU: one sentence says what is missing. None of these tests needs a GPU."""

import sys

import numpy as np
import pytest
from minis5_cuda import launch
from simulated_driver import fake_cupy, without_libnvvm

from minis5.arrays import DeviceError
from minis5.device import load, missing_for_cuda
from minis5.ops import array_library
from minis5.run import cli


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"minis5_cuda.launch": None},
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
    monkeypatch.setattr(launch.cuda, "is_available", lambda: False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(DeviceError, match=message + ".*; or use device='cpu'$"):
        array_library("cuda")
    assert cli.main("train MemoryChain --device cuda".split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("minis5: error: device: 'cuda' needs ")


def test_nothing_missing(monkeypatch):
    monkeypatch.setattr(launch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    assert missing_for_cuda() is None and load() is sys.modules["cupy"]
    assert array_library("cuda") is sys.modules["cupy"] and array_library("cpu") is np
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'gpu'"):
        array_library("gpu")


def test_a_missing_compiler_is_found_before_the_first_kernel():
    """A driver and a device are there, but no libnvvm: in a process that cannot load it."""
    answer = without_libnvvm("from minis5.device import missing_for_cuda as m; print(m())")
    assert answer.startswith("CUDA's compiler libnvvm, which was not found (nothing named nvvm")
    assert answer.endswith(
        "): pip install 'minis5[cuda]', or set CUDA_HOME to the folder of a CUDA 13 toolkit"
    )
