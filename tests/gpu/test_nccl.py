"""Ranks on several GPUs, spawned, with NCCL: sums, equal ranks, runs that repeat, a rank that dies.

Skipped with fewer than two GPUs; it has not run so far.
"""

import time

import numpy as np
import pytest
import ranks_on_gpus

from minis5.rl.comm import RankError, run

cupy = pytest.importorskip("cupy")
AT_MOST = 5.0  # seconds from a death to the error


@pytest.fixture(autouse=True)
def two():
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count < 2:
        pytest.skip("needs two GPUs")
    cupy.zeros(1)  # from now on, processes are spawned


def test_ranks_stay_equal_and_runs_repeat():
    (first, rows), (second, theirs) = run(ranks_on_gpus.trained, 2)
    assert np.array_equal(first, second) and repr(rows) == repr(theirs)  # NaN is NaN
    (again, _), _ = run(ranks_on_gpus.trained, 2)
    assert np.array_equal(first, again)


def test_sums():
    for found in run(ranks_on_gpus.add, 2):
        for got, expected in found:
            np.testing.assert_allclose(got, expected, 1e-14, 1e-14)


def test_a_killed_rank_ends_the_other(tmp_path):
    with pytest.raises(RankError, match="rank 1 died with exit code -9"):
        run(ranks_on_gpus.killed, 2, (tmp_path / "moment",))
    assert time.time() - float((tmp_path / "moment").read_text()) < AT_MOST
