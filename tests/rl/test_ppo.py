"""PPO: a whole update against the same steps of the specification, its switches, learning.

The loss alone: tests/rl/test_loss.py. Training by several processes: tests/rl/test_comm.py.
Training on a GPU: tests/rl/test_cuda_training.py.
"""

import dataclasses
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from minis5 import reference as ref
from minis5.envs.registry import make_vec
from minis5.nn.cores import NoConfig
from minis5.nn.gru import GRUConfig
from minis5.nn.lstm import LSTMConfig
from minis5.nn.mlp import MLPConfig
from minis5.nn.s5_core import S5Config
from minis5.rl.agent import ActorCritic
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.gae import gae
from minis5.rl.ppo import PPO, Passes
from minis5.rl.rollout import Rollout

SMALL = PPOConfig(
    num_envs=4, unroll=6, epochs=2, minibatches=2, lr=1e-2, max_grad_norm=0.3, entropy_coef=0.01
)
TIMES = ("seconds", "steps_per_second")


def make_ppo(
    config=SMALL, *, dtype="float64", core="s5", env="MemoryChain", seed=0, scale=1.0, **options
):
    shape = AgentConfig(
        (6,), (5,), core=core, core_config=CORES[core], dtype=dtype, observation_scale=scale
    )
    envs = make_vec(
        env,
        config.num_envs,
        seed,
        **({"memory_length": 4} if env == "MemoryChain" else {}) | options,
    )
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, shape, seed)
    return PPO(agent, envs, config, seed=seed)


CORES = {"s5": S5Config(n_layers=1, ssm_size=4), "none": NoConfig()}
CORES |= {"gru": GRUConfig(), "lstm": LSTMConfig(), "mlp": MLPConfig((16,))}
MEMORYLESS = "none", "mlp"


def without_times(rows):
    return [{name: str(value) for name, value in row.items() if name not in TIMES} for row in rows]


# A whole update


def fixed_rollout(ppo, T, truncated_too=True):
    """Return a rollout with ends of both kinds, next values, and steps that do not count."""
    rollout, _ = ppo.collector.collect(T, np.random.default_rng(9))
    rng = np.random.default_rng(8)
    shape = rollout.rewards.shape
    done, valid = rng.random(shape) < 0.3, rng.random(shape) < 0.6
    values = rollout.values + 0.2 * rng.standard_normal(shape)
    return rollout._replace(
        rewards=rng.standard_normal(shape),
        next_values=rng.standard_normal(shape),
        values=values,
        done=done,
        terminated=done & (rng.random(shape) < 0.5 if truncated_too else True),
        valid=valid,
        log_probs=rollout.log_probs + 0.2 * rng.standard_normal(shape),
    )


def reference_gradient(agent, rollout, batch, group, config, h=1e-6):
    """Return central differences of the specification's agent and loss along every parameter."""
    x, reset, initial_state = (
        rollout.x[:, group],
        rollout.reset[:, group],
        rollout.initial_state[:, group],
    )

    def loss(flat):
        params, value, _ = ref.agent(
            agent.views(flat), agent.config, x, reset, initial_state, ref.stack
        )
        return ref.ppo_loss(
            ref.categorical,
            params,
            value,
            batch,
            clip=config.clip,
            value_coef=config.value_coef,
            entropy_coef=config.entropy_coef,
            clip_value=config.clip_value,
        )

    gradient = np.zeros(agent.parameter_vector.size)
    for i in range(gradient.size):
        ahead, behind = agent.parameter_vector.copy(), agent.parameter_vector.copy()
        ahead[i] += h
        behind[i] -= h
        gradient[i] = (loss(ahead) - loss(behind)) / (2 * h)
    return gradient


