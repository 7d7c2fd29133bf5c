"""How fast do minis5 and its peers learn? Time and steps until .9 of the best return.

    pip install sb3-contrib torch
    python experiments/versus.py             every run that is missing, then the report
    python experiments/versus.py --report    the report alone

Learners: minis5 with S5 and with a GRU, RecurrentPPO of sb3-contrib, and PPO with an LSTM in
PyTorch in the manner of CleanRL (torch_lstm.py). Each run is a process of its own with one thread.
They go in turns, seed by seed and task by task, so that all meet the same other load. A run ends
when the mean return of a rollout's episodes reaches TARGET, or after MOST_STEPS or MOST_SECONDS.
Its time is the CPU time of the whole process until then, imports included: with one thread that is
the wall time of a core of its own, and other programs disturb it less. minis5 keeps its compiled
code on the disk; each of its learners runs once before the first measurement, so that it is there.

Leaves out: tuning the peers. All have the numbers of minis5's preset for the task (rollout, passes,
minibatches, learning rate, horizon, clipping, entropy bonus, ε) and about as many parameters in
their memory. sb3-contrib does not see the last action. Tests: tests/test_versus.py.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
from sweep import ROOT, readmes, replace_block

from minis5.run.bench import commit
from minis5.run.machine import machine, versions
from minis5.run.presets import resolve

TASKS = ("RepeatPreviousEasy", "PositionOnlyCartPoleEasy", "MemoryChain-64")
LEARNERS = {  # name: label, colour
    "minis5-s5": ("minis5, S5", "#0072b2"),
    "minis5-gru": ("minis5, GRU", "#009e73"),
    "torch-lstm": ("LSTM in PyTorch, as CleanRL", "#d55e00"),
    "sb3-recurrent": ("sb3-contrib, RecurrentPPO", "#cc79a7"),
}
SEEDS = (0, 1, 2)
TARGET = 0.9  # of the best return, which is 1 in all tasks
MOST_STEPS, MOST_SECONDS = 1_000_000, 400.0
KEY = ("task", "learner", "seed")
COLUMNS = (*KEY, "reached", "seconds", "learning_seconds", "steps", "steps_per_second")
COLUMNS += ("best_return", "parameters", "most_steps", "most_seconds", "settings", "machine")
COLUMNS += ("versions", "commit")
CURVE = (*KEY, "step", "seconds", "return")
PEERS = ("torch", "stable-baselines3", "sb3-contrib")


def run(task, learner, seed, most_steps, most_seconds):
    """Make a run in a process of its own; return its row of results.csv and its curve."""
    print(f"== {task} {learner} seed {seed}", flush=True)
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, **one, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    numbers = (seed, TARGET, most_steps, most_seconds)
    script = str(ROOT / "experiments" / "versus_learners.py")
    command = [sys.executable, script, learner, task, *map(str, numbers)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"versus: {learner} on {task} ended with exit code {done.returncode}, see above")
    found = json.loads(done.stdout.splitlines()[-1])
    curve = found.pop("curve")
    rate = found["steps"] / max(found["learning_seconds"], 1e-9)
    facts = {"task": task, "learner": learner, "seed": str(seed), "settings": settings(task)}
    facts |= {"steps_per_second": f"{rate:.0f}", "commit": commit() or "unknown"}
    facts |= {"most_steps": most_steps, "most_seconds": most_seconds, "versions": libraries()}
    facts |= {"machine": f"{machine('cpu')['processor']}, one core"}
    return found | facts, curve


def settings(task):
    """Return the numbers that all learners have on a task."""
    _, c, _ = resolve(task)
    names = ("num_envs", "unroll", "epochs", "minibatches", "lr", "anneal_lr", "gamma")
    names += ("gae_lambda", "clip", "entropy_coef", "value_coef", "max_grad_norm", "adam_eps")
    return " ".join(f"{name}={getattr(c, name):g}" for name in names)


def libraries():
    """Return the versions of minis5's libraries and of the peers."""
    found = dict(versions("cpu"))
    for name in PEERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(f"{name} {version}" for name, version in found.items())


def read(path, key=KEY):
    """Return the rows of a csv file, in lists by (task, learner, seed)."""
    groups, text = {}, path.read_text(encoding="utf-8") if path.exists() else ""
    for row in csv.DictReader(text.splitlines()):
        groups.setdefault(tuple(row[name] for name in key), []).append(row)
    return groups


def write(path, columns, groups):
    """Write groups of rows in the order of tasks, learners and seeds."""

    def order(key):
        return TASKS.index(key[0]), list(LEARNERS).index(key[1]), int(key[2])

    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for key in sorted(groups, key=order):
            writer.writerows(groups[key])


