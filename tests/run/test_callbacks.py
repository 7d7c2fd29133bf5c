"""Callbacks: what they are told and when, how they stop a run, and what their errors cost."""

import math
import os
import sys

import numpy as np
import pytest
from small_runs import CHAIN, UPDATE, assert_same_run

import minis5
from minis5.run.callbacks import Callback, CallbackError, Callbacks, Run
from minis5.run.config import read_config
from minis5.run.evaluations import read_evaluations
from minis5.run.progress import COLUMNS, read_progress
from minis5.run.train import Interrupted, resume, train

STEPS = 6 * UPDATE
OPTIONS = CHAIN | {"workers": 1, "seed": 3}


class Notes(Callback):
    """Write down everything that is told, and spoil the row for whoever comes after."""

    def __init__(self):
        self.told, self.ends = [], []

    def on_start(self, run):
        assert isinstance(run, Run) and run.agent.parameter_vector.size > 0
        assert run.config == read_config(run.folder)
        self.told.append(("start", run.step))

    def on_update(self, run, row):
        assert run.step == row["step"] and tuple(row) == COLUMNS
        self.told.append(("update", dict(row)))
        self.ends.append(run.ending)
        assert read_progress(run.folder / "progress.csv")[-1]["step"] == run.step
        row.clear()

    def on_evaluation(self, run, row):
        self.told.append(("evaluation", dict(row)))
        row.clear()

    def on_end(self, run, summary):
        self.told.append(("end", summary))


class At(Callback):
    """Do something in one method, at one update."""

    def __init__(self, step, action, method="on_update"):
        def act(run, row):
            return action() if run.step == step else None

        setattr(self, method, act)


def kinds(notes):
    return [kind for kind, _ in notes.told]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    train("MemoryChain", steps=STEPS, out=folder, **OPTIONS)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_told(plain, tmp_path, workers):
    notes = Notes()
    options = OPTIONS | {"workers": workers, "eval_every": 3 * UPDATE}
    summary = train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=[notes], **options)
    wanted = ["start", *["update"] * 3, "evaluation", *["update"] * 3, "evaluation", "end"]
    assert kinds(notes) == wanted
    assert notes.told[0] == ("start", 0) and notes.told[-1] == ("end", summary)
    rows = [row for kind, row in notes.told if kind == "update"]
    np.testing.assert_equal(rows, read_progress(tmp_path / "progress.csv"))
    evaluations = [row for kind, row in notes.told if kind == "evaluation"]
    assert evaluations == read_evaluations(tmp_path / "evaluations.csv")
    assert notes.ends == [False] * 5 + [True]
    if workers == 1:
        assert_same_run(plain, tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", ["on_update", "on_evaluation"])
def test_a_callback_stops_training(tmp_path, method, workers):
    notes, at = Notes(), At(2 * UPDATE, lambda: np.bool_(True), method)
    options = OPTIONS | {"workers": workers, "eval_every": 2 * UPDATE}
    summary = train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=[at, notes], **options)
    assert summary["steps"] == 2 * UPDATE and (tmp_path / "summary.json").exists()
    assert kinds(notes)[-3:] == ["update", "evaluation", "end"]
    assert notes.ends[-1] is (method == "on_update")
    again = resume(tmp_path, quiet=True)  # a finished run stays as it is
    assert again["steps"] == 2 * UPDATE


def test_a_stop_and_a_longer_run(plain, tmp_path):
    at = At(2 * UPDATE, lambda: True)
    train("MemoryChain", steps=4 * UPDATE, out=tmp_path, callbacks=[at], **OPTIONS)
    notes = Notes()
    resume(tmp_path, steps=STEPS, callbacks=[notes], quiet=True)
    assert notes.told[0] == ("start", 2 * UPDATE) and kinds(notes).count("update") == 4
    assert_same_run(plain, tmp_path)


def fail():
    raise LookupError("no such thing")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", ["on_update", "on_evaluation"])
def test_an_error_costs_nothing(plain, tmp_path, method, workers):
    """The others are told of the update, the run is saved, and goes on as if nothing happened."""
    notes, at = Notes(), At(2 * UPDATE, fail, method)
    options = OPTIONS | {"workers": workers, "eval_every": 2 * UPDATE}
    wanted = (
        rf"^callbacks: expected At.{method} to return, got LookupError: no such thing; the run is "
        f"saved, go on with: minis5 train --resume {tmp_path}$"
    )
    with pytest.raises(CallbackError, match=wanted) as caught:
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=[at, notes], **options)
    assert isinstance(caught.value.__cause__, LookupError)
    assert notes.told[-1] == ("end", None) and kinds(notes).count("update") == 2
    assert kinds(notes).count("evaluation") == 1
    with np.load(tmp_path / "state.npz") as file:
        assert file["rank0/counters"][1] == 2 * UPDATE
    resume(tmp_path, quiet=True)
    if workers == 1:
        assert_same_run(plain, tmp_path)


