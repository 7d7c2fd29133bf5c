"""Every kernel as code for three generations of GPUs, compiled without one (minis5_cuda/ptx.py).

It compiles, float32 stays float32, and nothing is rounded otherwise if the CPU's bits are promised.
If ptxas is installed (wheel nvidia-cuda-nvcc), it must take the code, a block must fit into a
multiprocessor, and the table is printed (pytest -rP).
"""

import importlib
import pkgutil
import re
from types import SimpleNamespace

import minis5_cuda
import numpy as np
import pytest
from minis5_cuda import envs as cuda_envs
from minis5_cuda import launch, ptx
from minis5_cuda.nn import layers, scan
from numba import cuda
from numba.cuda import dispatcher

from minis5.random import next_uniform

REGISTERS, THREADS, SHARED = 65536, 1024, 48 * 1024  # of a block at most, on all targets
# Fused, or free to be fused by ptxas; approximate; subnormal numbers flushed to 0.
INEXACT = re.compile(
    r"\b(?:fma\.\S+|(?:mul|add|sub)\.f\d\d|mad\.\S*f\d\d|\w+\.(?:approx|full)\S*|\w+\.\S*ftz\S*)"
)

# What the persistent kernel's network uses in float32: products, exp and tanh. Its environments and
# random numbers compute with doubles. In float64 the two cannot be told apart.
NETWORK = "fma.rn.f32", "fma.rm.f32", "ex2.approx.ftz.f32", "rcp.approx.ftz.f32"
UNSPILT = "scan", "persistent"  # no register of these goes through memory

# Arithmetic with doubles, but for the multiplication by pi/2 / 2**64 in NVIDIA's float32 sine and
# cosine of large angles.
DOUBLE = re.compile(
    r"\b(?:add|sub|mul|fma|div|sqrt|rcp|neg|abs|min|max|setp)\b\S*\.f64 (?!.*0d3BF921FB54442D19).*"
)


# What a scan that looks back does in global memory, in the order of the text. It counts blocks by
# adding 1, and waits by adding 0, which a compiler may turn into "or 0".
MEMORY = re.compile(r"\b(ld|st|membar\.gl|atom)\b(?:\.relaxed\.\w+)?\.?(global\S*)?.*?(, [01])?;")


def inexact(code):
    return sorted(set(INEXACT.findall(code)))


def looks_back_in_order(text):
    """Return whether flags are set after a fence after writes, and seen before a fence."""
    found = [m.groups("") for m in MEMORY.finditer(text) if "global" in m[0] or "membar" in m[0]]
    kinds = [kind for kind, *_ in found]
    atomics = [(k, op, more) for k, (kind, op, more) in enumerate(found) if kind == "atom"]
    counts = [k for k, op, more in atomics if ".add" in op and more == ", 1"]
    waits = [k for k, op, more in atomics if more == ", 0"]
    sets = [k for k, op, _ in atomics if ".exch" in op]
    return (
        (len(counts), len(waits), len(sets), len(atomics)) == (1, scan.SLOTS, 2, scan.SLOTS + 3)
        and all(kinds[k + 1] == "membar.gl" for k in waits)
        and all(kinds[k - 2 : k] == ["st", "membar.gl"] for k in sets)
    )