def table(groups):
    """Return the results as a Markdown table, one line for each task and learner."""
    names = ("task", "learner", "reached", "time until then", "against minis5, S5", "steps")
    names += ("steps/s while learning", "best return", "parameters")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [row for group in groups.values() for row in group]
    for task in TASKS:
        here = {
            name: [r for r in rows if (r["task"], r["learner"]) == (task, name)]
            for name in LEARNERS
        }
        ours = times(here["minis5-s5"])
        for learner, (label, _) in LEARNERS.items():
            if not (some := here[learner]):
                continue
            met, took = [row for row in some if row["reached"] == "True"], times(some)
            cells = [task, label, f"{len(met)} of {len(some)}"]
            cells += [f"{low_high(took)} s" if met else "not reached"]
            cells += [f"× {np.mean(took) / np.mean(ours):.1f}" if met and ours else "–"]
            cells += [f"{np.mean([int(row['steps']) for row in met]):,.0f}" if met else "–"]
            cells += [f"{np.mean([float(row['steps_per_second']) for row in some]):,.0f}"]
            cells += [f"{np.mean([float(row['best_return']) for row in some]):.2f}"]
            cells += [f"{int(some[0]['parameters']):,}"]
            lines.append(f"| {' | '.join(cells)} |".replace("-0", "−0"))
    limits = sorted({(float(row["most_seconds"]), int(row["most_steps"])) for row in rows})
    most = " or ".join(f"{seconds:g} s or {steps:,} steps" for seconds, steps in limits)
    note = (
        f"Until the mean return of a rollout's episodes is {TARGET:g}; the best return is 1. Not "
    )
    note += f"reached: not within {most}. Time: CPU time of the whole process, one thread, imports "
    note += "included, compiled code from the cache, mean (least to most) over the seeds that "
    note += "reached it, as are the steps. Settings: "
    note += "; ".join(
        ": ".join(pair) for pair in sorted({(r["task"], r["settings"]) for r in rows})
    )
    for name in ("machine", "versions"):
        note += f". {'; '.join(sorted({row[name] for row in rows}))}"
    return [*lines, "", f"{note}."]


def times(rows):
    """Return the seconds of those runs that reached the target."""
    return [float(row["seconds"]) for row in rows if row["reached"] == "True"]


def low_high(values):
    """Return a mean and the range as text."""
    return f"{np.mean(values):.0f} ({min(values):.0f} to {max(values):.0f})"


def draw(path, curves):
    """Draw the return against time, a panel for each task and a line for each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(14, 4), dpi=150, layout="constrained"))
    for axes, task in zip(figure.subplots(1, len(TASKS)), TASKS, strict=True):
        for learner, (label, colour) in LEARNERS.items():
            for (its_task, its_learner, _), points in curves.items():
                if (its_task, its_learner) == (task, learner):
                    line = np.array([(float(p["seconds"]), float(p["return"])) for p in points]).T
                    axes.plot(*line, color=colour, label=label, linewidth=1)
                    label = f"_{label}"  # one entry of the legend for all seeds
        axes.axhline(TARGET, color="black", linestyle=":", linewidth=1)
        axes.set(title=task, xlabel="CPU seconds, imports included", xscale="log")
        axes.set(ylabel="mean return of a rollout's episodes")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    figure.savefig(path)


def report(out, pages):
    """Write the picture and the table from the csv files."""
    results = read(out / "results.csv")
    if not results:
        sys.exit(f"no run in {out} has finished yet")
    draw(out / "versus.png", read(out / "curves.csv"))
    lines = table(results)
    print(*lines, sep="\n")
    replace_block(pages, "versus", lines)


def main(argv=None):
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    parser.add_argument(
        "--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS), metavar="L"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, metavar="S")
    parser.add_argument("--quick", action="store_true", help="one update each; needs --out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default experiments/versus")
    parser.add_argument("--report", action="store_true", help="no runs")
    if (options := parser.parse_args(argv)).quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    out = options.out or ROOT / "experiments" / "versus"
    out.mkdir(parents=True, exist_ok=True)
    most_steps = 1 if options.quick else MOST_STEPS
    results, curves = read(out / "results.csv"), read(out / "curves.csv")
    jobs = [(t, one, s) for s in options.seeds for t in options.tasks for one in options.learners]
    ready = set()
    for task, learner, seed in [] if options.report else jobs:
        key = task, learner, str(seed)
        if key not in results:
            if learner.startswith("minis5") and key[:2] not in ready:
                ready.add(key[:2])
                print("compiling: ", end="")
                run(task, learner, seed, 1, MOST_SECONDS)
            row, curve = run(task, learner, seed, most_steps, MOST_SECONDS)
            results[key] = [row]
            names = CURVE[len(KEY) :]
            curves[key] = [
                dict(zip(KEY, key, strict=True)) | dict(zip(names, p, strict=True)) for p in curve
            ]
            write(out / "results.csv", COLUMNS, results)
            write(out / "curves.csv", CURVE, curves)
    report(out, readmes(options.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