@pytest.mark.parametrize("method", ["on_update", "on_evaluation"])
def test_an_error_in_the_last_update(plain, tmp_path, method):
    options = OPTIONS | {"eval_every": STEPS}
    with pytest.raises(CallbackError, match=f"At.{method}"):
        at = At(STEPS, fail, method)
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=[at], **options)
    assert not (tmp_path / "summary.json").exists()
    assert resume(tmp_path, quiet=True)["steps"] == STEPS
    assert_same_run(plain, tmp_path)


class Fragile(Callback):
    def __init__(self, *methods):
        for name in methods:
            setattr(self, name, lambda *arguments, name=name: self.fail(name))

    def fail(self, name):
        raise RuntimeError(f"{name} cannot")


def test_an_error_at_the_start_comes_before_any_update(tmp_path, capsys):
    """Who has not started does not end."""
    before, after = Notes(), Notes()
    with pytest.raises(CallbackError, match="Fragile.on_start .*: on_start cannot; the run is sav"):
        callbacks = [before, Fragile("on_start", "on_end"), after]
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=callbacks, **OPTIONS)
    assert before.told == [("start", 0), ("end", None)] and after.told == []
    assert "on_end cannot" not in capsys.readouterr().err
    assert resume(tmp_path, quiet=True)["steps"] == STEPS


def test_an_error_at_the_end_comes_after_everything(tmp_path):
    notes = Notes()
    with pytest.raises(CallbackError, match="on_end cannot; the run is finished, go on with"):
        callbacks = [notes, Fragile("on_end")]
        train("MemoryChain", steps=UPDATE, out=tmp_path, callbacks=callbacks, **OPTIONS)
    assert (tmp_path / "summary.json").exists() and kinds(notes)[-1] == "end"


def test_an_error_at_the_end_hides_no_other(tmp_path, capsys):
    notes = Notes()
    with pytest.raises(SystemExit):
        callbacks = [notes, Fragile("on_end"), At(UPDATE, sys.exit)]
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=callbacks, **OPTIONS)
    assert "expected Fragile.on_end to return, got RuntimeError" in capsys.readouterr().err
    assert notes.told[-1] == ("end", None)


def test_the_first_of_several_errors_is_told(tmp_path):
    with pytest.raises(CallbackError, match="on_update cannot"):
        callbacks = [Fragile("on_update", "on_end"), Fragile("on_end")]
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=callbacks, **OPTIONS)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_ends_the_run_at_once(tmp_path, error):
    def leave():
        raise error

    notes = Notes()
    with pytest.raises(Interrupted if error is KeyboardInterrupt else SystemExit):
        at = At(2 * UPDATE, leave)
        train("MemoryChain", steps=STEPS, out=tmp_path, callbacks=[notes, at], **OPTIONS)
    assert notes.told[-1] == ("end", None)
    assert resume(tmp_path, quiet=True)["steps"] == STEPS


def test_a_run_that_has_finished_only_starts_and_ends(plain):
    notes = Notes()
    summary = resume(plain, callbacks=[notes], quiet=True)
    assert notes.told == [("start", STEPS), ("end", summary)]


def test_other_ranks_have_no_callbacks(tmp_path):
    ranks = []
    at = At(UPDATE, lambda: ranks.append(os.getpid()))
    options = OPTIONS | {"workers": 2}
    train("MemoryChain", steps=UPDATE, out=tmp_path, callbacks=[at], **options)
    assert ranks == [os.getpid()]
    function, arguments = Callbacks([at]).__reduce__()
    assert function(*arguments).theirs == []  # at takes functions that cannot be pickled


def test_the_agent_is_that_of_the_update(tmp_path):
    class Keep(Callback):
        def on_update(self, run, row):
            self.kept = run.agent.parameter_vector.copy()

    keep = Keep()
    train("MemoryChain", steps=2 * UPDATE, out=tmp_path, callbacks=[keep], **OPTIONS)
    assert np.array_equal(keep.kept, minis5.load(tmp_path / "agent.npz").parameter_vector)


class Misspelt(Callback):
    def on_updates(self, run, row):
        return None


@pytest.mark.parametrize(
    ("callbacks", "error", "text"),
    [
        (Notes(), TypeError, "expected a list of Callback, got Notes; put it into a list"),
        ([Notes], TypeError, "got the class Notes; derive its class from .*, and give an object"),
        ([print], TypeError, "expected objects of a Callback, got <built-in"),
        ([Misspelt()], ValueError, "got on_updates in Misspelt; rename it, for example to on_upda"),
    ],
)
def test_what_is_no_callback(plain, tmp_path, callbacks, error, text):
    with pytest.raises(error, match=f"^callbacks: .*{text}"):
        train("MemoryChain", steps=STEPS, out=tmp_path / "a", callbacks=callbacks, **OPTIONS)
    assert not (tmp_path / "a").exists()
    with pytest.raises(error, match=f"^callbacks: .*{text}"):
        resume(plain, callbacks=callbacks)


def test_a_callback_reads_nan_where_no_episode_ended(tmp_path):
    notes = Notes()
    options = OPTIONS | {"env_options": {"memory_length": 50}}
    train("MemoryChain", steps=UPDATE, out=tmp_path, callbacks=[notes], **options)
    assert math.isnan(notes.told[1][1]["return"])
