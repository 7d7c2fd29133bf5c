"""Trackers: what they were given is what progress.csv and evaluations.csv say, each step once."""

import json
import math
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from command_line import CHAIN as COMMAND
from command_line import error_of
from small_runs import CHAIN, UPDATE, assert_same_run

from minis5.run.callbacks import Callback, CallbackError
from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.evaluations import read_evaluations
from minis5.run.progress import read_progress
from minis5.run.trackers import has_key, hyper_parameters
from minis5.run.train import resume, train

STEPS = 8 * UPDATE
OPTIONS = CHAIN | {"workers": 1, "seed": 3, "eval_every": 3 * UPDATE}


def expected(folder):
    """{tag: [(step, value), …]} by the files of a finished run."""
    summary = json.loads((folder / "summary.json").read_text())
    parts = {
        "training": read_progress(folder / "progress.csv"),
        "evaluation": read_evaluations(folder / "evaluations.csv"),
        "end": [
            {n: summary[n] for n in ("step", *NAMES) if n in summary} | {"step": summary["steps"]}
        ],
    }
    found = {}
    for part, rows in parts.items():
        for row in rows:
            for name, value in row.items():
                if name != "step" and not math.isnan(value):
                    found.setdefault(f"{part}/{name}", []).append((row["step"], value))
    return found


NAMES = ("mean_return", "std_return", "min_return", "max_return", "episodes")


def scalars(folder):
    """{tag: [(step, value), …]} by the event files, as TensorBoard shows them."""
    found = accumulator(folder)
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def accumulator(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), {"scalars": 0}).Reload()


def as_float32(points):
    return {tag: [(s, float(np.float32(v))) for s, v in rows] for tag, rows in points.items()}


class Killed(Callback):
    """End the program, in effect, once a run has come to a step."""

    def __init__(self, step):
        self.step = step

    def on_update(self, run, row):
        if run.step == self.step:
            raise SystemExit


# TensorBoard


def test_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    train("MemoryChain", steps=STEPS, out=tmp_path, track=["tensorboard"], **OPTIONS)
    assert scalars(tmp_path) == as_float32(expected(tmp_path))
    found = accumulator(tmp_path).SummaryMetadata("_hparams_/session_start_info")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    start = HParamsPluginData.FromString(found.plugin_data.content).session_start_info
    told = {name: value for name, value in start.hparams.items()}
    assert told["ssm_size"].number_value == 8 and told["env/memory_length"].number_value == 3
    assert told["env"].string_value == "MemoryChain" and told["encoder"].string_value == "(8,)"
    assert set(told) == set(hyper_parameters(read_config(tmp_path)))


@pytest.mark.parametrize("workers", [1, 2])
def test_event_files_of_a_run_that_was_killed(tmp_path, workers):
    """Whatever the last checkpoint knew: each step is there once."""
    pytest.importorskip("tensorboard")
    options = OPTIONS | {"workers": workers}
    with pytest.raises(SystemExit):
        callbacks, track = [Killed(5 * UPDATE)], ["tensorboard"]
        where = {"out": tmp_path, "callbacks": callbacks, "track": track}
        train("MemoryChain", steps=STEPS, **where, **options)
    resume(tmp_path, quiet=True)
    assert scalars(tmp_path) == as_float32(expected(tmp_path))
    resume(tmp_path, steps=STEPS + UPDATE, quiet=True)
    assert scalars(tmp_path) == as_float32(expected(tmp_path))


def test_a_tracker_that_comes_later_gets_all_rows(tmp_path):
    pytest.importorskip("tensorboard")
    train("MemoryChain", steps=STEPS, out=tmp_path / "a", **OPTIONS)
    (tmp_path / "a" / "events.out.tfevents.1.other").touch()  # not ours: it is left alone
    resume(tmp_path / "a", track=["tensorboard"], quiet=True)
    assert scalars(tmp_path / "a") == as_float32(expected(tmp_path / "a"))
    assert read_config(tmp_path / "a").track == ["tensorboard"]
    assert (tmp_path / "a" / "events.out.tfevents.1.other").exists()


def test_tracking_changes_nothing(tmp_path):
    pytest.importorskip("tensorboard")
    train("MemoryChain", steps=STEPS, out=tmp_path / "a", **OPTIONS)
    train("MemoryChain", steps=STEPS, out=tmp_path / "b", track=["tensorboard"], **OPTIONS)
    assert_same_run(tmp_path / "a", tmp_path / "b")


