"""Try a setting: one run on one core, whose result is added to pilots.csv.

    python experiments/pilot.py NoisyPositionOnlyCartPoleHard 20 --lr 2e-3 --steps 3000000

What follows the task and the seed are options of `minis5 train`. Take seeds that no table has. A
pilot that was stopped goes on with the same command, and one that has finished is not made again.

Leaves out: tables and pictures (sweep.py). Tests: tests/test_popgym_hard.py.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from popgym_hard import look
from sweep import ROOT, wait_for

from minis5.run.bench import commit

COLUMNS = ("task", "seed", "steps", "mean_return", "mmer", "last", "cpu_seconds", "entropy")
COLUMNS += ("grad_norm", "deltas", "commit", "command")
LONGEST = 180  # characters of a folder's name, before a digest
EPISODES = "1000"  # of the evaluation: many, because a pilot has one seed or two


def add_row(path, row, columns=COLUMNS):
    """Append a row to a csv file, after the header if the file is new."""
    new = not path.exists()
    with open(path, "a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def main(argv=None):
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = ROOT / "experiments"
    parser.add_argument("--out", type=Path, default=folder, metavar="FOLDER", help="of pilots.csv")
    parser.add_argument("task")
    parser.add_argument("seed", type=int)
    parser.add_argument("settings", nargs=argparse.REMAINDER, help="options of minis5 train")
    options = parser.parse_args(argv)
    asked = [options.task, "--seed", str(options.seed), *options.settings]
    name = re.sub(r"[^\w.=-]+", "_", " ".join(asked))
    if len(name) > LONGEST:  # file systems take 255 bytes
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    folder = options.out / "pilots" / "runs" / name
    if (folder / "summary.json").exists():
        print(f"{folder}: has finished")
        return 0
    arguments = ["train", *asked, "--workers", "1", "--eval-episodes", EPISODES]
    resumed = (folder / "config.json").exists()
    how = ["train", "--resume"] if resumed else [*arguments, "--out"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    paths = [str(ROOT), environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-m", "minis5", *how, str(folder)]
    status, used, _ = wait_for(command, environment)
    if status:
        return status
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (found,) = look(folder)
    steps = [found[name] for name in found if name.startswith("delta_")]
    row = {"task": options.task, "seed": options.seed, "steps": summary["steps"]}
    row |= {name: found[name] for name in COLUMNS if name in found}
    row |= {"mean_return": f"{summary['mean_return']:.4f}", "deltas": "/".join(steps)}
    row["cpu_seconds"] = "" if resumed else f"{used.ru_utime + used.ru_stime:.1f}"
    add_row(
        options.out / "pilots.csv",
        row | {"commit": commit() or "unknown", "command": " ".join(["minis5", *arguments])},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
