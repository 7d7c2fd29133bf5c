"""Running normalisation: moments, observations, rewards, files, resuming and ranks."""

import copy
import pickle
from functools import partial
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers.vector import NormalizeObservation
from small_runs import FOREIGN, TINY, UPDATE, assert_same_run

import minis5
from minis5.files import CheckpointError
from minis5.nn.cores import NoConfig
from minis5.reference import normalize_observations, normalize_rewards
from minis5.rl.agent_file import start_from
from minis5.rl.comm import Comm
from minis5.rl.config import AgentConfig, PPOConfig
from minis5.rl.normalize import Moments, Normalizers, ObservationNormalizer
from minis5.rl.ppo import PPO
from minis5.run.cli import main
from minis5.run.evaluate import evaluate
from minis5.run.train import resume, train
from minis5.spaces import ObservationEncoder

BOX = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
ONE = {"core": "none", "core_config": NoConfig(), "encoder": (16,), "heads": (16,)}
SMALL = {"num_envs": 4, "unroll": 16, "minibatches": 2, "epochs": 1}


def ranks(parts):
    """Return communicators whose allreduce gives the sum of what all of ``parts`` give."""

    class Recorder(Comm):
        size = len(parts)

        def __init__(self, sums):
            self.sums, self.given = iter(sums), []

        def allreduce(self, vector):
            self.given.append(vector)
            return next(self.sums)

    return Recorder


def summed(parts):
    """Return what each rank gets from Moments.summed, by running the ranks side by side."""
    comm, sums = ranks(parts), []
    for _ in range(2):  # two reductions
        given = []
        for part in parts:
            recorder = comm([*sums, np.zeros(1)])
            try:
                part.summed(recorder)
            except ValueError:  # zeros(1) of the reduction that is not known yet
                pass
            given.append(recorder.given[len(sums)])
        sums.append(np.sum(given, axis=0))
    return [part.summed(comm(sums)) for part in parts]


# Moments


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e6, 1e9])
def test_moments_in_pieces(mean):
    """Pieces of any size, merged, have the moments of the whole; far from 0 too."""
    rng = np.random.default_rng(0)
    data = mean + rng.normal(0, [5, 0.1, 0], (1000, 3))
    moments = Moments(3)
    assert (moments.variance() == 1).all()
    for piece in np.split(data, [0, 1, 7, 7, 300]):
        part = Moments(3)
        part.add(piece)
        moments.merge(part.count, part.mean, part.squares)
    tolerance = 1e-15 * max(abs(mean), 1) * 100
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, data.mean(axis=0), atol=tolerance)
    np.testing.assert_allclose(np.sqrt(moments.variance()), data.std(axis=0), atol=tolerance)
    other = Moments(3)
    other.load(moments.to_array())
    np.testing.assert_array_equal(other.to_array(), moments.to_array())


