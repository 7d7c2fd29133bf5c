"""The queue of experiments: what is missing, stopping at any time, and going on elsewhere."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the report draws a picture")
EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import run_queue  # noqa: E402
import sweep  # noqa: E402
from memory_tasks import MEMORY_TASKS  # noqa: E402
from run_queue import Work, main  # noqa: E402

pytestmark = pytest.mark.slow  # experiments run on one Python

TINY = MEMORY_TASKS._replace(tasks=("MemoryChain-64",))
# ten updates, some seconds: long enough to be stopped within
LONG = TINY._replace(variants={"s5": (("--workers", "1", "--steps", "81920"), "S5", "#0072b2")})


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(os, "nice", lambda n: n)  # it would last for all tests


def write_rows(folder, *keys):
    folder.mkdir(parents=True)
    lines = [",".join(sweep.KEY), *(",".join(map(str, key)) for key in keys)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")


def test_what_is_missing_in_order_of_worth(tmp_path, capsys):
    queue = (
        Work(TINY, ("none",), (4,)),
        Work(MEMORY_TASKS, ("s5", "none"), (3, 4), ("MemoryChain-64",)),
    )
    write_rows(tmp_path / "memory_tasks", ("MemoryChain-64", "s5", 3))
    main(["--list", "--out", str(tmp_path)], queue)
    names = ["none-seed4", "none-seed3", "s5-seed4"]  # each once
    expected = [f"memory_tasks: MemoryChain-64-{name}" for name in names]
    assert capsys.readouterr().out.splitlines() == expected
    # a run in stages that has a row, and is to go on
    (tmp_path / "unfinished" / "memory_tasks" / "MemoryChain-64-s5-seed3").mkdir(parents=True)
    main(["--list", "--out", str(tmp_path)], queue)
    names.insert(1, "s5-seed3")
    expected = [f"memory_tasks: MemoryChain-64-{name}" for name in names]
    assert capsys.readouterr().out.splitlines() == expected


def test_every_work_is_of_its_experiment():
    names = {path.stem for path in EXPERIMENTS.glob("*.py")}
    assert not names & set(sys.stdlib_module_names)  # a script's folder comes first in sys.path
    for work in run_queue.QUEUE:
        assert set(work.variants) <= set(work.sweep.variants)
        assert set(work.tasks) <= set(work.sweep.tasks)


def test_arguments_are_checked(capsys):
    for options, message in ((["--quick"], "give --out too"), (["--minutes", "0"], "positive")):
        with pytest.raises(SystemExit):
            main(options)
        assert message in capsys.readouterr().err


def test_runs_all_and_reports(tmp_path, one_thread, capfd):
    """A run that fails is named at the end, and the others are made; nothing is made twice."""
    bad = TINY._replace(variants={**TINY.variants, "bad": (("--gamma", "7"), "bad", "black")})
    queue = (Work(bad, ("bad", "none"), (3, 4)),)
    assert main(["--quick", "--out", str(tmp_path)], queue) == 1
    folder = tmp_path / "memory_tasks"
    groups = sweep.read(folder / "results.csv")
    assert list(groups) == [("MemoryChain-64", "none", seed) for seed in "34"]
    assert capfd.readouterr().err.count("exit code 2; the same command") == 2
    assert (folder / "curves.png").exists() and not (tmp_path / "unfinished").exists()
    assert main(["--quick", "--out", str(tmp_path)], (Work(TINY, ("none",), (3, 4)),)) == 0
    assert "==" not in capfd.readouterr().out


def stop_when(path, act):
    """Call ``act`` in a thread once the file at ``path`` has two lines."""

    def wait():
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if path.exists() and path.read_bytes().count(b"\n") >= 2:
                return act()
            time.sleep(0.05)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM])
def test_a_stopped_run_goes_on_in_another_clone(tmp_path, one_thread, capfd, number):
    """The run's rows are those of a run that nobody stopped."""
    here, there = tmp_path / "here", tmp_path / "there"
    queue, name = (Work(LONG, ("s5",), (3,)),), "MemoryChain-64-s5-seed3"
    log = here / "memory_tasks" / "runs" / name / "progress.csv"
    thread = stop_when(log, lambda: os.kill(os.getpid(), number))
    handlers = [signal.getsignal(one) for one in sweep.SIGNALS]
    assert main(["--out", str(here)], queue) == 0
    thread.join()
    assert handlers == [signal.getsignal(one) for one in sweep.SIGNALS]
    assert not (here / "memory_tasks" / "results.csv").exists()
    kept = here / "unfinished" / "memory_tasks"
    first = (kept / name / "progress.csv").read_text().splitlines()
    assert 2 <= len(first) < 11 and (kept / f"{name}.json").exists()
    for path in kept.rglob("*.json"):  # it may be committed
        assert (
            str(tmp_path) not in path.read_text()
            and str(EXPERIMENTS.parent) not in path.read_text()
        )

    shutil.copytree(here / "unfinished", there / "unfinished")
    capfd.readouterr()
    assert main(["--out", str(there)], queue) == 0
    rows = (there / "memory_tasks" / "runs" / name / "progress.csv").read_text().splitlines()
    assert rows[: len(first)] == first and len(rows) > len(first)
    assert not (there / "unfinished" / "memory_tasks" / name).exists()
    assert not list((there / "unfinished").rglob("*.*"))
    ((row,),) = sweep.read(there / "memory_tasks" / "results.csv").values()
    assert int(row["steps"]) == 81_920 and float(row["cpu_seconds"]) > 0


