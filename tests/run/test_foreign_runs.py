"""Runs in other people's environments: options and wrappers in training, resuming, evaluation."""

import json

import gymnasium
import numpy as np
import pytest
from command_line import TINY as WORDS
from command_line import error_of
from small_runs import TINY, UPDATE, assert_same_run

from minis5.run.cli import main
from minis5.run.config import read_config
from minis5.run.train import resume, train

FAST = {"overrides": TINY, "steps": 3 * UPDATE, "eval_episodes": 6, "quiet": True, "workers": 1}
LIMIT = ["gymnasium.wrappers:TimeLimit", {"max_episode_steps": 3}]
FLAT = ["gymnasium.wrappers:FlattenObservation", {}]


class Argued(gymnasium.Env):
    """A step earns the sum of the options, whose names minis5 has for other things."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1, 2), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, deterministic=0, seed=0, num_envs=0, episodes=0, device=0, processes=0):
        self.pay = float(deterministic + seed + num_envs + episodes + device + processes)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros((1, 2), np.float32), {}

    def step(self, action):
        return np.zeros((1, 2), np.float32), self.pay, True, False, {}


class Endless(Argued):
    """It never ends by itself."""

    def step(self, action):
        return np.zeros((1, 2), np.float32), 1.0, False, False, {}


gymnasium.register("Argued-v0", Argued)
gymnasium.register("EndlessArgued-v0", Endless)


@pytest.mark.parametrize(
    "name", ["deterministic", "seed", "num_envs", "episodes", "device", "processes"]
)
def test_options_reach_training_and_evaluation(tmp_path, name):
    summary = train("Argued-v0", env_options={name: 2}, out=tmp_path, **FAST)
    assert (summary["training_return_last"], summary["mean_return"]) == (2, 2)
    assert summary["env_options"] == {name: 2}


def test_wrappers_are_kept_resumed_and_evaluated(tmp_path, capsys):
    settings = {**FAST, "wrappers": [FLAT, LIMIT]}
    whole = train("EndlessArgued-v0", out=tmp_path / "whole", **settings)
    assert whole["mean_return"] == 3 and whole["wrappers"] == [FLAT, LIMIT]
    train("EndlessArgued-v0", out=tmp_path / "run", **{**settings, "steps": UPDATE})
    resume(tmp_path / "run", steps=3 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert main(["eval", str(tmp_path / "run"), "--episodes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_return"] == 3
    other = 'gymnasium.wrappers:TimeLimit={"max_episode_steps": 5}'
    asked = ["--episodes", "2", "--json", "--wrapper", FLAT[0], "--wrapper", other]
    assert main(["eval", str(tmp_path / "run"), *asked]) == 0
    assert json.loads(capsys.readouterr().out)["mean_return"] == 5


def test_the_command_line(tmp_path, capsys):
    command = f"train EndlessArgued-v0 --steps 64 --quiet {WORDS} --eval-episodes 2"
    command += (
        f" --out {tmp_path / 'run'} --wrapper {FLAT[0]} --vector-option processes=2 --wrapper"
    )
    assert main([*command.split(), 'gymnasium.wrappers:TimeLimit={"max_episode_steps": 3}']) == 0
    config = read_config(tmp_path / "run")
    assert config.wrappers == [FLAT, LIMIT] and config.vector_options == {"processes": 2}
    assert config.foreign_code() == []
    capsys.readouterr()
    for words, message in (
        ("--wrapper a:B={3", "expected module:Name or module:Name={"),
        ("--wrapper Flatten", "wrappers: expected gymnasium.wrappers:FlattenObservation"),
        ("--vector-option seed=3", "vector_options: expected one of 'num_threads', 'processes'"),
        ("--env-option wind=3", "env_options: Endless of EndlessArgued-v0 got an unexpected"),
        ("--eval-episodes 0", "--eval-episodes: expected a count"),
    ):
        asked = f"train EndlessArgued-v0 --out {tmp_path / 'none'} {words}".split()
        assert message in error_of(capsys, asked)
    assert not (tmp_path / "none").exists()


def test_functions_cannot_be_kept(tmp_path):
    with pytest.raises(ValueError, match="config.json cannot keep the function ClipReward; pass"):
        train("Argued-v0", wrappers=[gymnasium.wrappers.ClipReward], out=tmp_path / "run", **FAST)
    with pytest.raises(ValueError, match=r"got 'seed': \(1, 2\); pass lists"):
        train("Argued-v0", env_options={"seed": (1, 2)}, out=tmp_path / "run", **FAST)
    assert not (tmp_path / "run").exists()
