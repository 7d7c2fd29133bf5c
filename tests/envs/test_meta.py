"""Meta-environments: by hand, against the environment within, statistics of what is drawn, views,
options.

What holds for every environment (Python = Numba = CUDA, seeds, splits, state) is tested with the
others in test_all_levels.py.
"""

import itertools
import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
from compositions import COMPOSED, environment_and_task, vec
from gymnasium.spaces import Box
from scipy import stats
from simulator import simulated

import minis5
from minis5.envs.popgym import pendulum
from minis5.envs.registry import REGISTRY, find, make_single, make_vec
from minis5.envs.task import from_rows, row_dtype, row_size
from minis5.random import GENERATOR_SIZE
from minis5.run.evaluate import evaluate
from minis5.run.train import resume, train
from minis5.spaces import ObservationEncoder

KINDS = [  # one environment for each kind of observation
    "NoisyPositionOnlyCartPoleHard",
    "RepeatPreviousEasy",
    "AutoencodeEasy",
    "CountRecallEasy",
    "LabyrinthEscapeEasy",
]


def inner_observations(envs, name):
    """Return what the environments within show, flattened by minis5.spaces: float32 (n, |o|).

    Their state is the first part of ours.
    """
    env, task = find(name)
    state = envs.get_state()
    rows = np.zeros(
        (envs.num_envs, row_size(task.observation_space)), row_dtype(task.observation_space)
    )
    for ints, floats, row in zip(state["ints"], state["floats"], rows, strict=True):
        env.observe(task.params, ints[: task.ints], floats[: task.floats], row)
    space = task.observation_space
    return ObservationEncoder(space).observation_vector(from_rows(space, rows))


def products(matrices, vectors):
    """Return the product of each row's matrix and vector, summed as meta.py does it.

    That is from left to right in float64, rounded to float32.
    """
    total = np.zeros(matrices.shape[:2])
    for j in range(matrices.shape[2]):
        total += matrices[:, :, j] * vectors[:, None, j].astype(float)
    return total.astype(np.float32)


def test_two_trials_by_hand():
    # A chain of two steps: [1 - t / 2, query, context], the cue is 1. Right, then wrong.
    envs = make_vec("MemoryChain-2", 1, trials=2)
    envs.reset()
    state = envs.get_state()
    chain = find("MemoryChain-2")[0]
    state["ints"][0, chain.CONTEXT] = 1
    first = envs.task.params.first_ints + chain.CONTEXT - GENERATOR_SIZE
    state["ints"][0, first] = 1
    envs.set_state(state)
    steps = [envs.step([action]) for action in (0, 1, 1, 0)]
    assert [step[0][0].tolist() for step in steps[:3]] == [
        [0.5, 0, 0, 0, 0],
        [1, 0, 1, 1, 1],
        [0.5, 0, 0, 0, 0],
    ]
    assert [step[1].item() for step in steps] == [0, 1, 0, -1]
    assert [step[2].item() for step in steps] == [False, False, False, True] and not any(
        step[3] for step in steps
    )
    assert steps[3][4]["final_obs"].tolist() == [[0, 0, 0, -1, 1]]
    assert steps[3][0][0, 3:].tolist() == [0, 0]  # the next episode knows nothing of it


def test_projections_by_hand():
    envs = make_vec("PositionOnlyPendulumEasy", 1, project_observation=3, project_action=2)
    envs.reset()
    state, params = envs.get_state(), envs.task.params
    state["floats"][0, :2] = math.pi / 2, 0  # lying level: (cos, sin) = (0, 1)
    state["floats"][0, params.m_o : params.m_o + 6] = 1, 2, 3, 4, 5, 6
    state["floats"][0, params.m_a : params.m_a + 2] = 8, -0.5
    # 2 - 0.5; 4.5 and -8.5 are clipped
    for action, torque in ([0.25, 1], 1.5), ([0.5, -1], 2), ([-1, 1], -2):
        envs.set_state(state)
        obs, reward, *_ = envs.step(np.array([action], np.float32))
        speed = 0.05 * (15 + 3 * torque)
        theta = math.pi / 2 + 0.05 * speed
        inner = np.array([[1, 2], [3, 4], [5, 6]]) @ [math.cos(theta), math.sin(theta)]
        cost = (math.pi / 2) ** 2 + 0.001 * torque**2
        assert abs(reward[0] - (pendulum.HALF_COST - cost) / pendulum.HALF_COST / 200) < 1e-9
        np.testing.assert_allclose(obs[0], [*inner, reward[0], 0], rtol=1e-6)


