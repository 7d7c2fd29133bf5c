"""What is told of a run while it trains: its log, its line, trackers, and a user's own objects.

    from minis5.run.callbacks import Callback
    from minis5.run.train import train

    class StopWhenDone(Callback):
        def on_update(self, run, row):
            return row["return"] > 0.9

    train("RepeatPreviousEasy", callbacks=[StopWhenDone()])

- **Where.** Rank 0 alone calls them, in the process that called `train` or `resume`. The log of the
  run comes first, then the user's in their order, then trackers, and the line on the screen.
- **Stopping.** If `on_update` or `on_evaluation` returns true, this update is the last one: the run
  finishes, as at its target return.
- **Errors.** Whatever an `on_` method raises, nothing is lost. The others are still told, the run
  is saved, and it ends with a CallbackError that names the method. The run can be resumed. Only
  KeyboardInterrupt and SystemExit end it at once.
- **Resuming.** Callbacks are not saved: give them to `resume` again. ``on_start`` comes anew, with
  the step that the run goes on from. Updates after the last checkpoint are made, and told, again.

Leaves out: changing a run. Who writes to the agent trains another one.
Tests: tests/run/test_callbacks.py.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from minis5.files import reason
from minis5.rl.agent import ActorCritic
from minis5.run.config import RunConfig
from minis5.run.console import tell

__all__ = ["Callback", "Run", "CallbackError"]
Row = dict[str, Any]  # the figures of an update, or of an evaluation on the way


@dataclass
class Run:
    """A run that trains, as callbacks see it; all of it is for reading only."""

    folder: Path  # the run's, with config.json and progress.csv
    config: RunConfig  # config.json: all that was asked for, resolved
    agent: ActorCritic  # as it is now; for a copy: copy.deepcopy
    step: int  # environment steps so far
    ending: bool = False  # training stops after this update; at the start: it had ended before


class Callback:
    """What may be told of a run; every method does nothing, unless a subclass has its own."""

    def on_start(self, run: Run) -> None:
        """Begin: the agent is ready, and no update has been made in this process.

        Parameters
        ----------
        run : Run
            It stays the same object until the end, and changes as the run goes on.
        """

    def on_update(self, run: Run, row: Row) -> object:
        """Take the figures of an update.

        Parameters
        ----------
        run : Run
        row : dict
            Column of progress.csv: number; "return" is NaN where no episode has ended. A copy.

        Returns
        -------
        object
            Something true stops training after this update.
        """

    def on_evaluation(self, run: Run, row: Row) -> object:
        """Take what an evaluation on the way found, after its update.

        Parameters
        ----------
        run : Run
        row : dict
            Column of evaluations.csv: number. A copy.

        Returns
        -------
        object
            Something true stops training.
        """

    def on_end(self, run: Run, summary: Row | None) -> None:
        """End, however the run ends; it comes if `on_start` has returned.

        Parameters
        ----------
        run : Run
        summary : dict
            The content of summary.json; None if the run has not finished.
        """


METHODS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class CallbackError(RuntimeError):
    """A callback raised an error; the message names it, the cause is the error itself."""


def check_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """Return callbacks as a list.

    Raises
    ------
    TypeError
        One is no object of a subclass of Callback.
    ValueError
        One has a method that begins with "on_" and is not known.
    """
    if not isinstance(callbacks, list | tuple):
        got = type(callbacks).__name__
        raise TypeError(f"callbacks: expected a list of Callback, got {got}; put it into a list")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            got = f"the class {callback.__name__}" if isinstance(callback, type) else repr(callback)
            remedy = "derive its class from minis5.run.callbacks.Callback, and give an object of it"
            raise TypeError(f"callbacks: expected objects of a Callback, got {got}; {remedy}")
        for name in dir(callback):
            if name.startswith("on_") and name not in METHODS:
                close = difflib.get_close_matches(name, METHODS, 1, 0)[0]
                raise ValueError(
                    f"callbacks: expected {', '.join(METHODS)}, got {name} in "
                    f"{type(callback).__name__}; rename it, for example to {close}"
                )
    return list(callbacks)


class Callbacks:
    """All callbacks of one run; a context, at whose end every one that was started is told.

    Parameters
    ----------
    theirs : sequence of Callback
        The user's, and trackers: their errors wait until the run is saved.
    """

    def __init__(self, theirs: Sequence[Callback] = ()):
        self.theirs, self.started, self.stack = list(theirs), list[Callback](), ExitStack()
        self.error: CallbackError | None = None  # the first
        self.summary: Row | None = None  # for on_end

    def __reduce__(self):
        return Callbacks, ()  # other processes have none

    def __enter__(self) -> "Callbacks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stack.close()
        if error is None:
            self.check()
        elif self.error is not None and self.error is not error:  # it is not the one that is told
            tell(str(self.error))

    def start(self, run: Run, first: Sequence[Callback], last: Sequence[Callback]) -> None:
        """Tell of the start: the run's own callbacks come first and last."""
        self.run = run
        for callback in (*first, *self.theirs, *last):
            with self._kept(callback, "on_start"):
                callback.on_start(run)
            self.check()
            self.started.append(callback)
            self.stack.callback(self._end, callback)

    def tell(self, method: str, row: Row) -> bool:
        """Tell of an update or an evaluation; return whether one asks for a stop."""
        asked = False
        for callback in self.started:
            with self._kept(callback, method):
                asked |= bool(getattr(callback, method)(self.run, dict(row)))
            self.run.ending |= asked or self.error is not None
        return asked and self.error is None

    def check(self) -> None:
        """Raise the first error of a callback, if there was one."""
        if self.error is not None:
            raise self.error

    def _end(self, callback):
        with self._kept(callback, "on_end"):
            callback.on_end(self.run, self.summary)

    @contextmanager
    def _kept(self, callback: Callback, method: str) -> Iterator[None]:
        """Keep an error for later; the run's own callbacks raise theirs at once."""
        try:
            yield
        except Exception as error:
            if callback not in self.theirs:
                raise
            name, what = f"{type(callback).__name__}.{method}", f"{type(error).__name__}: "
            text = f"callbacks: expected {name} to return, got {what}{reason(error)}"
            found = CallbackError(text)
            found.__cause__ = error
            self.error = self.error or found
