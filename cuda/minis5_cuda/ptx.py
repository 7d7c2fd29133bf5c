"""Every kernel compiled for three generations of GPUs, without a GPU, and ptxas's report on it.

    python -m minis5_cuda.ptx                 all kernels, about a minute
    python -m minis5_cuda.ptx scan layers     those that these modules launch

No signature is listed. The examples in ptx_examples.py call the launchers on small NumPy arrays
instead of device arrays. A recorder replaces launch.queue, so that kernels, types and blocks are
those of the launchers. Each kernel is then compiled to PTX for each target. ptxas (wheel
nvidia-cuda-nvcc) assembles the PTX and tells how many registers and how much shared memory the
kernel takes. These decide how many blocks fit a multiprocessor.

Leaves out: cuBLAS. In a running program nvJitLink makes the code, with the same assembler inside.
Source: NVIDIA's documentation of ptxas, option -v. Specification: none; it computes nothing.
Tests: tests/test_ptx.py.
"""

import argparse
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from minis5_cuda import envs, launch
from minis5_cuda.ptx_examples import EXAMPLES

# compute capabilities of Ampere (A100), Hopper (H100, H200), Blackwell (B200)
TARGETS = (8, 0), (9, 0), (10, 0)
FLOATS = np.float32, np.float64
USES = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


class Code(NamedTuple):
    """A kernel and the types that it is compiled for."""

    kernel: object
    signature: tuple  # of the compiler's types
    threads: int  # of a block
    exact: bool  # compiled without contraction (envs.py)
    case: str = ""

    @property
    def name(self):
        function = self.kernel.py_func
        return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"

    @property
    def floats(self):
        """The float types of the arrays and scalars, those within tuples too."""
        return sorted(set(re.findall(r"float\d+|complex\d+", " ".join(map(str, self.signature)))))


class Usage(NamedTuple):
    """What a kernel uses, according to ptxas, with its device functions."""

    registers: int  # of a thread
    shared: int  # bytes of a block
    stack: int  # bytes of a thread, as all that follow
    spill_stores: int
    spill_loads: int


@contextmanager
def recorder():
    """Launch nothing within; yield a list, to which each launch adds a Code instead."""
    codes = []

    def add(kernel, block, arguments, exact):
        threads = math.prod(block) if isinstance(block, tuple) else block
        codes.append(Code(kernel, launch.signature(kernel, arguments), threads, exact))

    def queue(kernel, grid, block, arguments):
        if kernel is not None:
            add(kernel, block, arguments, exact=False)

    def compiled(kernel, configuration, *arguments):  # returns None, and None is launched later
        add(kernel, configuration[1], arguments, exact=True)

    with (
        mock.patch.object(launch, "queue", queue),
        mock.patch.multiple(envs, compiled=compiled, as_numba=lambda value: value),
        mock.patch.dict(envs.EXACT, clear=True),
    ):
        yield codes


def record(modules=EXAMPLES):
    """Return a list of Code of all that the launchers of these modules launch.

    A kernel is in it once for the same types.
    """
    found = {}
    for module in modules:
        for real in FLOATS:
            with recorder() as codes:
                for case in EXAMPLES[module](real):
                    for code in codes:
                        found.setdefault((code.kernel, code.signature), code._replace(case=case))
                    codes.clear()
    return list(found.values())


def find_ptxas():
    """Return the path of the wheel's assembler; None without it.

    Another ptxas may be too old for the PTX that Numba's compiler writes.
    """
    try:
        import nvidia
    except ImportError:
        return None
    paths = (path for root in nvidia.__path__ for path in Path(root).glob("*/bin/ptxas"))
    return next(paths, None)


def assemble(ptxas, ptx, target):
    """Return the Usage of a kernel's PTX.

    Raises
    ------
    RuntimeError
        ptxas rejects it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.ptx")
        path.write_text(ptx)
        command = [ptxas, "-v", f"-arch={name(target)}", path, "-o", path.with_suffix(".cubin")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"ptxas, {name(target)}: {result.stderr.strip()}")
    stack, stores, loads = (
        sum(map(int, column)) for column in zip(*STACK.findall(result.stderr), strict=True)
    )
    shared = SHARED.search(result.stderr)
    return Usage(
        int(USES.search(result.stderr)[1]), int(shared[1]) if shared else 0, stack, stores, loads
    )


def name(target):
    """Return ptxas's name of a compute capability."""
    return "sm_{}{}".format(*target)


def usages(codes, ptxas, targets=TARGETS):
    """Yield (code, {target: (PTX, Usage)}) for each code in turn; Usage is None without ptxas.

    Uses all CPUs.
    """
    # kernels cannot be sent to a process: forked processes have them
    _jobs[:] = ((code, ptxas, targets) for code in codes)
    # neighbours call the same functions, which each process compiles anew
    size = max(1, len(codes) // 8)
    with multiprocessing.get_context("fork").Pool(min(len(codes), os.cpu_count() or 1)) as pool:
        yield from zip(codes, pool.imap(_results, range(len(codes)), size), strict=True)


_jobs: list = []


def _results(i):
    code, ptxas, targets = _jobs[i]
    ptxs = launch.compile_ptx(code.kernel, code.signature, targets, code.exact)
    return {
        target: (ptx, assemble(ptxas, ptx, target) if ptxas else None)
        for target, ptx in ptxs.items()
    }


COLUMNS = "registers", "shared", "stack", "spill stores", "spill loads"


def table(rows, targets=TARGETS):
    """Return lines of Markdown, one for each of `rows` (as `usages` yields them).

    A cell has a number for each target where they differ.
    """
    titles = "kernel", "case", "floats", "threads", *COLUMNS
    lines = [f"| {' | '.join(titles)} |", "|---" * 4 + "|---:" * len(COLUMNS) + "|"]
    for code, results in rows:
        columns = zip(*(results[target][1] for target in targets), strict=True)
        numbers = (
            str(column[0]) if len(set(column)) == 1 else " / ".join(map(str, column))
            for column in columns
        )
        cells = code.name, code.case, ", ".join(code.floats), str(code.threads), *numbers
        lines.append(f"| {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Numbers for {', '.join(map(name, targets))}, one where all are equal; "
        "bytes but for registers.",
    ]


def main(argv=None):
    """Print the table of the modules named in ``argv``; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m minis5_cuda.ptx", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"{', '.join(EXAMPLES)} (default: all)"
    )
    options = parser.parse_args(argv)
    if unknown := set(options.modules) - set(EXAMPLES):
        parser.error(f"MODULE: expected {', '.join(EXAMPLES)}, got {', '.join(sorted(unknown))}")
    if (ptxas := find_ptxas()) is None:
        print("ptxas was not found; pip install nvidia-cuda-nvcc", file=sys.stderr)
        return 2
    rows = list(usages(record(options.modules or EXAMPLES), ptxas))
    print(*table(rows), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