@pytest.mark.parametrize("status", [0, 1])
def test_a_signal_that_comes_as_a_run_ends_stops_the_queue(tmp_path, monkeypatch, status):
    """The run ends, well or not, instead of saving its state; the next one is not begun."""
    script = f"""if True:
        import os, signal, time
        signal.signal(signal.SIGINT, lambda *_: os._exit({status}))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)"""
    began, wait_for = [], sweep.wait_for

    def ending(_, environment):
        began.append(True)
        return wait_for([sys.executable, "-c", script], environment)

    monkeypatch.setattr(sweep, "wait_for", ending)
    before = {number: signal.getsignal(number) for number in sweep.SIGNALS}
    try:
        jobs = [(TINY, "MemoryChain-64", "s5", seed) for seed in (3, 4)]
        done, failed = run_queue.work_off(jobs, tmp_path, quick=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert len(began) == 1 and (len(done), len(failed)) == ((0, 1) if status else (1, 0))


def test_states_are_kept_while_there_is_room(tmp_path, monkeypatch, capsys):
    """Of two clones' states the further one is taken up."""
    runs, kept = (tmp_path / name for name in ("memory_tasks/runs", "unfinished/memory_tasks"))

    def write(folder, name, lines):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "progress.csv").write_text("x\n" * lines)
        (folder / name / "config.json").write_text("{}")
        (folder / f"{name}.json").write_text('{"command": "minis5 train"}')

    write(runs, "a", 3)
    write(runs, "b", 3)
    (runs / "c").mkdir()
    monkeypatch.setattr(run_queue, "MOST_BYTES", 13)
    for name in "abc":
        run_queue.keep(tmp_path, TINY, name)
    assert sorted(path.name for path in kept.iterdir()) == ["a", "a.json"]
    assert "full" in capsys.readouterr().out
    for lines, expected in ((2, 3), (5, 5)):
        write(kept, "a", lines)
        run_queue.take_up(tmp_path, TINY, "a")
        assert run_queue.updates(runs / "a") == expected
    shutil.rmtree(runs)
    run_queue.take_up(tmp_path, TINY, "a")
    assert run_queue.updates(runs / "a") == 5
    run_queue.take_up(tmp_path, TINY, "b")
    assert not (runs / "b").exists()


def test_the_time_limit_of_the_command(tmp_path):
    """As a process of its own: --minutes ends it long before the run would."""
    code = f"import test_run_queue as t; t.main(['--minutes', '0.2', '--out', {str(tmp_path)!r}], "
    code += "(t.Work(t.LONG._replace(variants={'s5': (('--steps', '90000000', '--workers', '1'), "
    code += "'S5', 'black')}), ('s5',), (3,)),))"
    path = os.pathsep.join([str(EXPERIMENTS.parent / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,  # the run itself would take an hour
        check=False,
    )
    assert done.returncode == 0
    assert "MemoryChain-64-s5-seed3" in done.stdout  # has begun
    assert not (tmp_path / "memory_tasks" / "results.csv").exists()
