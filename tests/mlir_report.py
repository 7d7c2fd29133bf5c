"""Which kernels numba-cuda-mlir compiles, the successor of numba-cuda; about two minutes.

    python tests/mlir_report.py            all kernels
    python tests/mlir_report.py layers     those that this module launches

It is no dependency: `pip install --no-deps --target FOLDER numba-cuda-mlir`, and FOLDER in
PYTHONPATH. The kernels and their types are those that ptx.py records, for sm_90. mlir_launch.py
takes the place of launch.py, which therefore is not imported in this process.

Leaves out: whether the code is right or fast. Tests: tests/test_mlir.py, in .ci/run.
"""

import multiprocessing
import os
import sys
import time

import minis5_cuda
import mlir_launch

sys.modules["minis5_cuda.launch"] = minis5_cuda.launch = mlir_launch
from minis5_cuda import ptx  # noqa: E402
from minis5_cuda.ptx_examples import EXAMPLES  # noqa: E402

TARGET = (9, 0)
REASONS = {  # what numba-cuda-mlir 0.6.0 lacks: a part of its message
    "lowering call to <class 'type'>": "type(x)(1)",
    "lowering call to ScalarValue": "real numbers' conjugate()",
    "stubs.threadfence": "threadfence",
    "lowering call to <class 'enumerate'>": "enumerate of a tuple",
    "lowering call to <built-in function divmod>": "divmod",
    "lowering getitem": "a tuple's member by a number that varies",
    "Calling a closure with *args": "f(*tuple)",
    "contains non-MLIR values": "tuples of tuples",
    "incompatible function arguments": "tuples of tuples",
}
_codes: list = []


def fault(i):
    """Return what keeps kernel number ``i`` from compiling; None if it compiles."""
    code = _codes[i]
    try:
        mlir_launch.compile_ptx(code.kernel, code.signature, [TARGET], code.exact)
    except Exception as error:  # the compiler has errors of many kinds
        text = str(error)
        known = (reason for part, reason in REASONS.items() if part in text)
        return next(known, f"{type(error).__name__}: {' '.join(text.split())[:200]}")
    return None


def faults(module):
    """Return {kernel: what is missing, or None} of the kernels that ``module`` launches.

    An environment's kernels are named after its level.
    """
    _codes[:] = ptx.record([module])
    os.environ["NUMBA_CUDA_MLIR_ICE_FULL_TB"] = "1"  # errors say what happened, not where to report
    with multiprocessing.get_context("fork").Pool(min(len(_codes), os.cpu_count() or 1)) as pool:
        found = pool.map(fault, range(len(_codes)), max(1, len(_codes) // 8))
    results: dict = {}
    for code, reason in zip(_codes, found, strict=True):
        name = code.case if module == "envs" else code.name.rpartition(".")[2]
        results[name] = results.get(name) or reason  # of several types: one that fails
    return results


def row(module, results):
    """Return a module's line of the table in cuda/README.md."""
    lacks: dict = {}
    for name, reason in results.items():
        lacks.setdefault(reason, []).append(name.removesuffix("_kernel"))
    good = len(lacks.pop(None, ()))
    others = "; ".join(f"{reason} ({', '.join(names)})" for reason, names in lacks.items())
    return f"| {module} | {good} of {len(results)} | {others} |"


def main(names):
    """Print the table's lines of the modules ``names``, by default of all; then the seconds."""
    start = time.perf_counter()
    for module in names or EXAMPLES:
        print(row(module, faults(module)), flush=True)
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
