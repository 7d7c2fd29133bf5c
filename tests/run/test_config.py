"""A run's configuration: resolved once, the same after config.json, old files too."""

import dataclasses
import json

import numpy as np
import pytest
from small_runs import TINY

import minis5
from minis5.run.config import RunConfig, configure, read_config, write_config

DEFAULTS = {
    "preset": "laptop",
    "core": "s5",
    "overrides": TINY,
    "env_options": {"memory_length": 3},
    "wrappers": [],
    "vector_options": {},
    "steps": None,
    "seed": 4,
    "device": "cpu",
    "precision": "float32",
    "workers": 1,
    "target_return": None,
    "eval_episodes": 20,
    "eval_envs": None,
    "eval_steps": None,
    "eval_every": None,
    "init_from": None,
}


def test_everything_arrives():
    config = configure("MemoryChain", **DEFAULTS | {"steps": 64, "target_return": 0.5})
    wanted = {"env": "MemoryChain", "preset": "laptop", "seed": 4, "steps": 64, "workers": 1}
    wanted |= {"device": "cpu", "precision": "float32", "target_return": 0.5, "eval_episodes": 20}
    assert {name: getattr(config, name) for name in wanted} == wanted
    assert config.env_options == {"memory_length": 3} and config.init_from is None
    assert config.overrides == {name: str(value) for name, value in TINY.items()}
    assert config.agent.core_config.ssm_size == 8 and config.ppo.unroll == 8
    assert config.versions["minis5"] == minis5.__version__ and config.machine["cpus"] >= 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 5


def test_numbers_of_numpy_fit_into_json(tmp_path):
    numbers = {"steps": np.int64(64), "seed": np.int32(4), "target_return": np.float32(0.5)}
    config = configure("MemoryChain", **DEFAULTS | numbers)
    write_config(tmp_path, config)
    assert (
        read_config(tmp_path)
        == config
        == configure("MemoryChain", **DEFAULTS | {"steps": 64, "target_return": 0.5})
    )


def test_the_preset_decides_the_steps():
    assert configure("MemoryChain", **DEFAULTS).steps == 500_000
    assert configure("MemoryChain", **DEFAULTS | {"preset": "paper"}).steps == 15_000_000


def test_environments_and_agent_are_those_of_the_settings():
    config = configure("MemoryChain", **DEFAULTS)
    envs = config.make_envs(3, first_index=2)
    same = minis5.make_vec("MemoryChain", 3, 4, first_index=2, memory_length=3)
    assert (envs.reset()[0] == same.reset()[0]).all()
    agent = config.make_agent(envs)
    assert agent.config == config.agent and agent.device == "cpu"
    other = minis5.ActorCritic(
        same.single_observation_space, same.single_action_space, config.agent, seed=4
    )
    assert (agent.parameter_vector == other.parameter_vector).all()


@pytest.mark.parametrize("core", ["s5", "gru", "lstm", "attention", "mlp", "none"])
def test_config_json(tmp_path, core):
    config = configure("MemoryChain", **DEFAULTS | {"core": core, "overrides": {"encoder": "8"}})
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    text = (tmp_path / "config.json").read_text()
    assert list(json.loads(text)) == [field.name for field in dataclasses.fields(RunConfig)]


def test_config_json_before_settings_were_added(tmp_path):
    config = configure("MemoryChain", **DEFAULTS)
    values = config.to_json()
    for name in ("precision", "init_from"):
        del values[name]
    del values["agent"]["observation_scale"], values["ppo"]["trial_horizon"]
    del values["agent"]["scale_actions"]  # boxes were not scaled
    (tmp_path / "config.json").write_text(json.dumps(values))
    agent = dataclasses.replace(config.agent, scale_actions=False)
    assert read_config(tmp_path) == dataclasses.replace(config, agent=agent)


@pytest.mark.parametrize(("tf32", "precision"), [(False, "float32"), (True, "tf32")])
def test_config_json_before_there_were_three_precisions(tmp_path, tf32, precision):
    config = configure("MemoryChain", **DEFAULTS)
    values = config.to_json() | {"tf32": tf32}
    del values["precision"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path) == dataclasses.replace(config, precision=precision)


def test_config_json_before_options_were_told_apart(tmp_path):
    """Up to 0.2, options of the batch were among those of the environment."""
    batch = {"processes": 2, "vector_kwargs": {"autoreset_mode": "SameStep"}}
    settings = {"env_options": {"longest": 5}, "vector_options": batch}
    config = configure("Countdown-v0", **DEFAULTS | settings)
    values = config.to_json()
    values["env_options"] |= values.pop("vector_options")
    del values["wrappers"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path) == config and config.vector_options == batch


def test_code_that_a_configuration_names():
    config = configure("Countdown-v0", **DEFAULTS | {"env_options": {}})
    assert config.foreign_code() == []
    wrappers = [["gymnasium.wrappers:ClipReward", {}], ["mine.own:Wrapper", {"size": 3}]]
    named = dataclasses.replace(config, env="echo:Echo-v0", wrappers=wrappers)
    assert named.foreign_code() == ["echo", "mine.own"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:40], "config.json: expected the configuration of a run.*restore it"),
        (lambda text: "[]", "config.json: expected the configuration of a run"),
        (lambda text: text.replace('"seed"', '"sead"'), "missing fields seed"),
        (
            lambda text: text.replace("{", '{"hue": 1, ', 1),
            "unknown fields hue, made by a newer version of minis5; upgrade",
        ),
        (lambda text: text.replace('"lr"', '"lro"'), "PPOConfig: unknown fields lro"),
        (lambda text: text.replace('"s5"', '"s6"'), "core: expected one of .* got 's6'"),
    ],
)
def test_unfitting_files(tmp_path, change, message):
    write_config(tmp_path, configure("MemoryChain", **DEFAULTS))
    path = tmp_path / "config.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


def test_mistakes():
    with pytest.raises(ValueError, match="eval_episodes: expected an integer in .*got 0; pass for"):
        configure("MemoryChain", **DEFAULTS | {"eval_episodes": 0})
