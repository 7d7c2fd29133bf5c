"""The experiment scripts at tiny sizes: runs, skips, resumes, reports.

Leaves out: the figures themselves.
"""

import csv
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mpi_here import ALLOWED, MPIEXEC, needs_mpi

from minis5.envs.registry import CONTROL_SUITE, REGISTRY, family

pytest.importorskip("matplotlib", reason="the report draws a picture")
sys.path.append(str(Path(__file__).resolve().parents[1] / "experiments"))
import memory_length  # noqa: E402
import meta_control  # noqa: E402
import other_environments  # noqa: E402
import popgym_hard  # noqa: E402
import popgym_throughput  # noqa: E402
import sweep  # noqa: E402
from memory_tasks import MEMORY_TASKS  # noqa: E402
from meta_cartpole import META_CARTPOLE  # noqa: E402
from meta_control import META_CONTROL  # noqa: E402
from popgym_training import POPGYM, PUBLISHED  # noqa: E402
from sweep import main  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

BEGIN, END = "<!-- memory_tasks:begin -->", "<!-- memory_tasks:end -->"
RUN = "MemoryChain-64-s5-seed3"


def arguments(out, *variants):
    return [
        "--quick",
        "--out",
        str(out),
        "--tasks",
        "MemoryChain-64",
        "--seeds",
        "3",
        "--variants",
        *variants,
    ]


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_runs_resumes_and_reports(tmp_path, monkeypatch, capfd):
    # With matrices this small, threads of a busy machine only wait.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    main(MEMORY_TASKS, arguments(tmp_path, "s5", "none"))
    s5, none = rows(tmp_path / "results.csv")
    assert (s5["task"], s5["variant"], s5["seed"], s5["steps"]) == (
        "MemoryChain-64",
        "s5",
        "3",
        "1024",
    )
    assert none["variant"] == "none" and int(none["parameters"]) < int(s5["parameters"])
    assert (
        s5["command"].startswith("minis5 train MemoryChain-64 --seed 3 --steps")
        and "--core none" in none["command"]
    )
    assert float(s5["wall_seconds"]) > float(s5["train_seconds"]) > 0
    points = rows(tmp_path / "curves.csv")
    # the only update in which episodes end
    assert [p["step"] for p in points if p["variant"] == "s5"] == ["1024"]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    before, table, after = readme.read_text().partition("| task |")
    assert before == f"before\n{BEGIN}\n" and after.endswith(f".\n{END}\nafter\n")
    assert table and "old" not in after and after.count("| MemoryChain-64 |") == 2

    # a run that was cut short goes on; a finished one is left alone
    summary = tmp_path / "runs" / RUN / "summary.json"
    finished, log = summary.read_text(), summary.parent.with_name(f"{RUN}.json")
    summary.unlink()
    other = tmp_path / "runs" / "MemoryChain-64-none-seed3" / "summary.json"
    untouched = other.stat().st_mtime_ns
    capfd.readouterr()
    main(MEMORY_TASKS, arguments(tmp_path, "s5", "none"))
    assert f"== {RUN}\n" in capfd.readouterr().out and other.stat().st_mtime_ns == untouched
    again = {
        name: value
        for name, value in json.loads(summary.read_text()).items()
        if "second" not in name
    }
    assert again == {
        name: value for name, value in json.loads(finished).items() if "second" not in name
    }
    first, second = json.loads(log.read_text())["spent"]
    s5 = rows(tmp_path / "results.csv")[0]
    assert float(s5["wall_seconds"]) == pytest.approx(first["wall"] + second["wall"], abs=0.01)
    assert float(s5["cpu_seconds"]) == pytest.approx(first["cpu"] + second["cpu"], abs=0.01)
    assert float(s5["peak_mib"]) == max(first["peak"], second["peak"]) > 50

    # rows stay when their runs are gone; an attempt without an end makes the wall time unknown
    log.write_text(json.dumps({**json.loads(log.read_text()), "spent": [first, None]}))
    other.unlink()
    main(MEMORY_TASKS, ["--out", str(tmp_path), "--report"])
    s5, kept = rows(tmp_path / "results.csv")
    assert (
        s5["wall_seconds"] == s5["cpu_seconds"] == ""
        and kept == none
        and "not known" in readme.read_text()
    )


