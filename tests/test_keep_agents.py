"""The agents in experiments/agents: that they play as the tables say, and how they are chosen."""

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the experiments draw pictures")
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import keep_agents  # noqa: E402
import sweep  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

FOLDER = sweep.ROOT / "experiments" / "agents"
ROWS = list(keep_agents.index(FOLDER / "agents.csv").values())
QUICKEST = sorted(ROWS, key=lambda row: int(row["bytes"]))


def some():
    """Return five agents: with and without memory, the shortest files first of each."""
    names = {}
    for row in QUICKEST:
        names.setdefault(row["variant"], []).append(row["name"])
    return [name for group in zip(*names.values(), strict=False) for name in group][:5]


@pytest.mark.parametrize("name", some())
def test_a_kept_agent_repeats_its_figure(name):
    """To the last digit where it was trained; elsewhere within the spread of the mean."""
    row = next(row for row in ROWS if row["name"] == name)
    found = keep_agents.replay(FOLDER / name)
    assert abs(found - float(row["mean_return"])) <= keep_agents.allowed(row)
    assert found == keep_agents.replay(FOLDER / name)


def test_the_index_has_every_file_as_it_is_and_figures_of_the_tables():
    assert {path.stem for path in FOLDER.glob("*.npz")} == {row["name"] for row in ROWS}
    assert sum(int(row["bytes"]) for row in ROWS) <= keep_agents.MOST_BYTES_IN_ALL
    for row in ROWS:
        data = (FOLDER / f"{row['name']}.npz").read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"], row["name"]
        assert len(data) == int(row["bytes"]) <= keep_agents.MOST_BYTES
        results = sweep.read(sweep.ROOT / "experiments" / row["experiment"] / "results.csv")
        (line,) = results[row["task"], row["variant"], row["seed"]]
        assert line["mean_return"] == row["mean_return"], row["name"]
        config, _ = keep_agents.find_agent(FOLDER / row["name"])
        assert config.seed == int(row["seed"]) and config.command == row["command"].split()


def write_runs(runs, returns):
    """Write folders that have finished with these returns; return groups as of results.csv."""
    groups = {}
    for seed, mean in returns.items():
        folder = runs / sweep.run_name("T", "v", seed)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps({"mean_return": mean, "steps": 1}))
        groups["T", "v", str(seed)] = [{"seed": str(seed), "mean_return": str(mean)}]
    return groups


def test_the_median_seed_is_chosen_or_the_nearest_that_is_here(tmp_path):
    groups = write_runs(tmp_path, {1: 0.5, 2: 0.1, 3: 0.9, 4: 0.6, 5: 0.2, 6: 0.45})

    def chosen():
        row, median, seeds = keep_agents.choose(groups, "T", "v", tmp_path)
        assert median == 0.45 and seeds == 6  # of an even number the lower of the middle two
        return row["seed"]

    assert chosen() == "6"
    (tmp_path / sweep.run_name("T", "v", 6) / "summary.json").unlink()
    assert chosen() == "1"
    other = tmp_path / sweep.run_name("T", "v", 1) / "summary.json"
    other.write_text(json.dumps({"mean_return": 0.46, "steps": 1}))  # not the table's run
    assert chosen() == "4"
    assert keep_agents.choose(groups, "T", "another", tmp_path) is None
    shutil.rmtree(tmp_path)
    assert keep_agents.choose(groups, "T", "v", tmp_path) is None


def test_keeping_is_one_command_and_changes_nothing_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    options = "--quick --tasks PositionOnlyCartPoleHard --variants none --seeds 10".split()
    sweep.main(keep_agents.POPGYM_HARD, [*options, "--out", str(tmp_path)])
    command = ["popgym_hard", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "agents")]
    command += ["--results", str(tmp_path / "results.csv")]
    assert keep_agents.main(command) == 0
    assert "replayed the same to the last digit" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in (tmp_path / "agents").iterdir()}
    assert keep_agents.main(command) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "agents").iterdir()} == before
    shutil.rmtree(tmp_path / "runs" / sweep.run_name("PositionOnlyCartPoleHard", "none", 10))
    assert keep_agents.main(command) == 0  # the row of an agent whose run has gone stays
    with open(tmp_path / "agents" / "agents.csv", encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "popgym_hard-PositionOnlyCartPoleHard-none" and row["episodes"] == "4"
    assert row["replayed"] == row["mean_return"] == row["median"]


def test_an_agent_that_plays_otherwise_is_not_kept(tmp_path, capsys):
    name = sweep.run_name("PositionOnlyCartPoleHard", "none", 10)
    source, folder = FOLDER / "popgym_hard-PositionOnlyCartPoleHard-none", tmp_path / "runs" / name
    config, file = keep_agents.find_agent(source)
    folder.mkdir(parents=True)
    shutil.copy(file, folder / "agent.npz")
    (folder / "config.json").write_text(json.dumps(config.to_json()))
    (folder / "summary.json").write_text(json.dumps({"mean_return": 0.9, "steps": 1}))
    row = {"task": "PositionOnlyCartPoleHard", "variant": "none", "seed": "10"}
    row |= {"mean_return": "0.9", "std_return": "0.1", "episodes": "100", "command": "minis5"}
    with open(tmp_path / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    command = ["popgym_hard", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "agents")]
    assert keep_agents.main([*command, "--results", str(tmp_path / "results.csv")]) == 0
    out = capsys.readouterr().out
    assert (
        "left out, it replays 0." in out
        and " instead of 0.9\n" in out
        and out.endswith("agents: 0 agents\n")
    )
