"""NUMBA_BOUNDSCHECK=1 reaches every kind of compiled loop; .ci/run finds stray indices with it.

The operations are compiled with error_model="numpy" and contracted products, some index with
unsigned numbers, and the environments' loops have no runtime of Numba's (_nrt=False). In each of
them a stray index must be an IndexError in a process with that variable and a cache of its own.
"""

import os
import subprocess
import sys

import pytest

LOOPS = {
    "operation": """
from minis5.nn.s5 import skip_forward
skip_forward(np.zeros((2, 3)), np.zeros(4), np.zeros((2, 3)))""",
    "unsigned": """
from minis5.nn.scan import scan_forward
x = np.zeros((2, 1, 4))
scan_forward(np.zeros((1, 1, 2)), x, np.zeros((2, 1), bool), np.zeros((1, 4)))""",
    "environment": """
import minis5
envs = minis5.make_vec("RepeatPreviousEasy", 1)
envs.reset()
envs._ints[:, 3] = 10**6  # set_state would refuse it
envs.step(np.zeros(1, int))""",
}


@pytest.mark.slow  # of the Python whose loops .ci/run compiles so
@pytest.mark.parametrize("loop", LOOPS)
def test_a_stray_index_is_an_error(loop, tmp_path):
    code = f"import numpy as np\n{LOOPS[loop]}\n"
    env = os.environ | {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 1 and "IndexError: index" in done.stderr, done.stderr