def test_a_limited_number_of_projections():
    options = {"project_observation": 3, "project_action": 2, "max_steps": 2}
    seen = []
    for seed in 0, 1:  # other seeds and other processes have the same pairs
        envs = make_vec("PositionOnlyPendulumEasy", 40, seed=seed, projections=4, **options)
        envs.reset()
        for _ in range(3):
            matrices = np.concatenate([envs.view("M_o"), envs.view("M_a")], axis=1)
            seen.append({matrix.tobytes() for matrix in matrices})
            for _ in range(2):
                envs.step(np.zeros((40, 2), np.float32))
    assert len(set.union(*seen)) == 4  # M_o and M_a come together
    assert all(len(some) == 4 for some in seen)
    state = envs.get_state()["ints"]
    assert len({tuple(row[:2]) for row in state.tolist()}) == 40  # each has its own stream again


@pytest.mark.parametrize(("count", "pairs"), [(1, 1), (100, 100)])
def test_projections_are_drawn_uniformly_and_are_normal(count, pairs):
    envs = make_vec("PositionOnlyPendulumEasy", 4000, project_observation=3, projections=count)
    envs.reset()
    found, counts = np.unique(envs.view("M_o"), axis=0, return_counts=True)
    assert len(found) == pairs
    assert stats.chisquare(counts).pvalue > 1e-3 or pairs == 1
    if pairs > 1:
        assert stats.kstest(found.ravel() * math.sqrt(3), "norm").pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_projected_observations_are_the_matrix_times_the_observation(name):
    envs = make_vec(name, 16, seed=3, trials=2, project_observation=7)
    envs.action_space.seed(0)
    obs, _ = envs.reset()
    reward, ended = np.zeros(16), np.zeros(16)
    for _ in range(120):
        matrices = envs.view("M_o")
        assert obs.dtype == np.float32 and obs.shape == (16, 9)
        assert np.array_equal(obs[:, :7], products(matrices, inner_observations(envs, name)))
        assert np.array_equal(obs[:, 7:], np.stack([reward, ended], axis=1, dtype=np.float32))
        trial = envs.view("trial")
        obs, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        over = terminated | truncated
        ended = (envs.view("trial") != trial) & ~over
        reward[over] = 0


@pytest.mark.parametrize("name", [*KINDS, "BattleshipEasy"])
def test_one_trial_is_the_environment_with_reward_and_end_appended(name):
    inner, envs = make_vec(name, 8, seed=5), make_vec(name, 8, seed=5, trials=1)
    observation_encoder = ObservationEncoder(inner.single_observation_space)
    assert envs.single_action_space == inner.single_action_space
    ends = 0
    expected, obs = (e.reset()[0] for e in (inner, envs))
    appended = np.zeros((8, 2))
    envs.action_space.seed(1)
    for _ in range(2 * min(inner.task.episode_length, 200)):
        assert np.array_equal(
            obs,
            np.append(observation_encoder.observation_vector(expected), appended, axis=1).astype(
                np.float32
            ),
        )
        actions = envs.action_space.sample()
        expected, *flags, infos = inner.step(actions)
        obs, *own_flags, own_infos = envs.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(flags, own_flags, strict=True))
        over = flags[1] | flags[2]
        if infos:
            last = np.append(
                observation_encoder.observation_vector(infos["final_obs"]),
                np.stack([flags[0], over], axis=1),
                axis=1,
            )
            assert np.array_equal(own_infos["final_obs"][over], last[over].astype(np.float32))
        appended = np.stack([np.where(over, 0, flags[0]), np.zeros(8)], axis=1)
        ends += over.sum()
    assert ends > 0 or name == "LabyrinthEscapeEasy"


