"""Mixtures: each episode is one of the tasks played alone; which task is drawn; sizes; errors.

What holds for every environment is tested with the others in test_all_levels.py.
"""

import counters
import numpy as np
import pytest
from gymnasium.spaces import Box
from sampling import sampled
from scipy import stats

from minis5.envs import meta, mixture
from minis5.envs.registry import REGISTRY, find, make_single, make_vec
from minis5.envs.single import NativeEnv
from minis5.envs.vector import NativeVectorEnv
from minis5.random import next_integer


@pytest.fixture
def with_counters(monkeypatch):
    for name, options in counters.LEVELS.items():
        monkeypatch.setitem(REGISTRY, name, (counters, options))


TASKS = [
    "Counter3",
    "PositionOnlyPendulumHard",
    "Counter1",
    "NoisyPositionOnlyPendulumEasy",
    "Counter5",
]


@pytest.mark.parametrize("count", sampled([3, 1, 2, 5]))
def test_an_episode_is_one_task_s_from_the_same_generator_row(with_counters, count):
    names = TASKS[:count]
    env = make_single("Mixture", tasks=",".join(names))
    alone = [make_single(name) for name in names]
    size, actions = (
        max(getattr(e, space).shape[0] for e in alone)
        for space in ("observation_space", "action_space")
    )
    assert env.observation_space.shape == (size,) and env.action_space == Box(-2, 2, (actions,))
    assert env.task.ints == max(e.task.ints for e in alone) + 1  # shared, not side by side
    assert env.task.floats == max(e.task.floats for e in alone)
    env.reset(seed=4)
    env.action_space.seed(0)
    seen = set()
    for _ in range(8 * count):
        row = env._ints[0, :3].copy()
        obs, _ = env.reset()
        task = next_integer(row, count)
        assert env._ints[0, env.task.views["task"][1]] == task
        seen.add(task)
        one = alone[task]
        one._ints[0, :3] = row
        one._seeded = True
        expected, _ = one.reset()
        ended = False
        while not ended:
            assert obs in env.observation_space and np.array_equal(
                obs, np.pad(expected, (0, size - len(expected)))
            )
            assert np.array_equal(env._ints[0, : one.task.ints], one._ints[0])
            assert np.array_equal(env._floats[0, : one.task.floats], one._floats[0])
            assert (
                not env._ints[0, one.task.ints : -1].any()
                and not env._floats[0, one.task.floats :].any()
            )
            action = env.action_space.sample()
            obs, *step = env.step(action)
            expected, *expected_step = one.step(action[: one.action_space.shape[0]])
            assert step == expected_step
            ended = step[1] or step[2]
    assert seen == set(range(count))


def test_tasks_are_drawn_uniformly_and_anew():
    names = [
        f"{noise}PositionOnlyPendulum{level}"
        for noise in ("", "Noisy")
        for level in ("Easy", "Medium", "Hard")
    ]
    envs = make_vec("Mixture", 3000, seed=1, tasks=", ".join(names))
    counts = np.zeros((6, 6))
    envs.reset()
    before = envs.view("task")
    assert before.shape == (3000,) and before.dtype == np.int64
    for _ in range(200):
        *_, truncated, _ = envs.step(np.zeros((3000, 1), np.float32))
        after = envs.view("task")
        assert np.array_equal(before[~truncated], after[~truncated])
        np.add.at(counts, (before[truncated], after[truncated]), 1)
        before = after
    assert stats.chisquare(counts.sum(axis=0)).pvalue > 1e-3
    assert stats.chi2_contingency(counts).pvalue > 1e-3  # what was played before tells nothing


def test_what_the_task_tells(with_counters):
    env, task = find("Mixture", {"tasks": "Counter1,Counter3,PositionOnlyPendulumHard"})
    low, high = [-1, -1, 0], [33 + 3, 33 + 3, 33 + 3]
    assert task.observation_space == Box(np.array(low, np.float32), np.array(high, np.float32))
    assert (task.episode_length, task.worst_return, task.best_return, task.truncates) == (
        100,
        -36,
        36,
        True,
    )
    assert not find("Mixture", {"tasks": "Counter1,Counter3"})[1].truncates
    single = NativeEnv(env, task, render_mode="ansi")
    single.reset(seed=0)
    shown = single._ints[0, task.views["task"][1]]
    assert single.render().startswith(f"task {shown}: ")


