"""Evaluations while a run trains: evaluations.csv, and best.npz, the best agent so far.

Every so many steps the agent plays fresh episodes, the same ones each time. They differ from those
of the evaluation at the end, so that a best agent, which was chosen by its luck in them as well, is
judged there without it. A state is saved after each evaluation. On resuming, rows after the
checkpoint are dropped, because their updates are made again.

Leaves out: when to save (minis5/run/learn.py). Tests: tests/run/test_evaluations.py.
"""

import csv
import io
import math
from pathlib import Path

from minis5.files import reason, write_bytes
from minis5.run.console import tell
from minis5.run.evaluate import FIRST_SEED, evaluate, result_text
from minis5.run.kept import keep

COUNTS = ("step", "episodes", "unfinished")  # columns of whole numbers
FIGURES = ("mean_return", "std_return", "min_return", "max_return")
COLUMNS = (COUNTS[0], *FIGURES, *COUNTS[1:])
FILE, BEST = "evaluations.csv", "best.npz"
SHIFT = FIRST_SEED // 2  # from the seed of the evaluation at the end to that of these


class Evaluations:
    """Evaluate now and then; on rank 0.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    config : minis5.run.config.RunConfig
        With ``eval_every``.
    step : int
        The run's steps so far. Later rows of evaluations.csv are dropped.
    quiet : bool
        Print nothing.
    """

    def __init__(self, folder, config, step, quiet):
        self.folder, self.config, self.quiet, self.step = folder, config, quiet, step
        path = folder / FILE
        rows = read_evaluations(path) if path.exists() else []
        self.rows = [row for row in rows if row["step"] <= step]
        if len(self.rows) != len(rows):
            self._write()

    def due(self, step):
        """Return whether an evaluation is due at a step, and remember that it was asked for."""
        every = self.config.eval_every
        previous, self.step = self.step, step
        return step // every > previous // every

    def evaluate(self, agent, step):
        """Play, add a row, and keep the agent if none was better."""
        config = self.config
        found = evaluate(
            agent,
            config.env,
            config.eval_episodes,
            (config.seed + SHIFT) % FIRST_SEED,
            quiet=self.quiet,
            **config.evaluation(),
            **config.environment(),
        )
        if not self.quiet:
            tell(f"evaluation after {step:,} steps: {result_text(found)}")
        if found["mean_return"] >= max(returns(self.rows), default=-math.inf):
            keep(agent, config, self.folder / BEST)
        self.rows.append({"step": step, **found})
        self._write()

    def _write(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_bytes(self.folder / FILE, text.getvalue().encode())


def returns(rows):
    """Return the mean returns of the evaluations in which an episode has ended."""
    return [row["mean_return"] for row in rows if not math.isnan(row["mean_return"])]


def read_evaluations(path: Path) -> list[dict[str, int | float]]:
    """Return the rows of an evaluations.csv as dicts of numbers.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged.
    """
    try:
        rows = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8")), strict=True)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are {rows.fieldnames}")
        return [
            {name: (int if name in COUNTS else float)(row[name]) for name in COLUMNS}
            for row in rows
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(
            f"{path}: expected the evaluations of a run, got a file that does not fit "
            f"({reason(error)}); restore it from a copy"
        ) from error
