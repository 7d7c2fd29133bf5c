"""Ranks that MPI starts: the bits of ranks that this library starts, and ends with a reason."""

import csv
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rank_work
from command_line import CHAIN, WITHOUT_MATPLOTLIB
from mpi_here import ALLOWED, MPIEXEC, is_open_mpi, needs_mpi, needs_signals

from minis5.rl import comm
from minis5.rl.mpi import MPIComm

ROOT = Path(__file__).resolve().parents[2]
TIMES = ("seconds", "steps_per_second")


def environment(**more):
    """Return the variables for mpiexec, with this repository's paths."""
    paths = map(str, (WITHOUT_MATPLOTLIB, ROOT, ROOT / "cuda", ROOT / "tests"))
    return {**os.environ, **ALLOWED, "PYTHONPATH": os.pathsep.join(paths), **more}


def mpi(ranks, arguments, seconds=120, **more):
    """Run Python with these arguments on several ranks; return what came of it."""
    command = [MPIEXEC, "-n", str(ranks), sys.executable, *arguments]
    return subprocess.run(
        command, env=environment(**more), capture_output=True, text=True, timeout=seconds
    )


JOB = """
import pickle, sys, rank_work
from minis5.rl import mpi
ranks, out, calls = pickle.loads(bytes.fromhex(sys.argv[1]))
def lead():
    results = [mpi.run(getattr(rank_work, name), ranks, values) for name, *values in calls]
    with open(out, "wb") as file:
        pickle.dump(results, file)
sys.exit(mpi.lead(lead))
"""


def job(ranks, out, *calls):
    """Return Python's arguments with which a rank runs functions of rank_work.py.

    A call is a function's name and its arguments. A list of the results goes to ``out``.
    """
    return ["-c", JOB, pickle.dumps((ranks, str(out), calls)).hex()]


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_sums_and_messages_are_those_of_shared_memory(tmp_path, ranks):
    piece = comm.BYTES // 4
    add = "add", [1, 5, 0, 7, 400_003, piece, 2 * piece + 3, 4], np.float32
    calls = add, ("keep_sums",), ("uneven",), ("messages",)
    done = mpi(ranks, job(ranks, tmp_path / "result", *calls))
    assert done.returncode == 0, done.stderr
    found = pickle.loads((tmp_path / "result").read_bytes())
    for (name, *arguments), result in zip(calls, found, strict=True):
        wanted = pickle.loads(
            pickle.dumps(comm.run(getattr(rank_work, name), ranks, tuple(arguments)))
        )
        assert pickle.dumps(result) == pickle.dumps(wanted), name


def rows(folder):
    """Return the rows of a run without their times."""
    with open(folder / "progress.csv", encoding="utf-8", newline="") as file:
        return [[r[k] for k in r if k not in TIMES] for r in csv.DictReader(file)]


def same_run(one, other):
    assert rows(one) == rows(other)
    assert (one / "agent.npz").read_bytes() == (other / "agent.npz").read_bytes()


TRAIN = ["-m", "minis5", *CHAIN.replace("--workers 1", "--quiet").split()]


@needs_mpi
def test_a_run_is_that_of_as_many_workers(tmp_path):
    """Killed as a whole and resumed, too."""
    steps = ["--steps", "60000"]
    command = [sys.executable, *TRAIN, *steps, "--workers", "2", "--out", str(tmp_path / "workers")]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    done = mpi(2, [*TRAIN, *steps, "--out", str(tmp_path / "mpi")])
    assert done.returncode == 0, done.stderr
    same_run(tmp_path / "mpi", tmp_path / "workers")

    killed = tmp_path / "killed"
    command = [MPIEXEC, "-n", "2", sys.executable, *TRAIN, *steps, "--out", str(killed)]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    while not (killed / "progress.csv").exists() or len(rows(killed)) < 20:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.json").exists()
    deadline = time.monotonic() + 20
    while (done := mpi(2, ["-m", "minis5", "train", "--resume", str(killed)])).returncode:
        assert "another process" in done.stderr and time.monotonic() < deadline, done.stderr
    same_run(killed, tmp_path / "workers")


