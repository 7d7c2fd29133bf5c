"""The environments' kernels as code for three generations of GPUs, compiled without one: it compiles, and nothing in it is
rounded otherwise than on the CPU. Where ptxas is installed (wheel nvidia-cuda-nvcc), it has to take the code, and what it says
of registers is printed (pytest -rP)."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from minis5_cuda import envs as cuda_envs
from numba import cuda
from numba.cuda import dispatcher

from minis5.envs import REGISTRY, find
from minis5.random import next_uniform

TARGETS = [(8, 0), (9, 0), (10, 0)]  # compute capabilities of Ampere, Hopper, Blackwell
# Fused, or free to be fused by ptxas; approximate; subnormal numbers flushed to 0.
INEXACT = re.compile(r"\b(?:fma\.\S+|(?:mul|add|sub)\.f\d\d|mad\.\S*f\d\d|\w+\.(?:approx|full)\S*|\w+\.\S*ftz\S*)")


@pytest.fixture
def target(monkeypatch):
    """Choose the GPU that Numba compiles for, where there may be none."""

    def choose(cc):
        monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=cc))

    return choose


def kernels(names, monkeypatch):
    """{what: (kernel, signature)}, all that CudaVectorEnv compiles for these levels, but the same code only once."""
    found = {}

    def compiled(kernel, grid, *arguments):
        signature = tuple(kernel.typeof_pyval(a) for a in arguments)
        module = "" if kernel is cuda_envs.find_illegal else env.__name__
        found.setdefault((module, kernel.__name__, signature), (name, kernel, signature))
        return kernel

    monkeypatch.setattr(cuda_envs, "compiled", compiled)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "to_device", lambda array: array)
    for name in names:
        env, task = find(name)
        cuda_envs.CudaVectorEnv(env, task, 4)
    return {f"{kernel.__name__} {name}": (kernel, signature) for name, kernel, signature in found.values()}


def inexact(ptx):
    return sorted(set(INEXACT.findall(ptx)))


def find_ptxas():
    """The wheel's: another one may be too old for the code."""
    nvidia = importlib.util.find_spec("nvidia")
    roots = nvidia.submodule_search_locations if nvidia else ()
    return next((path for root in roots for path in Path(root).glob("*/bin/ptxas")), None)


@pytest.mark.parametrize("cc", TARGETS)
def test_every_kernel_compiles_and_rounds_as_the_cpu(cc, monkeypatch, target, tmp_path):
    target(cc)
    ptxas = find_ptxas()
    for what, (kernel, signature) in kernels(REGISTRY, monkeypatch).items():
        assert kernel.targetoptions["lto"] is False  # linking would contract after all
        with cuda_envs.no_contraction():
            ptx, _ = cuda.compile_ptx(kernel.py_func, signature, cc=cc)
        assert f".target sm_{cc[0]}{cc[1]}" in ptx and not inexact(ptx), (what, inexact(ptx))
        if ptxas:
            (tmp_path / "kernel.ptx").write_text(ptx)
            command = [ptxas, "-v", f"-arch=sm_{cc[0]}{cc[1]}", "kernel.ptx", "-o", "kernel.cubin"]
            result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert result.returncode == 0, (what, result.stderr)
            print(f"sm_{cc[0]}{cc[1]} {what}:", *re.findall(r"Used \d+ registers|\d+ bytes spill stores", result.stderr))


def test_contraction_is_seen_and_switched_off(target):
    def kernel(row, out):
        out[0] = 1.0 + 0.1 * next_uniform(row)

    class Kernel:
        def specialize(self, *arguments):
            self.ptx, _ = cuda.compile_ptx(kernel, tuple(map(cuda.jit(kernel).typeof_pyval, arguments)), cc=(9, 0))
            return {"grid": self}

    target((9, 0))
    arguments = np.zeros(3, np.int64), np.zeros(1)
    assert "fma.rn.f64" in inexact(Kernel().specialize(*arguments)["grid"].ptx)
    assert not inexact(cuda_envs.compiled(Kernel(), "grid", *arguments)["grid"].ptx)
    assert "fma.rn.f64" in inexact(Kernel().specialize(*arguments)["grid"].ptx)
