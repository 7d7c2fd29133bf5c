"""Make many training runs, and report on them: what the experiments share.

A script names its tasks, its variants and its table, and calls `main`. Each run is the command
`minis5 train TASK --seed S` with the variant's options, in a process of its own. Its wall time
includes imports and compilation. Stop and start a script at will: it skips finished runs and
continues an unfinished one.

The report writes these files. Rows of runs that are no longer in runs/ stay in the csv files.
    results.csv, curves.csv, curves.png    every experiment
    details.csv                            an experiment that looks closer at its agents
    NAME.png                               an experiment that draws a figure of its own
    README.md                              the table, between <!-- NAME:begin --> and
                                           <!-- NAME:end -->, in each README that has these

Runs are made one after another; with --jobs N, or on MPI's ranks (pool.py), several at once. A run
that fails is reported at the end and does not stop the others. With --shard I/N, N jobs of a
cluster share the runs; --report then makes the tables.

Leaves out: runs that wait for the run whose agent they start from; where several are made at once,
such a run may fail, and the same command makes it afterwards. Tests: tests/test_experiments.py.
"""

import argparse
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pool import SIGNALS, Stopped, environment_of_a_run, pool

from minis5 import files
from minis5.run import progress
from minis5.run.bench import commit

ROOT = Path(__file__).resolve().parents[1]
READMES = ROOT / "experiments" / "README.md", ROOT / "README.md"
QUICK = "--steps 1024 --num-envs 16 --unroll 32 --epochs 1 --encoder 16 --heads 16".split()
QUICK += ["--eval-episodes", "4", "--workers", "1"]
KEY = ("task", "variant", "seed")
COLUMNS = (*KEY, "steps", "train_seconds", "wall_seconds", "cpu_seconds", "peak_mib")
COLUMNS += ("steps_per_second", "mean_return", "std_return", "min_return", "max_return")
COLUMNS += ("episodes", "training_return_last", "parameters")
COLUMNS += ("workers", "machine", "versions", "command", "commit")
QUICK_STAGES = (512, 1024)
POINTS = 60  # of a curve in curves.csv


class Sweep(NamedTuple):
    """An experiment: every task with every variant and seed."""

    name: str  # of its folder and of its block in the READMEs
    title: str
    tasks: tuple
    # name: (options of the command, label, colour). In an option, {runs} is the folder of runs and
    # {seed} the seed.
    variants: dict
    # A function: rows of results.csv (and of details.csv) by (task, variant, seed) → Markdown.
    table: object
    lines: dict  # task: ((height, label, line style), ...), drawn into its panel
    columns: int = 2  # panels side by side
    options: dict = {}  # task: options of the command, for every variant
    one_core: bool = False  # each run on one CPU core, to compare CPU time and memory
    # Variant or task: totals of steps after which a run pauses for `details`. Without an entry the
    # run makes the preset's number of steps in one go.
    stages: dict = {}
    # Columns of details.csv, and a function: a run's folder after a stage → a dict for each row.
    details: tuple = ()
    default: tuple = ()  # variants that run if none is named; () for all
    figure: object = None  # a function: path, then as for table; draws a picture of its own
    seeds: tuple = (0, 1, 2)  # that run if none is named


def run_name(task, variant, seed):
    """Return the name of a run's folder."""
    return f"{task.replace('/', '_')}-{variant}-seed{seed}"


