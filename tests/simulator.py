"""Running a test's functions in a process of their own, with Numba's simulator in the place of a GPU and tests/simulated_cupy.py in
the place of CuPy: both have to be there before numba.cuda and CuPy are first imported."""

import os
import subprocess
import sys
from pathlib import Path


def small_blocks():
    """A simulated thread is a thread of Python: let there be few."""
    from minis5_cuda import device_rollout, envs, random, reduce, scan, spaces

    reduce.COLUMNS, reduce.ROWS, reduce.STRIPES = 4, 2, 4
    scan.LANES, scan.CHUNKS, scan.STEPS, scan.SEQUENTIAL = 4, 2, 2, 1
    for module in (device_rollout, envs, random, spaces):
        module.BLOCK = 4


def simulated(module, call):
    """Call ``module.call`` (text, such as "play('a.npz')") there; ``module`` is a test module's name."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    variables = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    code = "import simulated_cupy, simulator; simulated_cupy.install(); simulator.small_blocks(); "
    code += f"import {module}; {module}.{call}"
    environment = {**os.environ, **variables}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
