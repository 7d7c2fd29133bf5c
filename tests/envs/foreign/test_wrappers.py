"""Wrappers of foreign environments: matrices, trials, mixtures, vectors, checker, errors."""

import warnings
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env

from minis5.envs import meta
from minis5.envs.foreign.wrappers import (
    MIXTURE_STREAM,
    TRIALS_STREAM,
    RandomProjection,
    TaskMixture,
    Trials,
)
from minis5.envs.registry import find, make_vec
from minis5.envs.vector import NativeVectorEnv
from minis5.random import MASK


class Walk(gymnasium.Env):
    """A walk of `length` steps from a random start; it keeps its actions and its place."""

    def __init__(self, length=3, shape=(2,), action_space=None):
        self.length, self.spoken = length, []
        self.observation_space = Dict(
            {"where": Box(-np.inf, np.inf, shape, np.float64), "step": Discrete(length + 1)}
        )
        self.action_space = action_space or Box(-0.5, 0.5, shape, np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.options, self.steps = seed, options, 0
        self.where = self.np_random.normal(size=self.observation_space["where"].shape)
        return self._observation(), {"seed": seed}

    def _observation(self):
        return {"where": self.where.copy(), "step": self.steps}

    def step(self, action):
        self.spoken.append(action)
        if isinstance(self.action_space, Box):
            self.where += action
        self.steps += 1
        return self._observation(), float(self.steps), self.steps == self.length, False, {}


def native(seed, stream, **sizes):
    """Return a native environment in its first episode, with 6 features and 4 actions."""
    envs = NativeVectorEnv(*meta.wrap(*find("AutoencodeEasy"), **sizes), 1, seed, stream)
    envs.reset()
    return envs


def test_matrices_are_the_native_ones_of_the_same_seed_and_stream():
    walk = Walk(length=3, shape=(2,), action_space=Discrete(4))  # 2 numbers and 4 steps: 6 features
    for seed in (0, 7, 2**40):
        for stream in (0, 5):
            env = RandomProjection(walk, 12, 2, stream=stream)
            env.reset(seed=seed)
            envs = native(seed, stream, project_observation=12, project_action=2)
            assert np.array_equal(env.observation_matrix, envs.view("M_o")[0])
            assert np.array_equal(env.action_matrix, envs.view("M_a")[0])
    one = RandomProjection(walk, 12, 0)
    one.reset(seed=3)
    assert np.array_equal(
        one.observation_matrix, native(3, 0, project_observation=12).view("M_o")[0]
    )
    other = RandomProjection(walk, 0, 2)
    other.reset(seed=3)
    assert np.array_equal(other.action_matrix, native(3, 0, project_action=2).view("M_a")[0])


def flat(observation):
    """Return a Dict's parts in the order of its keys: step, one-hot of four, then the numbers."""
    return np.append(np.arange(4) == observation["step"], observation["where"]).astype(np.float32)


def test_observations_and_actions_are_multiplied():
    inner = Walk(shape=(2, 1))
    env = RandomProjection(inner, 5, 3)
    assert env.action_space == Box(-1, 1, (3,)) and env.observation_space.shape == (7,)
    obs, info = env.reset(seed=1)
    assert info == {"seed": 1}
    matrices = env.observation_matrix.copy(), env.action_matrix.copy()
    assert matrices[0].shape == (5, 6) and matrices[1].shape == (2, 3)
    reward, ended = 0.0, False
    clipped = 0
    env.action_space.seed(0)
    while not ended:
        assert obs.dtype == np.float32 and obs in env.observation_space
        np.testing.assert_allclose(
            obs[:5], matrices[0] @ flat(inner._observation()).astype(float), rtol=1e-6, atol=1e-7
        )
        assert obs[5:].tolist() == [reward, 0]
        action = np.sign(env.action_space.sample())
        obs, reward, ended, _, _ = env.step(action)
        said = inner.spoken[-1]
        assert said.shape == (2, 1) and said.dtype == np.float64
        np.testing.assert_allclose(said.ravel(), (matrices[1] @ action).clip(-0.5, 0.5), rtol=1e-12)
        clipped += (abs(said) == 0.5).sum()
        assert np.array_equal(matrices[0], env.observation_matrix) and np.array_equal(
            matrices[1], env.action_matrix
        )
    assert obs[5:].tolist() == [3, 1] and 0 < clipped < 6
    obs, _ = env.reset()
    assert obs[5:].tolist() == [0, 0]
    assert (matrices[0] != env.observation_matrix).all() and (
        matrices[1] != env.action_matrix
    ).all()


def test_a_discrete_action_is_the_largest_component():
    inner = Walk(length=8, action_space=Discrete(4, start=3))
    env = RandomProjection(inner, 0, 2)
    obs, _ = env.reset(seed=0)
    # flattened only
    assert np.array_equal(obs[:-2], np.append(np.eye(9)[0], inner.where).astype(np.float32))
    env.action_space.seed(0)
    for _ in range(8):
        action = env.action_space.sample()
        env.step(action)
        assert (
            inner.spoken[-1] == 3 + int(np.argmax(env.action_matrix @ action))
            and inner.spoken[-1] in inner.action_space
        )
    assert len(set(inner.spoken)) > 1


def test_without_a_projection_actions_go_through():
    inner = Walk(action_space=MultiDiscrete([2, 3]))
    env = RandomProjection(inner, 2, 0)
    assert env.action_space == inner.action_space and env.action_matrix is None
    env.reset(seed=0)
    env.step(np.array([1, 2]))
    assert inner.spoken[-1].tolist() == [1, 2]


def test_trials_begin_alike():
    inner = Walk(length=3)
    env = Trials(inner, 4)
    for _ in range(2):
        start, info = env.reset(options={"mark": 1})
        assert info["seed"] == inner.seed
        for trial in range(4):
            assert inner.options == {"mark": 1} and np.array_equal(inner.where, start["where"])
            for t in range(3):
                assert env.trial == trial and env.trial_return == t * (t + 1) / 2
                obs, reward, terminated, truncated, info = env.step(np.zeros(2))
                last = t == 2
                assert info == {
                    "trial": trial,
                    "trial_return": (t + 1) * (t + 2) / 2,
                    "trial_ended": last,
                }
                assert reward == t + 1 and not truncated and terminated == (last and trial == 3)
        assert obs["step"] == 3  # the episode's own last observation
    first, again, other = (env.reset(seed=seed)[0]["where"] for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(env.reset()[0]["where"], other)


def test_projected_trials_keep_their_matrices_and_see_each_trial_s_end():
    env = RandomProjection(Trials(Walk(length=2), 3), 4, 2)
    start, _ = env.reset(seed=2)
    matrix = env.observation_matrix.copy()
    for t in range(6):
        obs, reward, terminated, *_ = env.step(np.zeros(2, np.float32))
        assert obs[4:].tolist() == [1 + t % 2, t % 2] and terminated == (t == 5)
        if t in (1, 3):
            assert np.array_equal(obs[:4], start[:4])
        assert np.array_equal(matrix, env.observation_matrix)


def make_walk(length, made=None):
    if made is not None:
        made.append(length)
    return RandomProjection(Walk(length, (length,)), 4, 2)


def test_a_mixture_draws_a_task_for_each_episode_and_builds_it_when_it_is_drawn():
    made = []
    env = TaskMixture([partial(make_walk, length, made) for length in (2, 3, 4)])
    assert made == [2]
    counts, starts = np.zeros(3), set()
    for episode in range(300):
        obs, info = env.reset(seed=0 if episode == 0 else None)
        assert obs in env.observation_space and env.task == info["task"]
        counts[env.task] += 1
        starts.add(info["seed"])
        matrix = env.env.observation_matrix
        assert matrix.shape == (4, 2 * (env.task + 2) + 1)
        steps, ended = 0, False
        while not ended:
            _, _, ended, *_ = env.step(np.zeros(2, np.float32))
            steps += 1
        assert steps == env.task + 2
    assert sorted(made) == [2, 3, 4] and len(starts) == 300
    assert ((counts - 100) ** 2 / 100).sum() < 13.8  # chi-square, 2 degrees of freedom, 1 in 1000
    again = TaskMixture([partial(make_walk, length) for length in (2, 3, 4)])
    runs = [
        [(e.reset(seed=1 if k == 0 else None)[0].tolist(), e.task) for k in range(20)]
        for e in (env, again)
    ]
    assert runs[0] == runs[1]
    env.close()


def cart(stream=0):
    return RandomProjection(
        Trials(gymnasium.make("CartPole-v1", max_episode_steps=6), 2), 5, 3, stream=stream
    )


@pytest.mark.parametrize(
    "vector", [gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv]
)
def test_vectors_of_wrapped_environments(vector):
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    envs = vector([cart] * 2, autoreset_mode=mode)
    alone = cart()
    obs, _ = envs.reset(seed=[3, 4])
    expected, _ = alone.reset(seed=4)
    envs.action_space.seed(0)
    ends = 0
    for _ in range(30):
        assert np.array_equal(obs[1], expected) and not np.array_equal(obs[0], obs[1])
        actions = envs.action_space.sample()
        obs, rewards, terminated, truncated, _ = envs.step(actions)
        expected, *step, _ = alone.step(actions[1])
        assert step == [rewards[1], terminated[1], truncated[1]]
        if terminated[1] or truncated[1]:
            ends += 1
            expected, _ = alone.reset()
    assert ends == 2
    envs.close()


def test_gymnasium_s_checker_finds_nothing():
    mixture = TaskMixture(
        [lambda: RandomProjection(gymnasium.make("CartPole-v1"), 4, 2), lambda: make_walk(2)]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "(?s).*value is -?infinity")
        # a wrapper's sense
        warnings.filterwarnings("ignore", "(?s).*is different from the unwrapped version")
        for env in (cart(), mixture):
            check_env(env, skip_render_check=True)


def test_an_unseeded_environment_is_random():
    assert not np.array_equal(make_walk(2).reset()[0], make_walk(2).reset()[0])


def text():
    return Walk(action_space=gymnasium.spaces.Text(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandomProjection(Walk(), -1),
            r"observation_size: expected an integer in \[0, 10000\], got -1; 0 does not",
        ),
        (lambda: RandomProjection(Walk(), 2, 2.5), "action_size: expected an integer .* got 2.5"),
        (lambda: RandomProjection(Walk(), stream=-1), "stream: expected an integer"),
        (
            lambda: RandomProjection(text()),
            r"action_size: expected 0 or actions in a Box of floats or Discrete, got Text",
        ),
        (
            lambda: RandomProjection(Walk(action_space=MultiDiscrete([2]))),
            "action_size: expected 0 .* got MultiDiscrete",
        ),
        (
            lambda: RandomProjection(Walk(action_space=Box(0, 9, (2,), np.int64))),
            "action_size: expected 0 .* got Box",
        ),
        (lambda: Trials(Walk(), 0), "trials: expected an integer"),
        (
            lambda: TaskMixture([]),
            "factories: expected functions that make an environment each, at least one, got",
        ),
        (lambda: TaskMixture([Walk()]), "factories: expected functions"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_observation_that_cannot_be_flattened():
    env = Walk()
    env.observation_space = gymnasium.spaces.Text(3)
    with pytest.raises(ValueError, match=r"space: observation is Text.* which is not supported"):
        RandomProjection(env)


@pytest.mark.parametrize("action", [np.zeros(3), 0.5, [0, 1.5], [np.nan, 0]])
def test_bad_actions(action):
    env = make_walk(2)
    env.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"action: expected a member of Box\(-1.0, 1.0, \(2,\), float32\), got"
    ):
        env.step(action)
    assert not env.unwrapped.spoken


def test_tasks_whose_spaces_differ():
    env = TaskMixture([Walk, lambda: Walk(shape=(3,))])
    with pytest.raises(
        ValueError,
        match=r"expected the observation_space Dict.* of task 0, got Dict.* of task 1; wrap",
    ):
        for seed in range(20):
            env.reset(seed=seed)


def test_the_two_worlds_agree_on_cartpole():
    """Gymnasium's CartPole, wrapped, and ours have the same sizes and the same draws."""
    envs = make_vec(
        "PositionOnlyCartPoleEasy", 1, seed=9, project_observation=5, project_action=3, trials=2
    )
    envs.reset()
    env = cart()
    env.reset(seed=9)
    assert (
        env.observation_space.shape == envs.single_observation_space.shape
        and env.action_space == envs.single_action_space
    )
    # Four features here, two there: the draws are the same, in the rows' order.
    assert np.array_equal(env.observation_matrix.ravel()[:10], envs.view("M_o").ravel())


def test_sizes_are_the_paper_s_unless_others_are_named():
    """12 numbers observed and 2 of actions, in 2303.03982's meta-environments."""
    env = RandomProjection(Walk())
    assert env.observation_matrix.shape[0] == 12 and env.action_matrix.shape[1] == 2
    assert env.observation_space.shape == (14,) and env.action_space.shape == (2,)


def test_streams_of_wrappers_are_no_environment_s():
    """They differ, and are the last ones that a generator has."""
    assert MIXTURE_STREAM < TRIALS_STREAM == MASK and MIXTURE_STREAM > 2**31
