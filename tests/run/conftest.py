"""Finished runs, and a strange module, that several files of this folder look at."""

import sys

import pytest
from command_line import CHAIN as COMMAND
from small_runs import CHAIN, UPDATE, WHOLE

from minis5.run.cli import main
from minis5.run.train import train

MODULE = """
from pathlib import Path

import gymnasium

Path(__file__).with_name("imported").touch()


class Still(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low, {}

    def step(self, action):
        return self.observation_space.low, 1.0, False, False, {}


class Wrapped(gymnasium.Wrapper):
    pass


gymnasium.register("Still-v0", Still, max_episode_steps=4)
"""


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Train for WHOLE updates, undisturbed; return the run's folder."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train("MemoryChain", steps=WHOLE * UPDATE, seed=4, workers=1, out=folder, **CHAIN)
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Train two seeds of one setting and another learning rate; return the folder of the runs."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {"a": "--seed 0", "b": "--seed 1", "c": "--lr=1e-4 --anneal-lr"}.items():
        assert main(f"{COMMAND} --quiet --steps 1280 {options} --out {folder / name}".split()) == 0
    return folder


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that leaves a mark when it is imported; return a function that looks."""
    name = f"stranger_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    mark = tmp_path / "imported"

    def ran():
        found = mark.exists()
        mark.unlink(missing_ok=True)
        sys.modules.pop(name, None)
        return found

    ran.name = name
    return ran
