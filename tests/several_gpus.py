"""What ranks on simulated GPUs do in tests/rl/test_nccl.py, each call in a process of its own.

The ranks of most checks are forked, which is faster and harmless in the simulator. A GPU's are
spawned, as those of `train_on_two`.
"""

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cupy
import numpy as np
import pytest
from device_checks import CONFIG, agent_config, assert_close, strict_graphs
from minis5_cuda.rl.comm import NCCLComm, choose
from simulated_nccl import NCCL_FLOAT32, NCCL_FLOAT64, NCCL_SUM, NcclError
from small_runs import assert_same_run

from minis5 import PPO, ActorCritic, make_vec
from minis5.arrays import DeviceError, to_host
from minis5.processes import start_method
from minis5.random import Generator
from minis5.rl import workers
from minis5.rl.comm import Comm, RankError, run
from minis5.run import cli
from minis5.run.split import check_gpus

AT_MOST = 5.0  # seconds from a death to the error, as on the CPU


def basics():
    """All of the checks that take no time."""
    choices()
    sums()
    refusals()
    mistakes()


# Sums


def sums():
    """The ranks' sums on the GPUs and on the host; messages; each rank has its GPU."""
    first, second = run(_sums, 2)
    for mine, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine, other)


def _sums(comm):
    order = []
    with NCCLComm(comm) as ranks:
        nccl, ranks.graphs = ranks._nccl, [SimpleNamespace(drop=lambda: order.append("drop"))]
        nccl.abort = lambda: order.append("abort")
        assert cupy.cuda.runtime.getDevice() == ranks.rank == comm.rank
        found = []
        for dtype in (np.float32, np.float64):
            shares = [np.random.default_rng(r).standard_normal(7).astype(dtype) for r in (0, 1)]
            vector = cupy.asarray(shares[comm.rank])
            total = ranks.allreduce(vector)
            assert total.dtype == dtype
            assert np.array_equal(to_host(vector), shares[comm.rank])  # as it was
            np.testing.assert_array_equal(to_host(total), shares[0] + shares[1])
            ranks.add_up(vector)
            found += [to_host(total), to_host(vector)]
        on_host = ranks.allreduce(np.arange(3) + comm.rank)
        assert isinstance(on_host, np.ndarray)
        told = ranks.broadcast(f"by {comm.rank}")
        assert told == "by 0" and ranks.gather(comm.rank) == (None if comm.rank else [0, 1])
        with pytest.raises(TypeError, match="vector: expected float32 or float64, got int64; cast"):
            ranks.add_up(cupy.zeros(3, np.int64))
        with pytest.raises(ValueError, match="vector: expected a contiguous one"):
            ranks.add_up(cupy.zeros((3, 2))[:, 0])
        nccl.check_async_error = lost
        with pytest.raises(RankError, match="NCCL lost another rank .*NCCL_ERROR_REMOTE"):
            ranks._check_nccl()
    assert order == ["drop", "abort"]  # NCCL would wait for a recording
    return comm.gather([*found, on_host])


def lost():
    raise NcclError("NCCL_ERROR_REMOTE_ERROR: remote process exited")


def refusals():
    """The stand-in refuses what NCCL would answer with rubbish, or not at all."""
    run(_refusals, 2)


def _refusals(comm):
    import simulated_cupy

    with NCCLComm(comm) as ranks:
        nccl, vector, stream = ranks._nccl, cupy.zeros(4), cupy.cuda.get_current_stream().ptr
        here = vector.data.ptr
        for match, arguments in (
            ("no array is there", (8, here, 4, NCCL_FLOAT64, NCCL_SUM, stream)),
            ("expected 5 of", (here, here, 5, NCCL_FLOAT64, NCCL_SUM, stream)),
            ("NCCL's type 7", (here, here, 4, NCCL_FLOAT32, NCCL_SUM, stream)),
            ("got operation 1", (here, here, 4, NCCL_FLOAT64, 1, stream)),
            ("stream 77", (here, here, 4, NCCL_FLOAT64, NCCL_SUM, 77)),
        ):
            with pytest.raises(NcclError, match=match):
                nccl.allReduce(*arguments)
        with cupy.cuda.Device(1 - comm.rank), pytest.raises(NcclError, match="another GPU"):
            ranks.add_up(vector)
        with pytest.raises(NcclError, match="the ranks' sums are of other sizes"):
            ranks.add_up(cupy.zeros(4 + comm.rank))
        one, other, graphs = cupy.zeros(4), cupy.zeros(4), (object(), object())
        for graph in (*graphs, *graphs):  # each of a recording's sums has its addresses
            with simulated_cupy.recorded(graph):
                ranks.add_up(one)
                ranks.add_up(other)
        with simulated_cupy.recorded(graphs[0]):
            with pytest.raises(RuntimeError, match="at other addresses than were recorded"):
                ranks.add_up(other)
    with pytest.raises(NcclError, match="was aborted"):
        nccl.allReduce(here, here, 4, NCCL_FLOAT64, NCCL_SUM, stream)


