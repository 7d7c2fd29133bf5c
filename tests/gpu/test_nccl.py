"""Ranks on several GPUs, spawned, with NCCL: sums, equal ranks, runs that repeat, a rank that dies.

Skipped with fewer than two GPUs; it has not run so far.
"""

import os
import signal
import time

import numpy as np
import pytest

from minis5 import PPO, ActorCritic, AgentConfig, PPOConfig, S5Config, make_vec
from minis5.arrays import to_host
from minis5.rl.comm import RankError, run

cupy = pytest.importorskip("cupy")
AT_MOST = 5.0  # seconds from a death to the error
CONFIG = PPOConfig(num_envs=64, unroll=32, epochs=2, minibatches=4)
SHAPE = AgentConfig((16,), (16,), core_config=S5Config(n_layers=1, ssm_size=16))


@pytest.fixture(autouse=True)
def two():
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    if count < 2:
        pytest.skip("needs two GPUs")
    cupy.zeros(1)  # from now on, processes are spawned


def trained(comm):
    """Return every rank's weights and rows."""
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks:
        share = CONFIG.num_envs // comm.size
        first = comm.rank * share
        envs = make_vec("RepeatPreviousEasy", share, 1, first_index=first, device="cuda")
        spaces = envs.single_observation_space, envs.single_action_space
        agent = ActorCritic(*spaces, SHAPE, seed=2, device="cuda")
        ppo = PPO(agent, envs, CONFIG, seed=1, comm=ranks)
        rows = [ppo.iteration() for _ in range(3)]
        times = "seconds", "steps_per_second"
        rows = [{name: row[name] for name in row if name not in times} for row in rows]
        return comm.gather((to_host(agent.parameter_vector), rows))


def test_ranks_stay_equal_and_runs_repeat():
    (first, rows), (second, theirs) = run(trained, 2)
    assert np.array_equal(first, second) and rows == theirs
    (again, _), _ = run(trained, 2)
    assert np.array_equal(first, again)


def first_sums(comm):
    """Return the sums of vectors of many sizes, and what they should be."""
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks, cupy.cuda.Stream() as stream:
        found = []
        for size in (1, 7, 1000, 1_000_003):
            parts = [np.random.default_rng(r).standard_normal(size) for r in range(comm.size)]
            total = ranks.allreduce(cupy.asarray(parts[comm.rank]))
            ranks.wait(stream)
            found.append((to_host(total), sum(parts)))
        return comm.gather(found)


def test_sums():
    for found in run(first_sums, 2):
        for got, expected in found:
            np.testing.assert_allclose(got, expected, 1e-14, 1e-14)


def killed(comm, moment):
    from minis5_cuda.rl.comm import NCCLComm

    with NCCLComm(comm) as ranks, cupy.cuda.Stream() as stream:
        for i in range(1000):
            if comm.rank == 1 and i == 7:
                moment.write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.allreduce(cupy.ones(1000))
            ranks.wait(stream)


def test_a_killed_rank_ends_the_other(tmp_path):
    with pytest.raises(RankError, match="rank 1 died with exit code -9"):
        run(killed, 2, (tmp_path / "moment",))
    assert time.time() - float((tmp_path / "moment").read_text()) < AT_MOST
