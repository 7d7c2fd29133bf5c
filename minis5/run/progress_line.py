"""The live line of a training run on stderr: tqdm's bar, or plain lines.

The bar needs tqdm, and a terminal on stderr. Both fit into 80 columns.

Leaves out: the log (minis5/run/progress.py). Tests: tests/run/test_progress.py.
"""

import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress

from numba.core import event

from minis5.rl.agent import ActorCritic
from minis5.run.callbacks import Callback
from minis5.run.console import is_terminal, tell
from minis5.run.evaluate import result_text
from minis5.run.machine import versions

NO_END = 100_000  # steps after which it is said that no episode has ended
PLAIN_INTERVAL = 10.0  # seconds between lines where the line cannot be redrawn
WIDTH = 79  # columns of a line
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
AROUND = 56  # columns that a bar of 10 has without the figures


def fit(parts: Sequence[str], width: int) -> str:
    """Join parts by two spaces, as many as fit into so many columns, the first one always."""
    while len(text := "  ".join(parts)) > width and len(parts) > 1:
        parts = parts[:-1]
    return text


def core_parameters(agent: ActorCritic) -> int:
    """Count the core's parameters in an agent."""
    return sum(
        int(value.size) for name, value in agent.parameters().items() if name.startswith("core/")
    )


class Compiling(event.Listener):
    """Tell once that Numba compiles, which takes seconds in which nothing else is shown."""

    def __init__(self, tell):
        self.tell = tell

    def on_start(self, event):
        said, self.tell = self.tell, None
        if said is not None:
            said("compiling (once: the result is kept on the disk)")

    def on_end(self, event):
        pass


class ProgressLine(Callback):
    """Show how far a run is, and what the evaluations on the way find."""

    def __init__(self):
        self.bar, self.hinted, self.shown = None, False, -math.inf
        self.compiling = None  # until the first update, by when everything has been compiled

    def on_start(self, run):
        agent = run.agent
        core = f"of which core {agent.config.core} {core_parameters(agent):,}"
        masks = "; the environment's action masks are used" if agent.config.action_masks else ""
        tell(f"parameters: {agent.parameter_vector.size:,}, {core}{masks}")
        if run.ending:
            return
        if run.step:
            tell(f"going on at {run.step:,} of {run.config.steps:,} steps{_changes(run.config)}")
        self.compiling = Compiling(self._tell)
        event.register("numba:compile", self.compiling)
        rollout = run.config.ppo.num_envs * run.config.ppo.unroll
        self.total = -(-run.config.steps // rollout) * rollout  # training ends with a rollout
        self.start, self.began = run.step, time.monotonic()
        if is_terminal():
            with suppress(ImportError):
                from tqdm import tqdm

                # without tqdm's thread, because the next run of this process may fork
                self.bar = type("Bar", (tqdm,), {"monitor_interval": 0})(
                    total=self.total,
                    initial=self.start,
                    unit="",
                    unit_scale=True,
                    dynamic_ncols=True,
                    bar_format=BAR,
                )

    def on_update(self, run, row):
        """Show a row; the last one is shown however short ago the one before was."""
        self._forget_compiling()
        if not (row["episodes"] or self.hinted) and (run.ending or row["step"] >= NO_END):
            tell(f"no episode has ended in {row['step']:,} steps; set max_episode_steps")
            self.hinted = True
        mean = "–" if math.isnan(row["return"]) else f"{row['return']:.3f}"
        ended = f"return {mean}" if row["episodes"] else "no episode has ended yet"
        figures = [ended, f"loss {row['loss']:.4f}", f"KL {row['kl']:.4f}"]
        now = time.monotonic()
        if self.bar is not None:
            with suppress(OSError, ValueError):  # the terminal has gone
                width = shutil.get_terminal_size().columns - AROUND
                self.bar.set_postfix_str(fit(figures, width), refresh=False)
                self.bar.update(row["step"] - self.bar.n)
        elif run.ending or now - self.shown >= (1.0 if is_terminal() else PLAIN_INTERVAL):
            self.shown = now
            rate = (row["step"] - self.start) / max(now - self.began, 1e-9)
            left = max(self.total - row["step"], 0) / max(rate, 1e-9)
            steps = f"{row['step']:,} of {self.total:,} steps"
            tell(fit([f"{steps}  {rate:,.0f} steps/s  {left:.0f} s left", *figures], WIDTH))
        if run.ending:
            self._close()

    def on_evaluation(self, run, row):
        if run.ending:
            self._close()
        self._tell(f"after {row['step']:,} steps: {result_text(row)}")

    def on_end(self, run, summary):
        self._close()

    def _tell(self, text):
        """Write a line in place of the bar, which is drawn again below."""
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.clear()
        tell(text)

    def _forget_compiling(self):
        if self.compiling is not None:
            event.unregister("numba:compile", self.compiling)
            self.compiling = None

    def _close(self):
        """Leave the bar as it is; what comes next begins a line."""
        self._forget_compiling()
        if self.bar is not None:
            with suppress(OSError, ValueError):
                self.bar.close()
            self.bar = None


def _changes(config):
    """Return what to say of versions that are no longer those that a run began with."""
    ours, theirs = versions(config.device), config.versions
    changes = [f"{n} {theirs[n]} to {ours[n]}" for n in ours if theirs.get(n, ours[n]) != ours[n]]
    note = "; versions have changed, so results may differ: "
    return note + ", ".join(changes) if changes else ""