def modules(package):
    """Return the package's modules, those of its folders too, except those that record kernels."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    names = (info.name for info in found)
    recording = ("__main__", "ptx", "ptx_examples")
    return [importlib.import_module(n) for n in names if n.rpartition(".")[2] not in recording]


# one small module stays on every Python: whether its numba-cuda compiles at all
MODULES = [pytest.param(m, marks=() if m == "gru" else pytest.mark.slow) for m in ptx.EXAMPLES]


@pytest.mark.parametrize("module", MODULES)
def test_every_kernel_compiles(module):
    ptxas, rows = ptx.find_ptxas(), []
    for code, results in ptx.usages(ptx.record([module]), ptxas):
        # linking would compile it anew, with other options
        assert code.kernel.targetoptions["lto"] is False
        for target, (text, usage) in results.items():
            what = code.name, code.case, code.floats, target
            assert f".target {ptx.name(target)}" in text, what
            assert {"float64", "complex128"} & set(code.floats) or not DOUBLE.search(text), (
                what,
                DOUBLE.findall(text),
            )
            loose = set(inexact(text)) if code.exact else set()
            if module == "persistent":
                loose = loose - set(NETWORK) if "float32" in code.case else set()
            assert not loose, (what, loose)
            assert "look_back" not in code.name or looks_back_in_order(text), what
            assert code.threads <= THREADS
            if usage:
                warps = -(-code.threads // 32)
                assert (
                    warps * 32 * (-(-usage.registers // 8) * 8) <= REGISTERS
                    and usage.shared <= SHARED
                ), (what, usage)
                assert module not in UNSPILT or usage.spill_stores == usage.spill_loads == 0, (
                    what,
                    usage,
                )
        rows.append((code, results))
    assert rows
    if ptxas:
        print(*ptx.table(rows), sep="\n")


def test_no_kernel_is_forgotten():
    recorded = {
        code.kernel for code in ptx.record([name for name in ptx.EXAMPLES if name != "envs"])
    }
    searched = modules(minis5_cuda)
    assert {"minis5_cuda.nn.layers", "minis5_cuda.rl.loss"} <= {m.__name__ for m in searched}
    for module in searched:
        for name, value in vars(module).items():
            if isinstance(value, dispatcher.CUDADispatcher) and not value.targetoptions.get(
                "device"
            ):
                assert value in recorded or value is cuda_envs.find_illegal, (
                    f"{module.__name__}: {name}; add it to ptx_examples.py"
                )


def test_what_is_recorded():
    with ptx.recorder() as codes:
        layers.bias_act_forward(np.zeros((2, 3), np.float32), np.zeros(3, np.float32), 0.1)
    (code,) = codes
    assert (
        code.name == "layers.bias_act_forward_kernel"
        and code.floats == ["float32"]
        and not code.exact
    )
    assert code.threads == 256 and len(code.signature) == 3
    assert launch.queue.__module__ == "minis5_cuda.launch" and not cuda_envs.EXACT
    assert {code.exact for code in ptx.record(["random"])} == {True}


def test_spills_and_stack_are_counted():
    if not (ptxas := ptx.find_ptxas()):
        pytest.skip("needs ptxas: pip install nvidia-cuda-nvcc")

    def crowd(x, y):
        held = cuda.local.array(64, np.float32)
        for i in range(64):
            held[i] = x[i]
        for k in range(64):
            for i in range(64):
                held[i] = held[i] * held[(i + 1) % 64] + x[k]
        for i in range(64):
            y[i] = held[i] + held[int(x[i])]

    kernel = cuda.jit(crowd, lto=False, launch_bounds=(1024, 2))
    x = kernel.typeof_pyval(np.zeros(1, np.float32))
    code = ptx.Code(kernel, (x, x), 1024, exact=False)
    ((_, results),) = ptx.usages([code], ptxas, [(9, 0)])
    text, usage = results[9, 0]
    assert not DOUBLE.search(text) and DOUBLE.search(text.replace(".f32", ".f64"))
    assert ".maxntid" in text and usage.registers <= 32 and usage.stack >= 256 and usage.shared == 0
    line = ptx.table([(code, results)], [(9, 0)])[2]
    assert line == f"| test_ptx.crowd |  | float32 | 1024 | {' | '.join(map(str, usage))} |"
    with pytest.raises(RuntimeError, match="ptxas, sm_80: .*nonsense"):
        ptx.assemble(ptxas, ".version 8.0\n.target sm_80\n.address_size 64\nnonsense", (8, 0))


def test_a_table_shows_numbers_that_differ_between_targets():
    code = SimpleNamespace(name="k", case="c", floats=["float32"], threads=8)
    usage = ptx.Usage(*range(1, 1 + len(ptx.Usage._fields)))
    results = {(8, 0): ("", usage), (9, 0): ("", usage._replace(registers=7))}
    line = ptx.table([(code, results)], list(results))[2]
    assert line == f"| k | c | float32 | 8 | 1 / 7 | {' | '.join(map(str, usage[1:]))} |"


def test_the_command(capsys, monkeypatch):
    with pytest.raises(SystemExit):
        ptx.main(["layer"])
    assert "MODULE: expected scan, scan_textbook, layers" in capsys.readouterr().err
    monkeypatch.setattr(ptx, "find_ptxas", lambda: None)
    assert ptx.main(["layers"]) == 2
    assert capsys.readouterr().err == "ptxas was not found; pip install nvidia-cuda-nvcc\n"


def test_contraction_is_seen_and_switched_off(monkeypatch):
    def kernel(row, out):
        out[0] = 1.0 + 0.1 * next_uniform(row)

    class Kernel:
        def specialize(self, *arguments):
            self.ptx, _ = cuda.compile_ptx(
                kernel, tuple(map(cuda.jit(kernel).typeof_pyval, arguments)), cc=(9, 0)
            )
            return {"grid": self}

    monkeypatch.setattr(
        dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0))
    )
    arguments = np.zeros(3, np.int64), np.zeros(1)
    assert "fma.rn.f64" in inexact(Kernel().specialize(*arguments)["grid"].ptx)
    assert not inexact(cuda_envs.compiled(Kernel(), "grid", *arguments)["grid"].ptx)
    assert "fma.rn.f64" in inexact(Kernel().specialize(*arguments)["grid"].ptx)
