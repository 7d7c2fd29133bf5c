"""Options from a file: a run is repeated, the command line overrides, nothing runs unasked."""

import json
import sys

import pytest
from command_line import CHAIN as COMMAND
from command_line import TINY as TINY_OPTIONS
from command_line import error_of
from small_runs import CHAIN, TINY, UPDATE, assert_same_run, progress

from minis5.run.cli import main
from minis5.run.config import read_config, write_config
from minis5.run.config_file import changed_since, read_table
from minis5.run.kept import keep_agent
from minis5.run.presets import values
from minis5.run.train import train

STEPS = 4 * UPDATE
MORE = {"eval_every": 2 * UPDATE, "seed": 5, "workers": 1, "target_return": 99.0, "steps": STEPS}


def run(arguments, out):
    assert main(["train", *map(str, arguments), "--quiet", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    train("MemoryChain", out=folder, **CHAIN, **MORE)
    return folder


def same(one, other):
    """Assert that two runs have the same settings and the same rows."""
    told = [read_config(folder).to_json() for folder in (one, other)]
    assert {**told[0], "command": None} == {**told[1], "command": None}
    assert_same_run(one, other)
    names = [folder / "evaluations.csv" for folder in (one, other)]
    assert names[0].read_text() == names[1].read_text()


@pytest.mark.parametrize("kind", ["folder", "file", "copy", "kept"])
def test_a_run_is_repeated(first, tmp_path, kind):
    (tmp_path / "copy.json").write_bytes((first / "config.json").read_bytes())
    keep_agent(first, tmp_path / "kept.npz")
    named = {"folder": first, "file": first / "config.json", "copy": tmp_path / "copy.json"}
    named["kept"] = tmp_path / "kept.npz"
    same(first, run(["--config", named[kind]], tmp_path / "run"))


def test_with_another_seed(first, tmp_path):
    again = run(["--config", first, "--seed", 6], tmp_path / "run")
    assert progress(again) != progress(first)
    ours, theirs = read_config(again), read_config(first)
    assert ours.seed == 6 and ours.overrides == theirs.overrides and ours.ppo == theirs.ppo
    alone = tmp_path / "alone"
    train("MemoryChain", out=alone, **CHAIN, **MORE | {"seed": 6})
    assert_same_run(alone, again)


def test_several_seeds(first, tmp_path, capsys):
    run(["--config", first, "--seeds", "5,6"], tmp_path / "several")
    assert_same_run(first, tmp_path / "several" / "seed5")
    assert "2 seeds" in capsys.readouterr().out


def test_overrides(first, tmp_path):
    more = ["--config", first, "--steps", 2 * UPDATE, "--lr", "5e-4", "--eval-episodes", "3"]
    more += ["--env-option", "memory_length=4"]
    config = read_config(run(more, tmp_path / "run"))
    assert config.steps == 2 * UPDATE and config.ppo.lr == 5e-4 and config.eval_episodes == 3
    assert config.env_options == {"memory_length": 4}
    assert config.overrides == {**read_config(first).overrides, "lr": "5e-4"}


def test_another_environment_has_its_own_options(first, tmp_path):
    more = ["RepeatFirstEasy", "--config", first, "--eval-episodes", 2]
    config = read_config(run(more, tmp_path / "run"))
    assert config.env == "RepeatFirstEasy" and config.env_options == {}
    assert config.overrides == read_config(first).overrides
    assert config.ppo.lr == 2e-3  # the preset's for this one


def test_another_core_keeps_what_it_has(first, tmp_path):
    config = read_config(run(["--config", first, "--core", "gru"], tmp_path / "run"))
    assert config.agent.core == "gru" and config.ppo.unroll == 8
    assert "ssm_size" not in config.overrides and config.overrides["encoder"] == "8"
    again = read_config(run(["--config", tmp_path / "run", "--hidden", 5], tmp_path / "again"))
    assert again.agent.core_config.hidden == 5


def test_a_run_from_python(tmp_path):
    """Overrides that are no text, and an empty list, which has none."""
    overrides = {**TINY, "encoder": (8, 16), "heads": (), "max_grad_norm": None, "gate": "gelu"}
    options = {**CHAIN, "overrides": overrides, "workers": 1, "eval_every": STEPS}
    train("MemoryChain", out=tmp_path / "a", steps=STEPS, **options)
    run(["--config", tmp_path / "a"], tmp_path / "b")
    assert_same_run(tmp_path / "a", tmp_path / "b")
    run(["--config", tmp_path / "b"], tmp_path / "c")
    same(tmp_path / "b", tmp_path / "c")


def test_values_that_presets_no_longer_give(first, tmp_path):
    """As if the preset had changed since, or someone had edited the file."""
    config = json.loads((first / "config.json").read_text())
    config["ppo"] |= {"gamma": 0.5, "target_kl": 0.25}
    config["agent"]["core_config"]["dt_max"] = 0.3
    (tmp_path / "edited.json").write_text(json.dumps(config))
    changed = {"gamma": "0.5", "target_kl": "0.25", "dt_max": "0.3"}
    assert changed_since(read_table(str(tmp_path / "edited.json"))[1]) == changed
    assert changed_since(read_config(first)) == {}
    ours = read_config(run(["--config", tmp_path / "edited.json"], tmp_path / "run"))
    assert ours.ppo.gamma == 0.5 and ours.ppo.target_kl == 0.25
    assert ours.agent.core_config.dt_max == 0.3
    assert ours.overrides == read_config(first).overrides | changed
    given = ["--config", tmp_path / "edited.json", "--gamma", "0.75"]
    ours = read_config(run(given, tmp_path / "given"))
    assert ours.ppo.gamma == 0.75 and ours.ppo.target_kl == 0.25


TOML = """
env = "MemoryChain"
steps = "256"
seed = 5
workers = 1
encoder = [8]
heads = [8, 8]
n_layers = 1
ssm-size = 8
num-envs = 8
unroll = 8
minibatches = 2
epochs = 1
lr = 1e-3
anneal-lr = false
eval-episodes = 20
wrapper = []
env-option = {memory_length = 3}
"""


def test_toml(tmp_path):
    (tmp_path / "a.toml").write_text(TOML)
    one = run(["--config", tmp_path / "a.toml"], tmp_path / "one")
    command = f"MemoryChain {TINY_OPTIONS} --seed 5 --workers 1 --steps 256 --eval-episodes 20"
    command += " --env-option memory_length=3 --lr 1e-3 --anneal-lr false"
    assert_same_run(one, run(command.split(), tmp_path / "two"))
    assert_same_run(one, run(["--config", one], tmp_path / "three"))


def test_toml_without_an_environment(tmp_path, capsys):
    (tmp_path / "a.toml").write_text(TOML.replace('env = "MemoryChain"\n', ""))
    config = read_config(run(["MemoryChain", "--config", tmp_path / "a.toml"], tmp_path / "one"))
    assert config.env == "MemoryChain" and config.env_options == {"memory_length": 3}
    capsys.readouterr()
    assert "ENV is missing" in error_of(capsys, f"train --config {tmp_path / 'a.toml'}")


def test_help_shows_the_values_of_the_file(tmp_path, capsys):
    (tmp_path / "a.toml").write_text("gamma = 0.123\nsteps = '7M'\ncore = 'gru'")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(tmp_path / "a.toml"), "--help"])
    shown = capsys.readouterr().out
    assert "[0.123]" in shown and "[7M]" in shown and "--hidden" in shown


