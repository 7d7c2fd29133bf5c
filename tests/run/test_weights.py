"""minis5 import-weights and export-weights on the command line."""

import numpy as np
import pytest
from command_line import error_of

import minis5
from minis5.run.cli import main


@pytest.fixture
def agent(tmp_path):
    envs = minis5.make_vec("RepeatPreviousEasy", num_envs=1)
    spaces = envs.single_observation_space, envs.single_action_space
    core = minis5.S5Config(1, 4, gate="half_glu2", prenorm=True)
    config = minis5.AgentConfig((6, 5), (7,), core_config=core, scale_actions=False)
    agent = minis5.ActorCritic(*spaces, config, seed=3)
    minis5.save(agent, tmp_path / "agent.npz")
    return agent


def test_out_and_in_again(tmp_path, agent, capsys):
    there, back = tmp_path / "there.safetensors", tmp_path / "back.npz"
    assert main(["export-weights", str(tmp_path), "--to", "flax", "--out", str(there)]) == 0
    out = capsys.readouterr().out
    assert str(there) in out and "gate=half_glu2 prenorm=true" in out and "zoh" in out
    how = "--env RepeatPreviousEasy --gate half_glu2 --prenorm".split()
    assert main(["import-weights", str(there), "--out", str(back), *how]) == 0
    assert "1 S5 layers of 5 features and 4 states" in capsys.readouterr().out
    assert back.read_bytes() == (tmp_path / "agent.npz").read_bytes()
    how = ["--like", str(tmp_path / "agent.npz")]
    assert main(["import-weights", str(there), "--out", str(back), *how]) == 0
    assert back.read_bytes() == (tmp_path / "agent.npz").read_bytes()


def test_one_layer(tmp_path, agent):
    run, there, back = str(tmp_path), str(tmp_path / "there.npz"), str(tmp_path / "back.npz")
    command = ["export-weights", run, "--to", "s5-pytorch", "--layer", "0", "--out", there]
    assert main(command) == 0
    with np.load(there) as file:
        arrays = dict(file)
    arrays["seq.D"] = arrays["seq.D"] + 1
    np.savez(there, **arrays)
    assert main(["import-weights", there, "--out", back, "--like", run, "--layer", "0"]) == 0
    ours, changed = agent.parameters(), minis5.load(back).parameters()
    for name, array in ours.items():
        assert np.array_equal(changed[name], array + 1 if name.endswith("ssm/D") else array)


def test_mistakes_are_told_in_one_line(tmp_path, agent, capsys):
    there = str(tmp_path / "there.npz")
    export = ["export-weights", str(tmp_path), "--out", there, "--to"]
    assert main([*export, "flax"]) == 0
    capsys.readouterr()
    take = ["import-weights", there, "--out", str(tmp_path / "back.npz")]
    env = ["--env", "RepeatPreviousEasy"]
    for command, words in (
        ([*export, "jax"], "unknown FORMAT 'jax'"),
        (take, "--env, --like: expected one of them, got neither"),
        ([*take, *env, "--like", str(tmp_path)], "got both"),
        ([*take, "--like", str(tmp_path), "--gate", "gelu"], "--gate: expected none with --like"),
        ([*take, *env, "--layer", "0"], "--layer: expected --like RUN"),
        ([*take, *env], "gate: expected 'half_glu1' or 'half_glu2'"),
        ([*take, *env, "--gate", "half_glu2"], "norms: expected one or two of"),
        ([*take, *env, "--prenorm", "maybe"], "prenorm: expected true or false"),
        ([*take, "--env", "AutoencodeEasy", "--gate", "half_glu2", "--prenorm"], "its rows are"),
        (["import-weights", "no.npz", *env], "no file no.npz"),
        (["import-weights", "x.pt", *env], "ends in .npz or .safetensors"),
    ):
        assert words in error_of(capsys, command), command
    assert not (tmp_path / "back.npz").exists()
