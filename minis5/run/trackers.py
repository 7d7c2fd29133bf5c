"""Trackers: services that get every figure of a run, as callbacks.

``tensorboard`` writes an event file into the run's folder with TensorBoard's own writer, without
torch or TensorFlow. ``tensorboard --logdir runs`` shows all runs. ``wandb`` logs to Weights &
Biases. It needs no account: with WANDB_MODE=offline, or if no API key is known, everything is
written into RUN/wandb, and ``wandb sync`` sends it later. WANDB_PROJECT names the project.

Both get each column of progress.csv as ``training/NAME`` and each of evaluations.csv as
``evaluation/NAME``, at its environment step, the evaluation at the end as ``end/NAME``, and the
hyper-parameters. NaN (no episode has ended) is left out. A tracker begins with the rows that these
files hold already. So a run that goes on, after a kill too, has each step once.

Leaves out: pictures, weights. Tests: tests/run/test_trackers.py.
"""

import math
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from minis5.files import write_text
from minis5.run.callbacks import Callback, Row, Run
from minis5.run.config import RunConfig
from minis5.run.console import tell
from minis5.run.evaluations import FILE, read_evaluations
from minis5.run.presets import values
from minis5.run.progress import read_progress

MINE = ".minis5"  # how the names of our event files end
WANDB_ID = "wandb-id.txt"  # the file that has the run's id there


def hyper_parameters(config: RunConfig) -> dict[str, bool | int | float | str]:
    """Return a run's settings by name, as a table of runs shows them."""
    names = ("env", "preset", "seed", "steps", "device", "workers")
    found = {name: getattr(config, name) for name in names} | {"core": config.agent.core}
    found |= {f"env/{name}": value for name, value in config.env_options.items()}
    found |= values(config.agent, config.ppo)
    return {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in found.items()}


class Tracker(Callback):
    """What trackers share; a subclass has `open`, `log` and `close`."""

    def open(self, run: Run) -> None:
        """Begin, or go on with the service's run."""
        raise NotImplementedError

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Take figures by name; steps never decrease."""
        raise NotImplementedError

    def close(self, finished: bool) -> None:
        """End."""
        raise NotImplementedError

    def on_start(self, run: Run) -> None:
        rows, path = read_progress(run.folder / "progress.csv"), run.folder / FILE
        evaluated = read_evaluations(path) if path.exists() else []
        # the time at which the run would have begun if it had never stopped
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        self.began = time.time() - self.seconds
        self.open(run)
        found = [(row["step"], 0, row) for row in rows]
        found += [(row["step"], 1, row) for row in evaluated]
        for _, kind, row in sorted(found, key=lambda item: item[:2]):
            (self.on_evaluation if kind else self.on_update)(run, row)

    def on_update(self, run: Run, row: Row) -> None:
        self.seconds = row["seconds"]
        self._figures("training", row["step"], row)

    def on_evaluation(self, run: Run, row: Row) -> None:
        self._figures("evaluation", row["step"], row)

    def on_end(self, run: Run, summary: Row | None) -> None:
        if summary is not None:
            names = ("mean_return", "std_return", "min_return", "max_return", "episodes")
            self._figures("end", run.step, {name: summary[name] for name in names})
        self.close(summary is not None)

    def _figures(self, kind, step, row):
        told = {n: v for n, v in row.items() if n != "step" and v is not None and not math.isnan(v)}
        self.log(step, {f"{kind}/{name}": value for name, value in told.items()})


class TensorBoard(Tracker):
    """Write an event file. The one of an earlier part of the run is replaced."""

    def __init__(self):
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.plugins.hparams import summary_v2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise missing("tensorboard", error) from error
        self.event, self.summary, self.start = Event, Summary, SessionLog(status=SessionLog.START)
        self.hparams, self.new_writer = summary_v2.hparams_pb, EventFileWriter

    def open(self, run):
        for earlier in run.folder.glob(f"events.out.tfevents.*{MINE}"):
            earlier.unlink()
        self.writer = self.new_writer(str(run.folder), filename_suffix=MINE)
        # a TensorBoard that shows the earlier file now drops what it had of it
        self._add(0, session_log=self.start)
        self._add(0, summary=self.hparams(hyper_parameters(run.config), str(run.folder)))

    def log(self, step, figures):
        value = self.summary.Value
        told = [value(tag=name, simple_value=number) for name, number in figures.items()]
        self._add(step, summary=self.summary(value=told))

    def close(self, finished):
        self.writer.close()

    def _add(self, step, **what):
        self.writer.add_event(self.event(wall_time=self.began + self.seconds, step=step, **what))
        self.writer.flush()


class WeightsAndBiases(Tracker):
    """Log to Weights & Biases. The file WANDB_ID keeps the id that the run has there.

    Online, rows that are there already are not sent again. Offline, nobody knows what was sent, so
    the last part of a run has all of it, and replaces those before.
    """

    def __init__(self):
        try:
            import wandb
        except ImportError as error:
            raise missing("wandb", error) from error
        self.wandb = wandb

    def open(self, run):
        path = run.folder / WANDB_ID
        if not path.exists():
            write_text(path, uuid4().hex[:8])
        settings, mode = self.wandb.setup().settings, os.environ.get("WANDB_MODE")
        if mode is None and settings.mode == "online" and not has_key(settings):
            mode = "offline"
            tell(f"wandb: no API key, so all goes into {run.folder / 'wandb'}; wandb sync sends it")
        number = path.read_text(encoding="utf-8").strip()
        for earlier in (run.folder / "wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(earlier)  # the new one has all of it
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "minis5"),
            dir=str(run.folder),
            id=number,
            name=run.folder.resolve().name,
            group=run.config.env,
            config=hyper_parameters(run.config),
            allow_val_change=True,
            resume="allow",
            mode=mode,
            reinit="finish_previous",
            settings=self.wandb.Settings(console="off", disable_git=True),
        )

    def log(self, step, figures):
        if step >= self.run.step:  # what is there already is the same
            self.run.log(figures, step=step)

    def close(self, finished):
        self.run.finish(exit_code=0 if finished else 1)


def has_key(settings: Any) -> bool:
    """Return whether an API key of Weights & Biases is known: in the environment, or in .netrc."""
    if os.environ.get("WANDB_API_KEY") or getattr(settings, "api_key", None):
        return True
    with suppress(OSError, NetrcParseError):
        return netrc().authenticators(urlsplit(settings.base_url).hostname or "") is not None
    return False


def missing(extra: str, error: ImportError) -> ModuleNotFoundError:
    """Return the error that a tracker's library cannot be imported."""
    return ModuleNotFoundError(
        f"track: expected the library of {extra!r}, got none ({error}); "
        f"pip install 'minis5[{extra}]'"
    )


KINDS = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}  # those of config.TRACKERS


def trackers(names: Sequence[str]) -> list[Tracker]:
    """Return the trackers of these names.

    Raises
    ------
    ModuleNotFoundError
        A library is not installed.
    """
    return [KINDS[name]() for name in names]
