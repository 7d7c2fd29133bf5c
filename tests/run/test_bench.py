"""The benchmark at tiny sizes: it runs, its file has the right shape, its checks find faults."""

import json
import os
import time

import numpy as np
import pytest

from minis5.rl.agent import ActorCritic
from minis5.run import bench, cli

KEYS = {"part", "what", "value", "unit", "spread", "aim", "met"}


def test_smoke(tmp_path, capsys, monkeypatch):
    """All but the start of a process, which has a test of its own."""
    monkeypatch.setattr(bench, "commit", lambda: None)  # as without git
    path = tmp_path / "bench.json"
    assert (
        cli.main(
            ["bench", "scan", "update", "train", "--quick", "--repeats", "3", "--json", str(path)]
        )
        == 0
    )
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("commit unknown, because this is no git checkout")
    result = json.loads(path.read_text())
    assert set(result) == {"date", "device", "commit", "versions", "machine", "quick", "rows"}
    assert result["device"] == "cpu" and result["quick"] is True
    assert {"minis5", "numpy", "numba", "python"} <= set(result["versions"])
    assert result["machine"]["cpus"] >= 1
    time.strptime(result["date"], "%Y-%m-%dT%H:%M:%S%z")
    assert [row["part"] for row in result["rows"]] == ["scan", "scan", "update", "train"]
    for row in result["rows"]:
        ratio = {"against", "against_value", "ratio"} if row["unit"] == "ms" else set()
        assert set(row) == KEYS | ratio and row["unit"] == (
            "steps/s" if row["part"] == "train" else "ms"
        )
        low, high = row["spread"]
        assert 0 < low <= row["value"] <= high and row.get("ratio", 1) > 0
        assert row["aim"] is None and row["met"] is None  # of such sizes nothing is expected
        assert any(line.startswith(row["what"]) for line in out)
    assert os.listdir(tmp_path) == ["bench.json"]


def test_start(monkeypatch):
    """One quick run; without --quick: an empty cache at first, then the same one for the others."""
    monkeypatch.setattr(bench, "ENV", "MemoryChain")
    (row,) = bench.bench_start(1, quick=True)
    assert row["unit"] == "s" and row["value"] > 0
    caches = []

    def first_row(cache):
        caches.append((cache, os.listdir(cache)))
        (bench.Path(cache) / f"file{len(caches)}").touch()
        return {1: 20.0}.get(len(caches), 4.0)

    monkeypatch.setattr(bench, "first_row", first_row)
    cold, warm = bench.bench_start(15, quick=False)
    assert [(row["value"], row["aim"], row["met"]) for row in (cold, warm)] == [
        (20, 25, True),
        (4, 5, True),
    ]
    assert len(caches) == 4 and len({cache for cache, _ in caches}) == 1
    assert caches[0][1] == [] and caches[1][1] == ["file1"] and not os.path.exists(caches[0][0])


def test_rows_and_aims():
    """Aims bound ratios and seconds from above, steps/s from below.

    A ratio is the median of the ratios, not the ratio of the medians.
    """
    ratio = bench.row("a", [2.0, 30.0, 4.0], "ms", 2.0, "b", [1.0, 10.0, 4.0])
    assert (ratio["value"], ratio["against_value"], ratio["ratio"], ratio["met"]) == (
        4.0,
        4.0,
        2.0,
        True,
    )
    assert bench.row("a", [2.1], "ms", 2.0, "b", [1.0])["met"] is False
    assert bench.row("a", [5001.0], "steps/s", 5000)["met"] is True
    assert bench.row("a", [4999.0], "steps/s", 5000)["met"] is False
    assert bench.row("a", [5.1], "s", 5)["met"] is False
    spread = bench.row("a", np.arange(101.0), "s", None)
    assert spread["spread"] == [10, 90] and spread["value"] == 50 and spread["met"] is None
    json.dumps([ratio, spread])
    assert bench.show(ratio).split() == "a 4 ms 2.4 .. 24.8 2.00 x b <= 2.0".split()
    assert bench.show(bench.row("a", [4999.0], "steps/s", 5000)).endswith(">= 5,000 missed")


def test_wrong_gradients_are_found(monkeypatch):
    """A few hundredths too much in one tensor, and the benchmark does not time it."""
    right = ActorCritic.backward

    def wrong(self, *args):
        grads, dmemory = right(self, *args)
        grads["encoder/0/kernel"] *= 1.05
        return grads, dmemory

    monkeypatch.setattr(ActorCritic, "backward", wrong)
    with pytest.raises(AssertionError, match="update: the gradient's norm"):
        bench.bench_update(1, quick=True)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["scna"], "PART: expected scan, update, train, start, profile, got scna"),
        (["scan", "--repeats", "0"], "--repeats: expected at least 1, got 0"),
        (["scan", "--repeats", "many"], "argument --repeats: invalid int value: 'many'"),
        (["--quik"], "unknown argument --quik; did you mean --quick?"),
        (
            ["scan", "--json", "/nowhere/at/all.json"],
            "--json: there is no folder /nowhere/at; make it first",
        ),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"minis5: error: {message}\n"


def test_help(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert all(
        word in text
        for word in ("scan, update, train, start, profile", "--repeats", "--json", "--quick")
    )