@needs_mpi
def test_only_rank_0_needs_the_files(tmp_path):
    """Ranks in two folders stand for machines that share none."""
    folders = [tmp_path / name for name in ("here", "there")]

    def run(*arguments):
        command = [MPIEXEC]
        for folder in folders:
            folder.mkdir(exist_ok=True)
            command += [":"] if len(command) > 1 else []
            command += ["-n", "1", "-wdir", str(folder), sys.executable, *arguments]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    train = [*TRAIN, "--anneal-lr", "false"]  # prolonging would change the rates
    run(*train, "--steps", "2000", "--out", "first")
    run(*train, "--steps", "2000", "--out", "second", "--init-from", "first")
    run("-m", "minis5", "train", "--resume", "second", "--steps", "4000")
    assert not list(folders[1].iterdir())
    command = [
        *train,
        "--workers",
        "2",
        "--init-from",
        "first",
        "--steps",
        "4000",
        "--out",
        "other",
    ]
    subprocess.run([sys.executable, *command], cwd=folders[0], env=environment(), check=True)
    same_run(folders[0] / "second", folders[0] / "other")


@needs_mpi
def test_a_stop_by_a_signal_saves(tmp_path):
    needs_signals()
    out = tmp_path / "run"
    command = [MPIEXEC, "-n", "2", sys.executable, *TRAIN, "--steps", "100M", "--out", str(out)]
    process = subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (out / "progress.csv").exists() or len(rows(out)) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 130 and f"saved; go on with: minis5 train --resume {out}" in text


@needs_mpi
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "rank 1 failed:\nTraceback"),
        ("kill", ""),  # mpiexec says it, each in its own words
        ("hang", "rank 1 did not come within 2 s, as asked by MINIS5_MPI_TIMEOUT"),
    ],
)
def test_a_rank_that_ends_badly_ends_the_job(tmp_path, how, reason):
    """The job ends within 10 s of that moment; of the time that a hanging rank is given, 2 s."""
    result, moment = tmp_path / "result", tmp_path / "moment"
    command = [MPIEXEC, "-n", "3", sys.executable, *job(3, result, ("doomed", how, str(moment)))]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment(MINIS5_MPI_TIMEOUT="2"), text=True, **pipes)
    try:
        while not moment.exists():
            assert process.poll() is None
            time.sleep(0.01)
        _, text = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode and reason in text, text
    assert ("of our own making" in text) == (how == "raise")
    assert not result.exists()


@needs_mpi
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("--help", 0, "train an agent on an environment"),
        ("train Nope", 2, "minis5: error: env_id: unknown environment 'Nope'"),
        (f"{CHAIN} --workers 4", 2, "workers: expected 2, as many as MPI started, got 4"),
    ],
)
def test_what_is_no_training_ends_too(tmp_path, arguments, code, text):
    arguments = arguments.replace("--workers 1 ", "").split()
    done = mpi(2, ["-m", "minis5", *arguments], seconds=60)
    assert done.returncode == code and text in done.stdout + done.stderr
    assert done.stderr.count("minis5: error") == (code == 2)


@needs_mpi
def test_a_script_without_lead_says_how():
    code = "from minis5.rl import mpi; mpi.run(print, 2)"
    done = mpi(2, ["-c", code], seconds=60)
    assert done.returncode and "got rank 1; call minis5.rl.mpi.lead(main)" in done.stderr


def test_mpi_without_its_library_is_named():
    code = "import sys; sys.modules['mpi4py'] = None\n"
    code += "from minis5.run.cli import main; sys.exit(main(['envs']))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(PMI_RANK="0"), capture_output=True, text=True)
    assert done.returncode and "pip install 'minis5[mpi]'" in done.stderr


@needs_mpi
@pytest.mark.parametrize("text", ["soon", "0", "nan"])
def test_an_environment_variable_that_is_no_time(text):
    done = mpi(2, ["-m", "minis5", "envs"], seconds=60, MINIS5_MPI_TIMEOUT=text)
    lines = done.stderr.splitlines()
    ours = [line for line in lines if "minis5" in line] if is_open_mpi() else lines  # it adds more
    wanted = f"minis5: error: MINIS5_MPI_TIMEOUT: expected seconds, got {text!r}; for example 600"
    assert done.returncode == 2 and ours == [wanted]


def test_a_communicator_without_mpi_is_refused():
    with pytest.raises(ValueError, match="use mpiexec"):
        MPIComm()
