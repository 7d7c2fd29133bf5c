"""A small training run that is killed, resumed and compared with one that nothing disturbed.

Each run saves after each update. A process that has everything compiled forks for it, so that a
case takes a second instead of ten.

Leaves out: which cases there are, and the report (soak.py). Tests: tests/run/test_kill.py.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import kill_points
import numpy as np

from minis5.run import cli, learn, progress

SMALL = "--num-envs 8 --unroll 8 --minibatches 2 --epochs 1 --encoder 8 --heads 8 --n-layers 1"
SMALL += " --ssm-size 8 --steps 384 --eval-episodes 4 --seed 4"  # 6 updates
SETTINGS = {  # name: (arguments of minis5 train, arguments of resuming)
    "MemoryChain, 1 worker": ("MemoryChain --env-option memory_length=3 --workers 1", ""),
    "MemoryChain, 2 workers": ("MemoryChain --env-option memory_length=3 --workers 2", ""),
    "CartPole-v1, 1 worker": ("CartPole-v1 --workers 1", "--trust"),
    "CartPole-v1, 2 workers": ("CartPole-v1 --workers 2", "--trust"),
}
# what is killed, and when
KILLS = ("a run, operation", "a resumed run, operation", "rank 0", "group", "worker")
HALFWAY = 0.6  # of a run's operations have happened to the run that `a resumed run` begins with
LONGEST = 60.0  # seconds of a run; longer ones hang
PROMPT = 5.0  # seconds from a worker's death to the end of its run
OUTCOMES = ("bit for bit", "refused", "wrong", "hangs", "late", "unclear error", "nothing to kill")


def launch(folder, arguments, fatal=0, pictures=False, names=None):
    """Fork a process that trains as the command line says; return its number.

    Parameters
    ----------
    folder : pathlib.Path
        The run's folder; what the process prints goes to FOLDER.txt beside it.
    arguments : list of str
    fatal : int
        The file operation before which it is killed; 0 for none.
    pictures : bool
        Draw the learning curve at the end, which takes most of the time.
    names : pathlib.Path
        A file for the names of all operations.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        log = os.open(f"{folder}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))
        learn.CHECKPOINT_INTERVAL = 0.0
        if not pictures:
            sys.modules["matplotlib"] = None
        operations = kill_points.Operations(folder, fatal)
        if fatal or names:
            operations.install()
        code = cli.main(arguments)
        if names:
            names.write_text("\n".join(operations.names), encoding="utf-8")
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
    return None


def end_of(pid):
    """Wait for a process; return its exit code, or None if it hangs, and then end its group."""
    deadline = time.monotonic() + LONGEST
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def beginning(setting, folder):
    """Return the arguments that begin a run in a folder."""
    return ["train", *SETTINGS[setting][0].split(), *SMALL.split(), "--out", str(folder)]


def going_on(setting, folder):
    """Return the arguments that continue what is in a folder: nothing yet, or a run."""
    if not (folder / "config.json").exists():
        return beginning(setting, folder)
    return ["train", "--resume", str(folder), *SETTINGS[setting][1].split()]


def ending(folder):
    """Return all by which two runs are compared, as a dict of texts."""
    rows = progress.read_progress(folder / "progress.csv")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    found = {f"summary.json: {k}": str(v) for k, v in summary.items() if "_return" in k}
    for number, row in enumerate(rows):
        kept = [(k, str(v)) for k, v in row.items() if k not in progress.TIME_COLUMNS]
        found[f"progress.csv: row {number}"] = str(kept)
    for name in ("agent.npz", "state.npz"):
        with np.load(folder / name) as arrays:
            # of a state, the times and what depends on them, and pickles, whose bytes may differ
            for key in arrays.files:
                if key not in ("facts", "digest") and not key.endswith(("seconds", "pickle")):
                    array = arrays[key]
                    found[f"{name}: {key}"] = f"{array.dtype}{array.shape}{array.tobytes().hex()}"
    return found


def workers_of(pid):
    """Return the numbers of a process's children."""
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def strike(kill, pid, delay):
    """Kill a process, its group or one of its workers after a delay.

    Return the time of the kill, or None if there was nothing to kill, not yet or no more.
    """
    time.sleep(delay)
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        return None
    try:
        if kill == "group":
            os.killpg(pid, signal.SIGKILL)
        elif kill == "rank 0":
            os.kill(pid, signal.SIGKILL)
        elif workers := workers_of(pid):
            os.kill(workers[0], signal.SIGKILL)
        else:
            return None
    except ProcessLookupError:
        return None
    return time.monotonic()


class Soak:
    """The cases of one setting, in a folder of their own.

    The run that nothing disturbs is made first; it also tells which operations there are.
    """

    def __init__(self, setting, folder):
        self.setting, self.folder, self.template = setting, folder, folder / "half"
        folder.mkdir(parents=True, exist_ok=True)
        whole, names = folder / "whole", folder / "names.txt"
        one = folder / "compiled"  # by this process, so that those that it forks need not
        if cli.main([*beginning(setting, one), "--workers", "1", "--quiet"]):
            sys.exit(f"soak: {setting} cannot be trained")
        if end_of(launch(whole, beginning(setting, whole), pictures=True, names=names)) != 0:
            sys.exit(f"soak: {setting} cannot be trained:\n{self.text(whole)}")
        began, plain = time.monotonic(), folder / "plain"
        end_of(launch(plain, beginning(setting, plain)))
        self.seconds = time.monotonic() - began
        self.wanted = ending(whole)
        self.operations = {"a run": names.read_text(encoding="utf-8").splitlines()}
        end_of(launch(self.template, beginning(setting, self.template), self.halfway()))
        again = folder / "again"
        shutil.copytree(self.template, again)
        end_of(launch(again, going_on(setting, again), pictures=True, names=names))
        self.operations["a resumed run"] = names.read_text(encoding="utf-8").splitlines()

    def halfway(self):
        return int(HALFWAY * len(self.operations["a run"]))

    @staticmethod
    def text(folder):
        return Path(f"{folder}.txt").read_text(encoding="utf-8", errors="replace")

    def count(self, kill):
        """Return how many cases there are of a kind, or None for any number."""
        what, comma, _ = kill.partition(", operation")
        return len(self.operations[what]) if comma else None

    def case(self, kill, number):
        """Do one case; return its columns from "when" to "said"."""
        folder = self.folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.txt").unlink(missing_ok=True)
        what, by_operation, _ = kill.partition(", operation")
        if what == "a resumed run":
            shutil.copytree(self.template, folder)
        arguments, rng = going_on(self.setting, folder), random.Random(f"{kill} {number}")
        if by_operation:
            name = self.operations[what][number - 1]
            pictures = "open curve.png" in self.operations[what][:number]
            killed = end_of(launch(folder, arguments, number, pictures)) == -signal.SIGKILL
            result, *rest = self.outcome(folder)
            missed = result == "bit for bit" and not killed
            return name, "nothing to kill" if missed else result, *rest
        delay = rng.random() * self.seconds
        pid = launch(folder, arguments)
        struck, when = strike(kill, pid, delay), f"after {delay:.3f} s"
        code = end_of(pid)
        if struck is None:
            result, *rest = self.outcome(folder)
            return when, "nothing to kill" if result == "bit for bit" else result, *rest
        if kill == "worker":
            return when, *self.outcome(folder, time.monotonic() - struck, code)
        return when, *self.outcome(folder)

    def outcome(self, folder, seconds=None, code=2):
        """Resume what a kill left, compare, and return (outcome, seconds, what was said).

        ``seconds`` and ``code``: how long a run took to end with which code after its worker died.
        """
        said, took = "", ""
        if seconds is not None:
            said, took = self.text(folder).rstrip().rpartition("\n")[2], f"{seconds:.2f}"
            said = said.replace(str(folder), "RUN")
            if code is None:
                return "hangs", took, said
            if code != 0 and (code != 2 or not said.startswith("minis5: error: rank 1 died")):
                return "unclear error", took, said
            if code != 0 and seconds > PROMPT:
                return "late", took, said
        again = end_of(launch(folder, going_on(self.setting, folder)))
        text = self.text(folder)
        if again is None:
            return "hangs", took, "when it was resumed"
        if again != 0:
            clear = again == 2 and "Traceback" not in text
            return "refused" if clear else "unclear error", took, text.rstrip().rpartition("\n")[2]
        found = ending(folder)
        wrong = [k for k in {**found, **self.wanted} if found.get(k) != self.wanted.get(k)]
        wrong += [file.name for file in folder.glob(".*")]  # nothing temporary is left
        return ("wrong", took, wrong[0]) if wrong else ("bit for bit", took, said)
