"""An agent in one file with its run's settings: what it holds, how it plays, what is refused."""

import json
import shutil

import numpy as np
import pytest
from command_line import error_of

import minis5
from minis5.files import write_npz
from minis5.rl.agent_file import AGENT_FORMAT, RUN, agent_arrays
from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.kept import find_agent, keep_agent


@pytest.fixture
def kept(finished, tmp_path):
    path = tmp_path / "kept.npz"
    keep_agent(finished, path, ["minis5", "train", "MemoryChain"])
    return path


def test_one_file_has_the_agent_and_its_settings(finished, kept):
    config, file = find_agent(kept)
    theirs = read_config(finished)
    assert file == kept and config.command == ["minis5", "train", "MemoryChain"]
    for name in ("env", "env_options", "seed", "eval_episodes", "agent", "ppo", "versions"):
        assert getattr(config, name) == getattr(theirs, name), name
    one, other = minis5.load(finished / "agent.npz"), minis5.load(kept)
    assert np.array_equal(one.parameter_vector, other.parameter_vector)
    assert kept.stat().st_size < (finished / "agent.npz").stat().st_size + 4096
    again = kept.with_name("again.npz")
    keep_agent(finished, again, config.command)
    assert again.read_bytes() == kept.read_bytes()  # nothing in it depends on the time


@pytest.mark.parametrize("suffix", [".npz", ""])
def test_eval_repeats_the_figure_of_the_run_exactly(finished, kept, capsys, suffix):
    wanted = json.loads((finished / "summary.json").read_text())
    for run in (kept.with_suffix(suffix), finished):
        assert main(["eval", str(run), "--json", "--quiet"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["episodes"] == 20  # the run's, which is not the default of a run
        assert {name: wanted[name] for name in found if name in wanted} == {
            name: value for name, value in found.items() if name in wanted
        }
    assert main(["eval", str(kept), "--json", "--quiet", "--episodes", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 3


def test_what_is_refused(finished, kept, tmp_path, capsys):
    alone = tmp_path / "alone.npz"
    shutil.copy(finished / "agent.npz", alone)
    assert "an agent alone; give the folder of its run" in error_of(capsys, ["eval", str(alone)])
    assert "no run of minis5 train there" in error_of(capsys, ["eval", str(tmp_path / "nothing")])
    kept.write_bytes(kept.read_bytes()[:-100])
    assert "restore it from a copy" in error_of(capsys, ["eval", str(kept)])
    arrays = agent_arrays(minis5.load(finished / "agent.npz"))
    for settings in ("[]", "{", json.dumps({"env": "MemoryChain"})):
        write_npz(alone, {**arrays, "format": AGENT_FORMAT, RUN: settings}, compress=True)
        assert "the settings of its run do not fit" in error_of(capsys, ["eval", str(alone)])


def test_a_file_that_names_code_must_be_trusted(finished, kept, capsys):
    config, _ = find_agent(kept)
    value = json.loads(json.dumps(config.to_json())) | {"env": "os.path:Env-v0", "env_options": {}}
    write_npz(kept, {**agent_arrays(minis5.load(kept)), RUN: json.dumps(value)}, compress=True)
    assert "config.json imports 'os.path'" in error_of(capsys, ["eval", str(kept)])
