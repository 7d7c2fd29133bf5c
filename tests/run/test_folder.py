"""A run's folder: one writer, names of its own, and files that agree after any end."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import error_of
from small_runs import CHAIN, UPDATE, WHOLE, assert_same_run

import minis5
from minis5.run import folder as folders
from minis5.run.folder import LOCK, make_folder, only_writer
from minis5.run.train import resume, train

AGREE = ["config.json", "progress.csv", "state.npz", "agent.npz"]


@pytest.fixture
def run(finished, tmp_path):
    """Return a copy of the finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


# One writer


def test_a_second_writer_is_refused(run, capsys):
    before = {name: (run / name).read_bytes() for name in AGREE}
    with only_writer(run):
        with pytest.raises(ValueError, match="another process trains in this folder; wait"):
            resume(run, steps=2 * WHOLE * UPDATE)
        with pytest.raises(ValueError, match="another process trains in this folder"):
            train("MemoryChain", steps=UPDATE, out=run, **CHAIN)
        assert "another process trains" in error_of(capsys, ["train", "--resume", str(run)])
    assert {name: (run / name).read_bytes() for name in AGREE} == before
    assert not (run / LOCK).exists()
    resume(run, quiet=True)
    assert not (run / LOCK).exists()


HOLDER = """
import multiprocessing, os, sys, time
from pathlib import Path
from minis5.run.folder import only_writer

def idle():
    print("worker", os.getpid(), flush=True)
    time.sleep(600)

with only_writer(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=idle, daemon=True).start()
    time.sleep(600)
"""


def test_the_lock_goes_with_its_process_though_a_worker_lives_on(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    worker = int(process.stdout.readline().split()[1])
    try:
        with pytest.raises(ValueError, match="another process"), only_writer(tmp_path):
            pass
        process.kill()
        process.wait()
        os.kill(worker, 0)  # it lives
        with only_writer(tmp_path):
            assert (tmp_path / LOCK).exists()
    finally:
        process.kill()
        os.kill(worker, signal.SIGKILL)


def _take(folder, gate, answers):
    gate.wait()
    for _ in range(200):
        try:
            with only_writer(folder):
                mine = folder / "writer"
                descriptor = os.open(mine, os.O_CREAT | os.O_EXCL)
                os.close(descriptor)
                time.sleep(0.0001)
                mine.unlink()
        except ValueError:
            continue
        except FileExistsError:
            answers.put("two writers")
            return
    answers.put("fine")


def test_never_two_writers(tmp_path):
    """The file of the lock is removed and made anew all the time."""
    context = multiprocessing.get_context("fork")
    gate, answers = context.Event(), context.Queue()
    processes = [context.Process(target=_take, args=(tmp_path, gate, answers)) for _ in range(4)]
    for process in processes:
        process.start()
    gate.set()
    assert [answers.get(timeout=60) for _ in processes] == ["fine"] * 4
    for process in processes:
        process.join(timeout=10)
    assert not list(tmp_path.iterdir())


def test_a_file_system_without_locks(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(folders.fcntl, "flock", fail)
    with only_writer(tmp_path):
        assert "this file system has no locks" in capsys.readouterr().err


# Names


def test_names_of_the_same_second_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders.time, "strftime", lambda _: "20260102-030405")
    names = [make_folder(None, "module:Env-v0", "gru", 7).name for _ in range(3)]
    first = "module_Env-v0-gru-seed7-20260102-030405"
    assert names == [first, f"{first}-2", f"{first}-3"]
    assert len(make_folder(None, "x" * 1000, "s5", 1).name) < 200


def test_runs_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(OSError, match="out: cannot write to the folder runs .*--out"):
        train("MemoryChain", steps=UPDATE, **CHAIN)


# A folder that is taken, and one that is not


def test_a_folder_that_is_no_run(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="not empty; choose another with --out$"):
        train("MemoryChain", steps=UPDATE, out=tmp_path, **CHAIN)
    assert [file.name for file in tmp_path.iterdir()] == ["letter.txt"]


def test_somebody_else_s_config_json_is_not_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"colour": "blue"}')
    with pytest.raises(ValueError, match="not empty; choose another with --out$"):
        train("MemoryChain", steps=UPDATE, out=tmp_path, **CHAIN)
    assert (tmp_path / "config.json").read_text() == '{"colour": "blue"}'


