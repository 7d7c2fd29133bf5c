"""Evaluations on the way: when they come, what is kept, and that training does not notice them."""

import json
import math

import numpy as np
import pytest
from small_runs import CHAIN, UPDATE, assert_same_run

import minis5
from minis5.run.callbacks import Run
from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.evaluate import evaluate
from minis5.run.evaluations import SHIFT, Evaluations, read_evaluations
from minis5.run.plot import plot
from minis5.run.train import resume, train

EVERY = 3 * UPDATE - 1  # asked for in the first update after it
STEPS = 12 * UPDATE


def run(folder, **options):
    train("MemoryChain", steps=STEPS, out=folder, workers=1, **CHAIN | options)
    return folder


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return run(tmp_path_factory.mktemp("evaluated"), eval_every=EVERY)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(tmp_path_factory.mktemp("plain"))


def test_training_is_the_same(evaluated, plain):
    assert_same_run(evaluated, plain)
    assert not (plain / "evaluations.csv").exists() and not (plain / "best.npz").exists()


def test_rows(evaluated):
    rows = read_evaluations(evaluated / "evaluations.csv")
    assert [row["step"] for row in rows] == [3 * UPDATE, 6 * UPDATE, 9 * UPDATE, 12 * UPDATE]
    agent, options = minis5.load(evaluated / "agent.npz"), {"memory_length": 3}
    assert rows[-1] == {"step": STEPS} | evaluate(agent, "MemoryChain", 20, SHIFT, **options)
    summary = evaluate(agent, "MemoryChain", 20, 0, **options)  # other episodes at the end
    assert summary != {name: rows[-1][name] for name in summary}
    assert rows[-1]["episodes"] == 20 and rows[-1]["unfinished"] == 0


def test_the_best_agent_is_kept_with_its_settings(evaluated, capsys):
    rows = read_evaluations(evaluated / "evaluations.csv")
    best, options = minis5.load(evaluated / "best.npz"), {"memory_length": 3}
    means = [row["mean_return"] for row in rows]
    assert evaluate(best, "MemoryChain", 20, SHIFT, **options)["mean_return"] == max(means)
    assert main(["eval", str(evaluated / "best.npz"), "--json"]) == 0
    found = evaluate(best, "MemoryChain", 20, 0, **options)
    assert f'"mean_return": {found["mean_return"]}' in capsys.readouterr().out
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["best_mean_return"] == found["mean_return"]
    # of equal ones the last
    assert summary["best_step"] == rows[len(means) - 1 - means[::-1].index(max(means))]["step"]


def test_only_an_agent_that_is_not_worse_replaces_the_best(evaluated, tmp_path, monkeypatch):
    config = read_config(evaluated)
    agent, kept = minis5.load(evaluated / "agent.npz"), []
    figures = dict.fromkeys(("std_return", "min_return", "max_return"), 0.0)
    figures |= {"episodes": 20, "unfinished": 0}
    means = iter([math.nan, 0.5, 0.4, 0.5, math.nan, 0.6])
    monkeypatch.setattr("minis5.run.evaluations.keep", lambda *_: kept.append(True))
    evaluations, one = Evaluations(), Run(tmp_path, config, agent, 0)
    evaluations.on_start(one)
    counts = []
    for step in range(1, 7):
        evaluations.on_evaluation(one, {"step": step, "mean_return": next(means), **figures})
        counts.append(len(kept))
    assert counts == [0, 1, 1, 2, 2, 3]
    rows = read_evaluations(tmp_path / "evaluations.csv")
    np.testing.assert_array_equal(
        [row["mean_return"] for row in rows], [math.nan, 0.5, 0.4, 0.5, math.nan, 0.6]
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_was_stopped_goes_on_with_the_same_evaluations(evaluated, tmp_path, workers):
    options = CHAIN | {"eval_every": EVERY, "workers": workers}
    train("MemoryChain", steps=7 * UPDATE, out=tmp_path, **options)
    lines = (tmp_path / "evaluations.csv").read_text().splitlines()
    (tmp_path / "evaluations.csv").write_text("\n".join([*lines, "999,1,0,1,1,20,0\n"]))
    resume(tmp_path, steps=STEPS, quiet=True)
    ours, theirs = ((folder / "evaluations.csv").read_text() for folder in (tmp_path, evaluated))
    assert len(ours.splitlines()) == 5
    if workers == 1:
        assert ours == theirs
        best, other = (minis5.load(folder / "best.npz") for folder in (tmp_path, evaluated))
        assert np.array_equal(best.parameter_vector, other.parameter_vector)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its columns are None"),
        ("step,mean_return\n1,2\n", "its columns are"),
        ("HEAD\n1,2,3\n", "TypeError|float"),
        ("HEAD\n1,x,0,0,0,1,0\n", "could not convert"),
        ("HEAD\n1.5,0,0,0,0,1,0\n", "invalid literal"),
    ],
)
def test_damaged_files(evaluated, tmp_path, text, reason):
    header = (evaluated / "evaluations.csv").read_text().splitlines()[0]
    path = tmp_path / "evaluations.csv"
    path.write_text(text.replace("HEAD", header))
    wanted = (
        rf"{path}: expected the evaluations of a run, got .*({reason}).*; restore it from a copy"
    )
    with pytest.raises(ValueError, match=wanted):
        read_evaluations(path)


def test_dots_of_a_picture(evaluated, plain, tmp_path):
    pytest.importorskip("matplotlib")
    with_dots = plot([evaluated], tmp_path / "a.svg").read_text()
    without = plot([plain], tmp_path / "b.svg").read_text()
    assert "dots: evaluations" in with_dots and "dots: evaluations" not in without


def test_bad_intervals(tmp_path):
    with pytest.raises(ValueError, match="eval_every: expected an integer in .*, got 0; leave it"):
        train("MemoryChain", steps=UPDATE, out=tmp_path / "run", **CHAIN, eval_every=0)


def test_command(tmp_path, capsys):
    options = "--env-option memory_length=3 --num-envs 8 --unroll 8 --minibatches 2 --epochs 1"
    command = f"train MemoryChain {options} --steps 256 --eval-every 128 --eval-episodes 20"
    assert main([*command.split(), "--out", str(tmp_path / "run")]) == 0
    captured = capsys.readouterr()
    assert "after 128 steps: mean return" in captured.err
    assert "best.npz, of step " in captured.out
