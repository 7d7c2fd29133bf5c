"""The log of a training run: progress.csv, the live line, and the signals that ask for a stop.

progress.csv has one row for each update, appended whole and flushed, under one header. Floats read
back to the same bits. On resuming, the rows after the checkpoint are dropped, because their updates
are made again.

Leaves out: TensorBoard and other services. Tests: tests/run/test_progress.py,
tests/run/test_train.py (signals).
"""

import hashlib
import math
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from minis5.files import cannot_write, write_bytes
from minis5.rl.loss import STATS
from minis5.run.console import is_terminal, tell

COUNTS = ("step", "update", "episodes")  # columns of whole numbers
COLUMNS = (*COUNTS, "return", "length", *STATS, "grad_norm", "lr", "seconds", "steps_per_second")
NEEDED = ("step", "update", "return", "seconds")
TIME_COLUMNS = ("seconds", "steps_per_second")
CHECKPOINT_INTERVAL = 10.0  # seconds
NO_END = 100_000  # steps after which it is said that no episode has ended
PLAIN_INTERVAL = 10.0  # seconds between lines where the progress line cannot be redrawn


class ProgressFile:
    """Append to progress.csv, one row (dict of numbers) for each update.

    Parameters
    ----------
    path : pathlib.Path
        The file; an existing one is continued.
    update : int
        Rows of later updates, and a row cut short, are dropped: 0 begins a new file.
    expected : str, optional
        `digest` of the file when it had these rows.

    Raises
    ------
    ValueError
        The file has other rows, or fewer. It is left as it is.
    """

    def __init__(self, path, update, expected=None):
        remedy = (
            "restore it from a copy, or begin a new run with this agent: "
            f"minis5 train ENV --init-from {path.parent}"
        )
        rows = read_progress(path) if path.exists() and update else []
        if len(rows) < update:
            raise ValueError(
                f"{path}: expected a row for each of the {update} updates of the run, got "
                f"{len(rows)}; {remedy}"
            )
        lines = path.read_bytes().decode("utf-8").split("\n") if rows else []
        kept = [f"{line}\n" for line in lines[: update + 1]]
        self._digest = hashlib.sha256()
        for line in kept:
            self._add(kept[0], line)
        if expected not in (None, self.digest()):
            raise ValueError(f"{path}: its rows are not those that were written; {remedy}")
        self.columns = list(rows[0]) if kept else None
        text = "".join(kept).encode()
        if not path.exists() or path.read_bytes() != text:
            write_bytes(path, text)
        self.path = path
        try:  # without a buffer nothing is left to write when it is closed
            self._file = open(path, "ab", buffering=0)
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, row):
        """Write a row, and the header before the first; the columns stay those of the header."""
        lines = [] if self.columns else [_line(row)]
        self.columns = self.columns or list(row)
        lines.append(_line(row[name] for name in self.columns))
        for line in lines:
            self._add(_line(self.columns), line)
        text = "".join(lines).encode()
        try:
            while text:
                text = text[self._file.write(text) :]
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _add(self, header, line):
        """Add a line to the digest, without the times, which differ between equal runs."""
        cells = zip(header[:-1].split(","), line[:-1].split(","), strict=True)
        told = [cell for name, cell in cells if name not in TIME_COLUMNS]
        self._digest.update(f"{','.join(told)}\n".encode())

    def digest(self):
        """Return a digest of the file as it is now, but for the times."""
        return self._digest.hexdigest()

    def sync(self):
        """Flush the rows to the disk, so that a checkpoint never knows more updates than they."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self):
        self._file.close()


def _line(values):
    floats = (float, np.floating)
    return ",".join(str(float(v) if isinstance(v, floats) else v) for v in values) + "\n"


def read_progress(path: Path) -> list[dict[str, int | float]]:
    """Return the rows of a progress.csv as dicts of numbers, without a last row that was cut short.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is no log of minis5 train: another header, a row that does not fit it, a text, or an
        update that is missing.
    """
    try:
        text = path.read_bytes().decode("utf-8")
        lines = text[: text.rfind("\n") + 1].split("\n")[:-1]
        columns = lines[0].split(",") if lines else []
        if lines and (odd := [name for name in columns if name not in COLUMNS]):
            raise ValueError(f"unknown column {odd[0][:40]!r}, damaged or of a newer minis5")
        if lines and (missing := [name for name in NEEDED if name not in columns]):
            raise ValueError(f"no column {missing[0]!r}")
        if len(set(columns)) < len(columns):
            raise ValueError("a column is there twice")
        return [_row(number, columns, line) for number, line in enumerate(lines[1:], start=1)]
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the log of a run, got a file that does not fit ({error}); "
            "restore it from a copy"
        ) from error


def _row(number, columns, line):
    """Return a row as a dict of numbers; its update is the row's number."""
    cells = line.split(",")
    if len(cells) != len(columns):
        raise ValueError(f"row {number} has {len(cells)} cells for {len(columns)} columns")
    row = {}
    for name, cell in zip(columns, cells, strict=True):
        try:
            row[name] = int(cell) if name in COUNTS else float(cell)
        except ValueError:
            raise ValueError(f"row {number}: {name} is {cell[:40]!r}, no number") from None
    if row["update"] != number or min(row[name] for name in COUNTS if name in row) < 0:
        raise ValueError(f"row {number} is that of update {row['update']}, or counts below 0")
    return row


