"""Settings of agent and trainer: every mistake is named.

Which values the presets choose: tests/run/test_presets.py.
"""

import pytest

from minis5.rl.config import AgentConfig, PPOConfig


@pytest.mark.parametrize(
    "name, config",
    [
        ("core", {"core": "gnu"}),
        ("activation", {"activation": "swish"}),
        ("dtype", {"dtype": "float16"}),
        ("core_config", {"core": "none"}),
        ("encoder", {"encoder": ()}),
        ("encoder", {"heads": (0,)}),
    ],
)
def test_bad_agents_are_named(name, config):
    with pytest.raises(ValueError, match=rf"^{name}.*: expected .*got "):
        AgentConfig(**config)


@pytest.mark.parametrize("name", ["num_envs", "unroll", "epochs", "minibatches"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=f"^{name}: expected at least 1, got 0"):
        PPOConfig(**{name: 0})


@pytest.mark.parametrize(
    "message, settings",
    [
        ("gamma: expected a number from 0 to 1, got 1.5", {"gamma": 1.5}),
        ("gae_lambda: expected a number from 0 to 1, got nan", {"gae_lambda": float("nan")}),
        ("lr: expected a positive number, got 0", {"lr": 0}),
        ("clip: expected a positive number, got -1", {"clip": -1}),
        ("reward_scale: expected a positive number, got 0", {"reward_scale": 0}),
        ("ssm_lr_factor: expected a finite number from 0 up, got -1", {"ssm_lr_factor": -1}),
        (
            "ssm_lr_factor: expected a finite number from 0 up, got nan",
            {"ssm_lr_factor": float("nan")},
        ),
        ("max_grad_norm: expected a positive number or none, got 0", {"max_grad_norm": 0}),
        ("minibatches: expected a divisor of num_envs = 64, got 5", {"minibatches": 5}),
    ],
)
def test_bad_settings(message, settings):
    with pytest.raises(ValueError, match=f"^{message}"):
        PPOConfig(**settings)
