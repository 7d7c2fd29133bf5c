"""All that a GPU is to answer first, by one command that takes ten minutes at most.

    python experiments/first_gpu.py --out FOLDER --commit SHA     all steps
    python experiments/first_gpu.py --out FOLDER tests sanitize   some of them
    python experiments/first_gpu.py --out FOLDER --dry-run        without a GPU, in the simulator

    probe      gpu_probe.py: what is installed, and whether each kind of work runs. If it fails, the
               other steps are left out: the time is worth more spent on the cause.
    tests      tests/gpu, none of which may be skipped for want of a GPU
    bench      gpu_bench.py: the scan in one pass or three, by length and width, rollouts, one
               update, training
    sanitize   NVIDIA's memcheck over the textbook's scan
    train      minis5 train RepeatPreviousHard, with its defaults

Each step has its own limit of time. At the limit it is interrupted, and killed if it does not end.
FOLDER gets, during each step and after it, whole files: summary.json (device, driver, versions,
commit; exit code and seconds of each step), a log for each step, results.json of the bench, and
progress.csv of the training. No file is larger than 16 MiB; a longer log keeps its end.

The machine needs neither pip nor git. What it lacks that is pure Python, such as Gymnasium, is
taken from wheels in the folder .whl of the repository, if there is one:

    python -m pip download --no-deps -d .whl gymnasium farama-notifications

Leaves out: a machine without pytest. Tests: tests/test_first_gpu.py.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # minis5 need not be installed

from minis5 import files  # noqa: E402

MINUTES = 9.5
MOST_BYTES = 16 << 20  # of a file
GRACE = 5  # seconds from an interruption to a kill
LEAST = 10  # seconds that a step is worth beginning for
EVERY = 5  # seconds between copies of what a step has written so far
# python -c this, a script or "-m" and a module, arguments: run it as on a GPU, with the simulator's
# small blocks
SIMULATED = """
import os, runpy, sys
os.environ.update(NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
import simulated_cupy, simulator
simulated_cupy.install()
simulator.mend()
simulator.small_blocks()
sys.argv = sys.argv[1:]
if sys.argv[0] == "-m":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Step(NamedTuple):
    """One program to run, and what of it is kept."""

    name: str
    seconds: float  # its limit
    command: list  # words after the interpreter; or, of another program, a path first
    dry: object  # such words for --dry-run, or a text that says why it is left out there
    keep: tuple = ()  # files in the folder of work that are copied, besides the log
    variables: dict = {}  # of its environment


def pytest_words():
    """Return the words of pytest with those plugins that are installed."""
    words = ["-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
    words += ["-n", "8"] if find_spec("xdist") else []
    return words + (["--timeout", "200"] if find_spec("pytest_timeout") else [])


def steps(work, commit):
    """Return all steps, in order; they write into the folder ``work``."""
    scripts, tests = ROOT / "experiments", "tests/gpu"
    probe = [f"{scripts}/gpu_probe.py", "--out", f"{work}/probe.json"]
    parts = "passes length width rollout update train"
    bench = [f"{scripts}/gpu_bench.py", *parts.split()]
    bench += ["--repeats", "5", "--out", f"{work}/bench", "--commit", commit or "unknown"]
    train = ["-m", "minis5", "train", "RepeatPreviousHard", "--device", "cuda"]
    train += ["--out", f"{work}/run"]
    tiny = "RepeatPreviousEasy --device cuda --steps 12 --eval-episodes 2 --encoder 4 --heads 3"
    tiny += " --n-layers 1 --ssm-size 4 --num-envs 4 --unroll 3 --epochs 1 --minibatches 2 --out"
    dry_train = ["-m", "minis5", "train", *tiny.split(), f"{work}/run"]
    dry_tests = "-m pytest -q -p no:cacheprovider tests/nn/test_s5.py -k simulator".split()
    sanitize = [f"{ROOT}/tests/gpu/sanitize", f"{tests}/test_scan.py::test_textbook"]
    memcheck = {"TOOLS": "memcheck", "PYTHON": sys.executable}
    return [
        Step("probe", 60, probe, ["-c", SIMULATED, *probe], ("probe.json",)),
        Step("tests", 220, [*pytest_words(), tests], dry_tests),
        Step("bench", 150, bench, "a simulator has no speed", ("bench/results.json",)),
        Step("sanitize", 60, sanitize, "there is no code to look at", (), memcheck),
        Step("train", 75, train, ["-c", SIMULATED, *dry_train], ("run/progress.csv",)),
    ]


def environment(work, dry_run):
    """Return the environment of all steps; unpack the wheels of the folder .whl for it."""
    site = Path(work, "site")
    for wheel in sorted((ROOT / ".whl").glob("*.whl")):
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
    paths = [ROOT, ROOT / "cuda", site] + ([ROOT / "tests"] if dry_run else [])
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    variables = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONUNBUFFERED": "1"}
    if not dry_run:
        variables["MINIS5_REQUIRE_GPU"] = "1"
        toolkit = Path("/usr/local/cuda")
        if "CUDA_HOME" not in os.environ and toolkit.is_dir():
            variables["CUDA_HOME"] = str(toolkit)
    return {**os.environ, **variables}


def words_of(command):
    """Return the words to start: the interpreter first, unless the command is a program."""
    first = Path(command[0])
    program = first.is_absolute() and os.access(first, os.X_OK)
    return list(map(str, command)) if program else [sys.executable, *map(str, command)]


def run(command, log, limit, variables, keep):
    """Run a program until its end or for ``limit`` seconds.

    Parameters
    ----------
    command : list of str
    log : path
        Gets all that it prints.
    limit : float
    variables : dict
        Its environment.
    keep : callable
        Called every few seconds and at the end: it copies what has been written so far.

    Returns
    -------
    code : int
        Its exit code; negative, the number of the signal that ended it.
    ended : bool
        Whether it ended before the limit.
    """
    # A job in the background ignores SIGINT. Its programs would too, and none could be interrupted.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            words_of(command),
            cwd=ROOT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    signal.signal(signal.SIGINT, before)
    try:
        end = time.monotonic() + limit
        while process.poll() is None and (left := end - time.monotonic()) > 0:
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(EVERY, left))
            keep()
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGINT)  # pytest and minis5 then say what they have
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it has started
        code = process.wait()
        keep()
    return code, ended


