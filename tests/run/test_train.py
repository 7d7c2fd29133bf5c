"""A run from its start to its folder: repeatable, and resumable bit for bit after any end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_runs import CHAIN, FOREIGN, TINY, UPDATE, WHOLE, assert_same_run, progress

import minis5
from minis5.run.progress import read_progress
from minis5.run.train import resume, train

ROOT = Path(__file__).parents[2]


# A finished run


def test_the_folder_of_a_run(finished):
    names = {"config.json", "progress.csv", "state.npz", "agent.npz", "summary.json"}
    assert names <= {file.name for file in finished.iterdir()} <= names | {"curve.png"}
    summary = json.loads((finished / "summary.json").read_text())
    wanted = {
        "env": "MemoryChain",
        "seed": 4,
        "steps": WHOLE * UPDATE,
        "updates": WHOLE,
        "episodes": 20,
    }
    assert {name: summary[name] for name in wanted} == wanted
    parameters = minis5.load(finished / "agent.npz").parameters()
    assert summary["parameters"] == sum(z.size for z in parameters.values())
    assert (
        summary["core_parameters"]
        == sum(z.size for name, z in parameters.items() if name.startswith("core/"))
        > 0
    )
    assert -1 <= summary["min_return"] <= summary["mean_return"] <= summary["max_return"] <= 1
    assert summary["seconds"] > 0 and summary["steps_per_second"] > 0
    config = json.loads((finished / "config.json").read_text())
    assert config["agent"]["core_config"]["ssm_size"] == 8 and config["ppo"]["unroll"] == 8
    assert config["versions"]["minis5"] == minis5.__version__ and config["machine"]["cpus"] >= 1


def test_same_seed_same_run(tmp_path):
    for name in ("a", "b"):
        train("MemoryChain", steps=20 * UPDATE, seed=1, workers=1, out=tmp_path / name, **CHAIN)
    train("MemoryChain", steps=20 * UPDATE, seed=2, workers=1, out=tmp_path / "c", **CHAIN)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert progress(tmp_path / "a") != progress(tmp_path / "c")


def test_target_return_stops_early(tmp_path):
    summary = train(
        "MemoryChain", steps=10**9, target_return=-2.0, workers=1, out=tmp_path / "run", **CHAIN
    )
    assert summary["updates"] <= 3
    again = resume(tmp_path / "run", quiet=True)  # a finished run stays as it is
    assert again["steps"] == summary["steps"] and again["mean_return"] == summary["mean_return"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_agent_that_reached_the_target_is_kept(tmp_path, workers):
    """Not the one after the update that follows, which may have spoilt it."""
    options = {**CHAIN, "workers": workers, "seed": 2}
    train("MemoryChain", steps=40 * UPDATE, out=tmp_path / "long", **options)
    returns = [row["return"] for row in read_progress(tmp_path / "long" / "progress.csv")]
    best = int(np.argmax(returns))
    assert best > 1
    summary = train(
        "MemoryChain", steps=10**9, target_return=returns[best], out=tmp_path / "met", **options
    )
    assert best < 39 and summary["updates"] == best + 1
    train("MemoryChain", steps=best * UPDATE, out=tmp_path / "before", **options)
    met, before, after = (
        minis5.load(tmp_path / name / "agent.npz").parameter_vector
        for name in ("met", "before", "long")
    )
    assert np.array_equal(met, before) and not np.array_equal(met, after)
    assert progress(tmp_path / "met") == progress(tmp_path / "long")[: best + 1]
    resume(tmp_path / "met", quiet=True)  # state.npz has the same agent
    kept = minis5.load(tmp_path / "met" / "agent.npz").parameter_vector
    assert np.array_equal(kept, met)


@pytest.mark.parametrize("core", ["gru", "lstm", "mlp"])
def test_other_cores(tmp_path, core, capfd):
    """The start tells the number of parameters; a run goes on where it ended, in its own size."""
    overrides = {
        name: value for name, value in TINY.items() if name not in ("n_layers", "ssm_size")
    }
    options = {**CHAIN, "overrides": overrides, "workers": 1, "core": core, "seed": 1}
    whole = train("MemoryChain", steps=4 * UPDATE, out=tmp_path / "whole", **options)
    assert "parameters" not in capfd.readouterr().err
    summary = train(
        "MemoryChain", steps=2 * UPDATE, out=tmp_path / "half", **{**options, "quiet": False}
    )
    line = (
        f"parameters: {summary['parameters']:,}, "
        f"of which core {core} {summary['core_parameters']:,}\n"
    )
    assert capfd.readouterr().err.count(line) == 1
    assert (
        resume(tmp_path / "half", steps=4 * UPDATE, quiet=True)["parameters"] == whole["parameters"]
    )
    assert_same_run(tmp_path / "whole", tmp_path / "half")


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = train("MemoryChain", steps=UPDATE, seed=3, workers=1, **CHAIN)
    assert (
        Path(summary["folder"]).match("runs/MemoryChain-s5-seed3-20*-*")
        and (tmp_path / summary["folder"]).is_dir()
    )


# Resuming

CHILD = """
import sys
from minis5.run import cli, learn
sys.modules["matplotlib"] = None  # a picture takes longer than the run
learn.CHECKPOINT_INTERVAL = 0.02
sys.exit(cli.main(sys.argv[1:]))
"""


def start(folder, updates, *more, env=("MemoryChain", "--env-option", "memory_length=3")):
    """A training process like `finished`, with many checkpoints."""
    overrides = [
        text for name, value in TINY.items() for text in (f"--{name.replace('_', '-')}", str(value))
    ]
    arguments = [
        "train",
        *env,
        "--seed",
        "4",
        "--out",
        str(folder),
        "--steps",
        str(updates * UPDATE),
        "--workers",
        "1",
    ]
    arguments += ["--eval-episodes", "20", *overrides, *more]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    STARTED.append(process)
    return process


STARTED = []


@pytest.fixture(autouse=True)
def nothing_runs_on():
    """A test that fails leaves no training behind it."""
    yield
    while STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(STARTED.pop().pid, signal.SIGKILL)


def wait_for(condition, process=None, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def rows_of(folder):
    path = folder / "progress.csv"
    return path.read_text().count("\n") if path.exists() else 0


def group_is_gone(process):
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_killed_and_resumed(finished, tmp_path):
    process = start(tmp_path / "run", WHOLE)
    wait_for(lambda: rows_of(tmp_path / "run") > 20, process)
    process.kill()
    process.wait()
    assert rows_of(tmp_path / "run") < WHOLE
    (tmp_path / "run" / ".state.npz.123.tmp").write_bytes(b"cut sh")  # what a kill can leave behind
    resume(tmp_path / "run", quiet=True)
    assert_same_run(finished, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signalled_and_resumed(finished, tmp_path, number):
    process = start(tmp_path / "run", WHOLE)
    wait_for(lambda: rows_of(tmp_path / "run") > 10, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"minis5 train --resume {tmp_path / 'run'}" in errors and "Traceback" not in errors
    assert rows_of(tmp_path / "run") < WHOLE and not (tmp_path / "run" / "summary.json").exists()
    resume(tmp_path / "run", quiet=True)
    assert_same_run(finished, tmp_path / "run")


def test_two_workers_killed_and_resumed(tmp_path):
    """With annealing, as the default preset has it."""
    annealed = CHAIN | {"overrides": TINY | {"anneal_lr": True}}
    train("MemoryChain", steps=60 * UPDATE, seed=4, workers=2, out=tmp_path / "whole", **annealed)
    process = start(tmp_path / "run", 60, "--workers", "2", "--anneal-lr", "true")
    wait_for(lambda: rows_of(tmp_path / "run") > 15, process)
    process.kill()
    process.wait()
    wait_for(lambda: group_is_gone(process), seconds=10)  # the other rank must not stay behind
    resume(tmp_path / "run", quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_workers_signalled(tmp_path, number):
    process = start(tmp_path / "run", 10**6, "--workers", "2")
    wait_for(lambda: rows_of(tmp_path / "run") > 10, process)
    # as terminals and batch systems do: every process of the group gets it
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "--resume" in errors and "Traceback" not in errors
    wait_for(lambda: group_is_gone(process), seconds=10)


def test_a_second_interrupt_stops_at_once(tmp_path):
    # an update takes minutes
    process = start(tmp_path / "run", 10**6, "--unroll", "1000000", env=["CartPole-v1"])
    wait_for((tmp_path / "run" / "agent.npz").exists, process)
    process.send_signal(signal.SIGINT)
    # the first counts parameters
    assert "once more stops at once" in "".join(process.stderr.readline() for _ in range(3))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors and "ignored" not in errors
    assert "stopped at once; go on with: minis5 train --resume" in errors


def test_resuming_with_more_steps(finished, tmp_path):
    train("MemoryChain", steps=30 * UPDATE, seed=4, workers=1, out=tmp_path / "run", **CHAIN)
    resume(tmp_path / "run", steps=WHOLE * UPDATE, quiet=True)
    assert_same_run(finished, tmp_path / "run")
    with pytest.raises(
        ValueError, match=f"steps: the run was asked for {WHOLE * UPDATE} steps already, got 64"
    ):
        resume(tmp_path / "run", steps=64)


def test_resuming_before_the_first_checkpoint(finished, tmp_path):
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    resume(tmp_path, quiet=True)
    assert_same_run(finished, tmp_path)


# From another run's agent


@pytest.mark.parametrize("workers", [1, 2])
def test_init_from(finished, tmp_path, workers):
    """A run with a tiny learning rate ends with the weights that it began with.

    Resumed, it no longer needs their file.
    """
    source = tmp_path / "source.npz"
    source.write_bytes((finished / "agent.npz").read_bytes())
    still = CHAIN | {"overrides": TINY | {"lr": 1e-30}}
    run = tmp_path / "run"
    train("MemoryChain", steps=UPDATE, seed=5, workers=workers, out=run, init_from=source, **still)
    assert np.array_equal(
        minis5.load(run / "agent.npz").parameter_vector, minis5.load(source).parameter_vector
    )
    source.unlink()
    resume(run, steps=2 * UPDATE, quiet=True)
    assert np.array_equal(
        minis5.load(run / "agent.npz").parameter_vector,
        minis5.load(finished / "agent.npz").parameter_vector,
    )


def test_init_from_other_settings(finished, tmp_path):
    """A folder does too; what differs is named, and nothing is made."""
    other = CHAIN | {"overrides": TINY | {"postnorm": True, "heads": "9"}}
    with pytest.raises(
        ValueError,
        match=r"init_from: .* made otherwise: heads \(8,\) there, \(9,\) here; postnorm F",
    ):
        train("MemoryChain", steps=UPDATE, out=tmp_path / "run", init_from=finished, **other)
    with pytest.raises(ValueError, match="init_from: .*observation_space"):
        train(
            "RepeatPreviousEasy",
            steps=UPDATE,
            out=tmp_path / "run",
            init_from=finished,
            overrides=TINY,
            quiet=True,
        )
    with pytest.raises(ValueError, match="core s5 there, gru here"):
        core = {name: value for name, value in TINY.items() if name not in ("n_layers", "ssm_size")}
        train(
            "MemoryChain",
            core="gru",
            steps=UPDATE,
            out=tmp_path / "run",
            init_from=finished,
            overrides=core,
            quiet=True,
        )
    with pytest.raises(FileNotFoundError, match="init_from: no file .*nowhere; give"):
        train("MemoryChain", steps=UPDATE, out=tmp_path / "run", init_from="nowhere", **CHAIN)
    assert not (tmp_path / "run").exists()


# Mistakes


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (
            ValueError,
            "env_id: unknown environment 'MemoryChian'.*did you mean MemoryChain",
            {"env_id": "MemoryChian"},
        ),
        (
            ValueError,
            "memory_lenght: .*did you mean memory_length",
            {"env_options": {"memory_lenght": 3}},
        ),
        (
            ValueError,
            "env_options: .* JSON can hold",
            {"env_id": "Countdown-v0", "env_options": {"longest": {3}}},
        ),
        (
            ValueError,
            "action_space: expected Discrete",
            {"env_id": "Countdown-v0", "env_options": {"texts": True}},
        ),
        (ValueError, r"seed: expected an integer in \[0, 1073741824\), got -1", {"seed": -1}),
        (
            ValueError,
            "workers: 8 environments .* 2 minibatches do not divide over 3",
            {"workers": 3},
        ),
        (ValueError, "device: expected 'cpu' or 'cuda', got 'tpu'", {"device": "tpu"}),
        (ValueError, "precision: expected 'float32' .*got 'bf16'; leave", {"precision": "bf16"}),
        (ValueError, "preset", {"preset": "desktop"}),
        (ValueError, "ssm_siz", {"overrides": {"ssm_siz": 3}}),
        (
            OSError,
            "cannot write to the folder /dev/null/run .*choose another, --out",
            {"out": "/dev/null/run"},
        ),
    ],
)
def test_mistakes_leave_no_folder(tmp_path, monkeypatch, error, message, settings):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        train(
            **{
                "env_id": "MemoryChain",
                "steps": UPDATE,
                "overrides": TINY,
                "quiet": True,
                **settings,
            }
        )
    assert not any(tmp_path.iterdir())


def test_a_folder_in_use(finished):
    with pytest.raises(ValueError, match="not empty; .*minis5 train --resume"):
        train("MemoryChain", steps=UPDATE, out=finished, **CHAIN)


def test_nan_observations(tmp_path):
    with pytest.raises(ValueError, match="observation: expected finite"):
        train(
            "Countdown-v0", steps=5 * UPDATE, out=tmp_path, env_options={"poison": True}, **FOREIGN
        )