def test_failures_are_told(tmp_path, capfd):
    with pytest.raises(SystemExit, match="no run"):
        main(MEMORY_TASKS, ["--out", str(tmp_path), "--report"])
    with pytest.raises(SystemExit):
        main(MEMORY_TASKS, ["--quick"])
    assert "give --out too" in capfd.readouterr().err
    folder = tmp_path / "runs" / RUN
    folder.mkdir(parents=True)
    (folder / "foreign.txt").write_text("")
    with pytest.raises(SystemExit, match="exit code 2"):
        main(MEMORY_TASKS, arguments(tmp_path, "s5"))
    assert "not empty" in capfd.readouterr().err


def test_shards_share_the_runs_and_a_failure_stops_no_other(tmp_path, monkeypatch):
    made, reports = [], []

    def run(one, runs, task, variant, seed, quick):
        made.append((task, variant, seed))
        if seed == 4:
            raise SystemExit(f"{task}: exit code 2")

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "report", lambda *_: reports.append(True))
    start = ["--out", str(tmp_path), "--tasks", "MemoryChain-64", "--variants", "s5", "none"]
    start += "--seeds 3 5 6".split()
    for number in "123":
        main(MEMORY_TASKS, [*start, "--shard", f"{number}/3"])
    shared = made.copy()
    made.clear()
    assert not reports
    main(MEMORY_TASKS, start)
    assert sorted(shared) == sorted(made) and len(set(shared)) == 6 and reports == [True]
    made.clear()
    with pytest.raises(SystemExit, match="MemoryChain-64: exit code 2"):
        main(MEMORY_TASKS, [*start, "4"])
    assert len(made) == 8 and len(reports) == 2
    for odd in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(SystemExit):
            main(MEMORY_TASKS, [*start, "--shard", odd])


def test_several_at_once(tmp_path, monkeypatch):
    """Here the processes are forked: they have the function that replaces `run`."""

    def run(one, runs, task, variant, seed, quick):
        (tmp_path / f"{variant}-{seed}").write_text(str(os.getpid()))
        if (variant, seed) == ("none", 4):
            raise SystemExit(f"{task}: exit code 2")

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "report", lambda *_: None)
    start = ["--out", str(tmp_path), "--tasks", "MemoryChain-64", "--variants", "s5", "none"]
    with pytest.raises(SystemExit, match="^MemoryChain-64: exit code 2$"):
        main(MEMORY_TASKS, [*start, *"--seeds 3 4 5 --jobs 2".split()])
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(made) == ["none-3", "none-4", "none-5", "s5-3", "s5-4", "s5-5"]
    assert str(os.getpid()) not in made.values()
    with pytest.raises(SystemExit):
        main(MEMORY_TASKS, [*start, "--jobs", "0"])