@pytest.mark.parametrize(
    "left",
    [
        [],
        [LOCK],
        [".config.json.123.tmp"],
        ["config.json"],
        ["config.json", LOCK, "progress.csv"],
        ["config.json", "progress.csv", ".state.npz.9.tmp"],
    ],
)
def test_a_folder_that_an_early_kill_left_is_usable(finished, tmp_path, left):
    for name in left:
        (tmp_path / name).write_bytes(b"")
        if name == "config.json":
            shutil.copy(finished / name, tmp_path)
    assert train("MemoryChain", steps=UPDATE, workers=1, out=tmp_path, **CHAIN)["updates"] == 1
    assert not list(tmp_path.glob(".*"))


# Files that disagree


def test_agent_and_state_of_different_updates(finished, tmp_path):
    """As a kill between the two writes leaves them: the state is the truth."""
    for updates, name in ((30, "run"), (20, "older")):
        train(
            "MemoryChain", steps=updates * UPDATE, seed=4, workers=1, out=tmp_path / name, **CHAIN
        )
    shutil.copy(tmp_path / "older" / "agent.npz", tmp_path / "run")
    resume(tmp_path / "run", quiet=True)
    assert_agree(tmp_path / "run")
    shutil.copy(tmp_path / "older" / "agent.npz", tmp_path / "run")
    resume(tmp_path / "run", steps=WHOLE * UPDATE, quiet=True)
    assert_agree(tmp_path / "run")
    assert_same_run(finished, tmp_path / "run")


def test_a_lost_agent_is_written_again(finished, run):
    (run / "agent.npz").unlink()
    resume(run, quiet=True)
    assert_same_run(finished, run)
    assert_agree(run)


def assert_agree(run):
    """Assert that agent.npz, state.npz, summary.json and progress.csv tell of the same agent."""
    agent, summary = minis5.load(run / "agent.npz"), json.loads((run / "summary.json").read_text())
    with np.load(run / "state.npz") as state:
        for name, value in agent.parameters().items():
            assert np.array_equal(state[f"agent/{name}"], value)
        updates = state["rank0/counters"][2]
    assert updates == summary["updates"] == len((run / "progress.csv").read_text().split()) - 1
    again = minis5.run.evaluate.evaluate(agent, "MemoryChain", 20, 4, memory_length=3)
    assert again["mean_return"] == summary["mean_return"]


@pytest.mark.parametrize("kept", [["agent.npz"], ["progress.csv"], ["summary.json"]])
def test_a_lost_state_is_never_a_new_start(run, kept, capsys):
    for name in ("state.npz", "agent.npz", "progress.csv", "summary.json", "curve.png"):
        if name not in kept:
            (run / name).unlink(missing_ok=True)
    before = (run / kept[0]).read_bytes()
    with pytest.raises(ValueError, match=r"state.npz: the file is gone.*--init-from"):
        resume(run, quiet=True)
    error_of(capsys, ["train", "--resume", str(run), "--quiet"])
    assert sorted(file.name for file in run.iterdir()) == sorted(["config.json", *kept])
    assert (run / kept[0]).read_bytes() == before


def test_rows_that_are_missing(run):
    text = (run / "progress.csv").read_text().splitlines(keepends=True)
    (run / "progress.csv").write_text("".join(text[:50]))
    with pytest.raises(ValueError, match="progress.csv: expected a row for each of the 100 up"):
        resume(run, steps=2 * WHOLE * UPDATE, quiet=True)
    (run / "progress.csv").unlink()
    with pytest.raises(ValueError, match="got 0; restore it"):
        resume(run, steps=2 * WHOLE * UPDATE, quiet=True)


def test_a_refused_resume_leaves_the_folder_as_it_was(run):
    config = (run / "config.json").read_bytes()
    (run / "state.npz").write_bytes(b"cut")
    with pytest.raises(ValueError, match="damaged or cut short"):
        resume(run, steps=2 * WHOLE * UPDATE, quiet=True)
    assert (run / "config.json").read_bytes() == config


def test_going_on_is_told(run, capfd):
    values = json.loads((run / "config.json").read_text())
    numpy = values["versions"]["numpy"]
    values["versions"]["numpy"] = "1.0.0"
    (run / "config.json").write_text(json.dumps(values))
    resume(run, steps=(WHOLE + 1) * UPDATE)
    line = f"going on at 6,400 of 6,464 steps; versions have changed, .*: numpy 1.0.0 to {numpy}\n"
    lines = capfd.readouterr().err
    assert len(re.findall(line, lines)) == 1
    assert json.loads((run / "config.json").read_text())["versions"]["numpy"] == "1.0.0"
