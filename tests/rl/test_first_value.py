"""The critic's start: the specification's constant, alone or over ranks, once, and harmless."""

import numpy as np
import pytest
from small_runs import TINY, UPDATE, assert_same_run

import minis5
from minis5.reference import first_value
from minis5.rl.comm import Comm
from minis5.rl.config import PPOConfig
from minis5.rl.first_value import BIAS, constant_fit, start_critic
from minis5.rl.ppo import PPO
from minis5.run.train import resume, train


def rollout(rng, shape=(20, 6)):
    """Return rewards, values, next_values, terminated, valid."""
    numbers = rng.standard_normal((3, *shape)).astype(np.float32)
    return *numbers, rng.random(shape) < 0.1, rng.random(shape) < 0.9


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_it_is_the_specifications(gamma):
    parts = rollout(np.random.default_rng(0))
    found = constant_fit(*parts, gamma, Comm())
    assert found == pytest.approx(first_value(*parts, gamma), rel=1e-6)
    rewards, values, next_values, terminated, valid = parts
    follows = gamma * ~terminated
    errors = rewards + follows * (next_values + found) - (values + found)
    assert abs(errors[valid].sum()) < 1e-4  # what it is for


def test_known_values():
    """A reward of -1 for ever is worth -1/(1 - γ); one that ends an episode at once, -1."""
    rewards, zeros, never = -np.ones((5, 2)), np.zeros((5, 2)), np.zeros((5, 2), bool)
    assert constant_fit(rewards, zeros, zeros, never, ~never, 0.99, Comm()) == pytest.approx(-100)
    assert constant_fit(rewards, zeros, zeros, ~never, ~never, 0.99, Comm()) == pytest.approx(-1)
    assert constant_fit(rewards, zeros - 100, zeros - 100, never, ~never, 0.99, Comm()) < 1e-9
    assert constant_fit(rewards, zeros, zeros, never, ~never, 1.0, Comm()) == 0.0
    assert constant_fit(rewards, zeros, zeros, never, never, 0.9, Comm()) == 0.0


def test_ranks_find_the_constant_of_all_environments():
    parts = rollout(np.random.default_rng(1))
    halves = [[z[:, part] for z in parts] for part in (slice(0, 2), slice(2, 6))]
    sums = []

    class Rank(Comm):
        def allreduce(self, vector):
            sums.append(vector)
            return sum(sums)

    constant_fit(*halves[0], 0.9, Rank())
    assert constant_fit(*halves[1], 0.9, Rank()) == pytest.approx(constant_fit(*parts, 0.9, Comm()))


def trainer(**settings):
    """Return a trainer whose Adam hardly moves anything."""
    envs = minis5.make_vec("PositionOnlyCartPoleEasy", 4, seed=3)
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space)
    config = PPOConfig(num_envs=4, unroll=16, minibatches=1, epochs=1, lr=1e-26, **settings)
    return PPO(agent, envs, config, seed=3)


@pytest.mark.parametrize("asked", [True, False])
def test_the_first_update_moves_the_critic_and_nothing_else(asked):
    ppo = trainer(center_values=asked)
    parameters = ppo.agent.parameters()
    before, first = {name: value.copy() for name, value in parameters.items()}, None
    for _ in range(3):
        ppo.iteration()
        moved = {name for name in parameters if abs(parameters[name] - before[name]).max() > 1e-20}
        assert moved == ({BIAS} if asked else set())
        first = parameters[BIAS].copy() if first is None else first
        assert abs(parameters[BIAS] - first) < 1e-20


def test_the_rollout_has_the_values_of_the_shifted_critic():
    ppo = trainer()
    rollout, _ = ppo.collector.collect(16, np.random.default_rng(0))
    args = ppo.agent, rollout, rollout.rewards, rollout.terminated, 0.9, Comm()
    shifted = start_critic(*args)
    replayed = ppo.agent.forward(rollout.x, rollout.reset, rollout.initial_state)[1]
    assert abs(shifted.values - rollout.values).min() > 1e-3
    np.testing.assert_allclose(shifted.values, replayed, atol=1e-6)
    apart = shifted.next_values - rollout.next_values
    np.testing.assert_allclose(apart, shifted.values - rollout.values, atol=1e-6)


def test_runs_repeat_and_resume(tmp_path):
    options = {"overrides": TINY | {"center_values": True}, "workers": 2, "quiet": True}
    options |= {"env_options": {"memory_length": 3}, "eval_episodes": 4}
    train("MemoryChain", steps=3 * UPDATE, out=tmp_path / "whole", **options)
    train("MemoryChain", steps=UPDATE, out=tmp_path / "run", **options)
    resume(tmp_path / "run", steps=3 * UPDATE, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
