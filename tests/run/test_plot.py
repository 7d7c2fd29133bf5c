"""Learning curves: a line for each setting; missing matplotlib and bad paths are named."""

import json
import re
import shutil
import sys

import pytest
from command_line import error_of
from small_runs import CHAIN, FOREIGN, UPDATE

from minis5.run.cli import main
from minis5.run.plot import plot
from minis5.run.train import train


def test_plot(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    for folder in "abc":
        assert (runs / folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    out = tmp_path / "curves.svg"
    assert main(["plot", *(str(runs / name) for name in "abc"), "--out", str(out)]) == 0
    assert (
        capsys.readouterr().out == f"{out}\n"
        and out.read_text().count('id="FillBetweenPolyCollection') == 1
    )


def test_plot_without_matplotlib(runs, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "matplotlib is not installed; pip install matplotlib" in error_of(
        capsys, ["plot", str(runs / "a")]
    )


def test_unwritable_picture(runs, capsys):
    pytest.importorskip("matplotlib")
    assert "/dev/null/x.png" in error_of(
        capsys, ["plot", str(runs / "a"), "--out", "/dev/null/x.png"]
    )


def test_runs_without_an_episode(runs, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "config.json").write_bytes((runs / "a" / "config.json").read_bytes())
    (tmp_path / "progress.csv").write_text("update,step,return,seconds\n1,64,nan,0.5\n")
    with pytest.raises(ValueError, match="plot: no episode has ended yet in .*; let them train"):
        plot([tmp_path], tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def drawn(runs, out):
    """Return the texts in a picture of runs, as comments of the SVG have them."""
    return re.findall(r"<!-- (.*?) -->", plot(runs, out).read_text(), re.DOTALL)


def test_one_task_names_what_is_known_of_it(runs, tmp_path):
    pytest.importorskip("matplotlib")
    texts = drawn([runs / "a"], tmp_path / "a.svg")
    assert "MemoryChain" in texts and "best possible 1" in texts
    assert not any("random policy" in text for text in texts)  # measured with another length
    assert "diamond: evaluation at the end" in texts
    mean = json.loads((runs / "a" / "summary.json").read_text())["mean_return"]
    assert f"{mean:.4g}" in [text.replace("−", "-") for text in texts]


def test_random_return_of_a_level(tmp_path):
    pytest.importorskip("matplotlib")
    options = CHAIN | {"env_options": {}, "workers": 1}
    train("RepeatPreviousEasy", steps=8 * UPDATE, out=tmp_path / "run", **options)
    texts = drawn([tmp_path / "run"], tmp_path / "a.svg")
    assert {"RepeatPreviousEasy", "best possible 1", "random policy -0.5003"} <= set(texts)
    assert any(text.startswith("s5 · laptop") for text in texts)


def test_several_tasks_and_those_of_others(runs, tmp_path):
    pytest.importorskip("matplotlib")
    train("Countdown-v0", steps=8 * UPDATE, out=tmp_path / "run", **FOREIGN)
    for folders in ([tmp_path / "run"], [tmp_path / "run", runs / "a"]):
        texts = drawn(folders, tmp_path / "a.svg")
        assert ("Countdown-v0" in texts) is (len(folders) == 1)
        assert not any("best possible" in text for text in texts)
    assert "Learning curves" in texts and any(t.startswith("MemoryChain · s5") for t in texts)


def test_a_run_without_an_end_or_with_a_damaged_one(runs, tmp_path):
    pytest.importorskip("matplotlib")
    shutil.copytree(runs / "a", tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    assert "diamond: evaluation at the end" not in drawn([tmp_path / "run"], tmp_path / "a.svg")
    for text in ("{", "[]", '{"steps": 1}', '{"steps": "x", "mean_return": 1}'):
        (tmp_path / "run" / "summary.json").write_text(text)
        with pytest.raises(ValueError, match="summary.json: expected the summary of a run, got"):
            plot([tmp_path / "run"], tmp_path / "a.svg")
