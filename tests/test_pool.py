"""The pools in which a sweep makes its runs: order, processes, MPI's ranks, signals.

Leaves out: runs themselves (test_experiments.py).
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mpi_here import ALLOWED, MPIEXEC, needs_mpi, needs_signals

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "experiments"))
from pool import environment_of_a_run, pool  # noqa: E402

SCRIPT = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from pool import Stopped, pool

def work(folder, number):
    got, end = [], time.monotonic() + 60
    before = signal.signal(signal.SIGINT, lambda *_: got.append(True))
    (folder / f"began-{number}").touch()
    while not got and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)  # a second signal would be seen
    signal.signal(signal.SIGINT, before)
    (folder / f"signals-{number}").write_text(str(len(got)))
    return Stopped(f"{number} is stopped")

if __name__ == "__main__":
    with pool(2) as each:
        for result in each(partial(work, Path(sys.argv[1])), range(6)):
            if isinstance(result, Stopped):
                raise result
"""


def double(number):
    return os.getpid(), 2 * number


@pytest.mark.parametrize("jobs", [1, 3])
def test_results_are_in_order(jobs):
    with pool(jobs) as each:
        pids, results = zip(*each(double, range(20)), strict=True)
    assert results == tuple(range(0, 40, 2))
    assert set(pids) == {os.getpid()} if jobs == 1 else os.getpid() not in pids


def test_one_at_a_time_is_lazy():
    """So that a run that is stopped is the last one."""
    made = []
    with pool(1) as each:
        next(iter(each(made.append, range(5))))
    assert made == [0]


def start(tmp_path, *command):
    """Start SCRIPT with a command before it; wait until two calls have begun."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = map(str, (ROOT, ROOT / "experiments"))
    environment = {**os.environ, **ALLOWED, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [*command, str(script), str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(tmp_path.glob("began-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def told_once(tmp_path, process):
    """Assert that the two calls got one SIGINT, and that no other one began."""
    _, text = process.communicate(timeout=60)
    assert process.returncode and "0 is stopped" in text, text
    assert [(tmp_path / f"signals-{n}").read_text() for n in (0, 1)] == ["1", "1"]
    assert len(list(tmp_path.glob("began-*"))) == 2


@pytest.mark.parametrize("to_all", [False, True])
def test_a_signal_stops_all_processes_once(tmp_path, to_all):
    """As from `kill`, and as Ctrl-C in a terminal, which every process of the group gets."""
    process = start(tmp_path, sys.executable)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    told_once(tmp_path, process)


@needs_mpi
def test_ranks_of_mpi(tmp_path):
    needs_signals()
    futures = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures"]
    process = start(tmp_path, *futures)
    process.send_signal(signal.SIGINT)
    told_once(tmp_path, process)


def test_a_run_is_no_rank(monkeypatch):
    monkeypatch.setenv("PMI_RANK", "1")
    monkeypatch.setenv("OTHER", "1")
    environment = environment_of_a_run()
    assert "PMI_RANK" not in environment and environment["OTHER"] == "1"
    with pytest.raises(SystemExit, match="expected python -m mpi4py.futures .* without -m"):
        with pool(1):
            pass