def run(sweep, runs, task, variant, seed, quick):
    """Train, continue an interrupted run, or skip a finished one.

    RUN.json beside the run keeps what the report needs.
    """
    name = run_name(task, variant, seed)
    folder, log = runs / name, runs / f"{name}.json"
    arguments = ["train", task, "--seed", str(seed)]
    arguments += [*sweep.options.get(task, ()), *sweep.variants[variant][0]]
    arguments += ["--workers", "1"] if sweep.one_core else []
    arguments += QUICK if quick else []
    stages = sweep.stages.get(variant, sweep.stages.get(task, (None,)))
    stages = QUICK_STAGES if quick and stages[-1] else stages
    all_steps = ["--steps", str(stages[-1])] if stages[-1] else []
    names = {"runs": f"experiments/{sweep.name}/runs", "seed": seed}
    command = shlex.join(["minis5", *(a.format(**names) for a in [*arguments, *all_steps])])
    arguments = [argument.format(runs=runs, seed=seed) for argument in arguments]
    facts = {"task": task, "variant": variant, "seed": seed, "command": command}
    facts |= {"spent": [], "details": {}}
    if log.exists():
        facts |= json.loads(log.read_text(encoding="utf-8"))
    elif (folder / "config.json").exists():
        facts["spent"] = [None]
    runs.mkdir(parents=True, exist_ok=True)
    for steps in stages:
        if not finished(folder, steps):
            train(sweep, folder, log, facts, arguments, steps)
        if sweep.details and str(steps) not in facts["details"]:
            facts["details"][str(steps)] = sweep.details[1](folder)
            files.write_json(log, facts)


def finished(folder, steps):
    """Return whether the run in this folder has finished, after at least ``steps`` if given."""
    summary = folder / "summary.json"
    return summary.exists() and (
        steps is None or json.loads(summary.read_text(encoding="utf-8"))["steps"] >= steps
    )