@pytest.mark.parametrize("termination", [False, True])
def test_a_whole_update_equals_the_reference(termination):
    """Advantages, their normalisation, loss, gradient, clipping by the norm, Adam.

    Minibatch after minibatch.
    """
    config = dataclasses.replace(
        SMALL, epochs=1, unroll=4, adam_eps=1e-3, truncation_is_termination=termination
    )
    ppo = make_ppo(config)
    agent, lr = ppo.agent, 3e-3
    agent.parameter_vector += 0.2 * np.random.default_rng(4).standard_normal(
        agent.parameter_vector.size
    )
    rollout = fixed_rollout(ppo, 4)
    assert (rollout.done & ~rollout.terminated).any()
    ended = rollout.done if termination else rollout.terminated
    inputs = (rollout.rewards, rollout.values, rollout.next_values, ended, rollout.done)
    advantages = ref.gae(*inputs, config.gamma, config.gae_lambda)
    seen = []
    gradient = ppo.gradient
    ppo.gradient = lambda rollout, group, batch, count: (
        seen.append(group) or gradient(rollout, group, batch, count)
    )
    twin = ActorCritic(agent.observation_space, agent.action_space, agent.config)
    twin.parameter_vector[:] = agent.parameter_vector
    stats, norm = ppo.update(rollout, lr)
    assert sorted(np.concatenate(seen)) == [0, 1, 2, 3] and len(seen) == 2

    moments, norms = [{"all": np.zeros(twin.parameter_vector.size)} for _ in range(2)], []
    for step, group in enumerate(seen, start=1):
        fields = {
            name: getattr(rollout, name)[:, group]
            for name in ("actions", "log_probs", "values", "valid")
        }
        part = advantages[:, group]
        counted = part[fields["valid"]]
        normal = (part - counted.mean()) / (counted.std() + 1e-8)
        batch = SimpleNamespace(advantages=normal, returns=part + fields["values"], **fields)
        grads = {"all": reference_gradient(twin, rollout, batch, group, config)}
        grads, length = ref.clip_by_global_norm(grads, config.max_grad_norm)
        new, *moments = ref.adam_step(
            {"all": twin.parameter_vector}, grads, *moments, step, lr=lr, eps=config.adam_eps
        )
        twin.parameter_vector[:] = new["all"]
        norms.append(length)
    assert max(norms) > config.max_grad_norm  # the clip was at work
    np.testing.assert_allclose(norm, np.mean(norms), rtol=1e-6)
    np.testing.assert_allclose(
        agent.parameter_vector, twin.parameter_vector, rtol=0, atol=1e-6 * lr
    )


def batches(ppo, rollout):
    """Return the minibatches that an update learns from, with their counts."""
    seen, gradient = [], ppo.gradient
    ppo.gradient = lambda r, g, batch, count: (
        seen.append((batch, count)) or gradient(r, g, batch, count)
    )
    ppo.update(rollout, 1e-3)
    return seen


def test_advantages_are_normalised_over_what_counts():
    ppo = make_ppo()
    for batch, count in batches(ppo, fixed_rollout(ppo, 6)):
        counted = batch.advantages[batch.valid]
        assert count == counted.size < batch.valid.size
        np.testing.assert_allclose([counted.mean(), counted.std()], [0, 1], atol=1e-6)


def test_advantages_as_they_are():
    config = dataclasses.replace(SMALL, normalize_advantages=False)
    ppo = make_ppo(config)
    for batch, _ in batches(ppo, fixed_rollout(ppo, 6)):
        np.testing.assert_allclose(
            batch.advantages, batch.returns - batch.values, rtol=1e-12, atol=1e-12
        )


def test_rewards_are_scaled_before_all_else():
    """Scale s gives the update that rewards of s times the size give.

    The reported figures stay as they are.
    """
    updates = []
    for scale, factor in ((0.25, 1.0), (1.0, 0.25)):
        ppo = make_ppo(dataclasses.replace(SMALL, reward_scale=scale))
        rollout = fixed_rollout(ppo, 4)
        stats, _ = ppo.update(rollout._replace(rewards=rollout.rewards * factor), 1e-3)
        updates.append((stats, ppo.agent.parameter_vector))
    np.testing.assert_array_equal(updates[0][0], updates[1][0])
    np.testing.assert_array_equal(updates[0][1], updates[1][1])
    plain = make_ppo(SMALL)
    plain.update(fixed_rollout(plain, 4), 1e-3)
    assert not np.array_equal(plain.agent.parameter_vector, updates[0][1])
    rows = [make_ppo(dataclasses.replace(SMALL, reward_scale=s)).iteration() for s in (0.25, 1.0)]
    assert (
        rows[0]["return"] == rows[1]["return"] != 0
        and rows[0]["value_loss"] != rows[1]["value_loss"]
    )


