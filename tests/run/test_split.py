"""How many processes a run has: CPUs, minibatches, and environments that do not come twice."""

import os
import re
import time
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from small_runs import TINY

import minis5
from minis5.run import split
from minis5.run.split import check_workers, choose_workers, why_not_elsewhere
from minis5.run.train import train

HERE = os.getpid()


class Bound(gym.Env):
    """An environment that knows whether it is in the process that imported this file first."""

    observation_space, action_space = (
        gym.spaces.Box(-1, 1, (1,), np.float32),
        gym.spaces.Discrete(2),
    )

    def __init__(self, elsewhere="fine"):
        if os.getpid() != HERE and elsewhere == "refused":
            raise OSError("port 5005 is in use")
        if os.getpid() != HERE and elsewhere == "dies":
            os._exit(3)
        if os.getpid() != HERE and elsewhere == "hangs":
            time.sleep(600)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


gym.register("Bound-v0", Bound)


def test_workers_follow_the_minibatches(monkeypatch):
    monkeypatch.setattr(split, "available_cpus", lambda: 6)
    config = minis5.PPOConfig(num_envs=24, minibatches=3)
    assert choose_workers(None, config) == 4
    assert choose_workers(2, config) == 2
    assert choose_workers(None, config, device="cuda") == 1
    asked = []
    monkeypatch.setattr(split, "check_gpus", asked.append)
    assert choose_workers(4, config, device="cuda") == 4 and asked == [4]
    with pytest.raises(ValueError, match="workers: 24 environments .* do not divide over 3"):
        choose_workers(3, config)


@pytest.mark.parametrize(
    ("num_envs", "minibatches", "remedy"),
    [
        (64, 8, "choose one of 1, 2, 4, 8"),
        (8, 8, "choose one of 1"),
        (9, 2, "choose num_envs as a multiple of the 2 minibatches"),
    ],
)
def test_the_numbers_that_fit_are_named(num_envs, minibatches, remedy):
    with pytest.raises(ValueError, match=f"do not divide over 3; {remedy}$"):
        check_workers(3, SimpleNamespace(num_envs=num_envs, minibatches=minibatches))


def test_an_obstacle_is_told_and_asked_for_only_if_it_matters(monkeypatch, capsys):
    monkeypatch.setattr(split, "available_cpus", lambda: 4)
    config = minis5.PPOConfig(num_envs=24, minibatches=3)
    assert choose_workers(None, config, obstacle=lambda: "of a port") == 1
    assert capsys.readouterr().err == "one process, because of a port\n"
    asked = []
    assert choose_workers(2, config, obstacle=lambda: asked.append(1)) == 2
    assert choose_workers(None, minis5.PPOConfig(num_envs=3, minibatches=3), obstacle=lambda: 1 / 0)
    assert not asked


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("fine", None),
        ("refused", r"the environment cannot be made in a second one \(.*port 5005 is in use\)"),
        ("dies", r"the environment cannot be made in a second one \(the process died\)"),
        ("hangs", "the environment cannot be made in a second one within 0.2 s"),
    ],
)
def test_environments_are_tried_in_another_process(monkeypatch, how, expected):
    if how == "hangs":
        monkeypatch.setattr(split, "PATIENCE", 0.2)
    why = why_not_elsewhere("Bound-v0", 0, env_options={"elsewhere": how}, wrappers=[])
    assert why is None if expected is None else re.fullmatch(expected, why)


@pytest.mark.parametrize("batch", [{"processes": 2}, {"vectorization_mode": "async"}])
def test_processes_of_the_environments_are_enough(monkeypatch, tmp_path, capsys, batch):
    monkeypatch.setattr(split, "available_cpus", lambda: 2)
    options = {"vector_options": batch, "overrides": TINY, "eval_episodes": 2}
    summary = train("Bound-v0", steps=64, out=tmp_path / "run", quiet=True, **options)
    assert summary["workers"] == 1 and not capsys.readouterr().err


@pytest.mark.parametrize(("how", "workers"), [("fine", 2), ("refused", 1)])
def test_a_run_of_other_peoples_environments_takes_what_it_gets(
    monkeypatch, tmp_path, how, workers
):
    monkeypatch.setattr(split, "available_cpus", lambda: 2)
    options = {"env_options": {"elsewhere": how}, "overrides": TINY, "eval_episodes": 2}
    summary = train("Bound-v0", steps=64, out=tmp_path / "run", quiet=True, **options)
    assert summary["workers"] == workers and summary["mean_return"] == 1.0