@needs_mpi
def test_on_ranks_of_mpi(tmp_path):
    """One run fails, the others go on; the same command makes the one that is missing."""
    script = Path(sweep.ROOT) / "experiments" / "memory_tasks.py"
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
    environment = {**os.environ, **ALLOWED, "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(sweep.ROOT)

    def make():
        done = subprocess.run(
            [*command, *arguments(tmp_path, "s5", "none")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stderr

    foreign = tmp_path / "runs" / RUN / "foreign.txt"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    code, text = make()
    assert code and f"{RUN}: exit code 2" in text
    assert [row["variant"] for row in rows(tmp_path / "results.csv")] == ["none"]
    before = rows(tmp_path / "results.csv")
    foreign.unlink()
    assert make()[0] == 0
    s5, none = rows(tmp_path / "results.csv")
    assert s5["variant"] == "s5" and none == before[0]


def test_a_table_goes_to_every_page_with_a_place_for_it(tmp_path):
    with_block, without = tmp_path / "a.md", tmp_path / "b.md"
    with_block.write_text("x\n<!-- t:begin -->\nold\n<!-- t:end -->\ny\n")
    without.write_text("nothing here\n")
    sweep.replace_block((with_block, without), "t", ["new", "lines"])
    assert with_block.read_text() == "x\n<!-- t:begin -->\nnew\nlines\n<!-- t:end -->\ny\n"
    assert without.read_text() == "nothing here\n"
    with pytest.raises(
        SystemExit, match="t: expected <!-- t:begin --> and <!-- t:end --> in .*b.md"
    ):
        sweep.replace_block((without,), "t", ["new"])
    sweep.replace_block((), "t", ["new"])  # a folder of --out without a README
    assert sweep.readmes(tmp_path) == () and sweep.readmes(None) == sweep.READMES


def test_every_experiment_has_a_place_in_the_readme():
    text = sweep.READMES[0].read_text(encoding="utf-8")
    sweeps = MEMORY_TASKS, memory_length.MEMORY_LENGTH, POPGYM, META_CARTPOLE, META_CONTROL
    sweeps += (popgym_hard.POPGYM_HARD,)
    others = "popgym_throughput", "runtime", "gpu_bench", "gpu_bench_series", "soak", "versus"
    others += ("cluster",)
    for name in (*(one.name for one in sweeps), *others):
        assert text.count(f"<!-- {name}:begin -->") == text.count(f"<!-- {name}:end -->") == 1


def test_popgym_training(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    families = {
        family(level) for level, (env, _) in REGISTRY.items() if env not in CONTROL_SUITE
    } - {"MemoryChain"}
    assert {family(task) for task in POPGYM.tasks} == families and set(PUBLISHED) <= set(
        POPGYM.tasks
    )
    readme = tmp_path / "README.md"
    readme.write_text("<!-- popgym:begin -->\n<!-- popgym:end -->\n")
    main(
        POPGYM,
        [
            "--quick",
            "--out",
            str(tmp_path),
            "--tasks",
            "AutoencodeEasy",
            "BattleshipEasy",
            "--seeds",
            "0",
            "1",
        ],
    )
    assert len(rows(tmp_path / "results.csv")) == 8 and (
        tmp_path / "curves.png"
    ).read_bytes().startswith(b"\x89PNG")
    head, rule, auto, ships, _, note, *_ = readme.read_text().splitlines()[1:]
    assert head.count("|") == rule.count("|") == auto.count("|") == ships.count("|")
    assert (
        auto.startswith("| AutoencodeEasy | −0.499 | ")
        and "| −1 … 1 | −.28 (GRU) | 1,024 |" in auto
    )
    assert ships.startswith("| BattleshipEasy | −0.449 | ") and note.startswith(
        "Seeds with S5: 2. "
    )


def test_memory_length(tmp_path):
    """One core, CPU time and memory of each run; the figure; the tables by memory length."""
    tasks = memory_length.MEMORY_LENGTH.tasks
    assert tasks[0] == "MemoryChain-4" and tasks[-1] == "MemoryChain-8192"
    assert tasks[9] == "MemoryChain-2048"  # the paper's longest
    assert all(len(numbers) == 10 for numbers in memory_length.PAPER.values())
    (tmp_path / "README.md").write_text(
        "<!-- memory_length:begin -->\n<!-- memory_length:end -->\n"
    )
    options = ["--quick", "--out", str(tmp_path), "--tasks", "MemoryChain-8", "--seeds", "0"]
    main(memory_length.MEMORY_LENGTH, [*options, "--variants", "attention", "s5-a2c"])
    attention, a2c = found = rows(tmp_path / "results.csv")
    assert attention["workers"] == "1" and attention["command"].startswith(
        "minis5 train MemoryChain-8 --seed 0 --core attention "
    )
    assert "--preset a2c" in a2c["command"] and (
        tmp_path / "memory_length.png"
    ).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "README.md").read_text()
    score = f"{float(attention['mean_return']):.2f} ×1".replace("-0", "−0")
    assert (
        f"| self-attention |  | {score} |" in text
        and f"| S5, A2C |  | {int(a2c['steps']) / 8:,.0f} |" in text
    )
    cell = memory_length.collect({(r["task"], r["variant"], r["seed"]): [r] for r in found})[
        "attention"
    ][8]
    by_hand = 1000 * float(attention["cpu_seconds"]) / (int(attention["steps"]) / 8)
    assert (
        memory_length.thousand(cell, 8) == pytest.approx(by_hand)
        and f"| self-attention |  | {by_hand:.3g} |" in text
    )


def test_meta_cartpole(tmp_path, monkeypatch):
    """Trained in stages, looked at after each; a stage that is done is not done again."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    (tmp_path / "README.md").write_text(
        "<!-- meta_cartpole:begin -->\n<!-- meta_cartpole:end -->\n"
    )
    options = ["--quick", "--out", str(tmp_path), "--seeds", "1", "--variants", "mlp"]
    main(META_CARTPOLE, options)
    found, log = (
        rows(tmp_path / "details.csv"),
        tmp_path / "runs" / "PositionOnlyCartPoleEasy-mlp-seed1.json",
    )
    assert [(row["step"], row["trial"]) for row in found] == [
        (step, str(k)) for step in ("512", "1024") for k in range(32)
    ]
    assert all(0 < float(row["return"]) <= 1 for row in found)
    for row in found[32:]:  # one row for each trial
        mean, halves = (
            float(row["return"]),
            sorted(float(row[name]) for name in ("pole_weaker", "pole_stronger")),
        )
        assert float(row["gain"]) == pytest.approx(mean - float(found[32]["return"]), abs=2e-4)
        assert halves[0] - 1e-4 <= mean <= halves[1] + 1e-4
    last = [float(row["return"]) for row in found[32:]]
    (line,) = (
        line
        for line in (tmp_path / "README.md").read_text().splitlines()
        if line.startswith("| MLP |")
    )
    assert line.startswith("| MLP | 1 | 1,024 | ") and f"| {last[15]:.3f} |" in line
    assert (tmp_path / "meta_cartpole.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads(log.read_text())
    assert (
        "trials=16" in facts["command"]
        and facts["command"].endswith("--steps 1024")
        and len(facts["spent"]) == 2
    )
    log.write_text(json.dumps({**facts, "details": {"512": facts["details"]["512"]}}))
    main(META_CARTPOLE, options)
    assert json.loads(log.read_text()) == facts  # looked at again: the same; not trained again


def test_popgym_throughput(tmp_path, capsys):
    pytest.importorskip("popgym")
    options = (
        "--levels AutoencodeE BanditEasy --num-envs 8 --seconds 0.01 --repeats 1 --out".split()
    )
    popgym_throughput.main([*options, str(tmp_path)])
    auto, bandit = rows(tmp_path / "throughput.csv")
    assert (auto["level"], bandit["level"]) == ("AutoencodeEasy", "MultiarmedBanditEasy")
    assert all(
        int(row[name]) > 0 for row in (auto, bandit) for name in popgym_throughput.COLUMNS[1:]
    )
    assert capsys.readouterr().out.count("\n| ") == 1


def test_meta_control(tmp_path, monkeypatch):
    """Every stage has a row for each task, trained on or held out; a step is four frames."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    # of eight: all take minutes to compile
    split = {"train": ("PointMassEasy",), "held out": ("PointMassHard",)}
    monkeypatch.setitem(meta_control.SPLITS, "Mixture", split)
    given = META_CONTROL.options["Mixture"]
    options = ["tasks=PointMassEasy" if option.startswith("tasks=") else option for option in given]
    (tmp_path / "README.md").write_text("<!-- meta_control:begin -->\n<!-- meta_control:end -->\n")
    command = [
        "--quick",
        "--out",
        str(tmp_path),
        "--seeds",
        "1",
        "--variants",
        "mlp",
        "--tasks",
        "Mixture",
    ]
    main(META_CONTROL._replace(options={"Mixture": options}), command)
    found = rows(tmp_path / "details.csv")
    assert [row["step"] for row in found] == ["512", "512", "1024", "1024"]
    assert [(row["split"], row["tested"]) for row in found[2:]] == [
        (name, tasks[0]) for name, tasks in split.items()
    ]
    easy, hard = (float(row["return"]) for row in found[2:])
    assert 0 <= easy <= 1000 and 0 <= hard <= 1000
    text = (tmp_path / "README.md").read_text()
    assert (
        "| Mixture | task | MLP, 0.0041M frames | " in text
        and f"| train | **mean** | **{easy:.0f}** | |" in text
    )
    assert f"| train | PointMassEasy | {easy:.0f} | 798 / 709 / 4 |" in text
    assert f"| held out | PointMassHard | {hard:.0f} | 681 / 458 / 2 |" in text
    assert (tmp_path / "meta_control.png").read_bytes().startswith(b"\x89PNG")
    # goes on from the agent that the first has trained
    command[command.index("mlp")] = "mlp-native"
    main(META_CONTROL._replace(options={"Mixture": options}), command)
    (row,) = (row for row in rows(tmp_path / "results.csv") if row["variant"] == "mlp-native")
    assert " --init-from experiments/meta_control/runs/Mixture-mlp-seed1 " in row["command"]
    config = json.loads(
        (tmp_path / "runs" / "Mixture-mlp-native-seed1" / "config.json").read_text()
    )
    assert config["init_from"] == str(tmp_path / "runs" / "Mixture-mlp-seed1")


def test_table_of_other_environments(tmp_path):
    def row(task, variant, seed, mean):
        facts = {"task": task, "variant": variant, "seed": seed, "mean_return": mean}
        return facts | {"cpu_seconds": 60 + seed, "steps": 5, "episodes": 9, "machine": "one CPU"}

    peer = tmp_path / "sb3.csv"
    peer.write_text("task,seed,mean_return,cpu_seconds,steps\nPendulum-v1,0,-150,700.4,7000\n")
    found = [row("Pendulum-v1", "s5", seed, -160.0 - seed) for seed in range(3)]
    found += [row("HalfCheetah-v5", "s5", 0, 3.25), row("HalfCheetah-v5", "none", 0, 1.5)]
    groups = {(r["task"], r["variant"], str(r["seed"])): [r] for r in found}
    lines = other_environments.table(groups, peer)
    assert lines[2:4] == [
        "| Pendulum-v1 | −200 | −161 ± 1 (−162) | 3 | – | 5 | 60–62 s | −150 | 1 | 700 s |",
        "| HalfCheetah-v5, velocities hidden | twice the return without memory | 3.25 | 1 | 1.50 "
        "| 5 | 60 s | – | – | – |",
    ]
    assert "is half. one CPU. " in lines[-1] and lines[-1].endswith("7,000 steps.")


def test_a_command_with_json_can_be_copied(tmp_path, monkeypatch, capfd):
    """What results.csv says was run is what a shell would run."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    wrapper = 'minis5.envs.foreign.partial:KeepNumbers={{"numbers": [0, 2]}}'
    partly = other_environments.OTHER_ENVIRONMENTS._replace(
        options={"CartPole-v1": ("--wrapper", wrapper)}
    )
    main(partly, ["--quick", "--out", str(tmp_path), "--tasks", "CartPole-v1", "--seeds", "0"])
    (made,) = rows(tmp_path / "results.csv")
    words = shlex.split(made["command"])
    assert words[words.index("--wrapper") + 1] == wrapper.format()
    assert "CartPole-v1" in capfd.readouterr().out
