"""Learning curves: a line for each setting; missing matplotlib and bad paths are named."""

import sys

import pytest
from command_line import error_of

from minis5.run.cli import main
from minis5.run.plot import plot


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