WRONG = {
    "lrr = 1": "unknown argument --lrr; did you mean --lr?",
    "total_timesteps = 1": "unknown argument --total-timesteps; here it is --steps",
    "seed = 'x'": "argument --seed: expected an integer of at least 0, got 'x'",
    "quiet = 1": "quiet: expected true or false, got 1; write true",
    "trust = true": "expected options of a new run in PATH, got 'trust'; give it on the command",
    "resume = 'x'": "expected options of a new run",
    "lr =": "expected TOML in PATH, got Invalid value",
    "lr = [1]\nlr = 2": "expected TOML in PATH, got",
    "[ppo]\nlr = 2": "unknown argument --ppo",
    "track = 'tensorbord'": "unknown NAME 'tensorbord'; did you mean tensorboard?",
    "env-option = ['x']": "expected name=value, got 'x'",
}


@pytest.mark.parametrize("text", WRONG)
def test_mistakes_in_toml(tmp_path, capsys, text):
    path = tmp_path / "a.toml"
    path.write_text(text)
    message = error_of(
        capsys, f"train MemoryChain --config {path} --steps 64 --out {tmp_path / 'run'}"
    )
    assert WRONG[text].replace("PATH", str(path)) in message and str(path) in message
    assert not (tmp_path / "run").exists()


