"""Collecting experience: inputs around a reset, autoreset modes, replay from the stored state.

The toy environment depends on the agent's actions, and the agent's policy is so sharp that
nothing is left to chance. So every mode must meet the same episodes. No two of them are alike
(the observation tells an episode's number); some are terminated, the others truncated.
"""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from minis5.envs.registry import make_vec
from minis5.nn.cores import NoConfig
from minis5.nn.s5_core import S5Config
from minis5.rl.agent import ActorCritic
from minis5.rl.autoreset import DISABLED, NEXT_STEP, SAME_STEP, autoreset_mode
from minis5.rl.config import AgentConfig
from minis5.rl.rollout import Collector
from minis5.spaces import leaves, rebuild

LENGTHS = (3, 1, 4, 2, 5, 1)  # of the toy's episodes, in turn; every other one is truncated
START = 10  # the smallest action
MODES = {"same": SAME_STEP, "next": NEXT_STEP, "disabled": DISABLED}
SHAPES = {
    "s5": AgentConfig((8,), (8,), core_config=S5Config(n_layers=2, ssm_size=8), dtype="float64"),
    "none": AgentConfig((8,), (8,), core="none", core_config=NoConfig(), dtype="float64"),
}
modes = pytest.mark.parametrize("mode", MODES)


class Toy(gym.Env):
    """Episode k lasts LENGTHS[k] steps; observations depend on k, the step and past actions."""

    action_space = gym.spaces.Discrete(3, start=START)

    def __init__(self, first=0, nested=False):
        self.episode, self.nested = first - 1, nested
        self.observation_space = gym.spaces.Box(-99, 99, (3,), np.float32)
        if nested:
            box = gym.spaces.Box(-99, 99, (1,), np.float32)
            parts = {"episode": box, "rest": gym.spaces.Tuple([gym.spaces.Discrete(9), box])}
            self.observation_space = gym.spaces.Dict(parts)

    def reset(self, *, seed=None, options=None):
        self.episode, self.time, self.total = self.episode + 1, 0, 0
        return self._observe(), {}

    def _observe(self):
        episode, total = np.float32([np.sin(self.episode)]), np.float32([np.cos(self.total)])
        if self.nested:
            return {"episode": episode, "rest": (self.time, total)}
        return np.concatenate([episode, np.float32([self.time]), total])

    def step(self, action):
        assert action in self.action_space
        self.time, self.total = self.time + 1, self.total * 3 + int(action) - START + self.time
        ended, terminates = self.time == LENGTHS[self.episode % len(LENGTHS)], self.episode % 2 == 0
        return (
            self._observe(),
            np.cos(self.total),
            ended and terminates,
            ended and not terminates,
            {},
        )


def toys(mode, B=3, nested=False):
    makers = [lambda first=100 * i + i: Toy(first, nested) for i in range(B)]
    return SyncVectorEnv(makers, autoreset_mode=MODES[mode])


def make_agent(envs, core="s5", sharp=1e6):
    agent = ActorCritic(
        envs.single_observation_space, envs.single_action_space, SHAPES[core], seed=3
    )
    agent.parameter_vector += 0.3 * np.random.default_rng(3).standard_normal(
        agent.parameter_vector.size
    )
    agent.parameters()["actor/out/kernel"][:] *= sharp
    return agent


def collect(mode, T=40, core="s5", **options):
    envs = toys(mode, **options)
    collector = Collector(make_agent(envs, core), envs)
    rollout, ended = collector.collect(T, np.random.default_rng(0))
    return collector, rollout, ended


def episodes(rollout, i):
    """Return the indices of the steps that count, for each whole episode of environment i."""
    steps = np.flatnonzero(rollout.valid[:, i])
    ends = np.flatnonzero(rollout.done[steps, i]) + 1
    return np.split(steps, ends)[:-1]


FIELDS = (
    "x",
    "reset",
    "actions",
    "log_probs",
    "values",
    "next_values",
    "rewards",
    "terminated",
    "done",
)


def test_modes_are_as_named():
    for name, mode in MODES.items():
        assert autoreset_mode(toys(name)) == mode
    assert autoreset_mode(make_vec("MemoryChain", 2)) == SAME_STEP
    assert autoreset_mode(gym.make_vec("CartPole-v1", 2)) == NEXT_STEP == AutoresetMode.NEXT_STEP


