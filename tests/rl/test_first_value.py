"""The critic's start: the specification's numbers, alone or over ranks, once, and harmless."""

import numpy as np
import pytest
from small_runs import TINY, UPDATE, assert_same_run

import minis5
from minis5.reference import first_value
from minis5.rl.comm import Comm
from minis5.rl.config import PPOConfig
from minis5.rl.first_value import BIAS, KERNEL, affine_fit, start_critic
from minis5.rl.ppo import PPO
from minis5.run.train import resume, train


def rollout(rng, shape=(20, 6)):
    """Return rewards, values, next_values, terminated, valid."""
    numbers = rng.standard_normal((3, *shape)).astype(np.float32)
    return *numbers, rng.random(shape) < 0.1, rng.random(shape) < 0.9


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("kind", ["random", "near"])
def test_it_is_the_specifications(gamma, kind):
    rewards, values, next_values, terminated, valid = rollout(np.random.default_rng(0))
    if kind == "near":  # values that explain some of the rewards
        rewards = values - gamma * ~terminated * next_values + 0.3 * rewards
    parts = rewards, values, next_values, terminated, valid
    k, c = affine_fit(*parts, gamma, Comm())
    assert (k, c) == pytest.approx(first_value(*parts, gamma), rel=1e-5)
    assert 0 < k < 1 if kind == "near" else 0 <= k <= 1
    follows = gamma * ~terminated
    errors = rewards + follows * (k * next_values + c) - (k * values + c)
    assert abs(errors[valid].sum()) < 1e-4  # what they are for
    if kind == "near":
        assert abs((values * errors)[valid].sum()) < 1e-4


def test_known_values():
    """A reward of -1 for ever is worth -1/(1 - γ); one that ends an episode at once, -1."""
    rng, never = np.random.default_rng(2), np.zeros((5, 2), bool)
    rewards, noise = -np.ones((5, 2)), rng.standard_normal((2, 5, 2))
    assert affine_fit(rewards, *noise, never, ~never, 0.99, Comm()) == pytest.approx((0, -100))
    assert affine_fit(rewards, *noise, ~never, ~never, 0.99, Comm()) == pytest.approx((0, -1))
    assert affine_fit(rewards, *noise, never, ~never, 1.0, Comm()) == (1, 0)
    assert affine_fit(rewards, *noise, never, never, 0.9, Comm()) == (1, 0)


def test_a_critic_that_fits_stays():
    rng, ends = np.random.default_rng(3), np.zeros((30, 4), bool)
    ends[-1] = True
    rewards, values = rng.standard_normal((30, 4)), np.zeros((31, 4))
    for t in reversed(range(30)):
        values[t] = rewards[t] + 0.9 * values[t + 1]
    past = values[:-1], np.where(ends, 7.0, values[1:])  # nothing follows an end
    assert affine_fit(rewards, *past, ends, ~ends, 0.9, Comm())[0] == pytest.approx(1)
    found = affine_fit(rewards, *past, ends, np.ones_like(ends), 0.9, Comm())
    assert found == pytest.approx((1, 0), abs=1e-9)


def test_ranks_find_what_fits_all_environments():
    parts = rollout(np.random.default_rng(1))
    halves = [[z[:, part] for z in parts] for part in (slice(0, 2), slice(2, 6))]
    sums = []

    class Rank(Comm):
        def allreduce(self, vector):
            sums.append(vector)
            return sum(sums)

    affine_fit(*halves[0], 0.9, Rank())
    assert affine_fit(*halves[1], 0.9, Rank()) == pytest.approx(affine_fit(*parts, 0.9, Comm()))


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
        assert moved == ({BIAS, KERNEL} if asked else set())
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
    one = np.polyfit(rollout.values.ravel(), shifted.values.ravel(), 1)  # k and c
    expected = np.polyval(one, rollout.next_values)
    np.testing.assert_allclose(shifted.next_values, expected, atol=1e-5)


def test_runs_repeat_and_resume(tmp_path):
    options = {"overrides": TINY | {"center_values": True}, "workers": 2, "quiet": True}
    options |= {"env_options": {"memory_length": 3}, "eval_episodes": 4}
    train("MemoryChain", steps=3 * UPDATE, out=tmp_path / "whole", **options)
    train("MemoryChain", steps=UPDATE, out=tmp_path / "run", **options)
    resume(tmp_path / "run", steps=3 * UPDATE, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
