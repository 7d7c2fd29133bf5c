"""What an agent refuses, and that it can be copied and pickled.

A wrong shape or dtype given to forward, backward, act, encode or a stepper is named, with what was
expected; it reaches no compiled loop.
"""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest

import minis5
from minis5.nn.cores import CORES
from minis5.rl.agent import ActorCritic, Memory

SENTENCE = r"expected .*, got .*; "
T, B = 4, 3
SPACES = gym.spaces.Box(-1, 1, (3,)), gym.spaces.MultiDiscrete([2, 3])
CONFIGS = {"s5": minis5.S5Config(n_layers=2, ssm_size=4), "gru": minis5.GRUConfig(hidden=3)}
CONFIGS |= {"attention": minis5.AttentionConfig(n_heads=1, window=3, mlp_width=4)}


def agent_with(core="s5", actions=SPACES[1], dtype="float32", seed=0):
    configuration = CONFIGS.get(core, CORES[core][0]())
    config = minis5.AgentConfig((5, 6), (4,), "relu", core, configuration, dtype)
    return ActorCritic(SPACES[0], actions, config, seed)


def inputs(agent):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, agent.input_size)).astype(agent.dtype)
    return {"x": x, "reset": rng.random((T, B)) < 0.3, "state": agent.initial_state(B)}


AGENT = agent_with()


@pytest.mark.parametrize(
    "name, change",
    [
        ("x", lambda x: x[0]),
        ("x", lambda x: x[..., 1:]),
        ("x", lambda x: x.astype(np.float64)),
        ("x", lambda x: x.tolist()),
        ("x", lambda x: None),
        ("reset", lambda r: r.T),
        ("reset", lambda r: r.astype(int)),
        ("reset", lambda r: None),
        ("state", lambda s: s[:, :2]),
        ("state", lambda s: s[:1]),
        ("state", lambda s: s[..., :3]),
        ("state", lambda s: s.astype(np.float64)),
        ("state", lambda s: None),
    ],
)
def test_arguments_of_forward_and_of_a_step(name, change):
    right = inputs(AGENT)
    wrong = right | {name: change(right[name])}
    with pytest.raises((TypeError, ValueError), match=f"^{name}: {SENTENCE}"):
        AGENT.forward(**wrong)
    step = AGENT.stepper()
    x, reset = (None if z is None else z[0] for z in (wrong["x"], wrong["reset"]))
    if name == "reset" and reset is not None:
        reset = reset[:2].astype(bool)
    for call in (step, step.features):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: {SENTENCE}"):
            call(x, reset, wrong["state"])
        call(right["x"][0], right["reset"][0], right["state"])


def test_heads_take_features():
    step = AGENT.stepper()
    for wrong in (np.ones((2, 5), np.float32), np.ones((2, 6)), None, "text", np.float32(1)):
        for head in (step.policy, step.value):
            with pytest.raises((TypeError, ValueError), match=f"^features: {SENTENCE}"):
                head(wrong)
    many = np.ones((7, 2, 6), np.float32)
    assert step.value(many).shape == (7, 2)
    with pytest.raises(ValueError, match=f"^features: {SENTENCE}"):
        step.policy(many)  # of one step only