@pytest.mark.parametrize(
    "name", ["NoisyPositionOnlyCartPoleEasy", "RepeatPreviousEasy", "HigherLowerEasy"]
)
def test_trials_are_the_environment_put_back_by_hand(name):
    trials = 4
    env, inner = make_single(name, trials=trials), make_single(name)
    observation_encoder = ObservationEncoder(inner.observation_space)
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        assert np.array_equal(
            obs[:-2], observation_encoder.observation_vector(inner.reset(seed=seed)[0])
        ) and obs[-2:].tolist() == [0, 0]
        first_obs, first = obs, (inner._ints[0, GENERATOR_SIZE:].copy(), inner._floats[0].copy())
        total, trial, over = 0.0, 0, False
        env.action_space.seed(seed)
        while not over:
            action = env.action_space.sample()
            expected, reward, *flags, _ = inner.step(action)
            obs, got, *own_flags, _ = env.step(action)
            trial_over = any(flags)
            over = trial_over and trial == trials - 1
            assert got == reward and own_flags == (flags if over else [False, False])
            total += reward
            if trial_over and not over:
                trial, total = trial + 1, 0.0
                inner._ints[0, GENERATOR_SIZE:], inner._floats[0] = first
                inner._running = True
                expected = inner.observation()
                assert np.array_equal(obs[:-2], first_obs[:-2])
            assert np.array_equal(obs[:-2], observation_encoder.observation_vector(expected))
            assert obs[-2:].tolist() == [np.float32(reward), trial_over]
            assert np.array_equal(env._ints[0, : inner.task.ints], inner._ints[0])
            assert env._ints[0, env.task.views["trial"][1]] == trial
            assert env._floats[0, env.task.views["trial_return"][1]] == total


@pytest.mark.parametrize(
    ("name", "trials"),
    [("NoisyPositionOnlyCartPoleEasy", 3), ("ReacherEasy", 1), ("HigherLowerEasy", 2)],
)
def test_a_repeated_action_is_so_many_steps_with_it(name, trials):
    """Rewards are summed up to the end of the trial, which cuts the repetition short."""
    options = {"max_steps": 50} if name == "ReacherEasy" else {}
    env, plain = (
        make_single(name, trials=trials, **options, **more) for more in ({"action_repeat": 4}, {})
    )
    cut = 0
    for seed in range(4):
        assert np.array_equal(env.reset(seed=seed)[0], plain.reset(seed=seed)[0])
        env.action_space.seed(seed)
        over = False
        while not over:
            action, total = env.action_space.sample(), 0.0
            obs, reward, *flags, _ = env.step(action)
            for done in range(4):
                expected, part, *plain_flags, _ = plain.step(action)
                total += part
                if expected[-1]:
                    cut += done < 3
                    break
            assert reward == total and flags == plain_flags
            assert np.array_equal(obs[:-2], expected[:-2]) and obs[-2:].tolist() == [
                np.float32(total),
                expected[-1],
            ]
            over = any(flags)
    assert cut
    assert env.task.episode_length == trials * math.ceil(find(name, options)[1].episode_length / 4)


def act_and_compare(envs, env, task, actions, translated):
    """Step with `actions`; rewards and states are those of the environment within.

    That is stepped with the `translated` actions.
    """
    before = envs.get_state()
    _, reward, terminated, truncated, _ = envs.step(actions)
    after = envs.get_state()
    ends = terminated | truncated
    for i in np.flatnonzero(~ends):
        ints, floats = (
            before["ints"][i, : task.ints].copy(),
            before["floats"][i, : task.floats].copy(),
        )
        assert env.step(task.params, ints, floats, translated[i])[0] == reward[i]
        assert np.array_equal(ints, after["ints"][i, : task.ints]) and np.array_equal(
            floats, after["floats"][i, : task.floats]
        )


