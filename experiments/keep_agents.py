"""Keep the median seed's agent of every row of the experiments' tables, in experiments/agents/.

    python experiments/keep_agents.py                       all experiments that have runs here
    python experiments/keep_agents.py popgym_hard --runs FOLDER    runs that are elsewhere

For each (task, variant) the agent is kept whose mean return is nearest to the median of the seeds
in results.csv, among the runs that are here: agents/EXPERIMENT-TASK-VARIANT.npz, float32,
compressed, with the run's settings inside. `minis5 eval` repeats the table's number with it. Before
an agent is kept, this script does so too, and refuses a file that plays otherwise than its run.

agents/agents.csv has a row for each: how it was trained, the figure of the table, the figure of the
replay, and the file's digest. A second call changes nothing. Rows whose runs are no longer here
stay, as long as their files do.

Leaves out: agents of more than MOST_BYTES, and those for which MOST_BYTES_IN_ALL leaves no room.
Tests: tests/test_keep_agents.py.
"""

import argparse
import csv
import hashlib
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from memory_length import MEMORY_LENGTH
from memory_tasks import MEMORY_TASKS
from meta_cartpole import META_CARTPOLE
from meta_control import META_CONTROL
from popgym_hard import POPGYM_HARD
from popgym_training import POPGYM
from sweep import ROOT, finished, read, run_name

import minis5
from minis5 import files
from minis5.run.evaluate import FIRST_SEED, evaluate
from minis5.run.kept import find_agent, keep_agent

SWEEPS = {
    one.name: one
    for one in (MEMORY_TASKS, POPGYM_HARD, MEMORY_LENGTH, POPGYM, META_CARTPOLE, META_CONTROL)
}
COLUMNS = ("name", "experiment", "task", "variant", "seed", "seeds", "mean_return", "std_return")
COLUMNS += (
    "median",
    "replayed",
    "episodes",
    "evaluation_seed",
    "bytes",
    "sha256",
    "commit",
    "machine",
)
COLUMNS += ("versions", "command")
MOST_BYTES, MOST_BYTES_IN_ALL = 300_000, 15_000_000


def replay(path):
    """Return the mean return of a kept agent, evaluated as at the end of its run."""
    config, file = find_agent(path)
    how = {**config.evaluation(), **config.environment()}
    which = config.env, config.eval_episodes, config.seed
    return evaluate(minis5.load(file), *which, **how)["mean_return"]


def choose(groups, task, variant, runs):
    """Return (row of results.csv, median of all seeds, number of them), or a reason for none.

    The row is that of the run in ``runs`` whose return is nearest to the median. Between two as
    near, the lower return is taken, then the lower seed. A run whose figure is not the table's is
    passed over.
    """
    rows = [group[0] for key, group in groups.items() if key[:2] == (task, variant)]
    if not rows:
        return None
    middle = statistics.median_low(float(row["mean_return"]) for row in rows)
    here = []
    for row in rows:
        folder = runs / run_name(task, variant, row["seed"])
        if finished(folder, None):
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            if summary["mean_return"] == float(row["mean_return"]):
                here.append(row)
    if not here:
        return None

    def rank(row):
        mean = float(row["mean_return"])
        return abs(mean - middle), mean, int(row["seed"])

    return min(here, key=rank), middle, len(rows)


def keep(one, task, variant, results, runs, out):
    """Keep the agent of one row of a table; return its row of agents.csv, None if there is none."""
    found = choose(results, task, variant, runs)
    name = f"{one.name}-{task.replace('/', '_')}-{variant}"
    if found is None:
        print(f"{name}: left as it is, no run of the table is in {runs}")
        return None
    row, median, seeds = found
    folder, path = runs / run_name(task, variant, row["seed"]), out / f"{name}.npz"
    with tempfile.TemporaryDirectory() as where:
        new = Path(where) / path.name
        keep_agent(folder, new, row["command"].split())
        size, replayed = new.stat().st_size, replay(new)
        if size > MOST_BYTES:
            print(f"{name}: left out, {size:,} bytes are more than {MOST_BYTES:,}")
            return None
        if abs(replayed - float(row["mean_return"])) > allowed(row):
            print(f"{name}: left out, it replays {replayed:.6g} instead of {row['mean_return']}")
            return None
        data = new.read_bytes()
    others = sum(file.stat().st_size for file in out.glob("*.npz") if file != path)
    if others + size > MOST_BYTES_IN_ALL:
        print(f"{name}: left out, {out} would have more than {MOST_BYTES_IN_ALL:,} bytes")
        return None
    if not path.exists() or path.read_bytes() != data:
        files.write_bytes(path, data)
    same = "the same to the last digit" if replayed == float(row["mean_return"]) else "near"
    print(f"{name}: seed {row['seed']} of {seeds}, {row['mean_return']}, replayed {same}")
    kept = {"name": name, "experiment": one.name, "seeds": seeds, "median": median}
    kept |= {"replayed": replayed, "bytes": size, "sha256": hashlib.sha256(data).hexdigest()}
    return row | kept | {"evaluation_seed": FIRST_SEED + int(row["seed"])}


def allowed(row):
    """Return how far a replay may be from the table's mean: three standard errors of that.

    On the machine of the run the two are equal. Other versions or processors round otherwise, and
    a single action that changes sends an episode another way.
    """
    return 3 * float(row["std_return"]) / int(row["episodes"]) ** 0.5


def index(path):
    """Return the rows of agents.csv by name, those whose files are there."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = {row["name"]: row for row in csv.DictReader(text.splitlines())}
    return {name: row for name, row in rows.items() if path.with_name(f"{name}.npz").exists()}


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=", ".join(SWEEPS))
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="of the runs of the one experiment named; default experiments/EXPERIMENT/runs",
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help="instead of its results.csv")
    folder = ROOT / "experiments"
    parser.add_argument("--out", type=Path, default=folder / "agents", metavar="FOLDER")
    options = parser.parse_args(argv)
    for name in options.names:
        if name not in SWEEPS:
            parser.error(f"EXPERIMENT: expected one of {', '.join(SWEEPS)}, got {name!r}")
    if (options.runs or options.results) and len(options.names) != 1:
        parser.error("--runs, --results: expected with one EXPERIMENT; name it")
    if options.runs and not options.runs.is_dir():
        parser.error(f"--runs: expected a folder, got {options.runs}; give the folder of the runs")
    os.makedirs(options.out, exist_ok=True)
    rows = index(options.out / "agents.csv")
    for name in options.names or SWEEPS:
        one, runs = SWEEPS[name], options.runs or folder / name / "runs"
        results = read(options.results or folder / name / "results.csv")
        for task, variant in dict.fromkeys(key[:2] for key in results):
            if row := keep(one, task, variant, results, runs, options.out):
                rows[row["name"]] = row
    lines = [[row.get(column, "") for column in COLUMNS] for _, row in sorted(rows.items())]
    with open(options.out / "agents.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *lines])
    print(f"{options.out}: {len(rows)} agents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
