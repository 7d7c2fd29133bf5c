"""Ranks that die at any moment, in any number: an error that says so, within seconds.

The bound is on waiting for something that will not come; no speed is measured.
"""

import errno
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rank_work
import threadpoolctl
from numba.core.compiler_lock import global_compiler_lock

from minis5.nn import scan
from minis5.ops import compiling
from minis5.rl import comm, workers
from minis5.rl.comm import RankError, run

ROOT = Path(__file__).parents[2]
AT_MOST = 5.0  # seconds from a death to the error


@contextmanager
def soon(more=0.0):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_MOST + more


@pytest.fixture(params=["fork", "spawn"])
def method(request, monkeypatch):
    if request.param == "fork" and sys.platform != "linux":
        pytest.skip("only Linux forks")
    monkeypatch.setattr(workers, "start_method", lambda: request.param)
    return request.param


def test_however_they_are_started(method):
    expected = [[(np.arange(5.0) * 111 + 3 * i).tolist() for i in range(3)]] * 3
    assert [[z.tolist() for z in found] for found in run(rank_work.sums, 3)] == expected


# A worker that dies


@pytest.mark.parametrize("seed", range(12))
def test_at_a_random_moment(seed):
    """At its start, in a sum, in mid-message to or from rank 0."""
    rng = random.Random(seed)
    doomed, delay = rng.choice((1, 2)), rng.choice((0.001, 0.02, 0.3)) * rng.random()
    with soon(delay), pytest.raises(RankError, match=f"rank {doomed} died with exit code -14"):
        run(rank_work.chatter, 3, (doomed, delay))


def test_in_mid_message(method):
    with soon(10 if method == "spawn" else 0.5):
        with pytest.raises(RankError, match="rank 1 died with exit code -14"):
            run(rank_work.cut_short, 2)


def test_while_rank_0_computes():
    """Rank 0 is interrupted, and nothing that catches Exception keeps it from ending."""
    with soon(), pytest.raises(RankError, match=r"rank 2 died with exit code -9 \(SIGKILL, as the"):
        run(rank_work.compute, 3, (2, 60.0))


def test_while_numba_compiles(monkeypatch):
    """An exception within LLVM's calls of Python may crash the process: the next sum tells."""
    monkeypatch.setattr(workers, "compiling", lambda: True)
    began = time.monotonic()
    with soon(), pytest.raises(RankError, match="rank 1 died with exit code -9"):
        run(rank_work.compute, 2, (1, 1.0))
    assert time.monotonic() - began >= 1.0
    with global_compiler_lock:
        assert compiling()
    assert not compiling()


def test_in_another_thread_than_the_main_one():
    """Nothing can interrupt it: the next sum tells."""
    found = []

    def work():
        try:
            run(rank_work.compute, 2, (1, 0.5))
        except RankError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(AT_MOST)
    assert not thread.is_alive() and "rank 1 died with exit code -9" in found[0]


def exit_3(*args):
    os._exit(3)


def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("target, code", [(exit_3, 3), (killed, -9)])
def test_before_it_begins(monkeypatch, target, code):
    monkeypatch.setattr(comm, "_worker", target)
    with soon(), pytest.raises(RankError, match=f"rank [12] died with exit code {code}"):
        run(rank_work.sums, 3)


@pytest.mark.parametrize(
    "how, message",
    [
        ("exit 0 early", "rank 1 ended while the others waited"),
        ("return early", "rank 1 ended while the others waited"),
        ("exit 7 at the end", "rank 1 died with exit code 7"),
        ("killed at the end", "rank 1 died with exit code -9"),
    ],
)
def test_at_its_end(how, message):
    with soon(), pytest.raises(RankError, match=message):
        run(rank_work.leave, 3, (how,))
    assert run(rank_work.leave, 3, ("in peace",)) == [0, 1, 2]


@pytest.mark.parametrize("size", [31, 9, 9, 5, 5, 5])
def test_many_fail_together(size):
    """They are told of together, and ended together, not one after the other."""
    began = []
    with pytest.raises(RankError, match=r"rank \d+ failed:\n(?s:.*)ZeroDivisionError: x"):
        run(rank_work.fail_together, size, (began,))
    assert time.monotonic() - began[0] < AT_MOST


def talk(comm):
    if comm.rank:
        raise ZeroDivisionError("word " * 100_000 + "end")
    comm.gather(None)


def test_a_long_error_is_shortened():
    """Its head and its last line stay."""
    with soon(), pytest.raises(RankError) as caught:
        run(talk, 2)
    text = str(caught.value)
    assert text.startswith("rank 1 failed:\nTraceback (most recent") and text.rstrip()[-3:] == "end"
    assert 1000 < len(text) < 100_000 and "…" in text