def test_a_projected_torque_is_the_matrix_times_the_action_clipped():
    env, task = find("NoisyPositionOnlyPendulumEasy")
    envs = make_vec("NoisyPositionOnlyPendulumEasy", 500, seed=1, project_action=3)
    assert envs.single_action_space == Box(-1, 1, (3,))
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(5):
        actions = np.sign(envs.action_space.sample())  # far out, so that some are clipped
        torques = products(envs.view("M_a"), actions)
        assert 0.01 < (abs(torques) > 2).mean() < 0.2
        act_and_compare(envs, env, task, actions, np.clip(torques, np.float32(-2), np.float32(2)))


@pytest.mark.parametrize("name", ["PositionOnlyCartPoleEasy", "RepeatPreviousEasy"])
def test_a_projected_choice_is_the_largest_component(name):
    env, task = find(name)
    envs = make_vec(name, 64, seed=1, project_action=3)
    assert envs.single_action_space == Box(-1, 1, (3,)) and envs.view("M_a").shape == (
        64,
        task.action_space.n,
        3,
    )
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(8):
        actions = envs.action_space.sample()
        act_and_compare(
            envs, env, task, actions, products(envs.view("M_a"), actions).argmax(axis=1)
        )


@pytest.mark.parametrize("name", ["PositionOnlyCartPoleEasy", "RepeatPreviousEasy"])
def test_a_permuted_action_is_the_permutation_s(name):
    env, task = find(name)
    envs = make_vec(name, 64, seed=1, permute_actions=True, trials=2)
    assert envs.single_action_space == task.action_space
    envs.reset()
    envs.action_space.seed(0)
    for _ in range(8):
        actions = envs.action_space.sample()
        act_and_compare(envs, env, task, actions, envs.view("permutation")[np.arange(64), actions])


def test_what_is_drawn_lasts_an_episode_and_no_longer():
    options = {"trials": 3, "project_observation": 4, "max_steps": 5}
    for more, names in (
        ({"permute_actions": True}, ["M_o"]),
        ({"project_action": 2}, ["M_o", "M_a"]),
    ):
        envs = make_vec("PositionOnlyCartPoleEasy", 30, seed=2, **options, **more)
        envs.reset()
        seen = {name: envs.view(name) for name in names}
        for name in names:
            assert len(np.unique(seen[name])) == seen[name].size  # every environment has its own
        for t in range(60):
            *_, terminated, truncated, _ = envs.step(envs.action_space.sample())
            over = terminated | truncated
            assert over.all() == over.any() == (t % 15 == 14)
            for name in names:
                now = envs.view(name)
                assert (
                    np.array_equal(now[~over], seen[name][~over])
                    and (now[over] != seen[name][over]).all()
                )
                seen[name] = now


@pytest.mark.parametrize(("rows", "columns"), [(8, 2), (3, 6)])
def test_entries_are_independent_and_normal_with_variance_one_over_n(rows, columns):
    name = {2: "PositionOnlyCartPoleEasy", 6: "AutoencodeEasy"}[columns]
    envs = make_vec(name, 4000, seed=11, project_observation=rows, project_action=rows)
    envs.reset()
    for matrices in (envs.view("M_o"), envs.view("M_a")):
        entries = matrices.reshape(4000, -1) * math.sqrt(rows)
        assert matrices.shape[1:] in ((rows, columns), (find(name)[1].action_space.n, rows))
        count = entries.size
        assert abs(entries.mean()) < 4 / math.sqrt(count)
        assert abs(entries.var() - 1) < 4 * math.sqrt(2 / count)
        assert stats.kstest(entries.ravel(), "norm").pvalue > 1e-3
        correlations = np.corrcoef(entries.T)[np.triu_indices(entries.shape[1], 1)]
        assert (abs(correlations) < 4.5 / math.sqrt(4000)).all()
        neighbors = (entries[1:] * entries[:-1]).mean()  # of one environment and the next
        assert abs(neighbors) < 4 / math.sqrt(count)
    o = np.arange(1, columns + 1)
    # a chi-square with `rows` degrees of freedom, over rows
    lengths = ((envs.view("M_o") @ o) ** 2).sum(axis=1) / (o @ o)
    assert abs(lengths.mean() - 1) < 4 * math.sqrt(2 / rows / 4000)
    a = np.linspace(-1, 1, rows)
    squares = (envs.view("M_a") @ a) ** 2
    assert abs(squares.mean() / (a @ a / rows) - 1) < 4 * math.sqrt(2 / squares.size)


