"""Memory tasks: S5 with resets, S5 without them, and no memory at all, by the plain command `minis5 train TASK --seed S`.

    python experiments/memory_tasks.py               all runs, then the report; stop it and start it as you like
    python experiments/memory_tasks.py --report      the report alone

Each run is a process of its own, one after another; its wall time includes imports and compilation. The report writes
results.csv and curves.csv (rows of runs that are no longer in runs/ stay), curves.png, and the table in the READMEs.

Source: tasks of 2303.03982, section 5. Tests: tests/test_experiments.py.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from minis5 import checkpoint, runlog

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "experiments" / "memory_tasks"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
TASKS = ("RepeatPreviousEasy", "PositionOnlyCartPoleEasy", "MemoryChain-64", "RepeatPreviousHard")
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "s5-noreset": (("--resets", "false"), "S5, resets off", "#d55e00"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
PAPER = {  # mean return there: POPGym's table, and for the memory length a figure
    ("RepeatPreviousHard", "s5"): ".91 ± .01",
    ("RepeatPreviousHard", "s5-noreset"): ".76 ± .02",
    ("RepeatPreviousHard", "none"): "−.48 (MLP)",
    ("MemoryChain-64", "s5"): "1 ± .05 (read off a figure)",
}
LINES = {"RepeatPreviousHard": ((0.91, "S5 in the paper", "--"), (0.191, "best model in the POPGym paper", ":"))}
QUICK = "--steps 1024 --num-envs 16 --unroll 32 --epochs 1 --encoder 16 --heads 16 --eval-episodes 4 --workers 1".split()
KEY = ("task", "variant", "seed")
COLUMNS = (*KEY, "steps", "train_seconds", "wall_seconds", "steps_per_second", "mean_return", "std_return", "min_return")
COLUMNS += ("max_return", "episodes", "training_return_last", "parameters", "workers", "machine", "versions", "command")
POINTS = 60  # of a curve in curves.csv


def run(runs, task, variant, seed, quick):
    """Train, or go on where it was stopped; nothing where it is done. RUN.json beside the run keeps what the report needs."""
    folder, log = runs / f"{task}-{variant}-seed{seed}", runs / f"{task}-{variant}-seed{seed}.json"
    if (folder / "summary.json").exists():
        return
    arguments = ["train", task, "--seed", str(seed), *VARIANTS[variant][0], *(QUICK if quick else ())]
    facts = {"task": task, "variant": variant, "seed": seed, "command": " ".join(["minis5", *arguments]), "wall": []}
    if (folder / "config.json").exists():
        arguments = ["train", "--resume", str(folder)]
        facts = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {**facts, "wall": [None]}
    else:
        arguments += ["--out", str(folder)]
    print(f"== {folder.name}", flush=True)
    runs.mkdir(parents=True, exist_ok=True)
    checkpoint.write_json(log, {**facts, "wall": [*facts["wall"], None]})  # None stays after a kill: time not known
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    handler = signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the run, which saves itself
    start = time.perf_counter()
    status = subprocess.run([sys.executable, "-m", "minis5", *arguments], env={**os.environ, "PYTHONPATH": path}).returncode
    checkpoint.write_json(log, {**facts, "wall": [*facts["wall"], round(time.perf_counter() - start, 2)]})
    signal.signal(signal.SIGINT, handler)
    if status:
        sys.exit(f"{folder.name}: exit code {status}; the same command goes on from here")


def result(folder, facts):
    """A row of results.csv from a finished run."""
    summary, config = (json.loads((folder / name).read_text()) for name in ("summary.json", "config.json"))
    return {
        **summary,
        **facts,
        "train_seconds": summary["seconds"],
        "wall_seconds": "" if None in facts["wall"] else round(sum(facts["wall"]), 2),
        "machine": f"{config['machine']['processor']}, {config['machine']['cpus']} CPUs",
        "versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }


def curve(folder, facts):
    """Rows of curves.csv: the training return, averaged over stretches of the run so that at most POINTS are left."""
    rows = [(row["step"], row["return"]) for row in runlog.read_progress(folder / "progress.csv")]
    rows = np.array([row for row in rows if not np.isnan(row[1])]).reshape(-1, 2)
    parts = [part for part in np.array_split(rows, POINTS) if len(part)]
    return [{**facts, "step": int(part[-1, 0]), "return": round(float(part[:, 1].mean()), 5)} for part in parts]


def read(path):
    """The rows of a csv file, grouped by (task, variant, seed)."""
    groups, text = {}, path.read_text(encoding="utf-8") if path.exists() else ""
    for row in csv.DictReader(text.splitlines()):
        groups.setdefault(tuple(row[name] for name in KEY), []).append(row)
    return groups


def write(path, columns, groups):
    """Write groups of rows in the order of TASKS and VARIANTS."""
    keys = sorted(groups, key=lambda key: (TASKS.index(key[0]), list(VARIANTS).index(key[1]), int(key[2])))
    with open(path, "w", encoding="utf-8", newline="") as file:
        lines = [columns, *([row[column] for column in columns] for key in keys for row in groups[key])]
        csv.writer(file, lineterminator="\n").writerows(lines)


def report(out, readmes):
    """Bring the csv files up to date with runs/; then the picture and the tables, from the csv files."""
    groups = {name: read(out / name) for name in ("results.csv", "curves.csv")}
    for log in sorted((out / "runs").glob("*.json")):
        folder, facts = log.with_suffix(""), json.loads(log.read_text(encoding="utf-8"))
        if (folder / "summary.json").exists():
            key = tuple(str(facts[name]) for name in KEY)
            groups["results.csv"][key] = [result(folder, facts)]
            groups["curves.csv"][key] = curve(folder, facts)
    if not groups["results.csv"]:
        sys.exit(f"no run in {out / 'runs'} has finished yet")
    write(out / "results.csv", COLUMNS, groups["results.csv"])
    write(out / "curves.csv", (*KEY, "step", "return"), groups["curves.csv"])
    draw(out / "curves.png", read(out / "curves.csv"))
    lines = table(read(out / "results.csv"))
    for readme in readmes:
        text = readme.read_text(encoding="utf-8") if readme.exists() else ""
        if BEGIN in text and END in text:
            before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
            checkpoint.write_text(readme, "\n".join([before, *lines, after]))
    print(*lines, sep="\n")


def table(groups):
    """The results as a Markdown table, one line for each task and variant."""
    names = ("task", "agent", "seeds", "mean return (worst seed)", "in training", "in the paper", "steps", "time", "steps/s")
    lines, rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"], [group[0] for group in groups.values()]
    for task in TASKS:
        for variant, (_, label, _) in VARIANTS.items():
            some = [row for row in rows if (row["task"], row["variant"]) == (task, variant)]
            if some:
                wanted = ("mean_return", "training_return_last", "steps", "steps_per_second")
                returns, training, steps, speeds = np.array([[row[name] or "nan" for name in wanted] for row in some], float).T
                walls = [float(row["wall_seconds"]) for row in some if row["wall_seconds"]]
                wall = "–".join(dict.fromkeys(f"{w:.0f}" for w in (min(walls), max(walls)))) + " s" if walls else "not known"
                score = f"{returns.mean():.3f} ({returns.min():.3f}) | {training.mean():.3f}".replace("-", "−")
                cells = (task, label, len(some), score, PAPER.get((task, variant), "–"), f"{steps.mean():,.0f}", wall)
                lines.append("| " + " | ".join(map(str, (*cells, f"{speeds.mean():,.0f}"))) + " |")
    note = f"Means over seeds. Mean return: over {rows[0]['episodes']} fresh episodes, deterministic policy, at the end; in "
    note += "training: over the last rollout's episodes, sampled actions. Time: of the whole command, fastest to slowest. "
    return [*lines, "", note + "; ".join(sorted({row["machine"] for row in rows})) + "."]


def draw(path, groups):
    """A panel for each task: every seed a thin line, their mean a thick one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(9, 6.8), dpi=150, layout="constrained"))
    for axes, task in zip(figure.subplots(2, 2).ravel(), TASKS, strict=True):
        for variant, (_, label, colour) in VARIANTS.items():
            some = [group for key, group in groups.items() if key[:2] == (task, variant)]
            curves = [np.array([(float(row["step"]), float(row["return"])) for row in group]).T for group in some]
            for steps, returns in curves:
                axes.plot(steps, returns, color=colour, linewidth=0.6, alpha=0.6)
            if curves:
                low, high = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
                grid = np.linspace(low, max(low, high), 200)
                mean = np.mean([np.interp(grid, *one) for one in curves], axis=0)
                axes.plot(grid, mean, color=colour, linewidth=1.8, label=f"{label}, seeds: {len(curves)}")
        for height, text, style in LINES.get(task, ()):
            axes.axhline(height, color="black", linewidth=1, linestyle=style, label=f"{text}: {height:g}")
        axes.set(title=task, xlabel="environment steps", ylabel="mean episode return in training")
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x else "0")
        axes.grid(alpha=0.3)
        axes.legend(handles=[line for line in axes.lines if line.get_label()[0] != "_"], fontsize="x-small")
    figure.savefig(path)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=tuple(VARIANTS), metavar="V", help=", ".join(VARIANTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2), metavar="S", help="default 0 1 2")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that it works; needs --out")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default experiments/memory_tasks; READMEs change only there")
    parser.add_argument("--report", action="store_true", help="no runs")
    if (options := parser.parse_args(argv)).quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    out = options.out or OUT
    readmes = (out / "README.md",) if options.out else (OUT.with_name("README.md"), ROOT / "README.md")
    jobs = [(t, v, s) for t in options.tasks for v in options.variants for s in options.seeds]
    for task, variant, seed in [] if options.report else sorted(jobs, key=lambda job: job[2]):  # every task once, soon
        run(out / "runs", task, variant, seed, options.quick)
    report(out, readmes)


if __name__ == "__main__":
    main()