@modes
@pytest.mark.parametrize("nested", [False, True], ids=["array", "nested"])
def test_inputs_around_a_reset(mode, nested):
    """The first step of an episode has flag 1 and no previous action.

    Every other has flag 0 and the action just taken.
    """
    collector, rollout, _ = collect(mode, nested=nested)
    agent, B = collector.agent, 3
    size = agent.observation_encoder.size
    flag, previous = rollout.x[..., -1], rollout.x[..., size:-1]
    assert (
        rollout.x.shape == (40, B, size + 3 + 1)
        and rollout.reset.dtype == rollout.valid.dtype == bool
    )
    np.testing.assert_array_equal(flag, rollout.reset)
    assert rollout.reset[0].all()
    for i in range(B):
        whole = episodes(rollout, i)
        assert len(whole) >= 10 and {len(steps) for steps in whole} == set(LENGTHS)
        for number, steps in enumerate(whole):
            np.testing.assert_array_equal(steps, steps[0] + np.arange(len(steps)))
            np.testing.assert_array_equal(rollout.reset[steps, i], np.arange(len(steps)) == 0)
            np.testing.assert_array_equal(previous[steps[0], i], 0)
            np.testing.assert_array_equal(
                previous[steps[1:], i], np.eye(3)[rollout.actions[steps[:-1], i]]
            )
            # its number
            np.testing.assert_allclose(rollout.x[steps, i, 0], np.sin(101 * i + number), atol=1e-6)


def test_only_next_step_has_steps_that_do_not_count():
    for mode in MODES:
        _, rollout, _ = collect(mode)
        expected = np.ones_like(rollout.valid)
        if mode == "next":
            expected[1:] = ~rollout.done[:-1]
        np.testing.assert_array_equal(rollout.valid, expected)
        assert not (rollout.terminated & ~rollout.done).any()


@pytest.mark.parametrize("core", SHAPES)
@pytest.mark.parametrize("nested", [False, True], ids=["array", "nested"])
def test_modes_give_the_same_learning_data(core, nested):
    _, same, _ = collect("same", core=core, nested=nested)
    for mode in ("next", "disabled"):
        _, other, _ = collect(mode, core=core, nested=nested)
        for i in range(3):
            pairs = list(zip(episodes(same, i), episodes(other, i), strict=False))
            assert len(pairs) >= 10
            for here, there in pairs:
                for name in FIELDS:
                    one, two = getattr(same, name)[here, i], getattr(other, name)[there, i]
                    # nothing follows a terminated step: whatever is there is not used
                    if name == "next_values":
                        one, two = one[~same.terminated[here, i]], two[~same.terminated[here, i]]
                    np.testing.assert_allclose(
                        one, two, rtol=1e-9, atol=1e-9, err_msg=f"{mode} {name}"
                    )


@modes
@pytest.mark.parametrize("nested", [False, True], ids=["array", "nested"])
def test_next_values(mode, nested):
    """Each episode, played again from nothing, has the same values and next values.

    Its true last observation is included.
    """
    collector, rollout, _ = collect(mode, nested=nested)
    agent, truncated = collector.agent, 0
    for i in range(3):
        toy = Toy(101 * i, nested)
        for steps in episodes(rollout, i):
            x = list(rollout.x[steps, i])
            toy.reset()
            for action in rollout.actions[steps, i]:
                last = toy.step(START + action)[0]
            batch = rebuild(last, iter([np.asarray(leaf)[None] for leaf in leaves(last)]))
            x.append(
                agent.encode(batch, np.eye(3)[[rollout.actions[steps[-1], i]]], np.zeros(1, bool))[
                    0
                ]
            )
            reset = np.arange(len(x))[:, None] == 0
            params, values, _, _ = agent.forward(
                np.stack(x)[:, None], reset, agent.initial_state(1)
            )
            np.testing.assert_allclose(rollout.values[steps, i], values[:-1, 0], rtol=1e-9)
            keep = ~rollout.terminated[steps, i]
            np.testing.assert_allclose(
                rollout.next_values[steps, i][keep], values[1:, 0][keep], rtol=1e-9
            )
            truncated += keep[-1]
    assert truncated >= 10


