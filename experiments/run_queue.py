"""Run what is missing over the experiments, in order of worth, one run at a time.

    python experiments/run_queue.py --list           what is missing
    python experiments/run_queue.py --minutes 120    run for two hours, then report

Ctrl-C, SIGTERM or the end of the minutes stops it. The present run then saves its state, which is
kept under experiments/unfinished/ (5 MB at most), so that another clone goes on with it. Runs have
the lowest priority. Reports are written at the end.

Leaves out: several runs at once; settings that changed since a result was written.
Tests: tests/test_run_queue.py.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import sweep
from memory_length import MEMORY_LENGTH
from memory_tasks import MEMORY_TASKS
from meta_cartpole import META_CARTPOLE
from meta_control import META_CONTROL
from other_environments import HIDDEN, OTHER_ENVIRONMENTS
from popgym_hard import POPGYM_HARD, SEEDS
from popgym_training import POPGYM

from minis5 import files

MOST_BYTES = 5_000_000  # under experiments/unfinished/


class Work(NamedTuple):
    """Some runs of an experiment; all of its tasks if none is named."""

    sweep: sweep.Sweep
    variants: tuple
    seeds: tuple
    tasks: tuple = ()

    def jobs(self):
        """Yield (sweep, task, variant, seed), seed by seed."""
        for seed in self.seeds:
            for task in self.tasks or self.sweep.tasks:
                for variant in self.variants:
                    yield self.sweep, task, variant, seed


SHORTER, LONGEST = MEMORY_LENGTH.tasks[:-2], MEMORY_LENGTH.tasks[-2:]  # than the paper's longest
CLEAN = ("PositionOnlyCartPoleHard", "PositionOnlyPendulumHard")
QUEUE = (  # what is worth most comes first
    Work(POPGYM_HARD, ("s5-noreset", "none", "gru"), SEEDS[:3], ("RepeatPreviousHard",)),
    Work(MEMORY_TASKS, ("s5", "s5-noreset", "none"), (0, 1, 2, 3, 4)),  # the README's table
    Work(MEMORY_LENGTH, ("s5",), (0, 1, 2, 3, 4), SHORTER),
    Work(MEMORY_LENGTH, ("s5",), (0,), LONGEST),
    Work(MEMORY_LENGTH, ("lstm", "gru"), (0, 1, 2), SHORTER[:7]),  # up to 256
    Work(POPGYM_HARD, ("s5",), SEEDS, CLEAN),
    Work(POPGYM_HARD, ("none", "gru", "s5-noreset"), SEEDS[:3], CLEAN),
    Work(POPGYM_HARD, ("s5",), SEEDS),
    Work(POPGYM_HARD, ("gru", "none", "s5-noreset"), SEEDS[:3]),
    Work(META_CONTROL, ("s5", "mlp", "lstm"), (0,), ("Mixture",)),
    Work(POPGYM_HARD, ("gru", "none", "s5-noreset"), SEEDS[3:]),
    Work(MEMORY_LENGTH, ("s5",), (1, 2), LONGEST),
    Work(MEMORY_LENGTH, ("lstm", "gru", "attention"), (0, 1, 2), SHORTER),
    Work(POPGYM, ("s5", "none"), (0, 1, 2, 3, 4)),
    Work(META_CARTPOLE, ("s5", "gru", "mlp"), (0, 1, 2, 3)),
    Work(OTHER_ENVIRONMENTS, ("s5",), OTHER_ENVIRONMENTS.seeds),
    Work(OTHER_ENVIRONMENTS, ("none",), OTHER_ENVIRONMENTS.seeds, HIDDEN),
)


def missing(queue, root):
    """Return the jobs, each once, that have no row in the results under ``root``.

    A run in stages may have a row before it ends: as long as its state is kept, it is missing.
    """
    known, jobs = {}, []
    for work in queue:
        name = work.sweep.name
        if name not in known:
            known[name] = set(sweep.read(root / name / "results.csv"))
        for job in work.jobs():
            key = tuple(map(str, job[1:]))
            if (
                key not in known[name]
                or (root / "unfinished" / name / sweep.run_name(*key)).exists()
            ):
                known[name].add(key)
                jobs += [job] if job not in jobs else []
    return jobs


def updates(folder):
    """Return how many updates a run has logged."""
    path = folder / "progress.csv"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def move(source, target, name):
    """Copy a run and its log from one folder to another, over what is there."""
    forget(target, name)
    shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(source / f"{name}.json", target)


def forget(folder, name):
    """Remove a run and its log from a folder, if they are there."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / f"{name}.json").unlink(missing_ok=True)


