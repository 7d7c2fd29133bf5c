"""Code that a run's files name runs only if the user says so."""

import json
import pickle
import shutil

import numpy as np
import pytest
from command_line import error_of
from small_runs import CHAIN, FOREIGN, UPDATE

from minis5.run.cli import main
from minis5.run.state_file import PICKLE
from minis5.run.train import resume, train

WORDS = "trust: expected --trust (trust=True) for "


def test_a_module_in_config_json(module, tmp_path, capsys):
    run = tmp_path / "run"
    train(f"{module.name}:Still-v0", steps=UPDATE, out=run, **FOREIGN)
    assert module()
    with np.load(run / "state.npz") as file:  # no pickle in it: the module alone is at stake
        arrays = {name: array for name, array in file.items() if not name.endswith(PICKLE)}
    np.savez(run / "state.npz", **arrays)
    before = (run / "progress.csv").read_bytes()
    with pytest.raises(ValueError, match=f"config.json imports '{module.name}'") as caught:
        resume(run, steps=2 * UPDATE, quiet=True)
    assert str(caught.value).startswith(f"{WORDS}{run}")
    asked = [["train", "--resume", str(run), "--steps", "128", "--quiet"], ["eval", str(run)]]
    for command in asked:
        assert "pass it if you trust whoever made these files" in error_of(capsys, command)
    assert main(["plot", str(run), "--out", str(tmp_path / "x.png")]) == 0
    assert not module() and (run / "progress.csv").read_bytes() == before
    with pytest.warns(UserWarning, match="episodes begin anew"):
        assert main([*asked[0], "--trust"]) == 0
    assert main([*asked[1], "--trust", "--episodes", "2"]) == 0 and module()


def test_a_wrapper_in_config_json(finished, module, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    config = json.loads((run / "config.json").read_text())
    config |= {
        "env": "CartPole-v1",
        "env_options": {},
        "wrappers": [[f"{module.name}:Wrapped", {}]],
    }
    (run / "config.json").write_text(json.dumps(config))
    for command in (["eval", str(run)], ["train", "--resume", str(run)]):
        error_of(capsys, command)
    assert not module()


class Bomb:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def test_pickled_environments(tmp_path, capsys):
    run, mark = tmp_path / "run", tmp_path / "exploded"
    train("CartPole-v1", steps=UPDATE, out=run, **FOREIGN)
    with np.load(run / "state.npz") as file:
        arrays = dict(file)
    arrays[f"rank0/{PICKLE}"] = np.frombuffer(pickle.dumps(Bomb(mark)), np.uint8)
    np.savez(run / "state.npz", **arrays)
    with pytest.raises(ValueError, match="state.npz holds pickled environments"):
        resume(run, steps=2 * UPDATE, quiet=True)
    error_of(capsys, ["train", "--resume", str(run), "--quiet"])
    with pytest.raises(ValueError, match="trust: expected true or false, got 'yes'"):
        resume(run, trust="yes")
    assert main(["eval", str(run), "--episodes", "2"]) == 0  # agent.npz holds no pickle
    train("CartPole-v1", steps=UPDATE, out=tmp_path / "new", init_from=run, **FOREIGN)
    assert not mark.exists()
    with pytest.raises(ValueError, match="does not fit this run"):  # a file is no environment
        resume(run, steps=2 * UPDATE, quiet=True, trust=True)
    assert mark.exists()


def test_native_environments_never_unpickle(tmp_path):
    run, mark = tmp_path / "run", tmp_path / "exploded"
    train("MemoryChain", steps=UPDATE, workers=1, out=run, **CHAIN)
    with np.load(run / "state.npz") as file:
        arrays = dict(file)
    arrays[f"rank0/{PICKLE}"] = np.frombuffer(pickle.dumps(Bomb(mark)), np.uint8)
    np.savez(run / "state.npz", **arrays)
    with pytest.raises(ValueError, match="trust"):
        resume(run, steps=2 * UPDATE, quiet=True)
    with pytest.raises(ValueError, match="not known"):
        resume(run, steps=2 * UPDATE, quiet=True, trust=True)
    assert not mark.exists()


def test_help_tells_of_trust(capsys):
    for command in ("train", "eval"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        assert "--trust" in capsys.readouterr().out
