"""The DeepMind Control Suite behind Gymnasium: the suite's numbers, the paper's rule, errors."""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from small_runs import TINY, UPDATE, assert_same_run

import minis5
from minis5.envs.foreign import dmc
from minis5.envs.foreign.dmc import HELD_OUT, TRAIN
from minis5.run.train import resume, train

INSTALL = "pip install 'minis5[control]'"
# by hand from the suite's files: tasks of at most 12 and 2 that the paper's tables do not have
OF_THE_RULE_ONLY = {
    "dmc/acrobot-swingup",
    "dmc/acrobot-swingup_sparse",
    "dmc/cartpole-balance_sparse",
    "dmc/cartpole-swingup_sparse",
    "dmc/cartpole-two_poles",
    "dmc/cartpole-three_poles",
    "dmc/lqr-lqr_2_1",
    "dmc/lqr-lqr_6_2",
}


@pytest.fixture
def suite():
    pytest.importorskip("dm_control")
    return dmc._suite()


def make(env_id, **options):
    dmc.register()
    return gymnasium.make(env_id, **options)


def flat(timestep):
    """Return a timestep's observation, put together by hand."""
    values = []
    for part in timestep.observation.values():
        values.extend(np.asarray(part).reshape(-1).tolist())
    return np.array(values, np.float32)


# Without the extra


def test_importing_minis5_imports_neither_dm_control_nor_mujoco():
    code = "import sys, minis5, minis5.envs.foreign.dmc; "
    code += "print({'dm_control', 'mujoco', 'dm_env'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "set()\n"
    )


@pytest.mark.parametrize(
    "call", [lambda: minis5.make_vec("dmc/cartpole-swingup", 2), dmc.register, dmc.small_tasks]
)
def test_without_the_extra(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(
        ModuleNotFoundError, match="need dm_control, which could not be imported"
    ) as caught:
        call()
    assert str(caught.value).endswith(INSTALL)


def test_without_the_extra_on_the_command_line(tmp_path):
    main = "import sys; sys.modules['dm_control'] = None; "
    main += "from minis5.run.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        main,
        "train",
        "dmc/cartpole-swingup",
        "--out",
        str(tmp_path / "run"),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("minis5: error: env_id: ") and INSTALL in result.stderr
    assert not (tmp_path / "run").exists()


# Side by side with the suite


@pytest.mark.parametrize("env_id", [*TRAIN, *HELD_OUT, "dmc/lqr-lqr_6_2"])
def test_observations_and_rewards_are_the_suite_s(suite, env_id):
    """They are so bit for bit: the suite takes these actions as they are; textures do nothing."""
    env = make(env_id)
    domain, _, task = env_id.removeprefix("dmc/").partition("-")
    theirs = suite.load(domain, task, task_kwargs={"random": 7})
    rng = np.random.default_rng(0)
    env.reset(seed=99)
    for seed in (7, None):  # the second episode goes on with the first one's random numbers
        obs, info = env.reset(seed=seed)
        np.testing.assert_array_equal(obs, flat(theirs.reset()))
        assert obs.dtype == np.float32 and info == {} and obs in env.observation_space
        for _ in range(200):
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            obs, reward, *ends, info = env.step(action)
            timestep = theirs.step(action)
            np.testing.assert_array_equal(obs, flat(timestep))
            assert (reward, ends) == (timestep.reward, [False, False])


def test_actions_are_scaled_to_the_suite_s_bounds(suite):
    env = make("dmc/quadruped-walk")
    env.reset(seed=0)
    spec = env.unwrapped.environment.action_spec()
    assert (
        env.action_space == gymnasium.spaces.Box(-1, 1, (12,), np.float32)
        and spec.minimum.min() < spec.maximum.max() != 1
    )
    for action, control in (
        (-1, spec.minimum),
        (0, (spec.minimum + spec.maximum) / 2),
        (1, spec.maximum),
    ):
        env.step(np.full(12, action, np.float32))
        np.testing.assert_allclose(env.unwrapped.environment.physics.control(), control, rtol=1e-15)


def test_the_time_limit_truncates(suite):
    env = make("dmc/pendulum-swingup")
    theirs = suite.load("pendulum", "swingup", task_kwargs={"random": 0})
    env.reset(seed=0)
    theirs.reset()
    for step in range(1, 1001):
        *_, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        timestep = theirs.step(np.zeros(1))
        assert not terminated and truncated == (step == 1000) == timestep.last()
    assert timestep.discount == 1
    with pytest.raises(gymnasium.error.ResetNeeded, match="no episode is running"):
        env.step(np.zeros(1, np.float32))


def test_discount_0_terminates(suite):
    """An LQR ends where it is at rest at the origin."""
    env = make("dmc/lqr-lqr_2_1", time_limit=0.1)
    env.reset(seed=0)
    with env.unwrapped.environment.physics.reset_context():
        pass
    obs, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
    assert (reward, terminated, truncated) == (1.0, True, False) and not obs.any()


def test_a_seed_decides_all(suite):
    """It decides what LQR draws while it loads, too; without a seed episodes differ."""
    one, other = make("dmc/lqr-lqr_2_1"), make("dmc/lqr-lqr_2_1")
    assert not np.array_equal(one.reset()[0], other.reset()[0])
    other.reset()
    assert not np.array_equal(one.reset()[0], other.reset()[0])
    for env in (one, other):
        env.reset(seed=5)
    for _ in range(5):
        np.testing.assert_array_equal(one.step(np.ones(1))[0], other.step(np.ones(1))[0])


def test_loading_leaves_the_suite_as_it_was(suite):
    folder = Path(suite.common.__file__).parents[1]
    ours = make("dmc/reacher-easy").unwrapped.environment.physics.model
    assert suite.common.ASSETS == {
        name: (folder / name).read_bytes() for name in suite.common.ASSETS
    }
    assert suite.load("reacher", "easy").physics.model.ntexdata > 1e6 > 1e3 > ours.ntexdata


def test_gymnasium_checker_finds_nothing(suite):
    env = make("dmc/finger-turn_hard").unwrapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "(?s).*value is -?infinity")  # the suite gives no bounds
        check_env(env, skip_render_check=True)


