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
from minis5.rl.agent import ActorCritic
from minis5.run.callbacks import Callback
from minis5.run.config import RunConfig
from minis5.run.evaluate import FIRST_SEED, evaluate
from minis5.run.kept import keep

COUNTS = ("step", "episodes", "unfinished")  # columns of whole numbers
FIGURES = ("mean_return", "std_return", "min_return", "max_return")
COLUMNS = (COUNTS[0], *FIGURES, *COUNTS[1:])
FILE, BEST = "evaluations.csv", "best.npz"
SHIFT = FIRST_SEED // 2  # from the seed of the evaluation at the end to that of these


class Evaluations(Callback):
    """Keep evaluations.csv and best.npz; on_start drops rows after the run's step."""

    def on_start(self, run):
        self.path = run.folder / FILE
        rows = read_evaluations(self.path) if self.path.exists() else []
        self.rows = [row for row in rows if row["step"] <= run.step]
        if len(self.rows) != len(rows):
            self._write()

    def on_evaluation(self, run, row):
        """Keep the agent if none was better, and add a row."""
        if row["mean_return"] >= max(returns(self.rows), default=-math.inf):
            keep(run.agent, run.config, run.folder / BEST)
        self.rows.append(row)
        self._write()

    def _write(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_bytes(self.path, text.getvalue().encode())


def is_due(config: RunConfig, before: int, step: int) -> bool:
    """Return whether an evaluation is due after an update from one step to another."""
    every = config.eval_every
    return every is not None and step // every > before // every


def evaluate_run(
    agent: ActorCritic, config: RunConfig, quiet: bool, shift: int = 0
) -> dict[str, float]:
    """Play a run's evaluation: that at the end, or with SHIFT one on the way."""
    return evaluate(
        agent,
        config.env,
        config.eval_episodes,
        (config.seed + shift) % FIRST_SEED,
        quiet=quiet,
        **config.evaluation(),
        **config.environment(),
    )


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