def test_command(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    command = f"{COMMAND} --quiet --steps 128 --track tensorboard --out {tmp_path}"
    assert main(command.split()) == 0
    assert main(f"train --resume {tmp_path} --steps 192 --quiet".split()) == 0
    assert len(scalars(tmp_path)["training/loss"]) == 3
    capsys.readouterr()
    message = error_of(capsys, f"{COMMAND} --track tensorbord")
    assert "unknown NAME 'tensorbord'; did you mean tensorboard?" in message


# Weights & Biases: its interface, and what the server knows of a run


class Server:
    """Stands in for the library. It keeps what a run has been sent, as the service does."""

    def __init__(self, knows_steps):
        self.rows, self.runs, self.knows_steps = {}, [], knows_steps
        self.module = ModuleType("wandb")
        mode = "online"
        settings = SimpleNamespace(mode=mode, base_url="https://api.wandb.example", api_key=None)
        self.module.setup = lambda: SimpleNamespace(settings=settings)
        self.module.Settings = dict
        self.module.init = self.init

    def init(self, **options):
        if not self.knows_steps:
            self.rows.clear()  # offline: each part of a run is a run of its own
        self.runs.append(options)
        self.step = max(self.rows, default=-1) + 1 if self.knows_steps else 0
        return self

    def log(self, figures, step):
        assert step >= max(self.rows, default=0)
        row = self.rows.setdefault(step, {})
        assert not set(row) & set(figures), "told twice"
        row.update(figures)

    def finish(self, exit_code):
        self.runs[-1]["exit_code"] = exit_code

    def points(self):
        found = {}
        for step, row in self.rows.items():
            for tag, value in row.items():
                found.setdefault(tag, []).append((step, value))
        return found


@pytest.mark.parametrize("online", [True, False])
def test_wandb(tmp_path, monkeypatch, online):
    server = Server(online)
    monkeypatch.setitem(sys.modules, "wandb", server.module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_API_KEY", "key" if online else "")
    out = tmp_path / "run"
    with pytest.raises(SystemExit):
        where = {"out": out, "callbacks": [Killed(5 * UPDATE)], "track": ["wandb"]}
        train("MemoryChain", steps=STEPS, **where, **OPTIONS)
    (first,) = server.runs
    assert first["project"] == "minis5" and first["resume"] == "allow" and first["exit_code"] == 1
    assert first["mode"] == (None if online else "offline") and first["dir"] == str(out)
    assert first["config"] == hyper_parameters(read_config(out)) and first["name"] == "run"
    old = out / "wandb" / f"offline-run-20260101_000000-{first['id']}"
    old.mkdir(parents=True)
    resume(out, quiet=True)
    assert server.runs[1]["id"] == first["id"] and server.runs[1]["exit_code"] == 0
    times = ("training/seconds", "training/steps_per_second")  # of updates that were made again
    told, wanted = (
        {tag: rows for tag, rows in points.items() if tag not in times}
        for points in (server.points(), expected(out))
    )
    assert told == wanted
    assert not old.exists()


def test_whether_a_key_is_known(tmp_path, monkeypatch):
    settings = SimpleNamespace(base_url="https://api.wandb.ai", api_key=None)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    path = tmp_path / "netrc"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not has_key(settings)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert has_key(settings)
    assert not has_key(SimpleNamespace(base_url="https://other.example", api_key=None))
    (tmp_path / ".netrc").write_text("machine\n")
    assert not has_key(settings) and not path.exists()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert has_key(settings)


@pytest.mark.slow
def test_the_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    train("MemoryChain", steps=STEPS, out=tmp_path / "run", track=["wandb"], **OPTIONS)
    resume(tmp_path / "run", steps=STEPS + UPDATE, quiet=True)
    (folder,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    number = (tmp_path / "run" / "wandb-id.txt").read_text()
    data = (folder / f"run-{number}.wandb").read_bytes()
    assert data.count(b"evaluation/mean_return") >= 2 and data.count(b"end/mean_return") >= 1


# Mistakes


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_library_that_is_missing(tmp_path, monkeypatch, capsys, name):
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    message = error_of(capsys, f"{COMMAND} --steps 64 --track {name} --out {tmp_path / 'run'}")
    assert f"track: expected the library of '{name}', got none" in message
    assert message.endswith(f"pip install 'minis5[{name}]'\n")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker(tmp_path):
    with pytest.raises(ValueError, match="^track: expected one of .*, got 'comet'"):
        train("MemoryChain", steps=UPDATE, out=tmp_path / "run", track=["comet"], **OPTIONS)
    with pytest.raises(ValueError, match="^track: "):
        train("MemoryChain", steps=UPDATE, out=tmp_path / "run", track="wandb", **OPTIONS)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_costs_nothing(tmp_path, monkeypatch):
    server = Server(True)
    monkeypatch.setitem(sys.modules, "wandb", server.module)
    monkeypatch.setenv("WANDB_API_KEY", "key")

    def log(figures, step):
        raise ConnectionError("the network is gone")

    server.log = log
    with pytest.raises(CallbackError, match="WeightsAndBiases.on_update .*network is gone; the"):
        train("MemoryChain", steps=STEPS, out=tmp_path, track=["wandb"], **OPTIONS)
    assert len(read_progress(tmp_path / "progress.csv")) == 1
    del server.log
    resume(tmp_path, quiet=True)
    assert len(server.points()["training/loss"]) == 8
