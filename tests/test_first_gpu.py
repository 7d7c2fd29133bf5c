"""experiments/first_gpu.py without a GPU: a dry run, limits of time, what an early end leaves."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import first_gpu  # noqa: E402
import gpu_probe  # noqa: E402
from first_gpu import Step, main  # noqa: E402

pytestmark = pytest.mark.slow  # its tools run on one Python

MOST_FILES = 8


def summary(out):
    return json.loads((out / "summary.json").read_text())


def rows(out):
    return {row["name"]: row for row in summary(out)["steps"]}


def python(code, name="a", seconds=60, keep=(), variables=None):
    """Return a step that runs ``code``, in a dry run too."""
    return Step(name, seconds, ["-c", code], ["-c", code], keep, variables or {})


@pytest.fixture
def made(monkeypatch):
    """A function that puts steps into the place of the real ones."""
    monkeypatch.setattr(first_gpu, "LEAST", 0)
    monkeypatch.setattr(first_gpu, "EVERY", 0.1)

    def put(*steps):
        monkeypatch.setattr(first_gpu, "steps", lambda work, commit: steps)

    return put


def test_a_dry_run_runs_or_names_every_step(tmp_path):
    """By the command, as on a GPU's machine, in the simulator."""
    command = [sys.executable, EXPERIMENTS / "first_gpu.py", "--dry-run", "--commit", "abc"]
    result = subprocess.run([*command, "--out", tmp_path / "out"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    written, found = summary(tmp_path / "out"), rows(tmp_path / "out")
    assert list(found) == ["probe", "tests", "bench", "sanitize", "train"]
    assert [found[name]["exit"] for name in ("probe", "tests", "train")] == [0, 0, 0]
    assert found["bench"]["left_out"] == "a simulator has no speed"
    assert found["sanitize"]["left_out"] == "there is no code to look at"
    assert written["commit"] == "abc" and written["device"]["name"] == "simulated"
    assert written["versions"]["numpy"] and found["train"]["seconds"] > 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    logs = {"probe.txt", "tests.txt", "train.txt"}
    assert files == {"summary.json", "progress.csv", *logs}
    assert len(files | {"bench.txt", "results.json", "sanitize.txt"}) <= MOST_FILES
    assert "environment: right" in (tmp_path / "out" / "probe.txt").read_text()


def test_the_real_steps_fit_their_time_and_need_no_simulator():
    steps = first_gpu.steps("/scratch", "abc")
    assert sum(step.seconds for step in steps) <= 60 * first_gpu.MINUTES < 590
    words = [" ".join(map(str, step.command)) for step in steps]
    assert not any("simulat" in word for word in words)
    assert words[2].endswith("train --repeats 5 --out /scratch/bench --commit abc")
    assert first_gpu.words_of(steps[3].command)[0].endswith("tests/gpu/sanitize")
    assert steps[3].variables["TOOLS"] == "memcheck"
    assert first_gpu.environment("/nowhere", dry_run=False)["MINIS5_REQUIRE_GPU"] == "1"


def test_what_is_done_is_kept_when_the_whole_is_killed(tmp_path):
    """The log and the files of the step that was under way too."""
    code = "from pathlib import Path as P; P({!r}).write_text('half'); print('begun', flush=True)"
    code = code.format(str(tmp_path / "part.csv")) + "; import time; time.sleep(9)"
    body = f"""
import sys
sys.path.insert(0, {str(EXPERIMENTS)!r})
import first_gpu
from first_gpu import Step
first_gpu.EVERY = 0.1
first_gpu.steps = lambda work, commit: [
    Step("one", 60, ["-c", "print(1)"], ""),
    Step("two", 60, ["-c", {code!r}], "", ({str(tmp_path / "part.csv")!r},)),
]
first_gpu.main(["--out", {str(tmp_path / "out")!r}])
"""
    process = subprocess.Popen([sys.executable, "-c", body], stdout=subprocess.DEVNULL)
    kept, end = tmp_path / "out" / "part.csv", time.monotonic() + 60
    while not kept.exists() and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.wait()
    assert kept.read_text() == "half" and (tmp_path / "out" / "two.txt").read_text() == "begun\n"
    found = rows(tmp_path / "out")
    assert found["one"]["exit"] == 0 and found["two"]["exit"] is None
    assert (tmp_path / "out" / "one.txt").read_text() == "1\n"


@pytest.fixture(params=["foreground", "background"])
def place(request):
    """As a shell starts the script: jobs in the background ignore SIGINT."""
    how = signal.SIG_IGN if request.param == "background" else signal.default_int_handler
    before = signal.signal(signal.SIGINT, how)
    yield
    assert signal.signal(signal.SIGINT, before) is how


@pytest.mark.usefixtures("place")
def test_a_step_at_its_limit_is_interrupted_and_then_killed(tmp_path, made, monkeypatch):
    monkeypatch.setattr(first_gpu, "GRACE", 2)
    stubborn = "import signal, subprocess, sys, time; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    stubborn += "; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    stubborn += "; print(p.pid, flush=True); time.sleep(99)"
    polite = "import time\ntry: time.sleep(99)\nexcept KeyboardInterrupt: print('said'); exit(3)"
    made(python(polite, "a", 3), python(stubborn, "b", 3), python("print('next')", "c"))
    assert main(["--out", str(tmp_path)]) == 1
    found = rows(tmp_path)
    assert found["a"]["reached_its_limit"] and found["a"]["exit"] == 3
    assert (tmp_path / "a.txt").read_text() == "said\n"
    assert found["b"]["reached_its_limit"] and found["b"]["exit"] == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):  # what it had started is gone too
        for _ in range(100):
            os.kill(int((tmp_path / "b.txt").read_text()), 0)
            time.sleep(0.05)
    assert found["c"]["exit"] == 0 and not found["c"]["reached_its_limit"]


def test_after_a_probe_that_fails_nothing_is_measured(tmp_path, made, capsys):
    made(python("exit(4)", "probe"), python("", "tests"))
    assert main(["--out", str(tmp_path)]) == 1
    found = rows(tmp_path)
    assert found["probe"]["exit"] == 4 and found["tests"]["exit"] is None
    assert found["tests"]["left_out"] == "the probe failed"
    assert "tests: the probe failed" in capsys.readouterr().out


def test_no_step_begins_without_time(tmp_path, made, monkeypatch):
    monkeypatch.setattr(first_gpu, "LEAST", 10)
    made(python("", "a"))
    assert main(["--out", str(tmp_path), "--minutes", "0.2"]) == 0
    assert rows(tmp_path)["a"]["left_out"] == "no time was left"


def test_only_the_steps_that_are_named(tmp_path, made):
    made(python("", "a"), python("import os; print(os.environ['X'])", "b", variables={"X": "y"}))
    assert main(["b", "--out", str(tmp_path)]) == 0 and list(rows(tmp_path)) == ["b"]
    assert (tmp_path / "b.txt").read_text() == "y\n"


def test_a_long_file_keeps_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(first_gpu, "MOST_BYTES", 100)
    for size in (99, 100, 101, 1000):
        (tmp_path / "a").write_bytes(b"x" * (size - 3) + b"end")
        first_gpu.copy(tmp_path / "a", tmp_path / "b")
        data = (tmp_path / "b").read_bytes()
        assert len(data) == min(size, 100) and data.endswith(b"xend")
        assert data.startswith(b"[") == (size > 100)
    first_gpu.copy(tmp_path / "nothing", tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_wheels_are_unpacked_without_pip(tmp_path, monkeypatch):
    (tmp_path / ".whl").mkdir()
    with zipfile.ZipFile(tmp_path / ".whl" / "a-1-py3-none-any.whl", "w") as file:
        file.writestr("brought_along.py", "here = 7")
    monkeypatch.setattr(first_gpu, "ROOT", tmp_path)
    variables = first_gpu.environment(tmp_path / "work", dry_run=False)
    code = "import brought_along; print(brought_along.here)"
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
    assert result.stdout == b"7\n"


def test_wrong_options(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["probes"], "STEP: expected probe, tests, bench, sanitize, train, got probes"),
        (["--minutes", "0"], "--minutes: expected a positive number, got 0.0"),
        (["--minutes", "nan"], "--minutes: expected a positive number, got nan"),
        (["--out", str(tmp_path / "file")], "file: cannot be written"),
    ):
        with pytest.raises(SystemExit):
            main(["--out", str(tmp_path / "out"), *arguments])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_probe_tells_what_is_missing_and_which_check_failed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_probe, "missing_for_cuda", lambda: "an NVIDIA GPU")
    assert gpu_probe.main(["--out", str(tmp_path / "a.json")]) == 1
    assert json.loads((tmp_path / "a.json").read_text())["missing"] == "an NVIDIA GPU"
    assert "missing: an NVIDIA GPU" in capsys.readouterr().out

    def wrong():
        raise ArithmeticError("3 is not 4")

    monkeypatch.setattr(gpu_probe, "missing_for_cuda", lambda: None)
    monkeypatch.setattr(gpu_probe, "CHECKS", (wrong, gpu_probe.small_arrays))
    assert gpu_probe.main(["--out", str(tmp_path / "b.json")]) == 1
    checks = json.loads((tmp_path / "b.json").read_text())["checks"]
    assert "3 is not 4" in checks["wrong"]["error"] and checks["small_arrays"]["error"] is None
    out = capsys.readouterr().out
    assert "ArithmeticError: 3 is not 4" in out and "small_arrays: right" in out
