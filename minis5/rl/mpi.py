"""Ranks that MPI started: `mpiexec -n 8 minis5 train ENV`, on one machine or on many.

Rank 0 runs the command line. The others wait for work (`lead`), which rank 0 sends them with
`run`: a function and its arguments, as comm.run gives them to the processes that it starts. So the
same command line, folder and bits come out as with --workers 8. Rank 0 alone reads and writes
files.

MPI waits by spinning. Here whoever waits for long sleeps between two looks, because ranks may share
CPUs, and rank 0 evaluates alone. A rank that raises an error prints it and ends the whole job; one
that is killed is noticed by mpiexec. One that hangs is noticed by those that wait for it, after
MINIS5_MPI_TIMEOUT seconds.

mpi4py is imported only if this process was started by MPI.

Leaves out: sums on GPUs (cuda/minis5_cuda/rl/comm.py); ranks that fail and are replaced; sums by
MPI_Allreduce, whose order and thus last bits depend on the library.
Source: MPI 4.0, chapter 6. Tests: tests/rl/test_mpi.py.
"""

import math
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from minis5.processes import started_by_mpi
from minis5.rl import comm

TIMEOUT = 3600.0  # seconds, unless MINIS5_MPI_TIMEOUT says otherwise: an evaluation may take long
SLEEP = 2e-4  # seconds between two looks of a rank that has waited for comm.SPIN
LONG, IDLE = 1.0, 5e-3  # after so many seconds it sleeps so long
SLICED = 1 << 20  # bytes that a rank would receive, from which the ranks share the adding
TAG, MUSTER = 7, 2.0  # of the messages "I wait", and the seconds in which they arrive


def size() -> int:
    """Return how many ranks MPI has started; 1 if it has not started this process."""
    return 1 if _world() is None else _world().Get_size()


def rank() -> int:
    """Return which of them this process is."""
    return 0 if _world() is None else _world().Get_rank()


@cache
def _world():
    """Return a communicator of all ranks that is nobody else's; None without MPI."""
    if not started_by_mpi():
        return None
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ModuleNotFoundError(
            "mpi4py: expected it where MPI starts minis5, got none; pip install 'minis5[mpi]'"
        ) from error
    return MPI.COMM_WORLD.Dup()


