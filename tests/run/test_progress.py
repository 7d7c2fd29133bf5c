"""progress.csv: a row for each update, once each, whatever happened to the run.

Interrupts: that of a run is in tests/run/test_train.py, that which gets lost here.
"""

import ctypes
import io
import shutil
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from numba import njit
from small_runs import CHAIN, UPDATE, WHOLE, assert_same_run

from minis5.run.progress import COLUMNS, read_progress
from minis5.run.progress_line import ProgressLine
from minis5.run.stop_signals import StopSignals
from minis5.run.train import resume, train


def test_progress_has_a_row_for_each_update(finished):
    rows = read_progress(finished / "progress.csv")
    assert [row["update"] for row in rows] == list(range(1, WHOLE + 1))
    assert [row["step"] for row in rows] == [UPDATE * update for update in range(1, WHOLE + 1)]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert (finished / "progress.csv").read_text().count("step,") == 1


def test_rows_after_the_checkpoint_are_dropped(finished, tmp_path):
    train("MemoryChain", steps=30 * UPDATE, seed=4, workers=1, out=tmp_path / "run", **CHAIN)
    whole = (finished / "progress.csv").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "progress.csv").write_text("".join(whole[:50]) + whole[50][:20])
    resume(tmp_path / "run", steps=WHOLE * UPDATE, quiet=True)
    assert_same_run(finished, tmp_path / "run")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGALRM")
def test_a_second_interrupt_lost_in_a_callback_comes_again():
    """As when Numba compiles: LLVM calls Python back through ctypes."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)]
    reached = []

    @ctypes.CFUNCTYPE(None)
    def callback():
        signal.raise_signal(signal.SIGINT)
        reached.append("first")
        signal.raise_signal(signal.SIGINT)
        reached.append("second")

    with pytest.raises(KeyboardInterrupt), StopSignals():
        callback()
        reached.append("lost")
        time.sleep(20)
        reached.append("never again")
    assert reached == ["first", "lost"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)] == handlers


WRONG = {
    "no number": lambda text: text.replace("\n128,", "\nx28,"),
    "cells for": lambda text: text.replace("\n128,", "\n128,3,"),
    "unknown column 'stop'": lambda text: text.replace("step,", "stop,", 1),
    "no column 'return'": lambda text: text.replace(",return,", ",lr,", 1),
    "a column is there twice": lambda text: text.replace(",kl,", ",lr,", 1),
    "row 2 is that of update 3": lambda text: text.replace("\n128,2,", "\n128,3,"),
    "its rows are not those that were written": lambda text: text.replace("\n128,2,", "\n129,2,"),
    "utf-8": lambda text: text.replace("\n128,", "\n\udcff128,"),
    "NUL": lambda text: text.replace("\n128,", "\n128\x00,"),
    "carriage return": lambda text: text.replace("\n128,2,", "\n128,2\r,"),
}


@pytest.mark.parametrize("reason", WRONG)
def test_rows_that_do_not_fit(finished, tmp_path, reason):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "progress.csv"
    data = WRONG[reason](path.read_text()).encode(errors="surrogateescape")
    path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        resume(tmp_path / "run", steps=(WHOLE + 1) * UPDATE, quiet=True)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "restore it from a copy" in message
    assert reason in message or reason in ("NUL", "carriage return")
    assert path.read_bytes() == data


def test_the_columns_are_those_of_a_trainer(finished):
    rows = read_progress(finished / "progress.csv")
    assert tuple(rows[0]) == COLUMNS


def test_a_rollout_without_an_end_has_no_return(capsys):
    line, run = ProgressLine(), SimpleNamespace(step=0, ending=False)
    line.start, line.began, line.total = 0, time.monotonic(), 10
    row = {"step": 5, "episodes": 3, "return": float("nan"), "loss": 1.0, "kl": 0.0}
    line.on_update(run, row)
    assert "  return –  loss 1.0000" in capsys.readouterr().err


def test_80_columns_are_enough_for_the_line(capsys):
    line, run = ProgressLine(), SimpleNamespace(step=0, ending=True)
    line.start, line.began, line.total = 0, time.monotonic() - 9e4, 10**8
    row = {"step": 10**8, "episodes": 3, "return": -12345.678, "loss": 1234.5, "kl": 0.01}
    line.on_update(run, row)
    line.began, line.total = time.monotonic() - 10, 20
    line.on_update(run, row | {"step": 10, "return": 0.5, "loss": 0.1})
    long, short = capsys.readouterr().err.splitlines()
    assert len(long) < 80 and "return -12345.678" in long
    assert len(short) < 80 and short.endswith("return 0.500  loss 0.1000  KL 0.0100")


def small_run():
    """Return what a ProgressLine asks of a run."""
    agent = SimpleNamespace(
        config=SimpleNamespace(core="s5", action_masks=False),
        parameter_vector=np.zeros(3),
        parameters=dict,
    )
    ppo = SimpleNamespace(num_envs=8, unroll=8)
    config = SimpleNamespace(steps=10**9, ppo=ppo)
    return SimpleNamespace(step=0, ending=False, agent=agent, config=config)


def test_compiling_is_told_once_and_before_the_first_update_only(capsys):
    line, run = ProgressLine(), small_run()
    row = {"step": 64, "episodes": 3, "return": 0.5, "loss": 0.1, "kl": 0.01}
    line.on_start(run)
    assert "compiling" not in capsys.readouterr().err
    for told in ("compiling (once: the result is kept on the disk)\n", ""):
        assert njit(lambda x: x + 1)(1) == 2
        assert capsys.readouterr().err == told
    other = ProgressLine()
    other.on_start(run)
    for started in (line, other):
        started.on_update(run, row)
    capsys.readouterr()
    assert njit(lambda x: x + 1)(1) == 2
    assert capsys.readouterr().err == ""
    stopped = ProgressLine()
    stopped.on_start(run)
    stopped.on_end(run, None)
    capsys.readouterr()
    assert njit(lambda x: x + 1)(1) == 2
    assert capsys.readouterr().err == ""


def test_80_columns_are_enough_for_the_bar(monkeypatch):
    """tqdm cuts what is too long, so what counts must be there."""
    pytest.importorskip("tqdm")
    monkeypatch.setattr("minis5.run.progress_line.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stderr", screen := io.StringIO())
    line, run = ProgressLine(), small_run()
    line.on_start(run)
    row = {"step": 10**8, "episodes": 3, "return": 0.987, "loss": 0.0123, "kl": 0.0123}
    line.on_update(run, row)
    line.bar.refresh()
    line.on_evaluation(run, {"step": 10**8, "episodes": 9, "mean_return": 1, "std_return": 2})
    run.ending = True
    line.on_update(run, row | {"step": 10**9})
    shown = [part for text in screen.getvalue().split("\n") for part in text.split("\r")]
    assert max(map(len, shown)) <= 80
    assert any("10%" in part and "return 0.987" in part for part in shown)
    assert "after 100,000,000 steps: mean return 1.000 ± 2.000 over 9 fresh episodes" in shown
    assert line.bar is None