def test_arguments_of_backward():
    params, value, _, cache = AGENT.forward(**inputs(AGENT))
    for name, arguments in [
        ("d_dist", (params[..., :2], value, cache)),
        ("d_dist", (params.astype(np.float64), value, cache)),
        ("d_dist", (None, value, cache)),
        ("d_value", (params, value[..., None], cache)),
        ("d_value", (params, value.T, cache)),
        ("d_value", (params, 0.0, cache)),
        ("cache", (params, value, None)),
        ("cache", (params, value, tuple(cache))),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: {SENTENCE}"):
            AGENT.backward(*arguments)
    AGENT.backward(params, value, cache)


@pytest.mark.parametrize("core", CORES)
def test_arguments_of_act(core):
    agent, obs = agent_with(core), np.zeros((B, 3), np.float32)
    start = np.ones(B, bool)
    action, memory = agent.act(obs, None, start)
    assert action.shape == (B, 2)
    state, previous = memory
    for name, arguments in [
        ("reset", (obs, memory, True)),
        ("reset", (obs, memory, np.ones((B, 1), bool))),
        ("reset", (obs, memory, np.ones(B))),
        ("reset", (obs, memory, ["a", "b", "c"])),
        ("reset", (obs, memory, [[True], [True, False]])),
        ("reset", (obs, memory, None)),
        ("previous_action", (obs[:2], None, start)),
        ("memory", (obs, memory, start[:2])),
        ("memory", (obs, (state, previous), start)),
        ("memory", (obs, 0, start)),
        ("memory.core", (obs, Memory(state[:, :0], previous), start)),
        ("memory.core", (obs, Memory(state[None], previous), start)),
        ("memory.core", (obs, Memory(None, previous), start)),
        ("memory.previous_action", (obs, Memory(state, previous[:, :2]), start)),
        ("memory.previous_action", (obs, Memory(state, previous.astype(int)), start)),
        ("deterministic", (obs, memory, start, None)),
        ("rng", (obs, memory, start, False)),
        ("rng", (obs, memory, start, False, 0)),
    ]:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: {SENTENCE}"):
            agent.act(*arguments)
    for wrong, got in ((previous[:2], "2"), (np.zeros(()), "a single number")):
        with pytest.raises(ValueError, match=f"^memory: expected a batch of {B} as .*, got {got};"):
            agent.act(obs, Memory(state, wrong), start)
    if state.size:
        bad = Memory(np.full_like(state, np.nan), previous)
        with pytest.raises(ValueError, match=rf"^memory.core: {SENTENCE}"):
            agent.act(obs, bad, ~start)
        np.testing.assert_array_equal(agent.act(obs, bad, start)[0], action)  # forgotten
    for flags in (start.tolist(), [0, 1, 0], start.astype(np.uint8)):
        agent.act(obs, memory, flags, False, np.random.default_rng(0))


def test_arguments_of_encode():
    obs, previous, reset = np.zeros((B, 3), np.float32), np.zeros((B, 5)), np.ones(B, bool)
    for name, arguments in [
        ("previous_action", (obs, previous[:2], reset)),
        ("previous_action", (obs, previous.astype(int), reset)),
        ("previous_action", (obs, None, reset)),
        ("reset", (obs, previous, reset[:2])),
        ("reset", (obs, previous, reset.astype(int))),
        ("reset", (obs, previous, True)),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: {SENTENCE}"):
            AGENT.encode(*arguments)
    assert AGENT.encode(obs, previous, reset).shape == (B, AGENT.input_size)


def test_arguments_of_an_agent():
    for name, more in [
        ("config", {"config": CONFIGS["s5"]}),
        ("config", {"config": "s5"}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": None}),
        ("device", {"device": None}),
    ]:
        with pytest.raises((TypeError, ValueError), match=f"^{name}: expected .*, got "):
            ActorCritic(*SPACES, **more)
    for batch in (-1, 2.0, None):
        with pytest.raises(ValueError, match=f"^batch: {SENTENCE}"):
            AGENT.initial_state(batch)


# Copies


def through_pickle(x):
    return pickle.loads(pickle.dumps(x))


copies = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, through_pickle])


@copies
@pytest.mark.parametrize("core", CORES)
def test_a_copy_acts_alike(copied, core):
    agent, obs = agent_with(core, seed=3), np.ones((B, 3), np.float32)
    action, memory = agent.act(obs, None, np.ones(B, bool))  # fills what is made on first use
    other = copied(agent)
    again, memory2 = other.act(obs, None, np.ones(B, bool))
    np.testing.assert_array_equal(again, action)
    np.testing.assert_array_equal(memory2.core, memory.core)
    assert other.config == agent.config and other.device == "cpu" and other.xp is np
    assert list(other.parameters()) == list(agent.parameters())


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
def test_a_copys_parameters_are_views_of_its_own_vector(copied):
    agent = agent_with(seed=4)
    other, before = copied(agent), agent.parameter_vector.copy()
    other.parameter_vector[:] = 0
    assert all((value == 0).all() for value in other.parameters().values())
    params, value, _, _ = other.forward(**inputs(other))
    assert not value.any() and not params.any()
    np.testing.assert_array_equal(agent.parameter_vector, before)
    for name, array in other.parameters().items():
        assert np.shares_memory(array, other.parameter_vector), name


@copies
def test_a_copied_stepper_keeps_its_weights(copied):
    agent = agent_with("gru", seed=5)
    step, right = agent.stepper(), inputs(agent)
    one = right["x"][0], right["reset"][0], right["state"]
    agent.parameter_vector += 1  # the stepper has a copy of the weights as they were
    for got, expected in zip(copied(step)(*one), step(*one), strict=True):
        np.testing.assert_array_equal(got, expected)