class ProgressLine:
    """The live line on stderr: tqdm's bar, or plain lines.

    The bar needs tqdm, and a terminal on stderr.

    Parameters
    ----------
    total, start : int
        Environment steps at the end, and already done.
    quiet : bool
        Print nothing.
    """

    def __init__(self, total, start, quiet=False):
        self.total, self.start, self.began, self.shown = total, start, time.monotonic(), -math.inf
        self.quiet, self.bar, self.hinted = quiet, None, quiet
        if not quiet and is_terminal():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(
                total=total, initial=start, unit=" steps", unit_scale=True, dynamic_ncols=True
            )

    def update(self, row, last=False):
        """Show a row of progress; the last one is shown however short ago the one before was."""
        mean = "–" if math.isnan(row["return"]) else f"{row['return']:.3f}"
        ended = f"return {mean}" if row["episodes"] else "no episode has ended yet"
        figures = f"{ended}  loss {row['loss']:.4f}  KL {row['kl']:.4f}"
        if not (row["episodes"] or self.hinted) and (last or row["step"] >= NO_END):
            tell(f"no episode has ended in {row['step']:,} steps; set max_episode_steps")
            self.hinted = True
        now = time.monotonic()
        if self.bar is not None:
            with suppress(OSError, ValueError):  # the terminal has gone
                self.bar.set_postfix_str(figures, refresh=False)
                self.bar.update(row["step"] - self.bar.n)
        elif not self.quiet and (
            last or now - self.shown >= (1.0 if is_terminal() else PLAIN_INTERVAL)
        ):
            self.shown = now
            rate = (row["step"] - self.start) / max(now - self.began, 1e-9)
            left = max(self.total - row["step"], 0) / max(rate, 1e-9)
            steps = f"{row['step']:,} of {self.total:,} steps"
            speed = f"{rate:,.0f} steps/s  {left:.0f} s left"
            tell(f"{steps}  {speed}  {figures}")

    def close(self):
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.close()


def _ignore_interrupts(unraisable):
    """Report an exception that was lost, but for an interrupt, which comes again."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


class Recorder:
    """Keep the log and the checkpoint clock, and handle the signals that ask for a stop; on rank 0.

    After the first SIGINT or SIGTERM the update ends and the run is saved. The second stops at
    once.

    Parameters
    ----------
    folder : pathlib.Path
        The run's folder.
    config : minis5.run.config.RunConfig
    ppo : minis5.PPO
        The trainer, before its first update in this process.
    quiet : bool
        Print no progress line.
    logged : str, optional
        The digest of progress.csv with the trainer's updates.
    """

    def __init__(self, folder, config, ppo, quiet, logged=None):
        self.target, self.total = config.target_return, config.steps
        self.file = ProgressFile(folder / "progress.csv", ppo.updates, logged)
        rollout = ppo.config.num_envs * ppo.config.unroll
        whole = -(-self.total // rollout) * rollout  # training ends with a rollout
        self.line = ProgressLine(whole, ppo.steps, quiet)
        self.saved, self.signalled, self.interrupted = time.monotonic(), False, False
        self.previous, self.unraisablehook = {}, sys.unraisablehook

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.previous = {
                number: signal.signal(number, self._signal)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error):
        if sys.platform != "win32" and signal.SIGALRM in self.previous:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self.unraisablehook
        self.line.close()
        self.file.close()

    def _signal(self, number, frame):
        del number, frame
        if self.signalled:
            sys.unraisablehook = _ignore_interrupts
            if sys.platform != "win32":
                # While Numba compiles, LLVM calls Python back, and an exception raised in there is
                # lost. So a timer asks again each second until __exit__ shows that one arrived.
                self.previous.setdefault(
                    signal.SIGALRM, signal.signal(signal.SIGALRM, self._signal)
                )
                signal.setitimer(signal.ITIMER_REAL, 1.0)
            raise KeyboardInterrupt
        self.signalled = True
        tell("\nfinishing this update and saving; once more stops at once")

    def record(self, row, seconds):
        """Log a row and decide what follows it.

        Returns
        -------
        stop, save, finished : bool
            Whether training stops now, the state is saved now, and the run has finished.
        """
        row = {**row, "seconds": round(seconds, 3)}
        finished = row["step"] >= self.total or (
            self.target is not None and row["return"] >= self.target
        )
        self.interrupted = self.signalled and not finished
        stop = finished or self.interrupted
        save = stop or time.monotonic() - self.saved >= CHECKPOINT_INTERVAL
        self.file.append(row)
        self.line.update(row, last=stop)
        if save:
            self.file.sync()
            self.saved = time.monotonic()
        return stop, save, finished
