"""Operations: where a call goes, how GPU forms register, and that every operation has one."""

import inspect
import subprocess
import sys
from typing import NamedTuple

import minis5_cuda.register
import numpy as np
import pytest

from minis5 import device
from minis5.arrays import set_loader
from minis5.ops import (
    array_operation,
    concatenate_vectors,
    form_of,
    gpu_form,
    matmul,
    operation,
    operations,
)


class OnGPU:
    """As much of an array on a GPU as is looked at."""

    __cuda_array_interface__ = {}  # noqa: RUF012


class Pair(NamedTuple):
    first: object
    second: object


@pytest.fixture
def loaded():
    """A list that gets an entry whenever GPU forms are loaded; nothing is imported meanwhile."""
    calls = []
    set_loader(lambda: calls.append("loaded"))
    yield calls
    set_loader(device.load)


@operation
def double(x, y):
    """Write 2·x to y."""
    for i in range(x.size):
        y[i] = 2 * x[i]


@operation
def add_pair(pair, y):
    for i in range(y.size):
        y[i] = pair.first[i] + pair.second[i]


@array_operation
def total(parts):
    return sum(part.sum() for part in parts)


def test_arrays_on_the_cpu_go_to_the_cpu_form(loaded):
    x, y = np.arange(3.0), np.zeros(3)
    double(x, y)
    assert y.tolist() == [0, 2, 4]
    add_pair(Pair(x, x + 1), y)
    assert y.tolist() == [1, 3, 5]
    assert total([x, y]) == total((x, y)) == 12
    assert not loaded


def test_an_operation_is_named_like_its_function():
    assert double.__name__ == "double" and double.__doc__ == "Write 2·x to y."
    assert list(inspect.signature(double).parameters) == ["x", "y"]
    y = np.zeros(2)
    double.cpu_form(np.ones(2), y)  # what other compiled functions call
    assert y.tolist() == [2, 2]


def test_arrays_on_a_gpu_go_to_the_gpu_form(loaded):
    """The first argument decides; of a list, a tuple or a NamedTuple, its first member."""
    called = []

    def note(*arguments):
        called.append(arguments)
        return "from the GPU form"

    there, here = OnGPU(), np.zeros(3)
    for cpu, first in ((double, there), (add_pair, Pair(there, there)), (total, [there, there])):
        assert form_of(cpu)(note) is note and gpu_form(cpu) is note
        arguments = (first,) if cpu is total else (first, here)
        assert cpu(*arguments) == "from the GPU form" and called[-1] == arguments
    total((there,))
    assert called[-1] == ((there,),) and not here.any()
    assert not loaded  # all three had registered


def test_a_class_may_have_a_gpu_form(loaded):
    class OnTheCPU:
        pass

    @form_of(OnTheCPU)
    class OnTheGPU:
        pass

    assert gpu_form(OnTheCPU) is OnTheGPU


def test_gpu_forms_are_loaded_when_the_first_one_is_needed(loaded):
    @operation
    def late(x):
        x[0] = 1

    set_loader(lambda: form_of(late)(lambda x: "loaded late"))
    assert late(OnGPU()) == "loaded late"


def test_an_operation_without_a_gpu_form_says_so(loaded):
    @operation
    def lonely(x):
        x[0] = 1

    for call in (lambda: gpu_form(lonely), lambda: lonely(OnGPU())):
        with pytest.raises(NotImplementedError, match="lonely has no GPU form; use device='cpu'"):
            call()
    assert loaded == ["loaded", "loaded"]


def test_every_operation_has_a_gpu_form_with_the_same_arguments():
    """Further arguments of a GPU form have defaults."""
    ours = [cpu for cpu in operations if cpu.__module__.startswith("minis5.")]
    assert len(ours) > 30 and minis5_cuda.register.FILES
    for cpu in ours:
        gpu = gpu_form(cpu)
        assert gpu.__module__.startswith("minis5_cuda.") and gpu.__name__ == cpu.__name__
        wanted, found = (list(inspect.signature(f).parameters.values()) for f in (cpu, gpu))
        more = found[len(wanted) :]
        assert [p.name for p in found[: len(wanted)]] == [p.name for p in wanted], cpu
        assert all(p.default is not p.empty for p in more), cpu


def test_gpu_forms_have_the_path_of_their_operation():
    """minis5/nn/gru.py: minis5_cuda/nn/gru.py. Products and vectors end to end have files apart."""
    for cpu in operations:
        if cpu.__module__.startswith("minis5.") and cpu not in (matmul, concatenate_vectors):
            path = cpu.__module__.removeprefix("minis5.")
            assert gpu_form(cpu).__module__ == f"minis5_cuda.{path}"


def test_importing_minis5_imports_nothing_for_gpus():
    """Importing the library and its command line needs neither CuPy nor numba-cuda."""
    code = """
import sys
sys.modules.update(cupy=None, numba_cuda=None)
import minis5, minis5.run.cli, minis5.run.train, minis5.run.bench
names = "cupy", "numba.cuda", "minis5_cuda"
assert not (bad := [m for m in sys.modules if m.startswith(names) and sys.modules[m]]), bad
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_matmul():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(matmul(a, b.T), a @ b.T)


def test_concatenate_vectors():
    parts = [np.arange(6.0).reshape(2, 3), np.ones(()), np.zeros((1, 0)), np.arange(2.0)]
    np.testing.assert_array_equal(concatenate_vectors(parts), [0, 1, 2, 3, 4, 5, 1, 0, 1])
