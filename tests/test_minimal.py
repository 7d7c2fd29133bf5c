"""experiments/minimal.py trains as `minis5.PPO` does, bit for bit, and stays one page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minis5 import PPO, ActorCritic, AgentConfig, PPOConfig, S5Config, make_vec
from minis5.run import presets

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
sys.path.append(str(EXPERIMENTS))
import minimal  # noqa: E402

SMALL = {"width": 16, "ssm_size": 8, "num_envs": 8, "unroll": 64, "minibatches": 4}
LEARNING = [name for name in minimal.Settings._fields if name in PPOConfig.__dataclass_fields__]


def library(s):
    """Return the agent that `minis5.PPO` trains with these settings, and its rows."""
    core = S5Config(n_layers=s.n_layers, ssm_size=s.ssm_size)
    config = AgentConfig(encoder=(s.width,) * 2, heads=(s.width,) * 2, core_config=core)
    envs = make_vec("RepeatPreviousEasy", s.num_envs, s.seed)
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, config, s.seed)
    learning = PPOConfig(anneal_lr=True, **{name: getattr(s, name) for name in LEARNING})
    steps = s.iterations * s.num_envs * s.unroll
    return agent, PPO(agent, envs, learning, seed=s.seed).learn(steps)


@pytest.mark.parametrize(
    "changes",
    [
        SMALL,
        SMALL | {"seed": 5, "n_layers": 1, "entropy_coef": 0.01, "clip": 0.01, "clip_value": False},
        {"epochs": 1},  # the network and the environments as they are
    ],
)
def test_equals_the_library_bit_for_bit(changes):
    s = minimal.Settings(iterations=2)._replace(**changes)
    agent, rows = library(s)
    named, history = minimal.train(s)
    assert list(named) == list(agent.parameters())
    for name, value in agent.parameters().items():
        assert named[name].dtype == np.float32
        np.testing.assert_array_equal(named[name], value, err_msg=name, strict=True)
    np.testing.assert_allclose(history, [row["return"] for row in rows], rtol=1e-6)


def test_settings_are_those_of_the_preset():
    agent, learning, steps = presets.resolve("RepeatPreviousEasy")
    s = minimal.Settings()
    assert {name: getattr(s, name) for name in LEARNING} == {
        name: getattr(learning, name) for name in LEARNING
    }
    rest = PPOConfig(anneal_lr=True, **{name: getattr(s, name) for name in LEARNING})
    assert rest == learning
    core = S5Config(n_layers=s.n_layers, ssm_size=s.ssm_size)
    assert agent == AgentConfig(encoder=(s.width,) * 2, heads=(s.width,) * 2, core_config=core)
    assert (
        (s.iterations - 1) * s.num_envs * s.unroll < steps <= s.iterations * s.num_envs * s.unroll
    )


def test_stays_a_page():
    text = (EXPERIMENTS / "minimal.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200


@pytest.mark.slow
def test_solves_its_task():
    path = os.pathsep.join([str(EXPERIMENTS.parent), os.environ.get("PYTHONPATH", "")])
    command, options = [sys.executable, str(EXPERIMENTS / "minimal.py")], {"text": True}
    options |= {"env": {**os.environ, "PYTHONPATH": path}, "stdout": subprocess.PIPE}
    printed = subprocess.run(command, check=True, **options).stdout
    returns = re.findall(r"mean return (\S+)", printed)
    assert len(returns) == minimal.Settings().iterations and float(returns[-1]) >= 0.95