@modes
@pytest.mark.parametrize("resets", [True, False])
def test_replay_from_initial_state(mode, resets):
    """The third rollout, replayed from its stored state with its flags.

    Values and log-probabilities are those of acting.
    """
    envs = toys(mode)
    config = AgentConfig((8,), (8,), core_config=S5Config(n_layers=2, ssm_size=8, resets=resets))
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, config, seed=3)
    collector, rng = Collector(agent, envs), np.random.default_rng(0)
    for _ in range(3):
        before = collector.state.copy()
        rollout, _ = collector.collect(10, rng)
        np.testing.assert_array_equal(rollout.initial_state, before)
    assert rollout.initial_state.any() and rollout.reset.any() and not rollout.reset[0].all()
    params, values, memory, _ = agent.forward(rollout.x, rollout.reset, rollout.initial_state)
    np.testing.assert_allclose(values, rollout.values, rtol=1e-4, atol=1e-5)
    log_probs = agent.distribution.log_prob(params, rollout.actions)
    np.testing.assert_allclose(log_probs, rollout.log_probs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(memory, collector.state, rtol=1e-4, atol=1e-5)
    fresh = agent.forward(rollout.x, rollout.reset, np.zeros_like(rollout.initial_state))[1]
    assert np.abs(fresh - rollout.values).max() > 1e-4  # the memory was needed


@modes
def test_next_value_at_the_rollouts_end(mode):
    """Within an episode, it is the value of the next rollout's first observation."""
    envs = toys(mode)
    collector, rng = Collector(make_agent(envs), envs), np.random.default_rng(0)
    seen = 0
    for _ in range(6):
        rollout, _ = collector.collect(7, rng)
        following, _ = collector.collect(1, rng)
        inside = ~rollout.done[-1] & rollout.valid[-1]
        np.testing.assert_allclose(
            rollout.next_values[-1, inside], following.values[0, inside], rtol=1e-9
        )
        seen += inside.sum()
    assert seen > 5


@modes
def test_returns_and_lengths(mode):
    """They are those of every whole episode, across the edges of rollouts too."""
    envs = toys(mode)
    collector, rng = Collector(make_agent(envs), envs), np.random.default_rng(0)
    short, parts = [], []
    for _ in range(8):
        rollout, ended = collector.collect(5, rng)
        short += ended
        parts.append(rollout)
    _, whole, ended = collect(mode)
    expected = [
        (whole.rewards[steps, i].sum(), len(steps))
        for i in range(3)
        for steps in episodes(whole, i)
    ]
    np.testing.assert_allclose(sorted(ended), sorted(expected), rtol=1e-9)
    np.testing.assert_allclose(short, ended, rtol=1e-9)
    np.testing.assert_array_equal(np.concatenate([part.rewards for part in parts]), whole.rewards)


def test_flags_of_a_native_environment():
    """All episodes end together, at known times: flags, cues, rewards of correct answers."""
    envs = make_vec("MemoryChain", 4, 5, memory_length=3)
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, SHAPES["s5"])
    rollout, ended = Collector(agent, envs, 5).collect(8, np.random.default_rng(0))
    first = np.arange(8) % 3 == 0
    np.testing.assert_array_equal(rollout.reset, np.repeat(first[:, None], 4, 1))
    np.testing.assert_array_equal(
        rollout.terminated, np.repeat((np.arange(8) % 3 == 2)[:, None], 4, 1)
    )
    np.testing.assert_array_equal(np.abs(rollout.x[:, :, 2]), np.repeat(first[:, None], 4, 1))
    assert [length for _, length in ended] == [3] * 8 and {total for total, _ in ended} <= {
        -1.0,
        1.0,
    }
    right = rollout.actions[[2, 5]] == (rollout.x[[0, 3], :, 2] > 0)
    np.testing.assert_array_equal(rollout.rewards[[2, 5]], np.where(right, 1, -1))


@pytest.mark.parametrize("name", ["MemoryChain", "PositionOnlyCartPoleEasy"])
def test_state_dict_round_trip(name):
    """Another collector, with environments of another seed, goes on as the first does."""
    shape = AgentConfig((8,), (8,), core_config=S5Config(n_layers=1, ssm_size=8))
    envs, others = make_vec(name, 4, 1), make_vec(name, 4, 2)
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, shape)
    one, other = Collector(agent, envs, 1), Collector(agent, others, 2)
    one.collect(70, np.random.default_rng(0))
    state = one.state_dict()
    kept = {key: value.copy() for key, value in state.items()}
    expected, ended = one.collect(70, np.random.default_rng(1))
    # the state does not move on with its owner
    assert all(np.array_equal(kept[key], state[key]) for key in kept)
    other.collect(3, np.random.default_rng(0))
    for _ in range(2):  # nor with the one who took it up
        other.load_state_dict(state)
        rollout, also_ended = other.collect(70, np.random.default_rng(1))
        for mine, his in zip(expected, rollout, strict=True):
            np.testing.assert_array_equal(mine, his)
        assert ended and ended == also_ended


def test_state_of_nested_observations():
    batch = {"a": np.arange(2), "b": (np.ones((2, 1)), {"c": np.zeros(2)})}
    assert [leaf.shape for leaf in leaves(batch)] == [(2,), (2, 1), (2,)]
    again = rebuild(batch, iter([leaf + 1 for leaf in leaves(batch)]))
    np.testing.assert_array_equal(again["a"], [1, 2])
    assert again["b"][0].shape == (2, 1) and again["b"][1]["c"].tolist() == [1, 1]


def test_state_dict_of_foreign_environments():
    """The caller restores the environments' own state; with that, the rest goes on."""
    collector, first, _ = collect("next", T=7, nested=True)
    state = collector.state_dict()
    assert {"obs/0", "obs/1", "obs/2", "memory", "resetting", "returns"} <= set(state)
    _, whole, _ = collect("next", T=20, nested=True)
    other = Collector(collector.agent, toys("next", nested=True))
    other.load_state_dict(state)
    other.envs, other.door = collector.envs, collector.door
    rollout, _ = other.collect(13, np.random.default_rng(0))
    for name in FIELDS:
        here = np.concatenate([getattr(first, name), getattr(rollout, name)])
        np.testing.assert_allclose(here, getattr(whole, name), rtol=1e-9, atol=1e-9, err_msg=name)
