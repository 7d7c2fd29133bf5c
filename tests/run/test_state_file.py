"""The state of a run: foreign environments in it, and files that are damaged, old or unfitting."""

import json
import pickle
from shutil import copytree

import cloudpickle
import gymnasium
import numpy as np
import pytest
from small_runs import CHAIN, FOREIGN, MODES, UPDATE, assert_same_run

from minis5.files import CheckpointError
from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.state_file import NEWER, PICKLE, settings_digest
from minis5.run.train import resume, train


def test_resuming_nothing(tmp_path, finished):
    with pytest.raises(FileNotFoundError, match="no run of minis5 train there"):
        resume(tmp_path)
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    (tmp_path / "state.npz").write_bytes((finished / "state.npz").read_bytes()[:5000])
    with pytest.raises(
        CheckpointError, match="state.npz: not a readable minis5 checkpoint, damaged or cut short"
    ):
        resume(tmp_path, quiet=True)
    config = json.loads((finished / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "agent": {**config["agent"], "heads": [4]}})
    )
    (tmp_path / "state.npz").write_bytes((finished / "state.npz").read_bytes())
    with pytest.raises(
        CheckpointError,
        match="does not fit this run .*parameter actor/0/kernel: .* was config.json",
    ):
        resume(tmp_path, quiet=True)


@pytest.mark.parametrize(("mode", "workers"), [*((mode, 1) for mode in MODES), (MODES[0], 2)])
def test_foreign_environments_resume(tmp_path, mode, workers):
    options = {"vector_options": {"vector_kwargs": {"autoreset_mode": mode}}}
    options |= FOREIGN | {"workers": workers}
    whole = train("Countdown-v0", steps=12 * UPDATE, out=tmp_path / "whole", **options)
    assert whole["workers"] == workers and 3 <= whole["mean_return"] <= 21
    train("Countdown-v0", steps=5 * UPDATE, out=tmp_path / "run", **options)
    resume(tmp_path / "run", steps=12 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("options", [{}, {"processes": 2}])
def test_gymnasium_cartpole_resumes(tmp_path, options):
    train("CartPole-v1", steps=8 * UPDATE, out=tmp_path / "whole", **FOREIGN)
    train("CartPole-v1", steps=3 * UPDATE, out=tmp_path / "run", vector_options=options, **FOREIGN)
    resume(tmp_path / "run", steps=8 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("options", [{}, {"processes": 2}])
def test_environments_that_cannot_be_saved(tmp_path, options):
    train(
        "Countdown-v0",
        steps=5 * UPDATE,
        out=tmp_path,
        env_options={"locked": True},
        vector_options=options,
        **FOREIGN,
    )
    with pytest.warns(
        UserWarning, match="environments cannot be saved, so their episodes begin anew"
    ):
        summary = resume(tmp_path, steps=12 * UPDATE, quiet=True)
    assert summary["updates"] == 12


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("minis5.gone\nProcessVectorEnv", "No module named 'minis5.gone'"),
        ("minis5.envs\nProcessVectorEnv", "ProcessVectorEnv"),
    ],
)
def test_environments_of_an_older_version(tmp_path, capsys, name, reason):
    """A pickle that names a module or class that is gone: one sentence, and the agent's way out."""
    run = tmp_path / "run"
    train("Countdown-v0", steps=5 * UPDATE, out=run, **FOREIGN)
    before = (run / "progress.csv").read_bytes()
    with np.load(run / "state.npz") as file:
        arrays = dict(file)
    arrays[f"rank0/{PICKLE}"] = np.frombuffer(f"c{name}\n.".encode(), np.uint8)
    np.savez(run / "state.npz", **arrays)
    with pytest.raises(CheckpointError, match="older version of minis5.*made the run") as caught:
        resume(run, steps=12 * UPDATE, quiet=True, trust=True)
    message = str(caught.value)
    assert message.startswith(f"{run / 'state.npz'}: ") and reason in message
    assert "agent.npz still loads" in message and f"--init-from {run}" in message
    assert main(["train", "--resume", str(run), "--quiet", "--trust"]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and errors.startswith(f"minis5: error: {run / 'state.npz'}: ")
    assert (run / "progress.csv").read_bytes() == before
    fresh = train("Countdown-v0", steps=UPDATE, out=tmp_path / "new", init_from=run, **FOREIGN)
    assert fresh["updates"] == 1


def test_environments_of_0_2(tmp_path):
    """Their class is the one that ours now extends: SyncVectorEnv."""
    options = {"vector_options": {"vector_kwargs": {"autoreset_mode": "NextStep"}}}
    train("CartPole-v1", steps=8 * UPDATE, out=tmp_path / "whole", **options, **FOREIGN)
    run = tmp_path / "run"
    train("CartPole-v1", steps=3 * UPDATE, out=run, **options, **FOREIGN)
    with np.load(run / "state.npz") as file:
        arrays = dict(file)
    envs = pickle.loads(arrays[f"rank0/{PICKLE}"].tobytes())
    old = object.__new__(gymnasium.vector.SyncVectorEnv)
    new_names = ("_ages", "_parts", "_plain", "_rows")
    old.__dict__ = {name: v for name, v in envs.__dict__.items() if name not in new_names}
    arrays[f"rank0/{PICKLE}"] = np.frombuffer(cloudpickle.dumps(old), np.uint8)
    del arrays["digest"]
    np.savez(run / "state.npz", **arrays)
    resume(run, steps=8 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", run)


@pytest.mark.parametrize("thing", [b"", b"no pickle", pickle.dumps([1]), pickle.dumps(object())])
def test_a_pickle_of_something_else(tmp_path, thing):
    train("Countdown-v0", steps=2 * UPDATE, out=tmp_path, **FOREIGN)
    with np.load(tmp_path / "state.npz") as file:
        arrays = dict(file)
    arrays[f"rank0/{PICKLE}"] = np.frombuffer(thing, np.uint8)
    np.savez(tmp_path / "state.npz", **arrays)
    with pytest.raises(CheckpointError, match="cannot be unpickled|expected 8 in EnvBatch, got"):
        resume(tmp_path, steps=4 * UPDATE, quiet=True, trust=True)


def test_another_number_of_workers(tmp_path):
    train("MemoryChain", steps=UPDATE, workers=2, out=tmp_path, **CHAIN)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "workers": 1}))
    with pytest.raises(CheckpointError, match="expected 1 workers, got 2.*was config.json changed"):
        resume(tmp_path, steps=2 * UPDATE, quiet=True)