def test_mistakes_in_json(first, tmp_path, capsys):
    path, config = tmp_path / "a.json", json.loads((first / "config.json").read_text())
    config["ppo"]["gama"] = 0.5
    path.write_text(json.dumps(config))
    message = error_of(capsys, f"train --config {path}")
    assert str(path) in message and "unknown fields gama (did you mean gamma?)" in message
    path.write_text('{"lr": 1e-3}')
    assert str(path) in error_of(capsys, f"train --config {path}")
    for name in ("none.json", "none.toml", "none"):
        assert str(tmp_path / name) in error_of(capsys, f"train --config {tmp_path / name}")
    assert "leave out config" in error_of(capsys, f"train --resume {first} --config {first}")


@pytest.mark.parametrize("kind", ["config.json", "options.toml"])
def test_modules_that_a_file_names(module, tmp_path, capsys, kind):
    path = tmp_path / kind
    if kind == "config.json":
        train(f"{module.name}:Still-v0", steps=UPDATE, out=tmp_path / "run", **CHAIN | BARE)
        write_config(tmp_path, read_config(tmp_path / "run"))
        assert module()
    else:
        path.write_text(f"env = '{module.name}:Still-v0'\nsteps = 64\nworkers = 1\n")
    command = f"train --config {path} --quiet --eval-episodes 2 {TINY_OPTIONS} --out {tmp_path}/new"
    message = error_of(capsys, command)
    wanted = f"trust: expected --trust (trust=True) for {path}, because its files run code ({kind}"
    assert f"{wanted} imports '{module.name}')" in message
    assert not module() and not (tmp_path / "new").exists()
    assert main(f"{command} --trust".split()) == 0 and module()
    # the command line's own environment needs no trust
    assert main(f"{command}2 MemoryChain".split()) == 0 and not module()
    sys.modules.pop(module.name, None)


BARE = {"env_options": {}}


@pytest.mark.parametrize("given", [False, True])
def test_wrappers_of_a_file(module, tmp_path, capsys, given):
    path = tmp_path / "a.toml"
    path.write_text(f"env = 'CartPole-v1'\nwrapper = ['{module.name}:Wrapped']\nworkers = 1\n")
    command = f"train --config {path} --quiet --steps 64 --eval-episodes 1 {TINY_OPTIONS}"
    command += f" --out {tmp_path / 'run'}"
    if not given:
        assert f"imports '{module.name}'" in error_of(capsys, command)
        assert not module()
        return
    command += " --wrapper gymnasium.wrappers:FlattenObservation"
    assert main(command.split()) == 0 and not module()
    wrappers = [["gymnasium.wrappers:FlattenObservation", {}]]
    assert read_config(tmp_path / "run").wrappers == wrappers
    again = run(["--config", tmp_path / "run"], tmp_path / "again")
    assert read_config(again).wrappers == wrappers


def test_the_table_of_a_run_has_all_its_settings(tmp_path):
    """Each field of config.json is an option of the table, resolved, or tells of the run alone."""
    assert main(f"{COMMAND} --steps 64 --quiet --track tensorboard --out {tmp_path}".split()) == 0
    table, config = read_table(str(tmp_path))
    told = {"agent", "ppo", "versions", "machine", "command", "overrides"}
    names = {"env-options": "env-option", "vector-options": "vector-option", "wrappers": "wrapper"}
    for field, value in config.to_json().items():
        name = field.replace("_", "-")
        if field not in told and value not in (None, [], {}):
            assert table[names.get(name, name)] == value, field
    assert set(config.overrides) <= {name.replace("-", "_") for name in table}
    assert set(config.overrides) <= set(values(config.agent, config.ppo))
