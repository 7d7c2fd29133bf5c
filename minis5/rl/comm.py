"""Several processes train one agent, each on its share of the environments; gradients are summed.

Every rank runs the same program, starts from the same weights and applies the same update to the
same sum. All ranks therefore stay equal bit for bit. Sums are taken in the order of the ranks. One
process is the special case of size 1. On a CPU, processes are faster than threads: rollouts, Python
and small matrix products run on every core.

``allreduce`` copies each rank's vector into shared memory, waits for all ranks, and adds. Two
buffers take turns, so that one wait is enough: no rank can be two calls ahead of another.

Leaves out: more than one machine. Tests: tests/rl/test_comm.py.
"""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.sharedctypes import RawArray
from typing import Any

import numpy as np
import threadpoolctl

from minis5.nn.scan import set_num_threads

BYTES = 1 << 22  # of a rank in shared memory; longer vectors are summed in pieces


class RankError(RuntimeError):
    """A worker process failed; its traceback is in the message."""


class Comm:
    """One process alone: the trivial communicator."""

    rank, size = 0, 1

    def allreduce(self, vector):
        """Return the sum of a 1-D ``vector`` over the ranks, the same bits on each."""
        return vector

    def gather(self, obj):
        """Return the list of every rank's (picklable) ``obj`` on rank 0, None on the others."""
        return [obj]

    def broadcast(self, obj):
        """Return rank 0's ``obj`` on every rank."""
        return obj


class SharedComm(Comm):
    """One of ``size`` processes on this machine."""

    def __init__(self, rank, shared):
        self.rank, self.size = rank, len(shared["arrived"])
        self._shared, self._turn = shared, 0
        self._slots = np.frombuffer(shared["memory"], np.uint8).reshape(2, self.size, BYTES)

    def _wait(self):
        """Wait until every rank is here.

        The first tries do not sleep, because the other ranks are usually a few µs away.
        """
        arrived = self._shared["arrived"]
        for other in range(self.size):
            if other != self.rank:
                arrived[other][self.rank].release()
        for other in range(self.size):
            if other == self.rank:
                continue
            mine = arrived[self.rank][other]
            deadline = time.perf_counter() + 0.002
            while not mine.acquire(block=False):
                if time.perf_counter() > deadline:
                    while not mine.acquire(timeout=0.2):
                        self._check()
                    break

    def _check(self):
        """Raise RankError if a rank will not come: it failed or died."""
        if self._shared["failed"].value:
            raise RankError("another rank failed")
        for process in self._shared["processes"]:
            if process.exitcode:
                raise RankError(f"{process.name} died with exit code {process.exitcode}")
        if self.rank and os.getppid() != self._shared["parent"]:
            os._exit(1)  # rank 0 was killed: no process is left to answer to

    def allreduce(self, vector):
        piece = BYTES // vector.itemsize
        if vector.size > piece:
            return np.concatenate(
                [self.allreduce(vector[i : i + piece]) for i in range(0, vector.size, piece)]
            )
        slots, self._turn = self._slots[self._turn], 1 - self._turn
        slots[self.rank, : vector.nbytes].view(vector.dtype)[:] = vector
        self._wait()
        total = slots[0, : vector.nbytes].view(vector.dtype).copy()
        for r in range(1, self.size):
            total += slots[r, : vector.nbytes].view(vector.dtype)
        return total

    def gather(self, obj):
        if self.rank:
            self._shared["queues"][self.rank].put(obj)
            return None
        return [obj] + [self._receive(r) for r in range(1, self.size)]

    def broadcast(self, obj):
        if self.rank == 0:
            for r in range(1, self.size):
                self._shared["down"][r].put(obj)
            return obj
        return self._receive(self.rank, "down")

    def _receive(self, r, queues="queues"):
        while True:
            try:
                return self._shared[queues][r].get(timeout=0.5)
            except multiprocessing.queues.Empty:
                self._check()


def _worker(rank, shared, fn, args):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 decides when to stop
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        fn(_start(rank, shared), *args)
    except BaseException as error:
        if not isinstance(error, RankError):
            shared["errors"].put((rank, traceback.format_exc()))
        shared["failed"].value = 1
        sys.exit(1)


def _start(rank, shared):
    """Give each rank one thread: the ranks are the parallelism."""
    set_num_threads(1)
    shared["limits"] = threadpoolctl.threadpool_limits(1, user_api="blas")
    return SharedComm(rank, shared)


def run(fn: Callable[..., Any], size: int, args: tuple = ()) -> Any:
    """Run ``fn(comm, *args)`` in ``size`` processes and return rank 0's result.

    Parameters
    ----------
    fn : callable
        A module-level function: processes that are not forked get it by name.
    size : int
        Number of processes. This one is rank 0; if it is the only one, `comm` is a :class:`Comm`.
    args : tuple

    Raises
    ------
    RankError
        Another rank failed; the message has its traceback. An error of rank 0 is raised unchanged.
    """
    if size == 1:
        return fn(Comm(), *args)
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    shared = {
        "memory": RawArray("B", 2 * size * BYTES),
        "arrived": [[context.Semaphore(0) for _ in range(size)] for _ in range(size)],
        "queues": [context.Queue() for _ in range(size)],
        "down": [context.Queue() for _ in range(size)],
        "errors": context.Queue(),
        "failed": context.Value("i", 0),
        "parent": os.getpid(),
        "processes": [],
    }
    others = [
        context.Process(target=_worker, args=(r, shared, fn, args), name=f"rank {r}", daemon=True)
        for r in range(1, size)
    ]
    for process in others:
        process.start()
    comm = _start(0, shared | {"processes": others})
    try:
        result = fn(comm, *args)
    except BaseException as error:
        shared["failed"].value = 1
        _stop(others)
        if isinstance(error, RankError):
            _raise_from_rank(shared, error)
        raise
    finally:
        comm._shared["limits"].restore_original_limits()
        set_num_threads(os.cpu_count() or 1)
    _stop(others)
    if any(process.exitcode for process in others):
        _raise_from_rank(shared, RankError("another rank failed at its end"))
    return result


def _stop(processes):
    """Wait for the other ranks to end by themselves, and kill those that do not."""
    for process in processes:
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
            process.join()


def _raise_from_rank(shared, error):
    """Raise with a failed rank's traceback, or raise ``error`` if the rank left none."""
    try:
        rank, text = shared["errors"].get(timeout=1)
    except multiprocessing.queues.Empty:
        raise error from None
    raise RankError(f"rank {rank} failed:\n{text}") from None
