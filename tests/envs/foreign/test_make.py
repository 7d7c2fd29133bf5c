"""Options reach the environment's constructor as they are, and nobody else."""

import gymnasium
import numpy as np
import pytest

import minis5
from minis5.envs.foreign.make import find_spec

NAMES = ("seed", "device", "num_envs", "episodes", "processes", "deterministic", "first_index")
NAMES += ("env_id", "env_options", "wrappers", "num_threads", "vectorization_mode", "vector_kwargs")
NAMES += ("id", "quiet", "out", "name", "make", "options")


class Named(gymnasium.Env):
    """Shows the options that its constructor got, whatever they are called."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, **options):
        self.options = options

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


class Limited(Named):
    """Has an argument that gymnasium.make has too."""

    def __init__(self, max_episode_steps, size=3):
        super().__init__(max_episode_steps=max_episode_steps, size=size)


class Several(gymnasium.vector.VectorEnv):
    """A batch of its own, which keeps its options."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, max_episode_steps=7, wind=0.0):
        self.num_envs, self.options = num_envs, (max_episode_steps, wind)

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 1), np.float32), {}


gymnasium.register("Named-v0", Named)
gymnasium.register("Named-v3", Named, kwargs={"num_envs": "registered"})
gymnasium.register("Limited-v0", Limited, max_episode_steps=9)
gymnasium.register("Several-v0", vector_entry_point=Several, max_episode_steps=5)


@pytest.mark.parametrize("settings", [{}, {"processes": 2}, {"vectorization_mode": "async"}])
def test_every_name_arrives(settings):
    options = {name: f"a {name}" for name in NAMES}
    envs = minis5.make_vec("Named-v0", 2, env_options=options, **settings)
    assert envs.call("options") == (options, options)
    envs.close()


def test_registered_options_and_versions():
    assert find_spec("Named") is find_spec("Named-v3") and find_spec("Nobody") is None
    assert minis5.make_vec("Named", 1).call("options") == ({"num_envs": "registered"},)
    assert find_spec("Named-v9") is None and find_spec("not an id") is None
    envs = minis5.make_vec("Named-v3", 1, env_options={"num_envs": 4}, size=2)
    assert envs.call("options") == ({"num_envs": 4, "size": 2},)


def test_a_time_limit_is_the_constructors_if_it_has_one():
    envs = minis5.make_vec("Named-v0", 1, env_options={"max_episode_steps": 2})
    assert envs.call("options") == ({},)
    assert [envs.step([0])[3].tolist() for _ in range(2)] == [[False], [True]]
    envs = minis5.make_vec("Limited-v0", 1, env_options={"max_episode_steps": 2})
    assert envs.call("options") == ({"max_episode_steps": 2, "size": 3},)
    assert [bool(envs.step([0])[3][0]) for _ in range(9)] == [False] * 8 + [True]


def test_the_environments_own_batch():
    for settings in ({}, {"vectorization_mode": "vector_entry_point"}):
        assert minis5.make_vec("Several-v0", 3, wind=2.0, **settings).options == (5, 2.0)
    envs = minis5.make_vec("Several-v0", 3, env_options={"max_episode_steps": 4})
    assert envs.options == (4, 0.0) and envs.num_envs == 3


@pytest.mark.parametrize(
    ("env_id", "settings", "message"),
    [
        ("Limited-v0", {}, "env_options: Limited of Limited-v0 missing a required argument: 'max_"),
        (
            "CartPole-v1",
            {"env_options": {"sutton_barto": True}},
            r"'sutton_barto' \(did you mean sutton_barto_reward\?\); its options are sutton_barto_",
        ),
        ("Named-v0", {"env_options": {"wind": 1}, "wind": 1}, "wind: given in env_options and by"),
        ("MemoryChain", {"env_options": {"num_bits": 1}, "num_bits": 1}, "num_bits: given in env_"),
        ("Named-v0", {"env_options": 3}, "env_options: expected a dict of options, got 3"),
        (
            "Named-v0",
            {"env_options": {3: 4}},
            "env_options: expected a dict of options, got {3: 4}",
        ),
        ("MemoryChain", {"env_options": {"seed": 1}}, "seed: MemoryChain has no such option"),
        ("MemoryChain", {"vectorization_mode": "sync"}, "vectorization_mode: MemoryChain has no"),
        (
            "Named-v0",
            {"vectorization_mode": "parallel"},
            "vectorization_mode: expected one of 'sync'",
        ),
        (
            "Several-v0",
            {"vectorization_mode": "sync"},
            "has no entry point for 'sync'; choose another",
        ),
        ("Several-v0", {"env_options": {"num_envs": 2}}, "num_envs of Several is the size of the"),
        (
            "Several-v0",
            {"wrappers": ["gymnasium.wrappers:ClipReward"]},
            "^wrappers: Several-v0 comes as one batch",
        ),
        (
            "Several-v0",
            {"vector_kwargs": {"copy": False}},
            "^vector_kwargs: Several-v0 comes as one batch",
        ),
        ("Named-v0", {"max_episode_steps": 2.5}, "max_episode_steps: expected an integer in"),
        ("Named-v0", {"vector_kwargs": 3}, "vector_kwargs: expected a dict, got 3; leave it out"),
        ("Named-v0", {"vector_kwargs": {"copies": 1}}, "vector_kwargs: EnvBatch got an unexp"),
        (
            "Named-v0",
            {"vector_kwargs": {"autoreset_mode": "Sometimes"}},
            "autoreset_mode: expected one of 'NextStep', 'SameStep', 'Disabled', got 'Sometimes'",
        ),
    ],
)
def test_mistakes(env_id, settings, message):
    with pytest.raises(ValueError, match=message):
        minis5.make_vec(env_id, 2, **settings)
