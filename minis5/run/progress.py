"""The log of a training run: progress.csv.

It has one row for each update, appended whole and flushed, under one header. Floats read back to
the same bits. On resuming, the rows after the checkpoint are dropped, because their updates are
made again.

Leaves out: services that draw it (minis5/run/trackers.py). Tests: tests/run/test_progress.py.
"""

import hashlib
import os
from pathlib import Path

import numpy as np

from minis5.files import cannot_write, write_bytes
from minis5.rl.loss import STATS
from minis5.run.callbacks import Callback

COUNTS = ("step", "update", "episodes")  # columns of whole numbers
COLUMNS = (*COUNTS, "return", "length", *STATS, "grad_norm", "lr", "seconds", "steps_per_second")
NEEDED = ("step", "update", "return", "seconds")
TIME_COLUMNS = ("seconds", "steps_per_second")


class ProgressFile(Callback):
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

    def on_start(self, run):
        try:  # without a buffer nothing is left to write when it is closed
            self._file = open(self.path, "ab", buffering=0)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def on_update(self, run, row):
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

    def on_end(self, run, summary):
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
