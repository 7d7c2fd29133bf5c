"""Several processes train one agent, each on its share of the environments; gradients are summed.

Every rank runs the same program, starts from the same weights and applies the same update to the
same sum. All ranks therefore stay equal bit for bit. Sums are taken in the order of the ranks. One
process is the special case of size 1. On a CPU, processes are faster than threads: rollouts, Python
and small matrix products run on every core. So every rank computes on one thread, also a single
one.

``allreduce`` copies each rank's vector into shared memory, waits for all ranks, and adds. Two
buffers take turns, so that one wait is enough: no rank can be two calls ahead of another. A rank
says that it is there by a semaphore for each other rank. Messages go through channels (channel.py).
Who waits also looks whether the others live (workers.py).

Leaves out: more than one machine (mpi.py); GPUs (GPU form: cuda/minis5_cuda/rl/comm.py).
Tests: tests/rl/test_comm.py, tests/rl/test_workers.py.
"""

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import threadpoolctl

from minis5.nn.scan import set_num_threads
from minis5.rl.channel import PATIENCE, Channel
from minis5.rl.workers import Links, RankError, WorkerEnded, Workers, settle

BYTES = 1 << 22  # of a rank in shared memory; longer vectors are summed in pieces
LONGEST = 50_000  # characters of a traceback
SPIN = 0.002  # seconds of tries without sleep: the other ranks are usually a few µs away


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

    def check(self, waited=0.0):
        """Raise RankError if a rank has failed for which this one waits, since ``waited`` s ago."""


def in_pieces(add: Callable, vector: np.ndarray) -> np.ndarray:
    """Return the sum of a vector over the ranks.

    Parameters
    ----------
    add : callable
        ``add(piece, total)`` writes the sum of a piece of at most BYTES to an array of its size.
    vector : ndarray, 1-D
    """
    total, piece = np.empty_like(vector), BYTES // vector.itemsize
    for i in range(0, max(vector.size, 1), piece):  # an empty one too: all ranks meet
        add(vector[i : i + piece], total[i : i + piece])
    return total


def add_in_order(vectors: Iterable, total: np.ndarray) -> None:
    """Write the sum of arrays to ``total``, added one after another: the order decides the bits."""
    first, *others = vectors
    total[:] = first
    for vector in others:
        total += vector


class SharedComm(Comm):
    """One of ``size`` processes on this machine.

    Parameters
    ----------
    rank : int
    links : Links
        What the ranks share.
    channels : dict
        Of rank: Channel. Rank 0 has one to every worker, a worker has one to rank 0.
    ended : callable
        It returns the ranks that have ended, and raises RankError if one has failed.
    """

    def __init__(self, rank: int, links: Links, channels: dict[int, Channel], ended: Callable):
        self.rank, self.size = rank, len(links.arrived)
        self._links, self._channels, self._ended, self._turn = links, channels, ended, 0
        slots = np.frombuffer(links.memory, np.uint8)[:-1]
        self._slots = slots.reshape(2, self.size, BYTES)

    def check(self, waited=0.0):
        if ended := self._ended():
            raise RankError(f"rank {min(ended)} ended while the others waited for it")

    def _wait(self):
        """Wait until every rank is here."""
        arrived = self._links.arrived
        for other in range(self.size):
            if other != self.rank:
                arrived[other][self.rank].release()
        for other in range(self.size):
            if other != self.rank:
                acquire = arrived[self.rank][other].acquire
                self._until(partial(acquire, False), partial(acquire, True, PATIENCE), other)

    def _until(self, look, wait, r):
        """Return what ``look()``, or ``wait()`` some time later, returns that is true.

        Raises
        ------
        RankError
            A rank has failed, or rank ``r`` has ended, which should do something first.
        """
        deadline = time.perf_counter() + SPIN
        while not (found := look()):
            if time.perf_counter() > deadline:
                ended = self._ended()
                if found := look():  # the last thing that it did
                    break
                if r in ended:
                    raise RankError(f"rank {r} ended while the others waited for it")
                if found := wait():
                    break
        return found

    def allreduce(self, vector):
        return in_pieces(self._add, vector)

    def _add(self, vector, total):
        """Write the sum over the ranks to ``total``; at most BYTES."""
        slots = self._slots[self._turn, :, : vector.nbytes].view(vector.dtype)
        self._turn = 1 - self._turn
        slots[self.rank] = vector
        self._wait()
        add_in_order(slots, total)

    def gather(self, obj):
        if self.rank:
            self._send(0, pickle.dumps(obj, pickle.HIGHEST_PROTOCOL))
            return None
        return [obj] + [self._receive(r) for r in range(1, self.size)]

    def broadcast(self, obj):
        if self.rank:
            return self._receive(0)
        message = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        for r in range(1, self.size):
            self._send(r, message)
        return obj

    def _send(self, r, message):
        try:
            self._channels[r].write(message, self._ended)
        except ConnectionError:
            self._ended()  # it knows more
            raise RankError(f"rank {r} ended while the others waited for it") from None

    def _receive(self, r):
        channel = self._channels[r]
        return pickle.loads(self._until(channel.take, channel.wait, r))


@contextmanager
def one_thread():
    """Compute on one thread within this context; then on as many as before.

    Ranks are the parallelism. Where cores are busy, threads of BLAS only wait for each other.
    """
    before = set_num_threads(1)
    limits = threadpoolctl.threadpool_limits(1, user_api="blas")
    try:
        yield
    finally:
        limits.restore_original_limits()
        set_num_threads(before)


def run(fn: Callable[..., Any], size: int, args: tuple = ()) -> Any:
    """Run ``fn(comm, *args)`` in ``size`` processes and return rank 0's result.

    Each computes on one thread. If one fails, all end within 5 seconds.

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
        Another rank failed or could not be started; the message has its traceback. An error of rank
        0 is raised unchanged.
    """
    if size == 1:
        with one_thread():
            return fn(Comm(), *args)
    workers = Workers(size, 2 * size * BYTES)
    try:
        workers.start(_worker, os.getpid(), fn, args)
        comm = SharedComm(0, workers.links, workers.channels, workers.ended)
        with workers.watched(), one_thread():
            result = fn(comm, *args)
        workers.finish()
        return result
    except WorkerEnded:
        raise workers.failure() from None
    finally:
        workers.stop()


def _worker(rank, links, connection, inherited, parent, fn, args):
    """Be a rank beside rank 0."""

    def ended():
        if links.memory[-1]:
            raise RankError("another rank failed")
        return set()

    channel = Channel(connection)
    try:
        settle(parent, inherited)
        with one_thread():
            fn(SharedComm(rank, links, {0: channel}, ended), *args)
    except BaseException as error:
        if not isinstance(error, RankError):
            with suppress(RankError, OSError):
                text = traceback.format_exc()
                if len(text) > LONGEST:
                    text = f"{text[: LONGEST // 2]}\n…\n{text[-LONGEST // 2 :]}"
                channel.write(text.encode(errors="replace"), ended, is_error=True)
        sys.exit(1)