def copy(source, target):
    """Copy a file whole, but of a long one only the end; do nothing if it is not there."""
    with suppress(FileNotFoundError):
        with open(source, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            note = f"[{size - MOST_BYTES} bytes and a few more are left out]\n".encode()
            cut = size > MOST_BYTES
            file.seek(size - MOST_BYTES + len(note) if cut else 0)
            data = file.read(MOST_BYTES)
        files.write_bytes(target, note + data[: MOST_BYTES - len(note)] if cut else data)


def first_gpu(out, names, minutes, commit, dry_run):
    """Run the steps ``names``; write their results into ``out``; return the summary."""
    deadline = time.monotonic() + 60 * minutes
    summary = {"commit": commit, "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "dry_run": dry_run}
    summary |= {"minutes": minutes, "python": platform.python_version(), "cpus": os.cpu_count()}
    summary |= {"device": {}, "versions": {}, "steps": []}
    with tempfile.TemporaryDirectory(prefix="first_gpu.") as work:
        variables = environment(work, dry_run)
        for step in steps(work, commit):
            if step.name not in names:
                continue
            row = {"name": step.name, "exit": None, "seconds": 0.0, "left_out": None}
            summary["steps"].append(row)
            failed = [done["name"] for done in summary["steps"] if done["exit"]]
            limit = min(step.seconds, deadline - time.monotonic() - GRACE)
            if dry_run and isinstance(step.dry, str):
                row["left_out"] = step.dry
            elif "probe" in failed:
                row["left_out"] = "the probe failed"
            elif limit < LEAST:
                row["left_out"] = "no time was left"
            else:
                log = Path(work, f"{step.name}.txt")
                kept = [(log, log.name), *((Path(work, f), Path(f).name) for f in step.keep)]

                def keep(kept=kept):
                    for source, name in kept:
                        if name != "probe.json":  # its facts go to the summary
                            copy(source, out / name)

                print(f"{step.name}: at most {limit:.0f} s", flush=True)
                start, row["limit"] = time.monotonic(), round(limit, 1)
                files.write_json(out / "summary.json", summary)
                command = step.dry if dry_run else step.command
                row["exit"], ended = run(command, log, limit, {**variables, **step.variables}, keep)
                row["seconds"] = round(time.monotonic() - start, 1)
                row["reached_its_limit"] = not ended
                with suppress(OSError, ValueError):
                    probed = json.loads(Path(work, "probe.json").read_text(encoding="utf-8"))
                    summary["device"], summary["versions"] = probed["device"], probed["versions"]
            ending = row["left_out"] or f"exit code {row['exit']} after {row['seconds']} s"
            print(f"{step.name}: {ending}", flush=True)
            files.write_json(out / "summary.json", summary)
    return summary


def main(argv=None):
    """Run what the command line says; return 0 if all that was run has ended well, else 1."""
    all_steps = [step.name for step in steps("", None)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"{', '.join(all_steps)} (all)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for the results")
    parser.add_argument("--commit", metavar="SHA", help="of the source; there need be no git")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="M", help=f"of all (default {MINUTES})"
    )
    parser.add_argument("--dry-run", action="store_true", help="in the simulator, without a GPU")
    options = parser.parse_args(argv)
    if unknown := set(options.steps) - set(all_steps):
        parser.error(f"STEP: expected {', '.join(all_steps)}, got {', '.join(sorted(unknown))}")
    if not 0 < options.minutes < float("inf"):
        parser.error(f"--minutes: expected a positive number, got {options.minutes}")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {files.cannot_write(options.out, error)}")
    names, more = options.steps or all_steps, (options.minutes, options.commit, options.dry_run)
    summary = first_gpu(options.out, names, *more)
    return 1 if any(step["exit"] for step in summary["steps"]) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the step under way ends too
    sys.exit(main())