# The paper's rule


def test_small_tasks_follow_the_rule(suite):
    """They are the paper's tasks, and those that the docstring of small_tasks names."""
    assert set(dmc.small_tasks()) == {*TRAIN, *HELD_OUT} | OF_THE_RULE_ONLY
    assert len({*TRAIN, *HELD_OUT}) == len(TRAIN) + len(HELD_OUT) == 11
    assert dmc.small_tasks(4, 1) == ("dmc/lqr-lqr_2_1", "dmc/pendulum-swingup")


def test_sizes(suite):
    by_hand = {
        "cartpole-swingup": (5, 1),
        "finger-turn_hard": (12, 2),
        "reacher-easy": (6, 2),
        "walker-walk": (24, 6),
    }
    assert {name: dmc.sizes(f"dmc/{name}") for name in by_hand} == by_hand
    for env_id in TRAIN + HELD_OUT:
        env = make(env_id)
        assert dmc.check_size(env_id) == (*env.observation_space.shape, *env.action_space.shape)


def test_a_task_that_breaks_the_rule(suite):
    message = (
        "dmc/walker-walk has 24 observed values and 6 actions, but the rule is at most 12 and 2"
    )
    with pytest.raises(ValueError, match=message):
        dmc.check_size("dmc/walker-walk")
    assert dmc.check_size("dmc/walker-walk", 24, 6) == (24, 6)
    with pytest.raises(
        ValueError, match="dmc/finger-spin has 9 observed values and 2 actions, .* at most 9 and 1"
    ):
        dmc.check_size("dmc/finger-spin", 9, 1)
    with pytest.raises(
        ValueError, match="expected a task of the suite such as .*, got 'dmc/walker-fly'"
    ):
        dmc.check_size("dmc/walker-fly")


