"""Finished runs that several files of this folder look at."""

import pytest
from command_line import CHAIN as COMMAND
from small_runs import CHAIN, UPDATE, WHOLE

from minis5.run.cli import main
from minis5.run.train import train


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
