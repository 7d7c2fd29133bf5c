"""Kill training runs at every file operation and at random moments, resume them, and compare.

A run that is killed and resumed must end as one that was never stopped, bit for bit: progress.csv
without its columns of time, every array of agent.npz and state.npz, the returns in summary.json.
kill_runs.py makes the runs, kill_points.py counts the operations. Stop and start the script at
will: it skips cases that are in results.csv.

    results.csv   a row for each case
    README.md     the table, between <!-- soak:begin --> and <!-- soak:end -->

Leaves out: power cuts, file systems over a network. Tests: tests/run/test_kill.py.
"""

import argparse
import collections
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import sweep
from kill_runs import KILLS, OUTCOMES, SETTINGS, Soak

from minis5.run.machine import machine, versions

OUT = sweep.ROOT / "experiments" / "soak"
COLUMNS = ("setting", "kill", "case", "when", "outcome", "seconds", "said")
COLUMNS += ("commit", "machine", "versions", "command")
COMMAND = "python experiments/soak.py --settings '{}' --kills '{}' --cases {}"


def facts():
    """Return the columns that tell where a row comes from."""
    git = ["git", "-C", str(sweep.ROOT), "log", "-1", "--format=%h"]
    here = machine("cpu")
    return {
        "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip(),
        "machine": f"{here['processor']}, {here['cpus']} CPUs",
        "versions": ", ".join(f"{name} {version}" for name, version in versions("cpu").items()),
    }


def place(setting, kill):
    """Return what orders rows and groups; those of all settings come last."""
    return [*SETTINGS, "all"].index(setting), [*KILLS, ""].index(kill)


def read(path):
    """Return the rows of results.csv by (setting, kill, case)."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {tuple(row[n] for n in COLUMNS[:3]): row for row in csv.DictReader(text.splitlines())}


def write(path, rows):
    """Write results.csv, sorted."""
    key = sorted(rows, key=lambda k: (*place(*k[:2]), int(k[2])))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[k] for k in key)


def table(rows):
    """Return the lines of the table: tried and right for each setting and each kind of kill."""
    groups = collections.defaultdict(list)
    for (setting, kill, _), row in rows.items():
        groups[setting, kill].append(row)
    head = ("setting", "what is killed", "tried", *OUTCOMES, "longest wait for the error")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    groups["all", ""] = list(rows.values())
    for (setting, kill), some in sorted(groups.items(), key=lambda item: place(*item[0])):
        counts = [sum(row["outcome"] == outcome for row in some) for outcome in OUTCOMES]
        waits = [float(row["seconds"]) for row in some if row["seconds"]]
        cells = setting, kill, len(some), *counts, f"{max(waits):.1f} s" if waits else "–"
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    commits = sorted({row["commit"] for row in rows.values()})
    machines = sorted({row["machine"] for row in rows.values()})
    lines += [
        "",
        f"Commit {', '.join(commits)}. {'; '.join(machines)}. Kills at random moments are ",
    ]
    lines[-1] += "seeded by kind and number; `results.csv` has each case with its command."
    return lines


def main(argv=None):
    """Run the cases that are not in results.csv yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS), metavar="NAME")
    add("--kills", nargs="+", choices=KILLS, default=KILLS, metavar="KILL", help=", ".join(KILLS))
    add("--cases", type=int, nargs="+", metavar="N", help="numbers of the cases, from 1")
    text = "cases of each kind at random moments (default 60)"
    add("--moments", type=int, default=60, metavar="N", help=text)
    add("--every", type=int, default=1, metavar="K", help="every K-th operation (default 1)")
    text = "default experiments/soak; with it, the repository's READMEs stay"
    add("--out", type=Path, metavar="FOLDER", help=text)
    add("--report", action="store_true", help="no cases")
    options = parser.parse_args(argv)
    out = options.out or OUT
    out.mkdir(parents=True, exist_ok=True)
    rows = read(out / "results.csv")
    with tempfile.TemporaryDirectory() as work:
        for number, setting in enumerate([] if options.report else options.settings):
            soak = Soak(setting, Path(work) / str(number))
            for kill in options.kills:
                if kill == "worker" and "1 worker" in setting:
                    continue
                count = soak.count(kill)
                every, most = (1, options.moments) if count is None else (options.every, count)
                cases = options.cases or range(1, most + 1, every)
                for case in cases:
                    key = (setting, kill, str(case))
                    if key in rows or case > (count or case):
                        continue
                    found = soak.case(kill, case)
                    row = dict(zip(COLUMNS, (*key, *found), strict=False)) | facts()
                    rows[key] = row | {"command": COMMAND.format(setting, kill, case)}
                    if found[1] != "bit for bit":
                        print(*key, *found, sep=" | ", flush=True)
                write(out / "results.csv", rows)
    lines = table(rows)
    print(*lines, sep="\n")
    sweep.replace_block(sweep.readmes(options.out), "soak", lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
