"""The log of a training run: progress.csv, the live line, and the facts about the machine in config.json.

progress.csv has one row for each update, appended whole and flushed, under the header written once. Floats are written
so that they read back to the same bits. On resuming, the rows after the checkpoint are dropped, for they come again.
Left out: TensorBoard and other services. Tested in tests/run/test_train.py.
"""

import math
import os
import signal
import sys
import threading
import time

import numpy as np

from minis5.files import write_text

TIME_COLUMNS = ("seconds", "steps_per_second")
CHECKPOINT_INTERVAL = 10.0  # seconds
PLAIN_INTERVAL = 10.0  # seconds between lines where the progress line cannot be redrawn


class ProgressFile:
    """progress.csv, one row (dict of numbers) for each update.

    Parameters
    ----------
    path : pathlib.Path
        The file; it is continued where it exists.
    update : int
        Rows of later updates, and a row cut short, are dropped: 0 starts anew.
    """

    def __init__(self, path, update):
        rows = (
            [row for row in read_progress(path) if row["update"] <= update]
            if path.exists() and update
            else []
        )
        self.columns = list(rows[0]) if rows else None
        lines = [_line(self.columns), *(_line(row.values()) for row in rows)] if rows else []
        write_text(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8", newline="")

    def append(self, row):
        text = _line(row.values())
        if self.columns is None:
            self.columns = list(row)
            text = _line(row) + text
        self._file.write(text)
        self._file.flush()

    def sync(self):
        """Put the rows on the disk, as must be before a checkpoint that counts on them."""
        os.fsync(self._file.fileno())

    def close(self):
        self._file.close()


def _line(values):
    cells = (
        str(float(value)) if isinstance(value, float | np.floating) else str(value)
        for value in values
    )
    return ",".join(cells) + "\n"


def read_progress(path):
    """The rows of a progress.csv as dicts of numbers; a last row that was cut short is left out.

    Raises
    ------
    ValueError
        A row that does not fit the header.
    """
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        return [
            {
                name: _number(cell)
                for name, cell in zip(lines[0].split(","), line.split(","), strict=True)
            }
            for line in lines[1:]
        ]
    except ValueError as error:
        raise ValueError(
            f"{path}: a row does not fit the header ({error}); the file was changed by hand?"
        ) from error


def _number(cell):
    try:
        return int(cell)
    except ValueError:
        return float(cell)


class ProgressLine:
    """The live line on stderr: tqdm's bar if it is installed and stderr is a terminal, plain lines otherwise."""

    def __init__(self, total, start, quiet=False):
        self.total, self.start, self.began, self.shown = total, start, time.monotonic(), -math.inf
        self.quiet, self.bar = quiet, None
        if not quiet and sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(
                total=total, initial=start, unit=" steps", unit_scale=True, dynamic_ncols=True
            )

    def update(self, row, last=False):
        """Show a row of progress; `last` is the run's end, shown whatever the time."""
        figures = f"return {row['return']:.3f}  loss {row['loss']:.4f}  KL {row['kl']:.4f}"
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(figures, refresh=False)
            self.bar.update(row["step"] - self.bar.n)
        elif not self.quiet and (
            last or now - self.shown >= (1.0 if sys.stderr.isatty() else PLAIN_INTERVAL)
        ):
            self.shown = now
            rate = (row["step"] - self.start) / max(now - self.began, 1e-9)
            left = max(self.total - row["step"], 0) / max(rate, 1e-9)
            head = (
                f"{row['step']:,} of {self.total:,} steps  {rate:,.0f} steps/s  {left:.0f} s left  "
            )
            print(head + figures, file=sys.stderr, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()


class Recorder:
    """Rank 0's part beside learning: the log, the checkpoint clock, and the signals that ask for a stop.

    The first SIGINT or SIGTERM lets the update end and the run be saved; the second stops at once.
    """

    def __init__(self, folder, config, ppo, quiet):
        self.target, self.total = config["target_return"], config["steps"]
        self.file = ProgressFile(folder / "progress.csv", ppo.updates)
        rollout = ppo.config.num_envs * ppo.config.unroll
        # whole rollouts
        self.line = ProgressLine(-(-self.total // rollout) * rollout, ppo.steps, quiet)
        self.saved, self.signalled, self.interrupted = time.monotonic(), False, False
        self.previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.previous = {
                number: signal.signal(number, self._signal)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.line.close()
        self.file.close()

    def _signal(self, number, frame):
        del number, frame
        if self.signalled:
            raise KeyboardInterrupt
        self.signalled = True
        print("\nfinishing this update and saving; once more stops at once", file=sys.stderr)

    def record(self, row, seconds):
        """Log a row; returns whether to stop, whether to save, and whether the run has finished."""
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
