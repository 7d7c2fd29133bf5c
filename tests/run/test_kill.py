"""Runs that are killed, at file operations and at random moments, end as if nothing had happened.

experiments/soak.py does it; here are its short form and tests of its parts. The long form, with
every operation, has its figures in experiments/README.md.
"""

import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "experiments"))
import kill_points  # noqa: E402
import kill_runs  # noqa: E402
import soak  # noqa: E402

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc"),
    pytest.mark.slow,  # experiments run on one Python
]


# Where files are in memory, nobody waits for a disk. A kill of a process loses the same there.
IN_MEMORY = {"TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else {}


def run_soak(out, *options):
    """Run soak.py in a process of its own; return the rows of its results."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "cuda")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "soak.py"), "--out", str(out), *options],
        env={**os.environ, **IN_MEMORY, "PYTHONPATH": path, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = [row for row in rows if row["outcome"] not in ("bit for bit", "nothing to kill")]
    assert not wrong, wrong
    return rows


def test_native_runs(tmp_path):
    """Every 12th operation of a run and of its resuming; moments at which each rank is killed."""
    settings = ["MemoryChain, 1 worker", "MemoryChain, 2 workers"]
    rows = run_soak(tmp_path, "--settings", *settings, "--every", "12", "--moments", "5")
    tried = Counter(row["kill"] for row in rows)
    assert tried["a run, operation"] >= 20 and tried["a resumed run, operation"] >= 12
    assert tried["worker"] == 5 and tried["rank 0"] == tried["group"] == 10
    assert all(float(row["seconds"]) < kill_runs.PROMPT for row in rows if row["seconds"])
    told = [row["said"] for row in rows if row["said"]]
    # a worker that dies after its work is done changes nothing: the run ends with its folder's name
    assert told and all("go on with: minis5 train --resume" in s or s == "RUN" for s in told)
    assert len({row["when"] for row in rows}) > 25


def test_foreign_runs(tmp_path):
    """Environments whose state is pickled."""
    settings = ["--settings", "CartPole-v1, 1 worker", "CartPole-v1, 2 workers"]
    rows = run_soak(tmp_path, *settings, "--every", "30", "--moments", "2")
    assert len(rows) >= 20


def test_every_operation(tmp_path):
    kills = ["--kills", "a run, operation", "a resumed run, operation"]
    rows = run_soak(tmp_path, "--settings", "MemoryChain, 1 worker", *kills)
    assert len(rows) > 150
    for name in ("config.json", "state.npz", "agent.npz", "summary.json"):
        for what in ("open", "write", "write the second half of", "fsync", "replace"):
            assert any(row["when"] == f"{what} {name}'s temporary file" for row in rows)


# The soak's own parts


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return kill_runs.Soak("MemoryChain, 1 worker", tmp_path_factory.mktemp("soak") / "cases")


def test_what_is_not_the_same_is_found(cases, monkeypatch):
    """A result that differs in one value is wrong; a damaged file is refused in words."""
    assert cases.case("a run, operation", 40)[1] == "bit for bit"
    folder = cases.folder / "case"
    assert cases.outcome(folder)[0] == "bit for bit"
    for key in (
        "summary.json: mean_return",
        "progress.csv: row 3",
        "agent.npz: core/layers/0/ssm/B",
    ):
        assert key in cases.wanted
        with monkeypatch.context() as patch:
            patch.setitem(cases.wanted, key, "other")
            assert cases.outcome(folder) == ("wrong", "", key)
    (folder / ".state.npz.x").touch()
    assert cases.outcome(folder) == ("wrong", "", ".state.npz.x")
    (folder / ".state.npz.x").unlink()
    state = (folder / "state.npz").read_bytes()
    (folder / "state.npz").write_bytes(state[: len(state) // 2])
    outcome, _, said = cases.outcome(folder)
    assert outcome == "refused" and said.startswith("minis5: error: ") and "state.npz" in said


def test_what_a_run_says_after_a_worker_died(cases):
    folder, log = cases.folder / "dead", cases.folder / "dead.txt"
    for text, seconds, code, outcome in (
        ("minis5: error: rank 1 died with exit code -9\n", 6.0, 2, "late"),
        ("minis5: error: rank 1 died with exit code -9\n", 1.0, None, "hangs"),
        ("Traceback (most recent call last):\n  …\nKeyError: 3\n", 1.0, 1, "unclear error"),
        ("minis5: error: no space left\n", 1.0, 2, "unclear error"),
    ):
        log.write_text(text, encoding="utf-8")
        assert cases.outcome(folder, seconds, code)[:2] == (outcome, f"{seconds:.2f}")


def test_a_kill_between_two_operations(tmp_path):
    """What came before the fatal operation has happened, and nothing after it."""
    code = (
        "import os, sys, kill_points\n"
        "from pathlib import Path\n"
        "folder, operations = Path(sys.argv[1]), None\n"
        "operations = kill_points.Operations(folder, int(sys.argv[2]))\n"
        "operations.install()\n"
        "folder.mkdir()\n"
        "(folder.parent / 'elsewhere').write_text('not counted')\n"
        "with open(folder / 'a', 'w') as file: file.write('abcd')\n"
        "os.fsync(os.open(folder, os.O_RDONLY))\n"
        "os.replace(folder / 'a', folder / 'b')\n"
        "(folder / 'b').unlink()\n"
        "print(*operations.names, sep=';')\n"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "experiments")])
    names = "mkdir the folder;open a;write a;write the second half of a;fsync the folder"
    names = f"{names};replace a;unlink b".split(";")
    left = [None, [], [("a", "")], [("a", "ab")], [("a", "abcd")], [("a", "abcd")], [("b", "abcd")]]
    for number in range(len(names) + 1):
        folder = tmp_path / str(number)
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder), str(number)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        if number == 0:
            assert done.stdout.strip().split(";") == names and not list(folder.iterdir())
            continue
        assert done.returncode == -signal.SIGKILL
        found = [(file.name, file.read_text()) for file in folder.iterdir()] if number > 1 else None
        assert found == left[number - 1] and folder.exists() == (number > 1)


def test_cases_are_done_once_and_reported(tmp_path):
    (tmp_path / "README.md").write_text("<!-- soak:begin -->\nold\n<!-- soak:end -->\n")
    options = ["--settings", "MemoryChain, 1 worker", "--kills", "group", "--cases", "1", "2"]
    rows = run_soak(tmp_path, *options)
    assert [row["case"] for row in rows] == ["1", "2"] and rows[0]["when"].startswith("after 0.")
    assert rows[0]["command"].endswith(
        "soak.py --settings 'MemoryChain, 1 worker' --kills 'group' --cases 1"
    )
    assert rows[0]["commit"] is not None and "CPUs" in rows[0]["machine"]
    assert "numpy" in rows[0]["versions"]
    marked = (tmp_path / "results.csv").read_text().replace("python experiments", "python marked")
    (tmp_path / "results.csv").write_text(marked)
    again = run_soak(tmp_path, *options, "3")
    assert [("marked" in row["command"]) for row in again] == [True, True, False]
    text = (tmp_path / "README.md").read_text()
    assert "old" not in text and "| MemoryChain, 1 worker | group | 3 | " in text
    assert "| all |  | 3 | " in text


def test_the_table():
    row = {"commit": "abc", "machine": "M", "seconds": ""}
    rows = {
        ("MemoryChain, 2 workers", "worker", "1"): row | {"outcome": "late", "seconds": "7.31"},
        ("MemoryChain, 2 workers", "worker", "2"): row
        | {"outcome": "bit for bit", "seconds": "0.2"},
        ("MemoryChain, 1 worker", "rank 0", "1"): row | {"outcome": "wrong"},
    }
    lines = soak.table(rows)
    assert lines[2] == "| MemoryChain, 1 worker | rank 0 | 1 | 0 | 0 | 1 | 0 | 0 | 0 | 0 | – |"
    assert lines[3] == "| MemoryChain, 2 workers | worker | 2 | 1 | 0 | 0 | 0 | 1 | 0 | 0 | 7.3 s |"
    assert lines[4] == "| all |  | 3 | 1 | 0 | 1 | 0 | 1 | 0 | 0 | 7.3 s |"
    assert lines[-1].startswith("Commit abc. M.")


def test_names_of_operations():
    operations = kill_points.Operations("/run")
    assert operations.count("open", "/run/.state.npz.12.tmp")
    assert operations.count("unlink", Path("/run/summary.json"))
    assert not operations.count("open", "/run/deeper/file") and not operations.count("open", 3)
    assert operations.names == ["open state.npz's temporary file", "unlink summary.json"]
