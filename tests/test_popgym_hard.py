"""The paper's table with its measure, and pilots."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the report draws a picture")
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import pilot  # noqa: E402
import popgym_hard  # noqa: E402
import sweep  # noqa: E402
from sweep import main  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_windows_of_the_papers_measure():
    """The mean of each window is over episodes, whichever iteration they ended in."""
    rows = [(40, 2, 1.0), (80, 2, float("nan")), (120, 5, 0.0), (160, 6, -4.0), (200, 6, 9.0)]
    rows = [dict(zip(("step", "episodes", "return"), row, strict=True)) for row in rows]
    np.testing.assert_allclose(popgym_hard.windows(rows, 80), [1.0, -1.0])
    np.testing.assert_allclose(popgym_hard.windows(rows, 1000), [-2 / 6])


def test_popgym_hard(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    tuned_on = {0, 1, 2, 201, 202, 203, 204, 301, 302, 4503}
    assert len(popgym_hard.SEEDS) == 8 and not tuned_on & set(popgym_hard.SEEDS)
    (tmp_path / "README.md").write_text("<!-- popgym_hard:begin -->\n<!-- popgym_hard:end -->\n")
    options = ["--quick", "--out", str(tmp_path), "--tasks", "NoisyPositionOnlyCartPoleHard"]
    main(popgym_hard.POPGYM_HARD, [*options, "--variants", "s5", "none", "--seeds", "10", "11"])
    found = rows(tmp_path / "details.csv")
    assert [row["variant"] for row in found] == ["s5", "s5", "none", "none"]
    lasts = [float(row["mmer"]) for row in found[:2]]  # one window: all the run's episodes
    assert lasts == [float(row["last"]) for row in found[:2]] and 0.04 <= min(lasts)
    steps = [float(found[0][name]) for name in popgym_hard.DETAILS[4:]]
    assert 0.001 < steps[0] < steps[1] < steps[2] < 0.1 and found[2]["delta_low"] == ""
    runs = rows(tmp_path / "results.csv")
    assert [row["workers"] for row in runs] == ["1"] * 4 and all(row["commit"] for row in runs)
    ours = [float(row["mean_return"]) for row in runs[:2]]
    error = abs(ours[0] - ours[1]) / 2
    line = (tmp_path / "README.md").read_text().splitlines()[3]
    start = f"| {runs[0]['task']} | S5 | 2 | {sum(ours) / 2:.3f} ± {error:.3f} | {min(ours):.3f} |"
    assert line.startswith(start) and "| .28 | 0.404 (IndRNN) | 1,024 |" in line


def test_pilots(tmp_path, capsys):
    """Each adds a row with its command; a finished one is not made again, nor a failed one kept."""
    options = ["--out", str(tmp_path), "RepeatPreviousHard", "20", *sweep.QUICK[:-4]]
    for core in ("s5", "none", "none"):
        assert pilot.main([*options, "--core", core, "--unroll", "200"]) == 0
    assert "has finished" in capsys.readouterr().out
    assert pilot.main([*options, "--gamma", "7"]) == 2
    s5, none = rows(tmp_path / "pilots.csv")
    assert tuple(s5) == pilot.COLUMNS and s5["command"].startswith(
        "minis5 train RepeatPreviousHard"
    )
    assert "--core s5 --unroll 200 --workers 1 --eval-episodes 1000" in s5["command"]
    assert -1 < float(s5["mean_return"]) < 0 and float(s5["mmer"]) < 0
    assert len(s5["deltas"].split("/")) == 3 and none["deltas"] == ""