# In batches, in checkpoints, in training


@pytest.mark.parametrize("options", [{}, {"processes": 2}, {"vectorization_mode": "async"}])
def test_batches_equal_single_environments(suite, options):
    """Episodes have ten steps; at their ends Gymnasium's batches take one more step to reset."""
    seeds = [3, 1, 2]
    singles = [make("dmc/reacher-easy", time_limit=0.2) for _ in seeds]
    envs = minis5.make_vec("dmc/reacher-easy", 3, time_limit=0.2, **options)
    first = [env.reset(seed=seed)[0] for env, seed in zip(singles, seeds, strict=True)]
    np.testing.assert_array_equal(envs.reset(seed=seeds)[0], first)
    rng, ended = np.random.default_rng(0), False
    for step in range(1, 25):
        actions = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        obs, rewards, terminated, truncated, _ = envs.step(actions)
        if ended:
            np.testing.assert_array_equal(obs, [env.reset()[0] for env in singles])
            ended = False
            continue
        expected = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        np.testing.assert_array_equal(obs, [e[0] for e in expected])
        np.testing.assert_array_equal(rewards, [e[1] for e in expected])
        assert (
            not terminated.any()
            and truncated.tolist() == [e[3] for e in expected] == [step in (10, 21)] * 3
        )
        ended = truncated.all()
    envs.close()


@pytest.mark.parametrize(
    "env_id", ["dmc/point_mass-hard", "dmc/ball_in_cup-catch", "dmc/finger-turn_easy"]
)
def test_pickled_it_goes_on_with_the_same_bits(suite, env_id):
    env = make(env_id, time_limit=3.0)
    rng = np.random.default_rng(0)
    env.reset(seed=1)
    for _ in range(40):
        env.step(rng.uniform(-1, 1, 2).astype(np.float32))
    saved = pickle.dumps(env)
    assert len(saved) < 300_000
    copy, ended = pickle.loads(saved), 0
    while ended < 2:
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        (obs, *ours), (copied, *theirs) = env.step(action), copy.step(action)
        np.testing.assert_array_equal(obs, copied)
        assert ours == theirs
        if ours[2]:
            ended += 1
            np.testing.assert_array_equal(env.reset()[0], copy.reset()[0])


@pytest.mark.parametrize(
    "options", [{"workers": 2}, {"vector_options": {"processes": 2}, "workers": 1}]
)
def test_training_resumes(suite, tmp_path, options):
    options |= {
        "env_options": {"time_limit": 0.3},
        "overrides": TINY,
        "eval_episodes": 3,
        "quiet": True,
    }
    whole = train("dmc/cartpole-swingup", steps=6 * UPDATE, out=tmp_path / "whole", **options)
    assert 0 <= whole["min_return"] <= whole["max_return"] <= 30 and whole["updates"] == 6
    train("dmc/cartpole-swingup", steps=3 * UPDATE, out=tmp_path / "run", **options)
    assert (
        resume(tmp_path / "run", steps=6 * UPDATE, quiet=True, trust=True)["mean_return"]
        == whole["mean_return"]
    )
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_mixture(suite):
    """Every episode is one of the tasks, driven with M_a a and seen through M_o."""
    env = make("dmc/mixture", tasks="cartpole-balance, dmc/reacher-hard").unwrapped
    rng, drawn = np.random.default_rng(0), set()
    for seed in range(6):
        observation, info = env.reset(seed=seed)
        drawn.add(info["task"])
        projection, alone = (
            env.env,
            make(("dmc/cartpole-balance", "dmc/reacher-hard")[info["task"]]).unwrapped,
        )
        assert (
            projection.observation_matrix.shape[0] == 12 and projection.action_matrix.shape[1] == 2
        )
        alone.environment = pickle.loads(pickle.dumps(projection.unwrapped.environment))
        alone._running, first = (
            True,
            projection.unwrapped.environment.task.get_observation(alone.environment.physics),
        )
        flat = np.concatenate([np.ravel(part) for part in first.values()], dtype=np.float32)
        np.testing.assert_allclose(
            observation[:12], projection.observation_matrix @ flat, rtol=1e-6, atol=1e-6
        )
        assert observation[12:].tolist() == [0, 0]
        for _ in range(5):
            action = rng.uniform(-1, 1, 2).astype(np.float32)
            observation, reward, *_ = env.step(action)
            inner = (projection.action_matrix @ action).clip(-1, 1).astype(np.float32)
            plain, plain_reward, *_ = alone.step(inner)
            assert (
                reward == plain_reward
                and observation[12] == np.float32(reward)
                and observation[13] == 0
            )
            np.testing.assert_allclose(
                observation[:12], projection.observation_matrix @ plain, rtol=1e-6, atol=1e-6
            )
    assert drawn == {0, 1}
    assert (
        make("dmc/mixture").observation_space == env.observation_space
        and len(dmc.mixture()._factories) == 6
    )