def test_permutations_are_uniform():
    envs = make_vec("RepeatPreviousEasy", 24_000, seed=7, permute_actions=True)
    envs.reset()
    orders = [tuple(order) for order in envs.view("permutation").tolist()]
    counts = [orders.count(order) for order in itertools.permutations(range(4))]
    assert sum(counts) == 24_000 and stats.chisquare(counts).pvalue > 1e-3


def test_what_the_task_tells():
    inner = find("PositionOnlyCartPoleEasy")[1]
    task = find("PositionOnlyCartPoleEasy", {"trials": 16})[1]
    assert (
        task.episode_length == 16 * 200
        and task.best_return == 16
        and task.worst_return == 16 * inner.worst_return
    )
    assert task.truncates and not find("MemoryChain", {"trials": 2})[1].truncates
    low, high = inner.observation_space.low, inner.observation_space.high
    expected = (
        np.append(bound, last).astype(np.float32)
        for bound, last in ((low, [-np.inf, 0]), (high, [np.inf, 1]))
    )
    assert task.observation_space == Box(*expected)
    one_hot = find("CountRecallEasy", {"trials": 1})[1].observation_space
    assert one_hot.shape == (6,) and (one_hot.low[:4] == 0).all() and (one_hot.high[:4] == 1).all()
    projected = find("CountRecallEasy", {"project_observation": 12})[1].observation_space
    assert (
        projected.shape == (14,) and np.isinf(projected.high[:13]).all() and projected.high[13] == 1
    )


def test_an_environment_s_own_option_keeps_its_meaning(monkeypatch):
    toy = SimpleNamespace(configure=lambda trials, size: (trials, size))
    monkeypatch.setitem(REGISTRY, "Toy", (toy, {"trials": 1, "size": 2}))
    assert find("Toy", {"trials": 3}) == (toy, (3, 2))


def test_views():
    envs = make_vec(
        "PositionOnlyCartPoleEasy", 3, trials=2, project_observation=4, permute_actions=True
    )
    shapes = {name: (envs.view(name).shape, envs.view(name).dtype) for name in envs.task.views}
    assert shapes == {
        "trial": ((3,), np.int64),
        "trial_return": ((3,), np.float64),
        "M_o": ((3, 4, 2), np.float64),
        "permutation": ((3, 2), np.int64),
    }
    envs.reset()
    before = envs.view("M_o")
    envs.view("M_o")[:] = 0
    assert before.all() and np.array_equal(envs.view("M_o"), before)
    with pytest.raises(
        ValueError,
        match="name: expected one of 'trial', 'trial_return', 'M_o', 'permutation', got 'M_a'",
    ):
        envs.view("M_a")
    with pytest.raises(
        ValueError,
        match="name: expected no name at all, as this environment has no views, got 'trial'",
    ):
        make_vec("MemoryChain", 1).view("trial")


def views_on_a_device():
    for name in COMPOSED:
        envs = vec(name, 3, seed=5, device="cuda")
        envs.reset()
        expected = np.load(os.environ["VIEWS"])
        for view in envs.task.views:
            assert np.array_equal(envs.view(view), expected[f"{name}/{view}"])


