"""The files and the live line of a training run: progress.csv, config.json's facts about the machine, the progress line.

progress.csv has one row for each update, appended whole and flushed, under the header written once. Floats are written so
that they read back to the same bits. On resuming, the rows after the checkpoint are dropped, for they come again.
Left out: TensorBoard and other services. Tested in tests/test_train.py.
"""

import math
import os
import platform
import sys
import time
from importlib import metadata

import numpy as np

from . import checkpoint

TIME_COLUMNS = ("seconds", "steps_per_second")
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
        rows = [row for row in read_progress(path) if row["update"] <= update] if path.exists() and update else []
        self.columns = list(rows[0]) if rows else None
        lines = [_line(self.columns), *(_line(row.values()) for row in rows)] if rows else []
        checkpoint.write_text(path, "".join(lines))
        self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115

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
    return ",".join(str(float(value)) if isinstance(value, float | np.floating) else str(value) for value in values) + "\n"


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
            {name: _number(cell) for name, cell in zip(lines[0].split(","), line.split(","), strict=True)}
            for line in lines[1:]
        ]
    except ValueError as error:
        raise ValueError(f"{path}: a row does not fit the header ({error}); the file was changed by hand?") from error


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
            self.bar = tqdm(total=total, initial=start, unit=" steps", unit_scale=True, dynamic_ncols=True)

    def update(self, row, last=False):
        """Show a row of progress; `last` is the run's end, shown whatever the time."""
        figures = f"return {row['return']:.3f}  loss {row['loss']:.4f}  KL {row['kl']:.4f}"
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(figures, refresh=False)
            self.bar.update(row["step"] - self.bar.n)
        elif not self.quiet and (last or now - self.shown >= (1.0 if sys.stderr.isatty() else PLAIN_INTERVAL)):
            self.shown = now
            rate = (row["step"] - self.start) / max(now - self.began, 1e-9)
            left = max(self.total - row["step"], 0) / max(rate, 1e-9)
            head = f"{row['step']:,} of {self.total:,} steps  {rate:,.0f} steps/s  {left:.0f} s left  "
            print(head + figures, file=sys.stderr, flush=True)

    def close(self):
        if self.bar is not None:
            self.bar.close()


def versions():
    """The versions that results depend on: Python's, minis5's and its dependencies'."""
    names = ("minis5", "numpy", "numba", "scipy", "gymnasium")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine():
    """The machine that times depend on: system, processor, and the CPUs that this process may use."""
    return {"system": platform.platform(), "processor": _processor(), "cpus": available_cpus()}


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def available_cpus():
    """CPUs that this process may use: its affinity, and a container's quota (Linux cgroup v2) where there is one."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="utf-8") as file:
            quota, period = file.read().split()
        return max(1, min(count, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or the quota is "max"
        return count