@pytest.mark.parametrize("missing", [1, 2, len(NEWER)])
def test_runs_from_before_a_setting_resume(tmp_path, missing):
    """Their config.json lacks it, and so does the digest; it has the value that they acted by."""
    lacks = dict(list(NEWER.items())[-missing:])
    before = {"conv": "none", "clip_previous_action": False, "center_values": False}
    before["show_previous_action"] = True
    settings = {"overrides": {**CHAIN["overrides"], **before}}
    train("MemoryChain", steps=5 * UPDATE, out=tmp_path / "whole", **{**CHAIN, **settings})
    train("MemoryChain", steps=2 * UPDATE, out=tmp_path / "run", **{**CHAIN, **settings})
    path, state = tmp_path / "run" / "config.json", tmp_path / "run" / "state.npz"
    config, arrays = read_config(tmp_path / "run"), dict(np.load(state))
    facts = json.loads(str(arrays["facts"])) | {"settings": settings_digest(config, missing)}
    facts["digest"] = None
    np.savez(state, **arrays | {"facts": json.dumps(facts)})
    values = json.loads(path.read_text())
    for (part, name), value in lacks.items():
        assert values[part].pop(name) == value
    path.write_text(json.dumps(values))
    copytree(tmp_path / "run", tmp_path / "changed")
    resume(tmp_path / "run", steps=5 * UPDATE, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    values["ppo"]["center_values"] = True
    (tmp_path / "changed" / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="settings are not those that the run began with"):
        resume(tmp_path / "changed", quiet=True)