@pytest.mark.parametrize("scale", [1.0, 7.0])
def test_trial_horizon(monkeypatch, scale):
    """Advantages end where a trial ends.

    In MemoryChain these are the steps with a reward, also if they end a rollout or an episode.
    """
    seen = []
    monkeypatch.setattr("minis5.rl.ppo.gae", lambda *inputs: seen.append(inputs) or gae(*inputs))
    config = dataclasses.replace(SMALL, trial_horizon=True)
    ppo = make_ppo(config, scale=scale, trials=3)
    for _ in range(4):  # 24 steps: a rollout's last step ends a trial, an episode or nothing
        rollout, _ = ppo.collector.collect(config.unroll, np.random.default_rng(9))
        ppo.update(rollout, 1e-3)
        rewards, values, next_values, terminated, done, *rest = seen[-1]
        ended = rollout.rewards != 0
        np.testing.assert_array_equal(done, ended)
        np.testing.assert_array_equal(terminated, ended)
        assert ended.any() and (ended & ~rollout.done).any()
        expected = ref.gae(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            ended,
            ended,
            config.gamma,
            config.gae_lambda,
        )
        np.testing.assert_allclose(
            gae(rewards, values, next_values, terminated, done, *rest), expected, rtol=1e-12
        )
    with pytest.raises(
        ValueError, match=r"^trial_horizon: .* whose last number is in \[0, 1\] and .*, got Box"
    ):
        make_ppo(config)


def test_truncation_is_termination():
    """The switch changes what a truncated step is worth; with terminations alone, nothing."""
    for both, differ in ((True, True), (False, False)):
        weights = []
        for switch in (True, False):
            ppo = make_ppo(dataclasses.replace(SMALL, truncation_is_termination=switch))
            ppo.update(fixed_rollout(ppo, 6, truncated_too=both), 1e-3)
            weights.append(ppo.agent.parameter_vector.copy())
        assert differ == (not np.array_equal(*weights))


def test_kl_stop():
    """Passes end after the one whose mean KL exceeds the target; the first always happens."""
    passes = {}
    for target in (None, 1e9, 1e-12):
        ppo = make_ppo(dataclasses.replace(SMALL, epochs=5, target_kl=target))
        ppo.iteration()
        passes[target] = ppo.adam.moments.steps[0] / SMALL.minibatches
    # in the first pass the first minibatch has KL 0, the second one not: the mean of the pass is
    # above 1e-12
    assert passes == {None: 5, 1e9: 5, 1e-12: 1}


def test_annealing():
    config = dataclasses.replace(SMALL, anneal_lr=True)
    steps = config.num_envs * config.unroll
    rows = make_ppo(config).learn(4 * steps)
    np.testing.assert_allclose([row["lr"] for row in rows], [1e-2, 0.75e-2, 0.5e-2, 0.25e-2])
    assert {row["lr"] for row in make_ppo().learn(2 * steps)} == {1e-2}


# Rows, repeatability, state


class Still(gym.Env):
    """Nothing happens, whatever the seed."""

    observation_space, action_space = (
        gym.spaces.Box(-1, 1, (2,), np.float32),
        gym.spaces.Discrete(2),
    )

    def __init__(self, reward=0.0):
        self.reward = reward

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), self.reward, False, False, {}


def still_ppo(reward=0.0, seed=0):
    envs = gym.vector.SyncVectorEnv([lambda: Still(reward)] * 4)
    agent = ActorCritic(
        envs.single_observation_space, envs.single_action_space, AgentConfig((6,), (5,))
    )
    return PPO(agent, envs, SMALL, seed=seed)


def test_rows():
    ppo = make_ppo()
    stopped = ppo.learn(10**6, callback=lambda row: row["update"] == 5)
    assert (
        [row["step"] for row in stopped] == [24, 48, 72, 96, 120]
        and ppo.steps == 120
        and ppo.updates == 5
    )
    assert stopped[-1]["episodes"] == 4 * (30 // 4)
    # episodes of 4 steps end in rollouts of 6 steps: 1, 2, 1, 2, ... times in each environment
    assert [row["episodes"] for row in stopped] == [4, 12, 16, 24, 28]
    for row in stopped:
        assert row["length"] == 4 and -1 <= row["return"] <= 1
        assert np.isfinite(list(row.values())).all() and row["grad_norm"] > 0 and row["entropy"] > 0
        assert row["seconds"] > 0 and row["steps_per_second"] > 0
    long = make_ppo(memory_length=50)
    assert np.isnan(long.iteration()["return"])


def test_same_seed_same_run():
    runs = []
    for seed in (0, 0, 1):
        ppo = make_ppo(dtype="float32", seed=seed)
        runs.append(
            (without_times([ppo.iteration() for _ in range(4)]), ppo.agent.parameter_vector)
        )
    assert runs[0][0] == runs[1][0] and np.array_equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]


