"""Import every file that has GPU forms, so that each registers them (minis5/ops.py: form_of).

Only minis5/device.py imports this file, when the first GPU form is asked for. Leaves out:
scan_textbook, which registers nothing.
Tests: tests/test_ops.py: every operation has a GPU form, or says that it has none.
"""

from minis5_cuda import blas, columns, envs, pack, random, spaces
from minis5_cuda.nn import (
    attention,
    attention_loops,
    conv,
    discretize,
    gru,
    layers,
    lstm,
    s5,
    s5_core,
    scan,
)
from minis5_cuda.rl import adam, agent, comm, distributions, loss, ppo, rollout

FILES = (
    *(blas, columns, envs, pack, random, spaces),
    *(attention, attention_loops, conv, discretize, gru, layers, lstm, s5, s5_core, scan),
    *(adam, agent, comm, distributions, loss, ppo, rollout),
)