# Training

# Passes end early, episodes are truncated, and all that is summed on the host is there too.
SETTINGS = {"epochs": 3, "target_kl": 1e-3, "normalize_rewards": True, "center_values": True}
LEVEL, OPTIONS = "PositionOnlyCartPoleEasy", {"max_steps": 5}
ITERATIONS = 3


class Halves:
    """The random numbers of two ranks, each for its half of the environments."""

    def __init__(self, generators):
        self.generators, self.xp = generators, generators[0].xp

    def _draw(self, name, shape):
        first, *rest = (shape,) if isinstance(shape, int) else shape
        assert first % 2 == 0
        parts = [getattr(g, name)((first // 2, *rest)) for g in self.generators]
        return self.xp.concatenate(parts)

    def random(self, shape):
        return self._draw("random", shape)

    def standard_normal(self, shape):
        return self._draw("standard_normal", shape)


def trainer(comm, device, num_envs, first_index, config):
    """Return a trainer of a small agent with a share of the environments."""
    envs = make_vec(LEVEL, num_envs, 3, first_index=first_index, device=device, **OPTIONS)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(*spaces, agent_config("gru"), seed=1, device=device)
    agent.parameter_vector *= 1.3
    return PPO(agent, envs, config, seed=5, comm=comm)


def work(ppo):
    """Iterate; return rows, weights, Adam's moments and the number of its steps."""
    rows = [ppo.iteration() for _ in range(ITERATIONS)]
    times = "seconds", "steps_per_second"
    rows = [{name: row[name] for name in row if name not in times} for row in rows]
    arrays = map(to_host, (ppo.agent.parameter_vector, *ppo.adam.moments))
    return rows, *(array.copy() for array in arrays)


def _share(comm, config):
    strict_graphs()
    with NCCLComm(comm) as ranks:
        share = config.num_envs // comm.size
        return comm.gather(work(trainer(ranks, "cuda", share, comm.rank * share, config)))


def as_two_ranks(ppo):
    """Let one trainer of all environments draw what two ranks draw, each for its half."""
    share, state = ppo.envs.num_envs // 2, {}

    def generators(purpose):
        return [np.random.default_rng([ppo.seed, ppo.updates, r, purpose]) for r in range(2)]

    def groups(rng):
        if state.get("update") != ppo.updates:
            state.update(update=ppo.updates, rngs=generators(1))
        drawn = [rng.permutation(share) + r * share for r, rng in enumerate(state["rngs"])]
        return np.concatenate([d.reshape(ppo.config.minibatches, -1) for d in drawn], axis=1)

    collect, xp = ppo.collector.collect, ppo.agent.xp

    def both(T, rng):
        seeds = [int(rng.integers(2**32)) for rng in generators(0)]
        halves = Halves([Generator(seed, xp) for seed in seeds])
        if xp is np:
            return collect(T, halves)
        ppo.collector.rng, halves.restart = halves, lambda seed: None
        return collect(T, rng)

    ppo.groups, ppo.collector.collect = groups, both
    return ppo


def two_are_one(device):
    """Two ranks with half of the environments each are one rank with all, up to rounding."""
    config = dataclasses.replace(CONFIG, **SETTINGS)
    first, second = run(_share, 2, (config,))
    for mine, other in zip(first[1:], second[1:], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert first[0] == second[0]
    rows, *vectors, taken = work(as_two_ranks(trainer(Comm(), device, config.num_envs, 0, config)))
    for got, expected in zip(first[0], rows, strict=True):
        for name in expected:
            np.testing.assert_allclose(got[name], expected[name], 1e-9, 1e-9, err_msg=name)
    for got, expected in zip(first[1:], vectors, strict=False):
        assert_close(got, expected, 1e-9)
    assert first[-1] == taken
    assert rows[-1]["episodes"] > 0  # all were truncated: five steps are too few to fall
    passes = taken / config.minibatches
    assert ITERATIONS < passes < ITERATIONS * config.epochs, passes


def mistakes():
    """Each reason why ranks cannot have a GPU each is told."""
    match = "workers: expected at most 2, a GPU that CUDA sees for each, got 3; ask for --workers 2"
    with pytest.raises(ValueError, match=match):
        check_gpus(3)
    check_gpus(2)
    match = "expected a GPU for each rank of a host, got none for rank 2, which sees 2"
    with pytest.raises(ValueError, match=match):
        run(_alone, 3)
    with pytest.raises(ValueError, match="comm: expected an NCCLComm for ranks on GPUs, got Shar"):
        run(_without_nccl, 2)
    cupy.cuda.nccl.available = False
    with pytest.raises(DeviceError, match=r"NCCL, which CuPy could not load; pip .*minis5\[nccl\]"):
        check_gpus(2)
    check_gpus(1)
    assert type(NCCLComm(Comm()).allreduce(cupy.zeros(2))) is cupy.ndarray


def _alone(comm):
    NCCLComm(comm).close()


def _without_nccl(comm):
    trainer(comm, "cuda", 2, 0, CONFIG)


def choices():
    """Ranks of a host share its GPUs in order; one that sees its own only has the first."""
    here, there = [("a", 0), ("a", 1)], [("b", 0), ("b", 1)]
    assert choose([here, here, there, there]) == [0, 1, 0, 1]
    assert choose([here[:1], here[1:], here + [("a", 2)]]) == [0, 0, 2]
    with pytest.raises(ValueError, match="got none for rank 1, which sees 1"):
        choose([here[:1], here[:1]])


# A rank that dies


def killed(folder, when, in_thread):
    """The kernel kills rank 2 while the others wait for its sum, or for NCCL to meet."""
    found, moment = [], Path(folder) / "moment"

    def work():
        try:
            run(_killed, 3, (when, moment))
        except RankError as error:
            found.append((str(error), time.time()))

    if in_thread:  # where no signal interrupts rank 0
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    ((message, ended),) = found
    began = float(moment.read_text())
    assert "rank 2 died with exit code -9" in message, message
    assert ended - began < AT_MOST, ended - began


def _killed(comm, when, moment):
    def die(*args):
        moment.write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)

    if comm.rank == 2 and when == "meeting":
        cupy.cuda.nccl.NcclCommunicator = die
    with NCCLComm(comm) as ranks, cupy.cuda.Stream() as stream:
        vector = cupy.ones(5)
        for i in range(100):
            if comm.rank == 2 and i == 7:
                die()
            ranks.add_up(vector)
            ranks.wait(stream)
            vector[:] = 1
    raise AssertionError("nobody died")


# Whole runs

TINY = "--encoder 4 --heads 3 --n-layers 1 --ssm-size 4 --num-envs 4 --unroll 3 --epochs 2"
TINY += " --minibatches 2 --anneal-lr false --eval-episodes 2 --seed 2 --quiet"
COMMAND = f"train RepeatPreviousEasy {TINY} --device cuda"


def command_line(text):
    return cli.main(text.split())


def run_of_two(folder, more="", steps=24):
    """Train on two GPUs in one go; return the exit code."""
    return command_line(f"{COMMAND} --steps {steps} --out {folder} {more}")


def in_parts(folder, whole):
    """A run of two workers, spawned as CUDA needs it, that is resumed is ``whole``.

    It goes on with two workers on the CPU.
    """
    workers.start_method = lambda: "spawn"
    assert run_of_two(folder, "--workers 2", steps=12) == 0
    assert command_line(f"train --resume {folder} --steps 24 --quiet") == 0
    assert_same_run(folder, whole)
    for device, steps in (("cuda", 24), ("cpu", 36)):
        if device == "cpu":
            workers.start_method = start_method
            assert command_line(f"train --resume {folder} --steps 36 --device cpu --quiet") == 0
        summary = json.loads((Path(folder) / "summary.json").read_text())
        found = [summary[name] for name in ("workers", "device", "steps")]
        assert found == [2, device, steps]