def test_views_are_the_same_on_a_device(tmp_path, monkeypatch):
    monkeypatch.setenv("VIEWS", str(tmp_path / "views.npz"))
    arrays = {}
    for name in COMPOSED:
        envs = vec(name, 3, seed=5)
        envs.reset()
        arrays |= {f"{name}/{view}": envs.view(view) for view in envs.task.views}
    np.savez(tmp_path / "views.npz", **arrays)
    simulated(__file__, "views_on_a_device()")


def test_render():
    env = make_single("MemoryChain-2", render_mode="ansi", trials=3)
    env.reset(seed=0)
    env.step(0)
    env.step(0)
    assert env.render() in (
        "trial 2/3: step 1/2: cue 0, query -",
        "trial 2/3: step 1/2: cue 1, query -",
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("MemoryChain", {"trials": 0}, r"trials: expected an integer in \[1, \d+\], got 0"),
        ("MemoryChain", {"trials": 1.5}, "trials: expected an integer .* got 1.5"),
        (
            "MemoryChain",
            {"project_observation": -1},
            r"project_observation: expected an integer in \[0, 10000\], got -1",
        ),
        ("MemoryChain", {"project_action": "2"}, "project_action: expected an integer .* got '2'"),
        (
            "MemoryChain",
            {"permute_actions": "yes"},
            "permute_actions: expected one of False, True, got 'yes'",
        ),
        (
            "BattleshipEasy",
            {"project_action": 2},
            "project_action: expected .* Box or Discrete actions, got MultiDiscrete",
        ),
        (
            "BattleshipEasy",
            {"permute_actions": True},
            "permute_actions: expected Discrete actions .* got MultiDiscrete",
        ),
        (
            "PositionOnlyPendulumEasy",
            {"permute_actions": True},
            "permute_actions: expected Discrete actions .* got Box",
        ),
        (
            "MemoryChain",
            {"project_action": 2, "permute_actions": True},
            "permute_actions: .* got project_action as well",
        ),
        (
            "MemoryChain",
            {"action_repeat": 0},
            r"action_repeat: expected an integer in \[1, 10000\], got 0",
        ),
        (
            "MemoryChain",
            {"projections": 2},
            "projections: expected project_observation or project_action as well, got 2",
        ),
        (
            "MemoryChain",
            {"project_observation": 2, "projections": -1},
            r"projections: expected an integer in \[0, 2147483648\], got -1",
        ),
        (
            "MemoryChain",
            {"trails": 2},
            r"trails: MemoryChain has no such option \(did you mean trials\?\); its options are ",
        ),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_vec(name, 1, **options)


@pytest.mark.parametrize("name", COMPOSED)
def test_one_composition_is_one_object(name):
    env, task = environment_and_task(name)
    again, same = environment_and_task(name)
    assert again is env and same.params == task.params and same.views == task.views


SHAPE = {"encoder": (8,), "heads": (8,), "n_layers": 1, "ssm_size": 8}
TINY = {**SHAPE, "num_envs": 8, "unroll": 16, "epochs": 1, "minibatches": 1, "anneal_lr": False}


def test_a_run_is_trained_resumed_and_evaluated_with_other_numbers_of_trials(tmp_path):
    options = {"trials": 2, "project_observation": 4, "permute_actions": True, "max_steps": 6}
    settings = {
        "env_options": options,
        "overrides": TINY,
        "eval_episodes": 5,
        "workers": 1,
        "quiet": True,
    }
    train("PositionOnlyCartPoleEasy", steps=512, out=tmp_path / "whole", **settings)
    train("PositionOnlyCartPoleEasy", steps=256, out=tmp_path / "parts", **settings)
    resume(tmp_path / "parts", steps=512, quiet=True)
    whole, parts = (minis5.load(tmp_path / folder / "agent.npz") for folder in ("whole", "parts"))
    assert np.array_equal(whole.parameter_vector, parts.parameter_vector)
    result = evaluate(whole, "PositionOnlyCartPoleEasy", 5, **{**options, "trials": 4})
    assert abs(result["mean_return"] - 4) < 1e-9  # six steps: nobody falls