def size(folder):
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def take_up(root, one, name):
    """Fetch a run that another clone began, if it is further than the one here."""
    kept, runs = root / "unfinished" / one.name, root / one.name / "runs"
    if updates(kept / name) > updates(runs / name):
        runs.mkdir(parents=True, exist_ok=True)
        move(kept, runs, name)


def keep(root, one, name):
    """Keep the state of a run that was stopped, if there is room for it."""
    kept, runs = root / "unfinished" / one.name, root / one.name / "runs"
    forget(kept, name)
    if not updates(runs / name):
        return
    if size(root / "unfinished") + size(runs / name) > MOST_BYTES:
        print(f"{name}: its state is in {runs} only; {root / 'unfinished'} is full")
        return
    kept.mkdir(parents=True, exist_ok=True)
    move(runs, kept, name)
    forget_paths(kept, name)


def forget_paths(folder, name):
    """Name the command of a kept run as in the results, without the paths of this machine."""
    config, log = (
        json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / name / "config.json", folder / f"{name}.json")
    )
    config["command"] = shlex.split(log["command"])
    files.write_json(folder / name / "config.json", config)


def work_off(jobs, root, quick):
    """Make the runs until all are done or a signal comes.

    Returns
    -------
    done : list of Sweep
        Those that have a new result.
    failed : list of str
        What went wrong, for each run that did not end well.
    """
    stop, done, failed = [], [], []
    for number in sweep.SIGNALS:
        signal.signal(number, lambda *_: stop.append(True))
    for one, task, variant, seed in jobs:
        if stop:
            break
        name = sweep.run_name(task, variant, seed)
        take_up(root, one, name)
        try:
            sweep.run(one, root / one.name / "runs", task, variant, seed, quick)
        except sweep.Stopped:
            keep(root, one, name)
            break
        except SystemExit as error:
            failed.append(str(error))
            continue
        forget(root / "unfinished" / one.name, name)
        done += [one] if one not in done else []
    return done, failed


def main(argv=None, queue=QUEUE):
    """Run the command line; return the exit code, 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, metavar="N", help="stop after so many")
    parser.add_argument("--list", action="store_true", help="print what is missing; run nothing")
    names = sorted({work.sweep.name for work in queue})
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--quick", action="store_true", help="tiny runs; needs --out")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="instead of experiments/, whose READMEs stay"
    )
    if (options := parser.parse_args(argv)).quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    if options.minutes is not None and not 0 < options.minutes < 1e6:
        parser.error(f"--minutes: expected a positive number, got {options.minutes}")
    root = options.out or sweep.ROOT / "experiments"
    jobs = missing(queue, root)
    jobs = [job for job in jobs if not options.only or job[0].name in options.only]
    if options.list:
        print(*(f"{job[0].name}: {sweep.run_name(*job[1:])}" for job in jobs), sep="\n")
        return 0
    os.nice(19)
    before = {number: signal.getsignal(number) for number in sweep.SIGNALS}
    try:
        signal.setitimer(signal.ITIMER_REAL, 60 * (options.minutes or 0))
        done, failed = work_off(jobs, root, options.quick)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    for one in done:
        pages = sweep.readmes(options.out and root / one.name)
        sweep.report(one, root / one.name, pages)
    print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
