"""What ranks do in tests: functions that a spawned process can import by name."""

import os
import signal
import sys
import time
from multiprocessing.util import Finalize

import numpy as np


def sums(comm, rounds=3):
    """Return every rank's sums, in which each rank has its own share."""
    found = [comm.allreduce(np.arange(5.0) * 10**comm.rank + i) for i in range(rounds)]
    return comm.gather(found)


def chatter(comm, doomed=None, delay=0.0, seconds=60.0):
    """Exchange sums and messages of all sizes; the kernel ends the doomed rank after a delay."""
    if comm.rank == doomed:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(delay, 1e-6))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        comm.allreduce(np.ones(55_000, np.float32))
        comm.gather(np.full(200_000, comm.rank))
        comm.allreduce(np.ones(3))
        comm.broadcast(np.ones(100_000))
        comm.broadcast("go on")


def cut_short(comm):
    """Rank 1 dies while it sends a message that rank 0 does not read yet."""
    if comm.rank == 1:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        comm.gather(np.ones(10_000_000))
    elif comm.rank == 0:
        time.sleep(0.5)
        comm.gather(None)
    comm.allreduce(np.ones(1))


def compute(comm, doomed, seconds):
    """Rank 0 computes for long, without a look at the others; one of them is killed."""
    comm.allreduce(np.ones(1))
    if comm.rank == doomed:
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + seconds
    while comm.rank == 0 and time.monotonic() < end:
        try:
            sum(range(1000))
        except Exception:  # as careless environments do
            continue
    comm.allreduce(np.ones(1))


def leave(comm, how):
    """Rank 1 goes away in some way at its end, or too early."""
    comm.allreduce(np.ones(1))
    if comm.rank == 1:
        if how == "exit 0 early":
            os._exit(0)
        if how == "return early":
            return None
        if how == "exit 7 at the end":
            Finalize(None, os._exit, (7,), exitpriority=1)
        if how == "killed at the end":
            Finalize(None, os.kill, (os.getpid(), signal.SIGKILL), exitpriority=1)
    if "early" in how:
        comm.allreduce(np.ones(1))
    return comm.gather(comm.rank)


def fail_together(comm, began):
    """All but rank 0 fail at once, with much to say; rank 0 adds the time to the list `began`."""
    comm.allreduce(np.ones(1))  # all are here
    began.append(time.monotonic())
    comm.allreduce(np.ones(1))
    if comm.rank:
        raise ZeroDivisionError("x" * 20_000 + f" of rank {comm.rank}")
    comm.allreduce(np.ones(1))


def rank_0_fails(comm, others):
    """Rank 0 fails while the others wait for it, compute, or are stopped."""
    comm.allreduce(np.ones(1))
    if comm.rank == 0:
        time.sleep(0.2)
        raise KeyError("rank 0's own")
    if others == "compute":
        time.sleep(60)
    if others == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    comm.allreduce(np.ones(1))


def not_picklable(comm):
    comm.gather(lambda: None)


def hang(comm, folder):
    """Every rank writes its process's number and goes on for ever; the last is stopped."""
    with open(os.path.join(folder, f"{comm.rank}.tmp"), "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(folder, f"{comm.rank}.tmp"), os.path.join(folder, str(comm.rank)))
    if comm.rank == comm.size - 1 and sys.platform == "linux":
        os.kill(os.getpid(), signal.SIGSTOP)
    while comm.rank != 1:  # rank 1 waits for the others
        time.sleep(0.01)
    comm.allreduce(np.ones(1))


def share(rank, size, dtype):
    """Return a rank's vector, of numbers whose sum depends on the order of summation."""
    rng = np.random.default_rng([rank, size])
    return (rng.standard_normal(size) * 10.0 ** rng.integers(-6, 6, size)).astype(dtype)


def add(comm, sizes, dtype):
    """Return every rank's results of several sums, which use both buffers again and again."""
    return comm.gather([comm.allreduce(share(comm.rank, size, dtype)) for size in sizes])


def keep_sums(comm):
    """An old sum must not change when the buffers are used again, nor the vector that was given."""
    vector = np.full(3, comm.rank + 1.0)
    sums = [comm.allreduce(vector * 10**i) for i in range(4)]
    return sums, vector


def uneven(comm):
    """Ranks that arrive at different times."""
    total = 0.0
    for i in range(6):
        time.sleep(0.03 * ((i + comm.rank) % 3))
        total = comm.allreduce(np.array([total + comm.rank + 1]))[0]
    return total


def messages(comm):
    lists = [comm.gather({"rank": comm.rank, "round": i}) for i in range(3)]
    told = [comm.broadcast(("word", i, comm.rank)) for i in range(3)]
    large = comm.gather(np.full(300_000, comm.rank))  # more than a pipe holds
    return lists, comm.gather((told, lists)), [part.mean() for part in large] if large else None


def doomed(ranks, how, moment):
    """Rank 1 ends badly while the others wait for it; the file ``moment`` says that it begins."""
    ranks.allreduce(np.ones(1))
    if ranks.rank == 1:
        with open(moment, "w", encoding="ascii"):
            pass
        if how == "raise":
            raise ZeroDivisionError("of our own making")
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(100)
    ranks.allreduce(np.ones(1))