def train(sweep, folder, log, facts, arguments, steps):
    """Run `minis5 train` in a process of its own, from the start or resumed.

    Add the time and memory that it took to ``facts``, and write them to ``log``.
    """
    resumed = (folder / "config.json").exists()
    resuming = ["train", "--resume", str(folder), "--trust"]  # its environments are ours
    arguments = resuming if resumed else [*arguments, "--out", str(folder)]
    arguments += ["--steps", str(steps)] if steps else []
    print(f"== {folder.name}", flush=True)
    commits = [*facts.get("commit", "").split(), commit() or "unknown"]
    facts["commit"] = " ".join(dict.fromkeys(commits))
    # If the script is killed, None stays: the time is not known.
    files.write_json(log, {**facts, "spent": [*facts["spent"], None]})
    paths = filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    environment = environment_of_a_run() | {"PYTHONPATH": os.pathsep.join(paths)}
    if sweep.one_core:
        environment |= {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    start = time.perf_counter()
    status, used, late = wait_for([sys.executable, "-m", "minis5", *arguments], environment)
    spent = {
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 1024,
    }
    facts["spent"].append({name: round(value, 2) for name, value in spent.items()})
    files.write_json(log, facts)
    if status == 130:
        raise Stopped(f"{folder.name}: stopped; the same command goes on from here")
    for number in late:  # the run was ending anyway; what comes after it is to stop all the same
        os.kill(os.getpid(), number)
    if status:
        sys.exit(f"{folder.name}: exit code {status}; the same command goes on from here")


def wait_for(command, environment):
    """Run a command to its end; return its exit status, what it used, and signals that came.

    The command has a process group of its own, so that each signal reaches it once: as SIGINT, at
    which a run saves its state.
    """
    came, running = [], []

    def forward(number, _):
        came.append(number)
        if running:
            os.kill(running[0], signal.SIGINT)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        process = subprocess.Popen(command, env=environment, process_group=0)
        running.append(process.pid)
        if came:
            os.kill(process.pid, signal.SIGINT)
        _, status, used = os.wait4(process.pid, 0)
        running.clear()
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return process.returncode, used, came


def result(folder, facts):
    """Return a row of results.csv from a finished run."""
    summary, config = (
        json.loads((folder / name).read_text()) for name in ("summary.json", "config.json")
    )
    known = None not in facts["spent"]
    return {
        **summary,
        **facts,
        "train_seconds": summary["seconds"],
        "wall_seconds": round(sum(part["wall"] for part in facts["spent"]), 2) if known else "",
        "cpu_seconds": round(sum(part["cpu"] for part in facts["spent"]), 2) if known else "",
        "peak_mib": max((part["peak"] for part in facts["spent"] if part), default=""),
        "machine": f"{config['machine']['processor']}, {config['machine']['cpus']} CPUs",
        "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }


def curve(folder, facts):
    """Return rows of curves.csv: the training return, averaged over at most POINTS stretches."""
    rows = [(row["step"], row["return"]) for row in progress.read_progress(folder / "progress.csv")]
    rows = np.array([row for row in rows if not np.isnan(row[1])]).reshape(-1, 2)
    parts = [part for part in np.array_split(rows, POINTS) if len(part)]
    return [
        {**facts, "step": int(part[-1, 0]), "return": round(float(part[:, 1].mean()), 5)}
        for part in parts
    ]


def read(path):
    """Return the rows of a csv file, grouped by (task, variant, seed)."""
    groups, text = {}, path.read_text(encoding="utf-8") if path.exists() else ""
    for row in csv.DictReader(text.splitlines()):
        groups.setdefault(tuple(row[name] for name in KEY), []).append(row)
    return groups


def write(sweep, path, columns, groups):
    """Write groups of rows in the order of the sweep's tasks and variants."""
    keys = sorted(
        groups,
        key=lambda key: (
            sweep.tasks.index(key[0]),
            list(sweep.variants).index(key[1]),
            int(key[2]),
        ),
    )
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = [
            columns,
            *([row.get(column, "") for column in columns] for key in keys for row in groups[key]),
        ]
        csv.writer(file, lineterminator="\n").writerows(lines)


def report(sweep, out, pages):
    """Bring the csv files up to date with runs/. From them, make the pictures and the tables."""
    groups = {name: read(out / name) for name in ("results.csv", "curves.csv", "details.csv")}
    for log in sorted((out / "runs").glob("*.json")):
        folder, facts = log.with_suffix(""), json.loads(log.read_text(encoding="utf-8"))
        if (folder / "summary.json").exists():
            key = tuple(str(facts[name]) for name in KEY)
            groups["results.csv"][key] = [result(folder, facts)]
            groups["curves.csv"][key] = curve(folder, facts)
            groups["details.csv"][key] = [
                {**facts, **row} for rows in facts.get("details", {}).values() for row in rows
            ]
    if not groups["results.csv"]:
        sys.exit(f"no run in {out / 'runs'} has finished yet")
    write(sweep, out / "results.csv", COLUMNS, groups["results.csv"])
    write(sweep, out / "curves.csv", (*KEY, "step", "return"), groups["curves.csv"])
    if sweep.details:
        write(sweep, out / "details.csv", (*KEY, *sweep.details[0]), groups["details.csv"])
    draw(sweep, out / "curves.png", read(out / "curves.csv"))
    found = [read(out / "results.csv"), *([read(out / "details.csv")] if sweep.details else [])]
    if sweep.figure:
        sweep.figure(out / f"{sweep.name}.png", *found)
    lines = sweep.table(*found)
    print(*lines, sep="\n")
    replace_block(pages, sweep.name, lines)


def readmes(out):
    """Return the pages that show a table: the repository's, or with --out that folder's README."""
    if out is None:
        return READMES
    return tuple(page for page in [out / "README.md"] if page.exists())


def replace_block(pages, name, lines):
    """Write lines between <!-- name:begin --> and <!-- name:end --> of each page that has both.

    Exit if there are pages and none has them: the table would be lost.
    """
    begin, end, found = f"<!-- {name}:begin -->", f"<!-- {name}:end -->", not pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if begin in text and end in text:
            before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
            files.write_text(page, "\n".join([before, *lines, after]))
            found = True
    if not found:
        sys.exit(f"{name}: expected {begin} and {end} in {' or '.join(map(str, pages))}")


def draw(sweep, path, groups):
    """Draw a panel for each task: a thin line for each seed, a thick one for their mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = [task for task in sweep.tasks if any(key[0] == task for key in groups)]
    down = max(1, -(-len(tasks) // sweep.columns))
    FigureCanvasAgg(
        figure := Figure(figsize=(4.5 * sweep.columns, 3.4 * down), dpi=150, layout="constrained")
    )
    panels = figure.subplots(down, sweep.columns, squeeze=False).ravel()
    for axes in panels[len(tasks) :]:
        axes.set_axis_off()
    for axes, task in zip(panels, tasks, strict=False):
        for variant, (_, label, colour) in sweep.variants.items():
            some = [group for key, group in groups.items() if key[:2] == (task, variant)]
            curves = [
                np.array([(float(row["step"]), float(row["return"])) for row in group]).T
                for group in some
            ]
            for steps, returns in curves:
                axes.plot(steps, returns, color=colour, linewidth=0.6, alpha=0.6)
            if curves:
                low, high = (
                    max(steps[0] for steps, _ in curves),
                    min(steps[-1] for steps, _ in curves),
                )
                grid = np.linspace(low, max(low, high), 200)
                mean = np.mean([np.interp(grid, *one) for one in curves], axis=0)
                axes.plot(
                    grid, mean, color=colour, linewidth=1.8, label=f"{label}, seeds: {len(curves)}"
                )
        for height, text, style in sweep.lines.get(task, ()):
            axes.axhline(
                height, color="black", linewidth=1, linestyle=style, label=f"{text}: {height:g}"
            )
        axes.set(title=task, xlabel="environment steps", ylabel="mean episode return in training")
        axes.xaxis.set_major_formatter(
            lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x else "0"
        )
        axes.grid(alpha=0.3)
        axes.legend(
            handles=[line for line in axes.lines if line.get_label()[0] != "_"], fontsize="x-small"
        )
    figure.savefig(path)


def attempt(sweep, runs, quick, job):
    """Make a run; return the SystemExit that says why it has failed or stopped, or None."""
    try:
        run(sweep, runs, *job, quick)
    except SystemExit as error:
        return error
    return None


def shard(text):
    """Return (I - 1, N) of "I/N"."""
    number, _, many = text.partition("/")
    if not (number.isdecimal() and many.isdecimal() and 1 <= int(number) <= int(many)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, got {text!r}")
    return int(number) - 1, int(many)


def main(sweep, argv=None):
    """Run the command line of an experiment script."""
    parser = argparse.ArgumentParser(description=sweep.title)
    tasks, variants, out = sweep.tasks, tuple(sweep.variants), ROOT / "experiments" / sweep.name
    default, names = sweep.default or variants, ", ".join(variants)
    parser.add_argument(
        "--tasks", nargs="+", choices=tasks, default=tasks, metavar="TASK", help=", ".join(tasks)
    )
    names += f"; default: {', '.join(default)}" if sweep.default else ""
    parser.add_argument(
        "--variants", nargs="+", choices=variants, default=default, metavar="V", help=names
    )
    seeds = f"default {' '.join(map(str, sweep.seeds))}"
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=sweep.seeds, metavar="S", help=seeds
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny runs, to see that all works; needs --out"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"default experiments/{sweep.name}; with it, the repository's READMEs stay",
    )
    parser.add_argument("--report", action="store_true", help="no runs")
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="every Nth run from number I = 1 … N, and no report: for an array of jobs",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at once (default 1); each has as many processes as it has alone",
    )
    if (options := parser.parse_args(argv)).quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    if options.jobs < 1:
        parser.error(f"--jobs: expected 1 or more, got {options.jobs}")
    out = options.out or out
    jobs = [(t, v, s) for t in options.tasks for v in options.variants for s in options.seeds]
    jobs.sort(key=lambda job: job[2])  # seed by seed, so that every task has a first result soon
    first, step = options.shard or (0, 1)
    jobs, failed = [] if options.report else jobs[first::step], []
    with pool(options.jobs) as each:
        for error in each(partial(attempt, sweep, out / "runs", options.quick), jobs):
            if isinstance(error, Stopped):
                raise error
            failed += [str(error)] if error else []
    if options.shard is None and not (jobs and len(failed) == len(jobs)):
        report(sweep, out, readmes(options.out))
    if failed:
        sys.exit("\n".join(failed))
