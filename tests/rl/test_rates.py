"""Slower learning of S5's eigenvalues and steps: which parameters, and by how much."""

import dataclasses

import numpy as np
import pytest

import minis5
from minis5.nn.s5_core import S5Config
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.ppo import PPO
from minis5.rl.rates import rates

ONE_STEP = PPOConfig(num_envs=4, unroll=8, epochs=1, minibatches=1, lr=1e-2)
SLOW = {
    f"core/layers/{i}/ssm/{name}" for i in (0, 1) for name in ("Lambda_re", "Lambda_im", "log_step")
}


def make_ppo(factor, core="s5", config=ONE_STEP):
    envs = minis5.make_vec("RepeatPreviousEasy", 4, 0)
    more = {"core_config": S5Config(n_layers=2, ssm_size=8)} if core == "s5" else {}
    if core == "gru":
        more = {"core_config": minis5.nn.gru.GRUConfig(4)}
    shape = AgentConfig((6,), (5,), core=core, dtype="float64", **more)
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, shape)
    return PPO(agent, envs, dataclasses.replace(config, ssm_lr_factor=factor))


def changes(factor, **options):
    """Return what one iteration adds to each parameter."""
    ppo = make_ppo(factor, **options)
    before = {name: value.copy() for name, value in ppo.agent.parameters().items()}
    ppo.iteration()
    return {name: value - before[name] for name, value in ppo.agent.parameters().items()}


def test_which_parameters():
    agent = make_ppo(0.25).agent
    factors = {name: np.unique(view) for name, view in agent.views(rates(agent, 0.25)).items()}
    assert set(factors) == set(agent.parameters()) > SLOW
    for name, found in factors.items():
        np.testing.assert_array_equal(found, [0.25 if name in SLOW else 1.0])
    assert rates(agent, 1.0) is None and make_ppo(1.0).adam.rates is None
    assert rates(make_ppo(0.25, core="gru").agent, 0.25) is None


@pytest.mark.parametrize("factor", [0.0, 0.25, 3.0])
def test_a_step_is_that_much_smaller(factor):
    """After one step from the same parameters: the others have the same bits."""
    plain, scaled = changes(1.0), changes(factor)
    for name, change in plain.items():
        if name in SLOW:
            assert np.abs(change).min() > 0
            np.testing.assert_allclose(scaled[name], factor * change, rtol=1e-9, atol=1e-15)
        else:
            np.testing.assert_array_equal(scaled[name], change)


def test_a_run_goes_on_at_its_rates():
    """Λ and Δ stay where they are with factor 0, over iterations and in a trainer taken up."""
    config = dataclasses.replace(ONE_STEP, epochs=2, minibatches=2)
    ppo, other = make_ppo(0.0, config=config), make_ppo(0.0, config=config)
    first = ppo.agent.parameter_vector.copy()
    ppo.learn(3 * 32)
    other.agent.parameter_vector[:] = ppo.agent.parameter_vector
    other.load_state_dict(ppo.state_dict())
    ppo.learn(6 * 32)
    other.learn(6 * 32)
    np.testing.assert_array_equal(ppo.agent.parameter_vector, other.agent.parameter_vector)
    for name, view in ppo.agent.views(first).items():
        assert np.array_equal(view, ppo.agent.parameters()[name]) == (name in SLOW)