def test_seed_draws_actions_and_minibatches():
    """Anew in every iteration. Environments and weights are the same for every seed here."""
    drawn = []
    for seed in (0, 0, 1):
        ppo, actions, groups = still_ppo(seed=seed), [], []
        gradient = ppo.gradient

        def listen(rollout, group, *rest, actions=actions, groups=groups, gradient=gradient):
            actions.append(rollout.actions.tobytes())
            groups.append(group.tobytes())
            return gradient(rollout, group, *rest)

        ppo.gradient = listen
        for _ in range(6):
            ppo.iteration()
        passes = SMALL.epochs * SMALL.minibatches
        assert len(groups) == 6 * passes and len(set(actions)) == 6
        assert groups[:passes] != groups[passes : 2 * passes]
        drawn.append((actions, groups))
    assert drawn[0] == drawn[1]
    assert drawn[0][0][0] != drawn[2][0][0] and drawn[0][1] != drawn[2][1]


@pytest.mark.parametrize("env", ["MemoryChain", "PositionOnlyCartPoleEasy"])
def test_state_dict_goes_on_bit_for_bit(env):
    """A PPO with environments and weights of another seed takes up an annealed run midway."""
    config, total = dataclasses.replace(SMALL, anneal_lr=True), 8 * 24
    whole = make_ppo(config, dtype="float32", env=env)
    first = whole.learn(total, callback=lambda row: row["update"] == 4)
    state, weights = whole.state_dict(), whole.agent.parameter_vector.copy()
    state = {name: np.array(value) for name, value in state.items()}
    later = first + whole.learn(total)
    assert [row["update"] for row in later] == list(range(1, 9))

    other = make_ppo(config, dtype="float32", env=env)
    other.collector.envs.reset(seed=77)
    other.iteration()
    other.agent.parameter_vector[:] = weights
    other.load_state_dict(state)
    # the total, which the rate is annealed by, is in the state
    again = [other.iteration() for _ in range(4)]
    assert without_times(again) == without_times(later[4:])
    np.testing.assert_array_equal(other.agent.parameter_vector, whole.agent.parameter_vector)
    for name, value in whole.state_dict().items():
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(other.state_dict()[name], value, err_msg=name)


def test_passes_run_on_the_cpu():
    """The agent lives there. (On a GPU: tests/rl/test_cuda_training.py.)"""
    assert type(make_ppo().passes) is Passes


# Learning


LEARNER = PPOConfig(num_envs=32, unroll=32, epochs=4, minibatches=4, lr=3e-3)


@pytest.mark.parametrize("core", CORES)
def test_learns_a_tiny_memory_task(core):
    """In MemoryChain of length 5, an agent with memory answers correctly.

    An agent without memory can only guess: its mean return is 0.
    """
    envs = make_vec("MemoryChain", LEARNER.num_envs, memory_length=5)
    shape = AgentConfig((16,), (16,), core=core, core_config=CORES[core])
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, shape)
    rows = PPO(agent, envs, LEARNER).learn(60 * 1024, callback=lambda row: row["return"] >= 0.95)
    best = max(row["return"] for row in rows)
    assert best <= 0.3 if core in MEMORYLESS else best >= 0.9, [
        round(row["return"], 2) for row in rows
    ]


# Mistakes


def test_environments_that_do_not_fit():
    ppo = make_ppo()
    with pytest.raises(
        ValueError, match="num_envs: expected 4 environments on each of 1 ranks, got 6"
    ):
        PPO(ppo.agent, make_vec("MemoryChain", 6), SMALL)
    with pytest.raises(ValueError, match="envs: expected the agent's spaces .*Discrete.2.* got .*"):
        PPO(ppo.agent, make_vec("RepeatPreviousEasy", 4), SMALL)


def test_rewards_that_are_not_finite():
    """They are named where they enter, and leave the weights good."""
    ppo = still_ppo(reward=float("nan"))
    before = ppo.agent.parameter_vector.copy()
    with pytest.raises(ValueError, match="reward: expected a finite number, got nan .env"):
        ppo.iteration()
    np.testing.assert_array_equal(ppo.agent.parameter_vector, before)


def test_a_rollout_names_its_parts():
    """Every field of a rollout is (T, B, ...), except the memory."""
    ppo = make_ppo()
    rollout, _ = ppo.collector.collect(5, np.random.default_rng(0))
    for name in set(Rollout._fields) - {"initial_state", "masks", "groups"}:
        assert getattr(rollout, name).shape[:2] == (5, 4), name
    assert rollout.initial_state.shape[1] == 4
    assert rollout.masks is None  # these environments have none