def test_what_cannot_be_pickled_is_told():
    with soon(), pytest.raises(RankError, match=r"rank 1 failed:\n(?s:.*)[Pp]ickl"):
        run(rank_work.not_picklable, 2)


# Rank 0


@pytest.mark.parametrize("others", ["wait", "compute", "stopped"])
def test_an_error_of_rank_0_ends_the_others(others):
    with soon(), pytest.raises(KeyError, match="rank 0's own"):
        run(rank_work.rank_0_fails, 3, (others,))


def gone(pid):
    """Whether a process has ended; one that nobody has waited for has ended too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rank_0_leaves_no_orphan(tmp_path):
    """One waits at a sum, one computes, one is stopped: all end with rank 0."""
    code = f"import rank_work, minis5.rl.comm as c; c.run(rank_work.hang, 4, ({str(tmp_path)!r},))"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("[0-3]"))) < 4:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        pids = [int((tmp_path / str(rank)).read_text()) for rank in range(1, 4)]
        assert not any(map(gone, pids))
    finally:
        process.kill()
        process.wait()
    with soon():
        while not all(map(gone, pids)):
            time.sleep(0.01)
            assert time.monotonic() < deadline + 60


# What the system refuses


def test_processes_refused(monkeypatch):
    """Two are started, the third is refused: the error says so, and the two are ended."""
    fork, pids = os.fork, []

    def reluctant():
        if len(pids) == 2:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        pids.append(fork())
        return pids[-1]

    monkeypatch.setattr(workers, "start_method", lambda: "fork")
    monkeypatch.setattr(os, "fork", reluctant)
    remedy = "ask for fewer, or for --workers 1"
    message = rf"expected to start 4 processes.*, got 2 \(Resource temporarily.*\); {remedy}"
    with soon(), pytest.raises(RankError, match=f"^workers: {message}"):
        run(rank_work.sums, 5)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_file_descriptors_refused():
    code = (
        "import resource, rank_work, minis5.rl.comm as c\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n"
        "try: c.run(rank_work.sums, 30)\n"
        "except c.RankError as error: print(error)"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "workers: expected to start 29 processes" in done.stdout
    assert "Too many open files" in done.stdout and "--workers 1" in done.stdout


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "Function not implemented"), ImportError])
def test_no_semaphores(monkeypatch, error):
    """A container may have no /dev/shm."""
    import _multiprocessing

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(_multiprocessing, "SemLock", refuse)
    with pytest.raises(
        RankError, match="^workers: expected to start 1 process beside.*--workers 1"
    ):
        run(rank_work.sums, 2)
    assert len(run(rank_work.sums, 1)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")
def test_no_shared_files_are_needed(monkeypatch):
    """The /dev/shm of a container may be tiny."""
    from multiprocessing import heap

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(heap, "Arena", refuse)
    assert len(run(rank_work.sums, 2)) == 2


# What is left behind: nothing


def test_signals_descriptors_and_children_are_as_before():
    def handler(number, frame):
        pass

    numbers = signal.SIGCHLD, signal.SIGINT, signal.SIGTERM
    run(rank_work.sums, 2)
    before = signal.signal(signal.SIGCHLD, handler)
    try:
        handlers = [signal.getsignal(number) for number in numbers]
        gc.collect()
        files = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
        for _ in range(2):
            run(rank_work.sums, 3)
            with pytest.raises(RankError):
                run(rank_work.leave, 3, ("exit 0 early",))
        assert [signal.getsignal(number) for number in numbers] == handlers
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        gc.collect()
        assert files == (len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0)
    finally:
        signal.signal(signal.SIGCHLD, before)


def blas():
    pools = threadpoolctl.threadpool_info()
    return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]


def limits(comm):
    return comm.gather((blas(), scan.set_num_threads(1)))


def limits_and_failure(comm):
    comm.gather((blas(), scan.set_num_threads(1)))
    if comm.rank == 0:
        raise KeyError


@pytest.mark.parametrize("size", [1, 2])
def test_one_thread_for_each_rank_then_as_many_as_before(size):
    """A single process too: on a busy machine threads of BLAS only wait for each other."""
    before = scan.set_num_threads(5)
    try:
        with threadpoolctl.threadpool_limits(2, user_api="blas"):
            pools = blas()
            for pools_inside, threads in run(limits, size):
                assert set(pools_inside) == {1} and threads == 1
            with pytest.raises(KeyError):
                run(limits_and_failure, size)
            assert blas() == pools and 2 in pools
        assert scan.set_num_threads(5) == 5
    finally:
        scan.set_num_threads(before)