def test_a_meta_environment_around_a_mixture(with_counters):
    tasks = "Counter2,Counter1"
    envs = make_vec(
        "Mixture", 200, seed=2, tasks=tasks, trials=3, project_observation=4, project_action=2
    )
    obs, _ = envs.reset()
    matrices, task = envs.view("M_o"), envs.view("task")
    assert (
        matrices.shape == (200, 4, 2)
        and envs.view("M_a").shape == (200, 2, 2)
        and set(task) == {0, 1}
    )
    inner = np.where(task[:, None] == 0, [[20, 20]], [[10, 0]])
    np.testing.assert_allclose(obs[:, :4], np.einsum("nij,nj->ni", matrices, inner), rtol=1e-6)
    actions = np.tile(np.array([0.5, -0.25], np.float32), (200, 1))
    torques = np.clip(envs.view("M_a") @ [0.5, -0.25], -2, 2)
    for t in range(12):
        # The task's first torques only: both of Counter2, one of Counter1; a trial of theirs has 5
        # or 4 steps.
        expected = np.where(task == 0, torques.sum(axis=1), torques[:, 0])
        assert np.array_equal(envs.view("trial"), t // np.where(task == 0, 5, 4))
        _, reward, terminated, _, _ = envs.step(actions)
        np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-6)
        assert np.array_equal(terminated, (task == 1) & (t == 11))
        still = ~terminated
        assert np.array_equal(envs.view("task")[still], task[still]) and np.array_equal(
            envs.view("M_o")[still], matrices[still]
        )


def test_a_mixture_of_meta_environments(with_counters):
    """Not offered by name, but nothing in the way: a composition's parts are environments."""
    parts = {name: meta.wrap(*find(name), trials=2) for name in ("Counter1", "Counter2")}
    envs = NativeVectorEnv(*mixture.mix(parts), 50, seed=3)
    obs, _ = envs.reset()
    task = envs.view("task")
    for t in range(1, 11):
        obs, _, terminated, _, infos = envs.step(np.ones((50, 2), np.float32))
        assert np.array_equal(terminated, ((task == 0) & (t == 8)) | ((task == 1) & (t == 10)))
        task = np.where(terminated, -1, task)
        assert (
            np.array_equal(obs[task == 0, 1], np.full((task == 0).sum(), 1))
            and not obs[task == 0, 3].any()
        )


def test_observation_of_a_single_mixture_may_be_asked_for_again():
    env = make_single("Mixture", tasks="PositionOnlyPendulumEasy,NoisyPositionOnlyPendulumEasy")
    for seed in range(4):
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(env.observation(), obs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "tasks: expected different native ids with commas between them, such as .*; got ''"),
        ({"tasks": ["PositionOnlyPendulumEasy"]}, r"tasks: expected .*; got \['Pos"),
        (
            {"tasks": "PositionOnlyPendulumEasy,PositionOnlyPendulumEasi"},
            r"got 'PositionOnlyPendulumEasi' \(did you mean",
        ),
        (
            {"tasks": "PositionOnlyPendulumEasy,PositionOnlyPendulumEasy"},
            "different native ids .* got 'PositionOnlyPendulumEasy'",
        ),
        ({"tasks": "CartPole-v1"}, "native ids .* got 'CartPole-v1'"),
        (
            {"tasks": "MemoryChain-5"},
            r"tasks: expected actions in a float32 Box of one axis, "
            r"got Discrete\(2\) for MemoryChain-5",
        ),
        (
            {"tasks": "RepeatPreviousEasy"},
            r"tasks: expected observations in a float32 Box .* for RepeatPreviousEasy; leave",
        ),
        (
            {"tasks": "PositionOnlyPendulumEasy", "task": 1},
            r"task: Mixture has no such option \(did you mean tasks or trials\?\)",
        ),
    ],
)
def test_bad_tasks(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec("Mixture", 1, **options)


def test_actions_with_other_bounds(monkeypatch):
    task = find("PositionOnlyPendulumEasy")[1]
    others = [Box(-1, 1, (1,)), Box(np.array([-2, -1], np.float32), np.array([2, 1], np.float32))]
    for space in others:
        natives = {"A": (None, task), "B": (None, task._replace(action_space=space))}
        with pytest.raises(
            ValueError,
            match=r"expected the same bounds for all actions, got Box.* for A and Box.* for B",
        ):
            mixture.mix(natives)


def test_a_state_names_a_task_that_there_is():
    envs = make_vec("Mixture", 2, tasks="CartPoleSwingUp,CartPoleBalance,PendulumSwingUp")
    envs.reset()
    state = envs.get_state()
    place = envs.task.views["task"][1]
    for task in (0, 1, 2):
        state["ints"][:, place] = task
        envs.set_state(state)
    for task in (-1, 3):
        state["ints"][:, place] = task
        with pytest.raises(ValueError, match=r"^state\['ints'\]: expected .*, got .*"):
            envs.set_state(state)
