"""Standard streams that are closed, full, without a reader, or know ASCII only."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import CHAIN, WITHOUT_MATPLOTLIB
from sampling import sampled

from minis5.run import console

ROOT = Path(__file__).parents[2]
full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(command, **environment):
    """Run `python -m minis5 COMMAND` in a shell."""
    return subprocess.run(
        ["sh", "-c", f"{sys.executable} -m minis5 {command}"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=120,
    )


@full
@pytest.mark.parametrize(
    ("streams", "on_stderr"),
    sampled(
        [
            (">/dev/full", "stdout: cannot be written (No space left on device)"),
            (">&-", "steps/s"),
            ("2>/dev/full", ""),
            ("2>&-", ""),
            (">&- 2>&- <&-", ""),
            ("2>&1 | true", ""),
        ],
        every=4,
        unpack=True,
    ),
)
def test_a_run_ends_whatever_becomes_of_its_streams(tmp_path, streams, on_stderr):
    run = tmp_path / "run"
    path = os.pathsep.join([WITHOUT_MATPLOTLIB, str(ROOT)])
    done = shell(f"{CHAIN} --steps 640 --out {run} {streams}", PYTHONPATH=path)
    assert (run / "summary.json").exists(), done.stderr
    assert done.returncode == 0 and on_stderr in done.stderr.decode()
    assert b"Traceback" not in done.stderr and b"ignored" not in done.stderr
    if "/dev/full" in streams and on_stderr:
        assert b"the run has finished" in done.stderr


@full
def test_other_commands_say_that_stdout_is_full():
    done = shell("envs >/dev/full")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert (
        b"minis5: error: stdout: cannot be written (No space left on device); send" in done.stderr
    )
    assert shell("envs | true").stderr == b""


def test_a_terminal_that_knows_ascii_only(tmp_path):
    run = tmp_path / "run"
    done = shell(f"{CHAIN} --steps 64 --out {run}", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and b"+-" in done.stdout, done.stderr
    for command in ("train --help", "envs", f"eval {run} --episodes 1"):
        done = shell(command, LC_ALL="C", PYTHONIOENCODING="ascii:strict")
        assert done.returncode == 0 and done.stderr == b"", done.stderr


class Failing(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    def fileno(self):
        raise io.UnsupportedOperation


@pytest.mark.parametrize("error", [OSError(5, "I/O error"), ValueError("closed"), None])
def test_tell_never_fails(monkeypatch, error):
    monkeypatch.setattr(sys, "stderr", Failing(error) if error else None)
    console.tell("something")
    assert not console.is_terminal()


def test_tell_within_a_signal_handler(monkeypatch, capfd):
    """Python refuses to write to a stream that a signal interrupted while writing."""
    monkeypatch.setattr(sys, "stderr", Failing(RuntimeError("reentrant call")))
    console.tell("a signal came")
    assert capfd.readouterr().err == "a signal came\n"


def test_answer_says_why(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"stdout: cannot be written \(No space left on device\)"):
        console.answer("42")
    monkeypatch.setattr(sys, "stdout", None)
    console.answer("42")
