"""The processes beside rank 0: rank 0 starts them, notices when one fails, and ends them.

A worker may die at any moment: at its start, in mid-message, at its end. Its exit code tells rank
0, which asks for it whenever it waits; SIGCHLD makes it ask at once, even while it computes. A
worker that raises an error sends the traceback first. If rank 0 dies, the workers end by
themselves.

Leaves out: restarting a worker. Tests: tests/rl/test_workers.py.
"""

import ctypes
import mmap
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

from minis5.ops import compiling
from minis5.processes import start_method
from minis5.rl.channel import Channel

GRACE = 2.0  # seconds in which workers may end by themselves after something has failed
LAST = 10.0  # seconds in which they may end after their work is done
PR_SET_PDEATHSIG = 1  # of prctl(2)
ENDINGS = {signal.SIGINT, signal.SIGTERM}


class RankError(RuntimeError):
    """A worker process failed or could not be started.

    The message has the worker's traceback, if it left one. Its last line says what happened.
    """


class WorkerEnded(BaseException):
    """Raised in rank 0 while it computes. No ``except Exception`` of an environment keeps it."""


class Links(NamedTuple):
    """What all ranks share. There is no lock in it that a dead rank could keep."""

    memory: Any  # shared bytes; the last one is set when all shall end
    arrived: list  # [r][s]: the semaphore on which rank r waits for rank s


class Workers:
    """Ranks 1 … size − 1, as rank 0 sees them.

    Parameters
    ----------
    size : int
        Number of ranks, rank 0 included.
    memory : int
        Bytes that all ranks share.
    """

    def __init__(self, size, memory):
        self.processes, self.channels = {}, {}
        self._watched = self._asking = self._again = False
        method = start_method()
        self._forks, self._context = method == "fork", multiprocessing.get_context(method)
        with self._refused(size):
            # a forked process has its parent's pages: these are not in /dev/shm, which may be small
            block = mmap.mmap(-1, memory + 1) if self._forks else RawArray("B", memory + 1)
            arrived = [[self._context.Semaphore(0) for _ in range(size)] for _ in range(size)]
        self.links = Links(block, arrived)

    def start(self, target, *args):
        """Start every worker: ``target(rank, links, connection, inherited, *args)`` runs in it."""
        size = len(self.links.arrived)
        # A signal that comes now waits, so that no worker meets it before it can.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
        try:
            with self._refused(size):
                for rank in range(1, size):
                    ours, theirs = self._context.Pipe()
                    self.channels[rank] = Channel(ours)
                    inherited = list(self.channels.values()) if self._forks else []
                    process = self._context.Process(
                        target=target,
                        args=(rank, self.links, theirs, inherited, *args),
                        name=f"rank {rank}",
                        daemon=True,
                    )
                    process.start()
                    self.processes[rank] = process
                    theirs.close()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def _refused(self, size):
        try:
            yield
        except (OSError, ImportError) as error:  # ImportError: a system without semaphores
            why = getattr(error, "strerror", None) or error
            processes = f"{size - 1} process{'es' if size > 2 else ''}"
            raise RankError(
                f"workers: expected to start {processes} beside this one, got "
                f"{len(self.processes)} ({why}); ask for fewer, or for --workers 1, which needs "
                "none and no /dev/shm"
            ) from error

    @contextmanager
    def watched(self):
        """Within this context, WorkerEnded is raised as soon as a worker fails.

        Only a main thread can be interrupted, and not while Numba compiles; otherwise, `ended`
        finds it out.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.SIG_DFL

        def interrupt(number, frame):
            if self._asking:
                self._again = True
            elif self._watched and not compiling() and any(self._codes().values()):
                self._watched = False  # once: what cleans up now is not interrupted
                raise WorkerEnded
            if callable(before):
                before(number, frame)

        before = signal.signal(signal.SIGCHLD, interrupt)
        self._watched = True
        try:
            if any(self._codes().values()):  # before anybody watched
                raise WorkerEnded
            yield
        finally:
            self._watched = False
            signal.signal(signal.SIGCHLD, signal.SIG_DFL if before is None else before)

    def _codes(self):
        """Return the exit codes.

        Meanwhile SIGCHLD does not interrupt: the system tells an exit code once, and an exception
        in between would lose it.
        """
        self._asking = self._again = True
        try:
            while self._again:
                self._again = False
                codes = {rank: process.exitcode for rank, process in self.processes.items()}
            return codes
        finally:
            self._asking = False

    def ended(self):
        """Return the ranks that have ended; all that they sent can be read.

        Raises
        ------
        RankError
            One has failed.
        """
        codes = self._codes()
        for rank, channel in self.channels.items():
            channel.read()
            if channel.over and codes[rank] is None:  # it is about to die
                self.processes[rank].join(1)
        if any(channel.error for channel in self.channels.values()) or any(self._codes().values()):
            raise self.failure()
        return {rank for rank, code in codes.items() if code is not None or self._over(rank)}

    def _over(self, rank):
        return self.channels[rank].over

    def failure(self):
        """Return the error that tells which rank failed, and how."""
        for rank, channel in self.channels.items():
            channel.read()
            if channel.error:
                return RankError(f"rank {rank} failed:\n{channel.error}")
        codes = {rank: code for rank, code in self._codes().items() if code}
        if not codes:
            return RankError("another rank ended before its work was done")
        # one that was killed comes first: the others may have ended because of it
        rank, code = min(codes.items(), key=lambda item: item[1])
        how = ""
        with suppress(ValueError):
            how = f" ({signal.Signals(-code).name})"
        if code == -signal.SIGKILL:
            how = " (SIGKILL, as the system does when memory is short: fewer --workers need less)"
        return RankError(f"rank {rank} died with exit code {code}{how}")

    def finish(self):
        """Wait until every worker has ended.

        Raises
        ------
        RankError
            One has failed at its end, or does not end.
        """
        deadline = time.monotonic() + LAST
        while len(self.ended()) < len(self.processes):
            if time.monotonic() > deadline:
                late = [process.name for process in self.processes.values() if process.is_alive()]
                raise RankError(f"{', '.join(late)} did not end within {LAST:g} s of its work")
            alive = [p.sentinel for p in self.processes.values() if p.exitcode is None]
            connection.wait(alive, 0.2)

    def stop(self):
        """End all workers, at most `GRACE` seconds from now, and let go of what they shared."""
        self.links.memory[-1] = 1
        deadline = time.monotonic() + GRACE
        try:
            for process in self.processes.values():
                process.join(max(0.0, deadline - time.monotonic()))
        finally:  # another Ctrl-C shortens it
            for process in self.processes.values():
                process.kill()
            for process in self.processes.values():
                process.join()
                with suppress(ValueError):  # somebody else asked for its exit code
                    process.close()
        self.processes = {}
        for channel in self.channels.values():
            channel.close()


def settle(parent, inherited):
    """Make this process a worker of the process `parent`: it ends when that one ends.

    Signals that ask for a stop go to rank 0, which decides. `inherited` are rank 0's ends of the
    channels.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)
    if sys.platform == "linux":  # the kernel does it, even if this process is stopped
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
    for channel in inherited:
        channel.close()


def _outlive(parent):
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
