"""Ranks: sums with the same bits everywhere, messages, errors, training that keeps ranks equal."""

import os
import signal
import time

import numpy as np
import pytest
import threadpoolctl
from rank_work import add, keep_sums, messages, share, uneven

from minis5.envs.registry import make_vec
from minis5.nn import scan
from minis5.nn.s5_core import S5Config
from minis5.rl.agent import ActorCritic
from minis5.rl.comm import BYTES, Comm, RankError, run
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.ppo import PPO

TINY = PPOConfig(num_envs=8, unroll=8, epochs=2, minibatches=2)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_allreduce(size, dtype):
    """Sums are in the order of the ranks, with the same bits on all, also of very long vectors."""
    piece = BYTES // np.dtype(dtype).itemsize
    sizes = [1, 5, 0, 7, piece, 2 * piece + 3, 4]
    results = run(add, size, (sizes, dtype))
    assert len(results) == size
    for i, n in enumerate(sizes):
        expected = share(0, n, dtype)
        for rank in range(1, size):
            expected += share(rank, n, dtype)
        for result in results:
            assert result[i].dtype == dtype
            np.testing.assert_array_equal(result[i], expected)


def test_results_are_ones_own():
    sums, vector = run(keep_sums, 2)
    np.testing.assert_array_equal(sums, [[3 * 10**i] * 3 for i in range(4)])
    np.testing.assert_array_equal(vector, 1)


def test_slow_ranks_are_waited_for():
    expected = 0.0
    for _ in range(6):
        expected = 3 * expected + 6
    assert run(uneven, 3) == expected


def test_gather_and_broadcast():
    lists, others, large = run(messages, 3)
    assert lists == [[{"rank": r, "round": i} for r in range(3)] for i in range(3)]
    for rank, (told, gathered) in enumerate(others):
        assert told == [("word", i, 0) for i in range(3)]
        assert rank == 0 or gathered == [None] * 3
    assert large == [0, 1, 2]


def test_alone():
    """One rank runs here, without another process."""
    vector = np.arange(3.0)
    comm = run(lambda comm: comm, 1)
    assert type(comm) is Comm and (comm.rank, comm.size) == (0, 1)
    np.testing.assert_array_equal(comm.allreduce(vector), [0, 1, 2])
    assert comm.gather("it") == ["it"] and comm.broadcast("it") == "it"


# Errors


def fail(comm, failing, how):
    """One rank fails while the others wait for it."""
    if comm.rank == failing:
        if how == "exit":
            raise SystemExit(3)
        raise ZeroDivisionError("of our own making")
    if how == "gather":
        comm.gather("rank 0 waits here, the others below")
    return comm.allreduce(np.ones(1))


@pytest.mark.parametrize("how", ["allreduce", "gather", "exit"])
def test_an_error_elsewhere_arrives_with_its_traceback(how):
    began = time.monotonic()
    with pytest.raises(
        RankError,
        match=r"rank 2 failed:\n(?s:.*)in fail\n(?s:.*)(ZeroDivisionError: of|SystemExit)",
    ):
        run(fail, 3, (2, how))
    assert time.monotonic() - began < 9  # the others ended by themselves


def test_an_error_here_is_raised_as_it_is(tmp_path):
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="of our own making"):
        run(fail_and_report, 3, (tmp_path,))
    assert time.monotonic() - began < 9
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1", "2"]  # both were told


def die(comm):
    """Rank 1 is gone at once, as the kernel's out-of-memory killer leaves it."""
    if comm.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.allreduce(np.zeros(3))


def test_a_killed_rank_is_noticed():
    start = time.monotonic()
    with pytest.raises(RankError, match="rank 1 died with exit code -9"):
        run(die, 2)
    assert time.monotonic() - start < 8


def fail_late(comm):
    comm.allreduce(np.zeros(3))
    if comm.rank == 1:
        raise ArithmeticError("after all communication")


def test_an_error_after_the_last_sum_arrives_too():
    with pytest.raises(RankError, match="ArithmeticError: after all communication"):
        run(fail_late, 2)


def fail_and_report(comm, folder):
    try:
        return fail(comm, 0, "allreduce")
    except RankError:
        (folder / str(comm.rank)).touch()
        raise


def interrupt(comm):
    """As Ctrl-C in a terminal, which every process of the group gets."""
    comm.allreduce(np.ones(1))
    if comm.rank:
        os.kill(os.getpid(), signal.SIGINT)
    return comm.allreduce(np.ones(1))[0]


def test_other_ranks_leave_interrupts_to_rank_0():
    assert run(interrupt, 2) == 2


def threads(comm):
    pools = [
        pool["num_threads"]
        for pool in threadpoolctl.threadpool_info()
        if pool["user_api"] == "blas"
    ]
    return comm.gather((pools, scan._threads))


def test_each_rank_has_one_thread():
    for pools, own in run(threads, 2):
        assert own == 1 and set(pools) == {1}


# Training


def train(comm, config, iterations=3):
    """Every rank's weights, and rank 0's rows without the columns of time."""
    envs = make_vec(
        "MemoryChain", 8 // comm.size, 1, first_index=comm.rank * 8 // comm.size, memory_length=3
    )
    shape = AgentConfig((8,), (8,), core_config=S5Config(n_layers=1, ssm_size=8))
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, shape, seed=2)
    start = agent.parameter_vector.copy()
    ppo = PPO(agent, envs, config, seed=1, comm=comm)
    rows = [ppo.iteration() for _ in range(iterations)]
    rows = [{k: v for k, v in r.items() if k not in ("seconds", "steps_per_second")} for r in rows]
    return comm.gather(
        (agent.parameter_vector, ppo.adam.moments.m, ppo.adam.moments.v, rows)
    ), start


def test_two_ranks_end_with_identical_parameters():
    (first, second), start = run(train, 2, (TINY,))
    assert not np.array_equal(first[0], start)
    for mine, others in zip(first[:3], second[:3], strict=True):
        np.testing.assert_array_equal(mine, others)
    assert first[3] == second[3]  # the figures are over all ranks
    assert first[3][-1]["step"] == 3 * 64 and 0 < first[3][-1]["episodes"] <= 64


def test_ranks_share_what_one_process_does():
    """Two ranks meet the episodes of one process, and act alike in the first rollout."""
    one, _ = run(train, 1, (TINY, 1))
    (two, _), _ = run(train, 2, (TINY, 1))
    assert (
        one[0][3][0]["episodes"] == two[3][0]["episodes"]
        and one[0][3][0]["length"] == two[3][0]["length"] == 3.0
    )
    np.testing.assert_allclose(two[3][0]["entropy"], one[0][3][0]["entropy"], rtol=0.05)