@pytest.mark.parametrize("sizes", [(10,), (10, 1), (5, 0, 40)])
def test_moments_of_ranks(sizes):
    """Ranks that saw different amounts get the same sums: those of all data together."""
    rng = np.random.default_rng(1)
    parts, pieces = [], [1000 + 5 * rng.normal(size=(n, 2)) for n in sizes]
    for piece in pieces:
        parts.append(Moments(2))
        parts[-1].add(piece)
    data = np.concatenate(pieces)
    results = summed(parts) if len(parts) > 1 else [parts[0].summed(Comm())]
    for count, mean, squares in results:
        assert count == len(data)
        np.testing.assert_allclose(mean, data.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(squares / count, data.var(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(mean, results[0][1])


# Observations


def observe(seen):
    """Return (T, B, n) observations normalised as a rollout meets them."""
    normalizer = ObservationNormalizer(ObservationEncoder(BOX))
    out = []
    for obs in seen:
        normalizer.see(obs, np.ones(len(obs), bool))
        out.append(normalizer(normalizer.encoder.observation_vector(obs)))
    return np.stack(out)


@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_observations_equal_the_specification(mean):
    seen = np.float32(mean + np.random.default_rng(0).normal(0, [5, 0.01, 0], (60, 4, 3)))
    seen[59, 2] += 100_000  # beyond the bound
    expected = normalize_observations(seen.astype(np.float64))
    assert np.abs(expected).max() == 10
    np.testing.assert_allclose(observe(seen), expected, atol=1e-7)


def test_observations_equal_gymnasiums_wrapper():
    """Up to its first, imagined observation, which weighs 1e-4, and its missing bound."""

    class Steps(gym.vector.VectorEnv):
        num_envs, single_observation_space = 4, BOX
        observation_space = gym.vector.utils.batch_space(BOX, 4)
        metadata = {"autoreset_mode": gym.vector.AutoresetMode.NEXT_STEP}

        def reset(self, *, seed=None, options=None):
            self.t = 0
            return seen[0].copy(), {}

        def step(self, actions):
            self.t += 1
            nothing = np.zeros(4)
            return seen[self.t].copy(), nothing, nothing > 0, nothing > 0, {}

    seen = np.random.default_rng(0).normal(3, 2, (30, 4, 3))
    wrapper = NormalizeObservation(Steps())
    theirs = [wrapper.reset()[0], *(wrapper.step(None)[0] for _ in range(29))]
    np.testing.assert_allclose(observe(seen)[5:], np.array(theirs)[5:], atol=1e-3)


@pytest.mark.parametrize("one_hot", [False, True])
def test_what_is_normalised(one_hot):
    """Boxes are; one-hot vectors and bits only on request."""
    space = gym.spaces.Dict(
        a=gym.spaces.Discrete(3), b=BOX, c=gym.spaces.MultiBinary(2), d=gym.spaces.Box(0, 255, (1,))
    )
    normalizer = ObservationNormalizer(ObservationEncoder(space), one_hot)
    np.testing.assert_array_equal(normalizer.encoder.boxes, [0, 0, 0, 1, 1, 1, 0, 0, 1])
    rng, seen = np.random.default_rng(0), []
    for _ in range(5):
        obs = {
            "a": rng.integers(3, size=6),
            "b": rng.normal(9, 1, (6, 3)),
            "c": rng.integers(2, size=(6, 2)),
            "d": rng.uniform(0, 255, (6, 1)),
        }
        normalizer.see(obs, np.ones(6, bool))
        seen.append(normalizer.encoder.observation_vector(obs))
    out, expected = normalizer(seen[-1]), normalize_observations(np.array(seen, np.float64))[-1]
    others = np.zeros(9, bool) if one_hot else ~normalizer.encoder.boxes
    np.testing.assert_array_equal(out[:, others], seen[-1][:, others])
    np.testing.assert_allclose(out[:, ~others], expected[:, ~others], atol=1e-7)


def test_an_agent_normalises_one_hot_vectors_on_request(tmp_path):
    """A category that never changed is 0, one that is met for the first time at most 10."""
    space = gym.spaces.MultiDiscrete([3, 4])
    config = AgentConfig(**ONE, normalize_observations=True, normalize_one_hot=True)
    agent = minis5.ActorCritic(space, gym.spaces.Discrete(2), config)
    obs = np.array([[0, 1]] * 400 + [[1, 1]] * 400)
    agent.normalizer.see(obs, np.ones(800, bool))
    agent.normalizer.share(Comm())
    x = agent.encode(np.array([[0, 1], [1, 3]]), np.zeros((2, 2)), np.zeros(2, bool))
    expected = [[1, -1, 0, 0, 0, 0, 0], [-1, 1, 0, 0, -10, 0, 10]]
    np.testing.assert_allclose(x[:, :7], expected, atol=1e-5)
    minis5.save(agent, tmp_path / "agent.npz")
    again = minis5.load(tmp_path / "agent.npz")
    assert again.config.normalize_one_hot
    np.testing.assert_array_equal(
        again.encode(np.array([[0, 1], [1, 3]]), np.zeros((2, 2)), np.zeros(2, bool)), x
    )


def make(config=None, envs=None, **ppo):
    envs = envs or minis5.make_vec("PositionOnlyCartPoleEasy", 4)
    config = AgentConfig(**ONE, **({"normalize_observations": True} if config is None else config))
    agent = minis5.ActorCritic(envs.single_observation_space, envs.single_action_space, config)
    return PPO(agent, envs, PPOConfig(**SMALL, **ppo))


def test_a_rollout_keeps_what_the_policy_saw():
    """Each observation counts once; the next rollout begins with the moments of all before."""
    ppo = make()
    encoder, seen = ppo.agent.observation_encoder, []
    collector, see = ppo.collector, ppo.agent.normalizer.see

    def listen(obs, rows):
        seen.append(encoder.observation_vector(obs))
        see(obs, rows)

    ppo.agent.normalizer.see = listen
    x = []
    for _ in range(3):
        rollout, _ = collector.collect(16, np.random.default_rng(0))
        ppo.normalizers.see(rollout, ppo.comm)
        x.append(rollout.x[..., : encoder.size])
    expected = normalize_observations(np.array(seen, np.float64))
    np.testing.assert_allclose(np.concatenate(x), expected, atol=1e-5)
    assert ppo.agent.normalizer.moments.count == 3 * 16 * 4


def test_steps_that_only_reset_do_not_count():
    mode = gym.vector.AutoresetMode.NEXT_STEP
    make_env = [lambda: gym.make("CartPole-v1")] * 4
    ppo = make(envs=gym.vector.SyncVectorEnv(make_env, autoreset_mode=mode))
    rollout, _ = ppo.collector.collect(64, np.random.default_rng(0))
    ppo.normalizers.see(rollout, ppo.comm)
    assert not rollout.valid.all()
    assert ppo.agent.normalizer.moments.count == rollout.valid.sum()


# Rewards


def test_rewards_equal_the_specification():
    rng = np.random.default_rng(0)
    rewards, done = rng.normal(1, 30, (80, 3)).astype(np.float32), rng.random((80, 3)) < 0.2
    rewards[79, 1] = 100_000
    agent = SimpleNamespace(normalizer=None)
    normalizers = Normalizers(agent, PPOConfig(normalize_rewards=True, gamma=0.9), 3)
    valid = np.ones((40, 3), bool)
    for half in (slice(0, 40), slice(40, 80)):  # sums go on from rollout to rollout
        rollout = SimpleNamespace(rewards=rewards[half], done=done[half], valid=valid, groups=None)
        normalizers.see(rollout, Comm())
    out = normalizers.rewards(rewards)
    assert out.dtype == np.float32 and out.max() == 10
    np.testing.assert_allclose(out, normalize_rewards(rewards, done, 0.9), rtol=1e-5)


def test_rewards_of_each_group_equal_the_specification():
    """Environments 0 and 2 are of group 1, whose rewards are a hundred times as large."""
    rng, group = np.random.default_rng(1), np.array([1, 0, 1, 0])
    rewards = rng.normal(1, 3, (50, 4)) * np.where(group, 100, 1)
    done, groups = rng.random((50, 4)) < 0.2, np.tile(group, (50, 1))
    config = PPOConfig(normalize_rewards=True, reward_groups="task", gamma=0.9)
    normalizers = Normalizers(SimpleNamespace(normalizer=None), config, 4, groups=2)
    valid = np.ones((50, 4), bool)
    parts = {"rewards": rewards, "done": done, "valid": valid, "groups": groups}
    normalizers.see(SimpleNamespace(**parts), Comm())
    out = normalizers.rewards(rewards, groups)
    for k in range(2):
        columns = group == k
        expected = normalize_rewards(rewards[:, columns], done[:, columns], 0.9)
        np.testing.assert_allclose(out[:, columns], expected, rtol=1e-6)
    again = Normalizers(SimpleNamespace(normalizer=None), config, 4, groups=2)
    again.load_state_dict(normalizers.state_dict())
    np.testing.assert_array_equal(again.rewards(rewards, groups), out)
    fewer = Normalizers(SimpleNamespace(normalizer=None), config, 4, groups=1)
    with pytest.raises(
        ValueError, match=r"moments: expected float64 \(3, 1\), got float64 \(3, 2\)"
    ):
        fewer.load_state_dict(normalizers.state_dict())


def test_the_tasks_of_a_mixture_are_groups():
    """A rollout knows the task of each step, behind an episode's end too; each has its moments."""
    tasks = "PendulumSwingUp,PointMassEasy"
    envs = minis5.make_vec("Mixture", 4, seed=0, tasks=tasks, action_repeat=125)
    ppo = make({}, envs=envs, normalize_rewards=True, reward_groups="task")
    seen, collect = [], ppo.collector.collect

    def watched(T, rng):
        before = envs.view("task")
        rollout, ended = collect(T, rng)
        seen.append((before, rollout.groups))
        return rollout, ended

    ppo.collector.collect = watched
    ppo.learn(4 * 16 * 5)  # an episode is 8 decisions, a rollout two episodes
    for before, groups in seen:
        np.testing.assert_array_equal(groups[:8], np.tile(before, (8, 1)))
        np.testing.assert_array_equal(groups[8:], np.tile(groups[8], (8, 1)))
    assert any((groups[0] != groups[8]).any() for _, groups in seen)
    counts = [moments.count for moments in ppo.normalizers.moments]
    assert counts == [sum((groups == k).sum() for _, groups in seen) for k in range(2)]


def test_wrong_groups():
    with pytest.raises(ValueError, match="reward_groups: expected none without normalize_rewards"):
        PPOConfig(reward_groups="task")
    with pytest.raises(ValueError, match="expected none, as these environments have no such view"):
        make({}, normalize_rewards=True, reward_groups="task")
    envs = minis5.make_vec("PositionOnlyCartPoleEasy", 4, trials=2)
    with pytest.raises(ValueError, match="reward_groups: expected trial, got 'task'"):
        make({}, envs=envs, normalize_rewards=True, reward_groups="task")


def test_rewards_of_steps_that_only_reset_do_not_count():
    agent = SimpleNamespace(normalizer=None)
    rewards = np.array([[1.0], [2], [7], [3]])
    done, valid = rewards == 2, rewards != 7
    both = []
    for rows in ([0, 1, 2, 3], [0, 1, 3]):
        normalizers = Normalizers(agent, PPOConfig(normalize_rewards=True, gamma=0.9), 1)
        parts = {"rewards": rewards[rows], "done": done[rows], "valid": valid[rows]}
        normalizers.see(SimpleNamespace(**parts, groups=None), Comm())
        both.append(normalizers.moments[0].to_array())
    np.testing.assert_array_equal(*both)


def test_training_does_not_depend_on_the_size_of_rewards():
    class Paid(gym.Wrapper):
        def __init__(self, factor):
            super().__init__(gym.make("CartPole-v1"))
            self.factor = factor

        def step(self, action):
            obs, reward, *rest = self.env.step(action)
            return obs, reward * self.factor, *rest

    vectors = []
    for factor in (1.0, 1024.0):
        mode = gym.vector.AutoresetMode.SAME_STEP
        makers = [partial(Paid, factor)] * 4
        envs = gym.vector.SyncVectorEnv(makers, autoreset_mode=mode)
        ppo = make({}, envs=envs, normalize_rewards=True)
        rows = ppo.learn(256)
        vectors.append(ppo.agent.parameter_vector)
        assert rows[-1]["return"] == pytest.approx(factor * rows[-1]["length"])  # as they are
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-6)


# Off by default; files, copies, resuming, ranks


def test_off_by_default():
    ppo = make({})
    assert ppo.agent.normalizer is None and ppo.normalizers.state_dict() == {}
    rewards = np.ones((2, 3), np.float32)
    assert ppo.normalizers.rewards(rewards) is rewards


def test_the_moments_belong_to_the_agent(tmp_path):
    ppo = make()
    ppo.learn(256)
    agent, path = ppo.agent, tmp_path / "agent.npz"
    minis5.save(agent, path)
    obs = ppo.collector.obs
    expected = agent.encode(obs, 0.0, np.ones(4, bool))
    before = agent.normalizer.to_array()
    copies = minis5.load(path), copy.deepcopy(agent), pickle.loads(pickle.dumps(agent))
    for other in copies:
        np.testing.assert_array_equal(other.encode(obs, 0.0, np.ones(4, bool)), expected)
    fresh = make().agent
    start_from(fresh, path)
    np.testing.assert_array_equal(fresh.normalizer.to_array(), before)
    evaluate(agent, "PositionOnlyCartPoleEasy", 4)
    np.testing.assert_array_equal(agent.normalizer.to_array(), before)  # evaluation learns nothing
    plain = make({}).agent
    with pytest.raises(ValueError, match="normalize_observations True there, False here"):
        start_from(plain, path)


@pytest.mark.parametrize(
    "change",
    [lambda z: z[:2], lambda z: z.astype(np.float32), lambda z: z * np.nan, lambda z: z - 1],
)
def test_damaged_moments(tmp_path, change):
    ppo = make()
    ppo.learn(64)
    minis5.save(ppo.agent, tmp_path / "agent.npz")
    with np.load(tmp_path / "agent.npz") as file:
        arrays = dict(file)
    arrays["observation_moments"] = change(arrays["observation_moments"])
    np.savez(tmp_path / "agent.npz", **arrays)
    with pytest.raises(CheckpointError, match="moments: expected (float64|finite)"):
        minis5.load(tmp_path / "agent.npz")


ON = TINY | {"normalize_observations": True, "normalize_rewards": True}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("env", ["PositionOnlyCartPoleEasy", "Countdown-v0"])
def test_a_resumed_run_is_the_same(tmp_path, workers, env):
    settings = FOREIGN | {"overrides": ON, "workers": workers}
    for name, steps in (("whole", 4 * UPDATE), ("parts", 2 * UPDATE)):
        train(env, steps=steps, out=tmp_path / name, **settings)
    resume(tmp_path / "parts", steps=4 * UPDATE, quiet=True, trust=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    with np.load(tmp_path / "whole" / "state.npz") as state:
        moments = [state[f"rank{r}/observation_moments"] for r in range(workers)]
        assert all((m == moments[0]).all() for m in moments)
        assert env == "Countdown-v0" or moments[0][0, 0] == 4 * UPDATE
        assert state["rank0/reward_moments"].shape == (3, 1)


class Far(gym.Env):
    """Observations are 1000 ± 5; the action that equals their side of 1000 earns 1."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def observe(self):
        self.side = int(self.np_random.integers(2))
        return np.array([1000 + (5 if self.side else -5)], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action):
        reward = float(action == self.side)
        self.t += 1
        return self.observe(), reward, self.t == 10, False, {}


gym.register("Far-v0", Far)


def test_observations_far_from_zero_are_learnt():
    """Raw, the two observations look alike to the network; normalised, the task is solved."""
    outcomes = []
    for config in ({}, {"normalize_observations": True}):
        envs = minis5.make_vec("Far-v0", 8)
        spaces = envs.single_observation_space, envs.single_action_space
        agent = minis5.ActorCritic(*spaces, AgentConfig(**config), seed=0)
        PPO(agent, envs, PPOConfig(num_envs=8, unroll=64, minibatches=2)).learn(8192)
        outcomes.append(evaluate(agent, "Far-v0", 50)["mean_return"])
    assert outcomes[1] > 9.8 and outcomes[0] < 7


def test_on_the_command_line(tmp_path, capsys):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    run = [*options, "--steps", "64", "--eval-episodes", "5", "--workers", "1", "--quiet"]
    run += ["--out", str(tmp_path / "run"), "--normalize-observations", "--normalize-rewards"]
    assert main(["train", "Far-v0", *run]) == 0
    assert minis5.load(tmp_path / "run" / "agent.npz").normalizer.moments.mean[0] > 990
    assert main(["eval", str(tmp_path / "run"), "--episodes", "3"]) == 0
    assert "mean_return" in capsys.readouterr().out


def test_combinations_that_are_refused():
    with pytest.raises(ValueError, match="trial_horizon: expected .* that are not normalised"):
        envs = minis5.make_vec("RepeatPreviousEasy", 4, trials=2)
        make(envs=envs, trial_horizon=True)