def test_a_repeated_action_is_so_many_steps_with_it(suite):
    env, plain = (
        make("dmc/mixture", tasks="reacher-easy", **more).unwrapped
        for more in ({"action_repeat": 3}, {})
    )
    assert np.array_equal(env.reset(seed=4)[0], plain.reset(seed=4)[0])
    rng = np.random.default_rng(0)
    for step in range(334):  # the last is of one frame: 1000 in all
        action = rng.uniform(-1, 1, 2).astype(np.float32)
        observation, reward, *ends, _ = env.step(action)
        parts = [plain.step(action) for _ in range(3 if step < 333 else 1)]
        assert np.array_equal(observation[:12], parts[-1][0][:12]) and ends == list(
            parts[-1][2:4]
        ) == [False, step == 333]
        assert reward == sum(part[1] for part in parts) and observation[12] == np.float32(reward)


# Mistakes


@pytest.mark.parametrize(
    ("env_id", "options", "message"),
    [
        (
            "dmc/cartpole-swngup",
            {},
            r"unknown environment 'dmc/cartpole-swngup' \(did you mean dmc/cartpole-swingup",
        ),
        (
            "dmc/cartpole-swingup",
            {"time_limt": 3},
            "env_options: expected options of the suite's cartpole-swingup, got time_limt .*;",
        ),
        (
            "dmc/mixture",
            {"tasks": "reacher-easy,walker-walk"},
            "dmc/walker-walk has 24 observed values and 6 actions, but",
        ),
        (
            "dmc/mixture",
            {"action_repeat": 0},
            r"action_repeat: expected an integer in \[1, 1000\], got 0",
        ),
        (
            "dmc/mixture",
            {"tasks": "cartpole-fly"},
            "expected a task of the suite such as .*got 'dmc/cartpole-fly'",
        ),
        ("dmc/cartpole-swingup", {"device": "cuda"}, "is not native .*runs with device='cpu' only"),
    ],
)
def test_bad_arguments_of_make_vec(suite, env_id, options, message):
    with pytest.raises(ValueError, match=message):
        minis5.make_vec(env_id, 2, **options)


def test_bad_arguments_of_the_environment(suite):
    env = make("dmc/cartpole-swingup").unwrapped
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected shape \(1,\), got \(2,\)"):
        env.step(np.zeros(2))
    with pytest.raises(ValueError, match=r"seed: expected an integer in \[0, 4294967295\], got -1"):
        env.reset(seed=-1)


def test_an_old_gymnasium_repeats_no_action(monkeypatch):
    monkeypatch.delattr(gymnasium.wrappers, "RepeatAction", raising=False)
    assert dmc.mixture.__defaults__[-1] == 1
    with pytest.raises(ValueError, match="action_repeat: expected 1 with Gymnasium .*, got 2; pip"):
        dmc.mixture(action_repeat=2)
