"""A full disk, a read-only folder, memory that ends: the last good state is kept."""

import builtins
import errno
import functools
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import CHAIN as COMMAND
from command_line import error_of
from small_runs import CHAIN, UPDATE, assert_same_run

import minis5
from minis5.run import learn
from minis5.run import train as training
from minis5.run.cli import main
from minis5.run.train import resume, train

ROOT = Path(__file__).parents[2]
STEPS = 3 * UPDATE
SETTINGS = CHAIN | {"steps": STEPS, "seed": 4, "workers": 1, "eval_episodes": 4}


class FullDisk:
    """From its `position`-th operation on, every write in `folder` fails, after half of it."""

    def __init__(self, monkeypatch, folder, position, number=errno.ENOSPC):
        self.folder, self.left, self.number = str(folder), position, number
        self.open, self.replace, self.fsync = builtins.open, os.replace, os.fsync
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(builtins, "open", self._open)
        monkeypatch.setattr(os, "replace", lambda *a: self.count() or self.replace(*a))
        monkeypatch.setattr(os, "fsync", lambda *a: self.count() or self.fsync(*a))

    def count(self):
        self.left -= 1
        if self.left < 0:
            raise OSError(self.number, os.strerror(self.number))

    def _open(self, path, mode="r", *args, **options):
        if not str(path).startswith(self.folder) or mode in ("r", "rb"):
            return self.open(path, mode, *args, **options)
        self.count()
        return FullFile(self.open(path, mode, *args, **options), self)

    def repair(self):
        self.monkeypatch.undo()


class FullFile:
    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def write(self, data):
        try:
            self.disk.count()
        except OSError:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Train undisturbed; return the run's folder."""
    folder = tmp_path_factory.mktemp("faults") / "whole"
    train("MemoryChain", out=folder, **SETTINGS)
    return folder


def test_a_disk_that_is_full_from_any_write_on(whole, tmp_path):
    """Every other position; a checkpoint follows every update."""
    failed = 0
    for position in range(0, 1000, 2):
        run = tmp_path / f"run{position}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learn, "CHECKPOINT_INTERVAL", 0.0)
            disk = FullDisk(patch, run, position)
            try:
                summary = train("MemoryChain", out=run, **SETTINGS)
            except OSError as error:
                failed += 1
                message = str(error)
                assert str(run) in message and "No space left on device" in message
                assert "\n" not in message and "Traceback" not in message
            else:
                assert summary["updates"] == 3 and disk.left >= -9  # no more than the picture
            disk.repair()
        for name in ("state.npz", "agent.npz"):  # whole, or not there
            if (run / name).exists():
                with np.load(run / name) as file:
                    assert len(file.files) == len([file[name] for name in file.files])
        if disk.left >= 0:
            break
        if (run / "config.json").exists():
            resume(run, quiet=True)
        else:
            train("MemoryChain", out=run, **SETTINGS)
        assert_same_run(run, whole)
        assert json.loads((run / "summary.json").read_text())["updates"] == 3
        assert not list(run.glob(".*"))
    assert failed > 20
    print(f"{failed} writes that failed, 0 wrong agents")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EMFILE, errno.EACCES])
def test_errors_name_file_and_remedy(tmp_path, number):
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(patch, run, 9, number)
        with pytest.raises(OSError, match=r"[a-z.]+: cannot be written \(.*\); ") as error:
            train("MemoryChain", out=run, **SETTINGS)
    remedy = "ulimit -n" if number == errno.EMFILE else "where this user may write"
    assert remedy in str(error.value) and f"minis5 train --resume {run}" in str(error.value)


def test_a_finished_run_is_finished_without_its_picture(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no fonts\nat all")

    monkeypatch.setattr(training, "plot", fail)
    command = f"{COMMAND} --steps 640 --quiet --out {tmp_path / 'run'}"
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    assert "mean return" in captured.out
    assert captured.err == "no picture of the learning curve: no fonts at all\n"


def test_memory_that_ends(tmp_path, monkeypatch, capsys):
    """More than the address space holds, asked for by NumPy (no function of this file)."""
    monkeypatch.setattr(minis5.PPO, "iteration", staticmethod(functools.partial(np.empty, 2**45)))
    command = f"{COMMAND} --steps 640 --quiet --out {tmp_path / 'run'}"
    message = error_of(capsys, command)
    assert "memory: it is full (Unable to allocate 256. TiB for" in message
    assert (tmp_path / "run" / "state.npz").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_file_size_limit(tmp_path):
    """The kernel itself refuses to write on; Python turns its signal into an error."""
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "minis5", *COMMAND.split(), "--steps", "640", "--out", str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert "state.npz: cannot be written (File too large); allow larger files" in line
    resume(run, quiet=True)
    assert json.loads((run / "summary.json").read_text())["steps"] == 640


# Pictures


def test_the_picture_s_folder_is_made(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "no" / "dir" / "x.svg"
    assert main(["plot", str(runs / "a"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n" and out.stat().st_size > 1000
    assert main(["plot", str(runs / "a"), "--out", str(tmp_path / "bare")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'bare.png'}\n"


def test_a_picture_of_an_unknown_kind(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    message = error_of(capsys, ["plot", str(runs / "a"), "--out", str(tmp_path / "x.foo")])
    assert "out: expected a name that ends in one of ." in message and "x.foo" in message
    assert not list(tmp_path.iterdir())
