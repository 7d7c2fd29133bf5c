"""Every action space that an agent can have, in training, in its file and in use."""

import inspect
import tracemalloc

import gymnasium as gym
import numpy as np
import pytest

import minis5
from minis5.nn.cores import NoConfig
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.ppo import PPO

SPACES = {
    "binary": gym.spaces.MultiBinary(4),
    "binary grid": gym.spaces.MultiBinary((2, 3)),
    "grid": gym.spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "row": gym.spaces.MultiDiscrete([2, 3], np.int32, start=[4, -1]),
    "start": gym.spaces.Discrete(3, start=-1),
    "integers": gym.spaces.Box(0, 3, (2,), np.int64),
    "bytes": gym.spaces.Box(250, 255, (1, 2), np.uint8),
    "flags": gym.spaces.Box(0, 1, (3,), bool),
    "scalar": gym.spaces.Box(-1, 1, (), np.float32),
    "scaled scalar": gym.spaces.Box(0, 5, (), np.float64),
    "matrix": gym.spaces.Box(-np.inf, np.inf, (2, 3), np.float64),
    "half": gym.spaces.Box(0, 100, (2,), np.float16),
    "mixed": gym.spaces.Box(np.array([0, -np.inf, 3, 2]), np.array([9, 1, np.inf, 2])),
}
if "dtype" in inspect.signature(gym.spaces.Discrete).parameters:  # Gymnasium 1.2.3 and newer
    SPACES["small integers"] = gym.spaces.Discrete(3, start=2, dtype=np.int8)


class Strict(gym.Env):
    """Takes actions of its space only; earns how far up its first number is."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, space, best=1.0):
        self.action_space, self.best = space, best

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return np.zeros(1, np.float32), self.reward(action), self.t == 8, False, {}

    def reward(self, action):
        space, first = self.action_space, float(np.ravel(action)[0])
        if not isinstance(space, gym.spaces.Box) or not space.is_bounded():
            start = np.ravel(getattr(space, "start", 0))[0]
            return float(np.clip(first - start, -1, 1))
        low, high = float(space.low.flat[0]), float(space.high.flat[0])
        return 1 - 2 * abs((first - low) / (high - low) - self.best)


def trainer(space, num_envs=16, unroll=32, **options):
    mode = gym.vector.AutoresetMode.SAME_STEP
    makers = [lambda: Strict(space, **options)] * num_envs
    envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)
    config = AgentConfig(core="none", core_config=NoConfig())
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, config)
    return PPO(agent, envs, PPOConfig(num_envs=num_envs, unroll=unroll, minibatches=4, lr=3e-3))


@pytest.mark.parametrize("name", SPACES)
def test_an_agent_learns_saves_and_acts(name, tmp_path):
    """It takes only legal actions, earns more than at first, and its file gives it back."""
    ppo = trainer(SPACES[name])
    rows = ppo.learn(16 * 32 * 5)
    assert rows[-1]["return"] > rows[0]["return"] + 0.4
    minis5.save(ppo.agent, tmp_path / "agent.npz")
    loaded = minis5.load(tmp_path / "agent.npz")
    assert loaded.action_space == SPACES[name] and loaded.config == ppo.agent.config
    obs, reset = np.zeros((3, 1), np.float32), np.ones(3, bool)
    for deterministic in (True, False):
        acts = [
            agent.act(obs, None, reset, deterministic, np.random.default_rng(0))[0]
            for agent in (ppo.agent, loaded)
        ]
        np.testing.assert_array_equal(*acts)
        assert all(SPACES[name].contains(action) for action in acts[0])


def test_a_hundred_thousand_actions():
    """Memory grows with the number of actions, not with its square (40 GB)."""
    space = gym.spaces.Discrete(100_000, start=-50_000)
    envs = gym.vector.SyncVectorEnv([lambda: Strict(space)] * 2, autoreset_mode="SameStep")
    config = AgentConfig(core="none", core_config=NoConfig(), encoder=(4,), heads=(4,))
    agent = minis5.ActorCritic(envs.single_observation_space, space, config)
    tracemalloc.start()
    row = PPO(agent, envs, PPOConfig(num_envs=2, unroll=8, minibatches=2)).learn(16)[-1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert row["entropy"] == pytest.approx(np.log(100_000), rel=1e-3)
    assert peak < 16 * 100_000 * 4 * 20  # arrays (T, B, actions) of float32


def test_boxes_are_learnt_alike():
    """A task scaled with its box is the same task: first update and outcome hardly differ."""
    outcomes = []
    for low, high in ((-1, 1), (0, 100), (-0.01, 0.01)):
        ppo = trainer(gym.spaces.Box(low, high, (1,), np.float32), best=0.8)
        rows = ppo.learn(16 * 32)
        vector = ppo.agent.parameter_vector.copy()
        rows += ppo.learn(16 * 32 * 24)
        outcomes.append((vector, rows[0]["return"], rows[-1]["return"]))
    (vector, first, last), *others = outcomes
    assert last > first + 2
    for other in others:
        np.testing.assert_allclose(other[0], vector, rtol=1e-4, atol=1e-6)
        assert other[1] == pytest.approx(first, abs=1e-3)
        assert other[2] == pytest.approx(last, abs=0.5)