def _timeout():
    text = os.environ.get("MINIS5_MPI_TIMEOUT", str(TIMEOUT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"MINIS5_MPI_TIMEOUT: expected seconds, got {text!r}; for example 600")
    return seconds


class MPIComm(comm.Comm):
    """One of the ranks of an MPI communicator.

    Parameters
    ----------
    world : mpi4py.MPI.Comm, optional
        None: all ranks that MPI has started.
    """

    def __init__(self, world: Any = None) -> None:
        self._mpi = _world() if world is None else world
        if self._mpi is None:
            raise ValueError("world: expected a communicator of mpi4py, got none; use mpiexec")
        self.rank, self.size = self._mpi.Get_rank(), self._mpi.Get_size()

    def _wait(self, request, patience=None):
        """Wait for a request, awake at first, then with sleeps.

        Raises
        ------
        RankError
            It took longer than ``patience`` seconds, by default MINIS5_MPI_TIMEOUT.
        """
        began = time.perf_counter()
        while not request.Test():
            waited = time.perf_counter() - began
            if waited > comm.SPIN:
                time.sleep(SLEEP if waited < LONG else IDLE)
            self.check(waited, patience)

    def check(self, waited=0.0, patience=None):
        if waited > (_timeout() if patience is None else patience):
            raise comm.RankError(
                f"{self._late()} did not come within {waited:.0f} s, as asked "
                "by MINIS5_MPI_TIMEOUT; does an environment hang?"
            )

    def _late(self):
        """Return which ranks do not wait as this one does, as text."""
        told = [self._mpi.Isend(np.zeros(1), r, TAG) for r in range(self.size) if r != self.rank]
        waiting, end = {self.rank}, time.perf_counter() + MUSTER
        while time.perf_counter() < end:
            waiting |= {r for r in range(self.size) if self._mpi.Iprobe(r, TAG)}
            time.sleep(SLEEP)
        del told
        late = [str(r) for r in range(self.size) if r not in waiting]
        return f"rank{'s' if len(late) > 1 else ''} {', '.join(late) or '?'}"

    def allreduce(self, vector):
        return comm.in_pieces(self._add, vector)

    def _add(self, vector, total):
        """Write the sum over the ranks to ``total``."""
        if self.size > 2 and (self.size - 1) * vector.nbytes >= SLICED:
            self._add_slices(vector, total)
            return
        vectors = np.empty((self.size, vector.size), vector.dtype)
        self._wait(self._mpi.Iallgather(np.ascontiguousarray(vector), vectors))
        comm.add_in_order(vectors, total)

    def _add_slices(self, vector, total):
        """Write the sum to ``total``; each rank adds one slice, and sends its sum to all.

        A rank receives two vectors, however many ranks there are, instead of one of each.
        """
        length = -(-vector.size // self.size)
        slices = np.zeros((self.size, length), vector.dtype)
        slices.ravel()[: vector.size] = vector
        mine = np.empty_like(slices)  # my slice of each rank's vector
        self._wait(self._mpi.Ialltoall(slices, mine))
        added = np.empty(length, vector.dtype)
        comm.add_in_order(mine, added)
        self._wait(self._mpi.Iallgather(added, slices))
        total[:] = slices.ravel()[: vector.size]

    def gather(self, obj):
        mine = np.frombuffer(pickle.dumps(obj, pickle.HIGHEST_PROTOCOL), np.uint8)
        lengths = np.empty(self.size, np.int64)
        self._wait(self._mpi.Iallgather(np.array([mine.size]), lengths))
        everything = np.empty(lengths.sum(), np.uint8) if self.rank == 0 else None
        self._wait(self._mpi.Igatherv(mine, (everything, lengths) if self.rank == 0 else None))
        if self.rank:
            return None
        parts = np.split(everything, np.cumsum(lengths)[:-1])
        return [obj] + [pickle.loads(part) for part in parts[1:]]

    def broadcast(self, obj):
        return self._broadcast(obj)

    def _broadcast(self, obj, patience=None):
        text = b"" if self.rank else pickle.dumps(obj, pickle.HIGHEST_PROTOCOL)
        message = np.frombuffer(text, np.uint8)
        length = np.array([message.size])
        self._wait(self._mpi.Ibcast(length), patience)
        message = message.copy() if self.rank == 0 else np.empty(length[0], np.uint8)
        self._wait(self._mpi.Ibcast(message))
        return obj if self.rank == 0 else pickle.loads(message)

    def next_job(self):
        """Return the function and arguments that rank 0 sends, however long it takes; or None."""
        return self._broadcast(None, math.inf)

    def abort(self, code):
        """End all ranks."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._mpi.Abort(code)


_broken = False  # a job has failed here while others may wait: they have to be ended


def run(fn: Callable[..., Any], ranks: int, args: tuple = ()) -> Any:
    """Run ``fn(comm, *args)`` on all of MPI's ranks, or, without MPI, as comm.run does.

    Called on rank 0, within `lead`; a call on another ends all.

    Raises
    ------
    ValueError
        MPI has started another number of ranks.
    """
    global _broken
    if size() == 1:
        return comm.run(fn, ranks, args)
    if rank():
        remedy = "call minis5.rl.mpi.lead(main), where main() trains"
        print(f"minis5: expected rank 0, got rank {rank()}; {remedy}", file=sys.stderr)
        MPIComm().abort(1)  # an error would wait for rank 0 at its end, and rank 0 for it
    if ranks != size():
        raise ValueError(
            f"workers: expected {size()}, as many as MPI started, got {ranks}; "
            f"start {ranks} ranks (mpiexec -n {ranks})"
        )
    ours, _broken = MPIComm(), True
    ours.broadcast((fn, args))
    with comm.one_thread():
        result = fn(ours, *args)
    ours.gather(None)  # all have come to their end
    _broken = False
    return result


def lead(function: Callable[[], Any]) -> int:
    """Call ``function`` on rank 0, and serve it on the others; return the exit code.

    The code is what ``function`` returns, or exits with; None is 0. An error is printed and is 1.
    """
    try:
        _timeout()
    except ValueError as error:  # on every rank
        if rank() == 0:
            print(f"minis5: error: {error}", file=sys.stderr)
        return 2
    if rank():
        return _serve()
    try:
        code = function()
    except SystemExit as stop:
        code = stop.code
    except BaseException:  # it has to be seen before the other ranks are ended
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    if size() > 1:
        ours = MPIComm()
        if _broken:
            ours.abort(code or 1)
        ours.broadcast(None)
    return code or 0


def _serve():
    """Be a rank beside rank 0 until it has no more work."""
    for number in (signal.SIGINT, signal.SIGTERM):  # mpiexec passes them on; rank 0 decides
        signal.signal(number, signal.SIG_IGN)
    ours = MPIComm()
    try:
        while (job := ours.next_job()) is not None:
            fn, args = job
            with comm.one_thread():
                fn(ours, *args)
            ours.gather(None)
    except BaseException as error:
        if isinstance(error, comm.RankError):  # it tells of another rank
            print(f"minis5: rank {ours.rank}: {error}", file=sys.stderr)
        else:
            print(f"minis5: rank {ours.rank} failed:\n{traceback.format_exc()}", file=sys.stderr)
        ours.abort(1)
    return 0
