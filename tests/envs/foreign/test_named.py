"""Wrappers by name: which name is found, how options arrive, and what is said otherwise."""

import gymnasium
import numpy as np
import pytest

import minis5
from minis5.envs.foreign.named import check_json, find_wrappers, foreign_modules, wrappers_to_json

FLAT = "gymnasium.wrappers:FlattenObservation"
LIMIT = ("gymnasium.wrappers:TimeLimit", {"max_episode_steps": 5})


class Doubled(gymnasium.RewardWrapper):
    """Rewards times `factor`, plus `plus`."""

    def __init__(self, env, factor=2.0, plus=0.0):
        super().__init__(env)
        self.factor, self.plus = factor, plus

    def reward(self, reward):
        return reward * self.factor + self.plus


def nothing(env):
    """Forget to return anything."""


def first_reward(wrappers, env_id="CartPole-v1", **settings):
    envs = minis5.make_vec(env_id, 2, wrappers=wrappers, **settings)
    reward = envs.step(np.zeros(2, int))[1]
    envs.close()
    return reward.tolist()


@pytest.mark.parametrize("settings", [{}, {"processes": 2}, {"vectorization_mode": "async"}])
def test_order_and_options(settings):
    """The first is innermost: 1·2 + 3, and (1·1 + 3)·2."""
    here = f"{__name__}:Doubled"
    assert first_reward([], **settings) == [1, 1]
    inner, outer = (Doubled, {"factor": 2}), (here, {"factor": 1, "plus": 3})
    assert first_reward([inner, outer], **settings) == [5, 5]
    assert first_reward([list(outer), here], **settings) == [8, 8]


def test_a_time_limit_around_each_environment():
    envs = minis5.make_vec("Pendulum-v1", 2, wrappers=[LIMIT])
    ends = [envs.step(np.zeros((2, 1), np.float32))[3].tolist() for _ in range(5)]
    assert ends == [[False] * 2] * 4 + [[True] * 2]


def test_a_native_environment_is_wrapped_too():
    """A wrapped one is a batch of single ones, with the option of its level."""
    wrapped = minis5.make_vec("MemoryChain", 2, wrappers=[FLAT, Doubled], memory_length=3)
    assert isinstance(wrapped, gymnasium.vector.SyncVectorEnv)
    rewards = [wrapped.step(np.zeros(2, int))[1] for _ in range(3)]
    assert np.abs(rewards).tolist() == [[0, 0], [0, 0], [2, 2]]
    with pytest.raises(ValueError, match="device: 'MemoryChain' is wrapped and runs with"):
        minis5.make_vec("MemoryChain", 2, wrappers=[FLAT], device="cuda")


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        (FLAT, r"wrappers: expected a list of names .* put it into a list"),
        (
            ["FlattenObservation"],
            r"got 'FlattenObservation' \(did you mean gymnasium.wrappers:Flat",
        ),
        (["gymnasium.wrappers:FlattenObs"], r"has no FlattenObs \(did you mean FlattenObservation"),
        (["no.such:Name"], r"wrappers: cannot import the module of 'no.such:Name'"),
        (["gymnasium.wrappers:vector"], "expected a class at gymnasium.wrappers:vector"),
        (
            [LIMIT[0]],
            r"TimeLimit missing a required argument: 'max_episode_steps'; its options are",
        ),
        (
            [(LIMIT[0], {"max_steps": 3})],
            r"TimeLimit got an unexpected keyword argument 'max_steps' \(did you mean max_ep",
        ),
        ([(LIMIT[0], {"max_episode_steps": -3})], "TimeLimit cannot wrap <.*CartPole-v1>"),
        ([(FLAT, 3)], r"wrappers: expected gymnasium.wrappers:FlattenObservation, or a pair"),
        ([7], "got 7"),
        (["gymnasium.wrappers.vector:NormalizeObservation"], "wraps a whole vector environment"),
        ([nothing], "expected nothing to return a gymnasium.Env, .*, got None"),
    ],
)
def test_mistakes(wrappers, message):
    with pytest.raises(ValueError, match=message):
        minis5.make_vec("CartPole-v1", 2, wrappers=wrappers)


def test_what_config_json_keeps():
    assert wrappers_to_json([FLAT, LIMIT]) == [[FLAT, {}], list(LIMIT)]
    with pytest.raises(ValueError, match=f"cannot keep the function Doubled; .*'{__name__}:Doub"):
        wrappers_to_json([Doubled])
    with pytest.raises(ValueError, match=r"options of m:F: .* got 'size': \(3, 4\); pass lists"):
        wrappers_to_json([("m:F", {"size": (3, 4)})])
    with pytest.raises(ValueError, match="name: expected values that JSON can hold"):
        check_json("name", {"longest": {3}})
    with pytest.raises(ValueError, match="name: expected a dict, got 3"):
        check_json("name", 3)
    assert wrappers_to_json(None) == find_wrappers(()) == []


@pytest.mark.parametrize(
    ("env_id", "wrappers", "modules"),
    [
        ("CartPole-v1", [FLAT, LIMIT], []),
        ("gymnasium.envs.classic_control:CartPole-v1", [Doubled], []),
        ("echo:Echo-v0", ["a.b:C", "a.b:D"], ["echo", "a.b"]),
        ("CartPole-v1", ["gymnasium.wrappers:vector.np.save"], ["gymnasium.wrappers"]),
        ("MemoryChain", ["minis5.files:os.system", ("x:y", {})], ["minis5.files", "x"]),
        ("dmc/cartpole-swingup", ["minis5.envs.foreign.wrappers:Trials"], []),
    ],
)
def test_foreign_modules(env_id, wrappers, modules):
    """What is not Gymnasium's own wrapper could be any function that a module holds."""
    assert foreign_modules(env_id, wrappers) == modules
