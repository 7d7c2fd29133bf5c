"""The types of the public interface, as a caller writes them: mypy checks this file (setup.cfg).

It calls only functions with type hints, or mypy complains. Nothing runs it.
"""

from typing import Any, assert_type

import numpy as np
from gymnasium.vector import VectorEnv

import minis5
from minis5.nn.s5 import SSMCache

Array = np.ndarray


def recurrence(a: Array, b: Array, reset: Array) -> None:
    x = minis5.scan(a, b)
    assert_type(x, Array)
    assert_type(minis5.scan(a, b, reset=reset, x0=x[0]), Array)
    assert_type(minis5.scan_vjp(a, b, reset, None, x, x), tuple[Array, Array, Array])


def layer(u: Array, reset: Array, dt: Array) -> None:
    parameters = minis5.s5.init_ssm(np.random.default_rng(0), 8, 16)
    assert_type(parameters, dict[str, Array])
    y, x_last, cache = minis5.s5.ssm_forward(
        parameters, u, reset, None, discretization="bilinear", clip_eigs=True, dt=dt
    )
    assert_type(y, Array)
    assert_type(x_last, Array)
    assert_type(cache, SSMCache)
    du, dx0, grads = minis5.s5.ssm_backward(y, None, cache)
    assert_type(du, Array)
    assert_type(dx0, Array)
    assert_type(grads, dict[str, Array])


def training() -> None:
    envs = minis5.make_vec("RepeatPreviousEasy", num_envs=8, seed=0, k=2)
    takes_any_vector_env: VectorEnv = envs
    assert_type(takes_any_vector_env.num_envs, int)
    core = minis5.S5Config(n_layers=1)
    config = minis5.AgentConfig(encoder=(32, 32), core="s5", core_config=core)
    agent = minis5.ActorCritic(
        envs.single_observation_space, envs.single_action_space, config, seed=0
    )
    assert_type(agent.config, minis5.AgentConfig)
    assert_type(agent.parameters(), dict[str, Array])
    ppo = minis5.PPO(agent, envs, minis5.PPOConfig(num_envs=8, max_grad_norm=None), seed=1)
    assert_type(ppo.config, minis5.PPOConfig)
    rows = ppo.learn(total_steps=1_000, callback=lambda row: row["steps"] > 500)
    assert_type(rows, list[dict[str, float]])


def acting(obs: Any, first: Array) -> None:
    agent = minis5.load("agent.npz")
    assert_type(agent, minis5.ActorCritic)
    action, memory = agent.act(obs, None, first)
    assert_type(action, Array)
    assert_type(memory, minis5.Memory)
    agent.act(obs, memory, ~first, deterministic=False, rng=np.random.default_rng(0))
    minis5.save(agent, "agent.npz")
