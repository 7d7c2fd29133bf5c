"""Run a test's functions in a process of their own, on a simulated GPU.

The process is a fork of one that has imported everything; with several GPUs it is a fresh one.

Numba's simulator stands in for the GPU and tests/simulated_cupy.py for CuPy. Both must be in place
before numba.cuda and CuPy are first imported.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np


def small_blocks():
    """Let kernels have few threads, because a simulated thread is a thread of Python."""
    from minis5_cuda import columns, envs, pack, random, reduce, spaces
    from minis5_cuda.nn import attention, attention_loops, scan
    from minis5_cuda.rl import last_values, outcome, persistent, ppo, rollout

    reduce.COLUMNS, reduce.ROWS, reduce.STRIPES = 4, 2, 4
    scan.LANES, scan.CHUNKS, scan.STEPS, scan.SEQUENTIAL = 4, 2, 2, 1
    persistent.THREADS = 3
    rollout.STEPS, ppo.MINIBATCHES = 3, 3
    for module in (attention, attention_loops):
        module.COLUMNS, module.ROWS = reduce.COLUMNS, reduce.ROWS
    columns.MOST_BLOCKS = 2
    for module in (
        attention_loops,
        last_values,
        outcome,
        rollout,
        columns,
        envs,
        pack,
        random,
        spaces,
    ):
        module.BLOCK = 4


def mend():
    """Mend three faults of the simulator.

    It polls its threads, so that they hardly get to work (simulated_threads.py). It can make a
    shared array twice, if two threads come to it at once. (An array belongs to its line of code:
    one a line.) And it refuses a shared array's alignment, which has no meaning here.
    """
    import simulated_threads
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def array(self, shape, dtype, alignment=None):
        caller = sys._getframe(1)
        return self._allocations.setdefault(
            (caller.f_code, caller.f_lineno), np.empty(shape, dtype)
        )

    FakeCUDAShared.array = array
    simulated_threads.take_turns()


def command(file, call, gpus=1):
    """Return the command line that calls a function of ``file`` there, and its environment."""
    file = Path(file)
    path = os.pathsep.join(
        [str(file.parent), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    variables = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    main = Path(__file__).with_name("simulated_main.py")
    environment = {**os.environ, **variables, "SIMULATED_GPUS": str(gpus)}
    return [sys.executable, str(main), file.stem, call], environment


@cache
def server():
    """Start the process that forks for each call on one GPU: its imports take two seconds."""
    (python, main, *_), environment = command(__file__, "")
    words = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([python, main], env=environment, **words)  # it ends with its input


def simulated(file, call, gpus=1):
    """Call a function of ``file`` there; ``call`` is text, such as "play('a.npz')"."""
    (*command_line, module, _), environment = command(file, call, gpus)
    with tempfile.NamedTemporaryFile("w+") as output:
        if gpus == 1:
            process, where = server(), (os.getcwd(), str(Path(file).parent), output.name)
            print(json.dumps([module, call, environment, *where]), file=process.stdin, flush=True)
            code = int(process.stdout.readline() or -1)
        else:
            words = {"stdout": output.fileno(), "stderr": subprocess.STDOUT}
            code = subprocess.call([*command_line, module, call], env=environment, **words)
        output.seek(0)
        assert code == 0, output.read()
