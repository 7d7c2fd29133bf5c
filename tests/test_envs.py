"""The native environments: hand-worked episodes, Python against Numba bit for bit, seeding, splitting, autoreset,
saving of the state, bad actions. Lockstep with the originals is in test_envs_lockstep.py, names and options in
test_make_vec.py."""

import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from minis5.envs import REGISTRY, find, make_single, make_vec
from minis5.envs import memory_chain as chain
from minis5.envs import position_only_cartpole as cartpole
from minis5.envs import repeat_previous as repeat

SMALL = [*REGISTRY, "MemoryChain-5"]


def rollout(envs, steps, seed=0):
    """Random actions, drawn per environment so that a part of a batch gets the same ones: lists over time."""
    actions = np.random.default_rng(seed).integers(0, envs.single_action_space.n, (steps, 64))
    first = envs._first_index
    return [envs.step(actions[t, first : first + envs.num_envs]) for t in range(steps)]


def same(a, b):
    return all(np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype for x, y in zip(a, b, strict=True))


def test_repeat_previous_by_hand():
    env = make_single("RepeatPreviousEasy", k=2)
    first, _ = env.reset(seed=0)
    deck = [0, 1, 1, 3] + [i % 4 for i in range(48)]
    env._ints[0, repeat.CARDS :] = deck
    # One card seen: no answer yet. Then, with the cards 0 1 | 0 1 1 | 0 1 1 3 seen, the last but one is 0, 1, 1.
    unit = 1 / 50
    assert env.step(3)[:4] == (1, 0.0, False, False)
    assert env.step(0)[:4] == (1, unit, False, False)
    assert env.step(0)[:4] == (3, -unit, False, False)
    assert env.step(1)[:4] == (deck[4], unit, False, False)
    for seen in range(5, 51):
        assert env.step(deck[seen - 2])[:4] == (deck[seen], unit, False, False)
    assert env.step(deck[49])[:4] == (deck[51], unit, True, False)


@pytest.mark.parametrize(("level", "cards"), [("Easy", 52), ("Medium", 104), ("Hard", 156)])
def test_repeat_previous_has_cards_minus_one_steps_and_a_best_return_of_one(level, cards):
    env, task = find("RepeatPrevious" + level)
    single = make_single("RepeatPrevious" + level)
    seen, total, steps, ended = [single.reset(seed=1)[0]], 0.0, 0, False
    while not ended:
        k = task.params[1]
        obs, reward, ended, truncated, _ = single.step(seen[-k] if len(seen) >= k else 0)
        seen.append(obs)
        total, steps = total + reward, steps + 1
    assert steps == task.episode_length == cards - 1 and not truncated
    assert abs(total - 1) < 1e-12
    assert np.bincount(seen).tolist() == [cards // 4] * 4  # a whole pack


def test_memory_chain_by_hand():
    env = make_single("MemoryChain", memory_length=4, num_bits=3)
    env.reset(seed=0)
    env._ints[0, chain.QUERY :] = 2, 1, 0, 1
    obs = np.empty(5, np.float32)
    chain.observe(env.task.params, env._ints[0], env._floats[0], obs)
    assert obs.tolist() == [1, 0, 1, -1, 1]
    for time, query in [(0.75, 0), (0.5, 0), (0.25, 2)]:
        obs, *rest = env.step(0)
        assert obs.tolist() == [time, query, 0, 0, 0] and rest == [0.0, False, False, {}]
    obs, *rest = env.step(1)
    assert obs.tolist() == [0, 0, 0, 0, 0] and rest == [1.0, True, False, {}]


@pytest.mark.parametrize("length", [1, 2, 5])
def test_memory_chain_rewards_the_cue(length):
    envs = make_vec("MemoryChain", 256, seed=3, memory_length=length)
    obs, _ = envs.reset()
    cue = (obs[:, 2] > 0).astype(int)
    assert 64 < cue.sum() < 192
    for t in range(length):
        answer = cue if t == length - 1 else 1 - cue
        flip = np.arange(256) % 2
        obs, reward, terminated, truncated, infos = envs.step(answer ^ flip)
    np.testing.assert_array_equal(reward, 1 - 2 * flip)
    assert terminated.all() and not truncated.any()


def test_memory_chain_asks_for_every_bit_equally():
    envs = make_vec("MemoryChain", 6000, memory_length=2, num_bits=3)
    envs.reset()
    obs, *_ = envs.step(np.zeros(6000, int))
    counts = np.bincount(obs[:, 1].astype(int))
    assert len(counts) == 3 and abs(counts - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)


def test_cartpole_truncates_at_its_last_step_only():
    envs = make_vec("PositionOnlyCartPoleEasy", 1, max_steps=3)
    obs, _ = envs.reset()
    assert obs.dtype == np.float32 and obs.shape == (1, 2) and (abs(obs) <= 0.05).all()
    flags = [envs.step(np.array([t % 2]))[1:4] for t in range(4)]
    assert [tuple(x.item() for x in step) for step in flags] == [
        (1 / 3, False, False),
        (1 / 3, False, False),
        (1 / 3, False, True),
        (1 / 3, False, False),
    ]


DIGEST = """
import hashlib, json, sys
import numpy as np
from minis5.envs import make_vec
out = {}
for name, steps in json.loads(sys.argv[1]):
    envs = make_vec(name, 5, seed=11, first_index=2)
    rng = np.random.default_rng(0)
    arrays = [envs.reset()[0]]
    for _ in range(steps):
        *step, infos = envs.step(rng.integers(0, envs.single_action_space.n, 5))
        arrays += step + list(infos.values())
    arrays += envs.get_state().values()
    out[name] = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
print(json.dumps(out))
"""


def test_plain_python_and_numba_give_the_same_bits():
    runs = [(name, min(330, 2 * find(name)[1].episode_length + 3)) for name in SMALL]
    digests = []
    for disabled in ("0", "1"):
        result = subprocess.run(
            [sys.executable, "-c", DIGEST, json.dumps(runs)],
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        digests.append(json.loads(result.stdout))
    assert digests[0] == digests[1]


def test_step_functions_run_undecorated():
    task = find("MemoryChain-2")[1]
    ints, floats = np.zeros(task.ints, np.int64), np.zeros(0)
    ints[chain.CONTEXT] = 1
    assert chain.step.py_func(task.params, ints, floats, 0) == (0.0, False, False)
    assert chain.step.py_func(task.params, ints, floats, 1) == (1.0, True, False)
    task = find("PositionOnlyCartPoleEasy")[1]
    plain, compiled = (np.array([0.01, -0.02, 0.03, 0.04]) for _ in range(2))
    ints = np.zeros(task.ints, np.int64)
    for t in range(50):
        cartpole.step.py_func(task.params, ints, plain, t % 2)
        cartpole.step(task.params, ints, compiled, t % 2)
    np.testing.assert_array_equal(plain, compiled)


@pytest.mark.parametrize("name", SMALL)
def test_row_0_is_the_single_environment(name):
    envs, env = make_vec(name, 3, seed=5), make_single(name)
    (obs, _), (alone, _) = envs.reset(), env.reset(seed=5)
    rng = np.random.default_rng(1)
    for _ in range(3 * envs.task.episode_length + 2):
        assert np.array_equal(obs[0], alone) and alone in env.observation_space
        actions = rng.integers(0, envs.single_action_space.n, 3)
        obs, reward, terminated, truncated, infos = envs.step(actions)
        alone, *rest = env.step(actions[0])
        assert rest == [reward[0], terminated[0], truncated[0], {}]
        if terminated[0] or truncated[0]:
            assert np.array_equal(infos["final_obs"][0], alone)
            alone, _ = env.reset()


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_split_over_first_index_gives_the_same_episodes(name):
    parts = [make_vec(name, n, seed=9, first_index=first) for n, first in [(64, 0), (40, 0), (24, 40)]]
    starts = [envs.reset()[0] for envs in parts]
    assert np.array_equal(starts[0], np.concatenate(starts[1:]))
    for whole, *pieces in zip(*(rollout(envs, 120) for envs in parts), strict=True):
        assert same(whole[:4], [np.concatenate(x) for x in zip(*[p[:4] for p in pieces], strict=True)])


@pytest.mark.parametrize("name", SMALL)
def test_final_obs_and_the_observation_after_it(name):
    envs = make_vec(name, 64, seed=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    obs, infos = envs.reset()
    assert infos == {} and obs in envs.observation_space
    ends = 0
    for obs, reward, terminated, truncated, infos in rollout(envs, 2 * envs.task.episode_length + 1):
        ended = terminated | truncated
        assert obs in envs.observation_space and reward.dtype == np.float64 and ended.dtype == bool
        assert bool(infos) == ended.any()
        if infos:
            ends += ended.sum()
            assert set(infos) == {"final_obs", "_final_obs"} and np.array_equal(infos["_final_obs"], ended)
            assert infos["final_obs"].shape == obs.shape and infos["final_obs"].dtype == obs.dtype
            assert np.array_equal(infos["final_obs"][~ended], obs[~ended])
            if name.startswith("MemoryChain"):
                assert not infos["final_obs"][ended].any()
                assert (obs[ended, 0] == 1).all() and (obs[ended, 2] != 0).all()
            if name.startswith("PositionOnlyCartPole"):
                assert (abs(obs[ended]) <= 0.05).all()
                assert (abs(infos["final_obs"][ended]) > 0.2).any(axis=1).all()
    assert ends >= 64


@pytest.mark.parametrize("name", SMALL)
def test_seeding(name):
    envs, again, other = (make_vec(name, 16, seed=s) for s in (1, 1, 2))
    first, same_seed, other_seed = (e.reset()[0] for e in (envs, again, other))
    assert np.array_equal(first, same_seed)
    assert name.startswith("MemoryChain") or not np.array_equal(first, other_seed)
    goes_on = rollout(envs, 200), rollout(again, 200)
    assert all(same(a[:4], b[:4]) for a, b in zip(*goes_on, strict=True))
    envs.reset(seed=2)
    other.reset(seed=2)
    assert same(envs.get_state().values(), other.get_state().values())
    other.reset()  # without a seed the streams go on: other episodes
    assert not same(envs.get_state().values(), other.get_state().values())


@pytest.mark.parametrize("name", SMALL)
def test_state_round_trip(name):
    envs = make_vec(name, 8, seed=3)
    envs.reset()
    rollout(envs, 30)
    state = envs.get_state()
    ahead = rollout(envs, 100, seed=4)
    fresh = make_vec(name, 8, seed=77)
    fresh.set_state(state)
    assert all(same(a[:4], b[:4]) for a, b in zip(ahead, rollout(fresh, 100, seed=4), strict=True))
    state["ints"][:] = -1  # a copy: the environments keep theirs
    assert (envs.get_state()["ints"][:, 0] == 3).all()


def test_results_are_new_arrays():
    envs = make_vec("MemoryChain-5", 4)
    obs, _ = envs.reset()
    steps = rollout(envs, 6)
    kept = [x for step in steps for x in step[:4]] + [steps[4][4]["final_obs"]]
    before = [x.copy() for x in kept]
    rollout(envs, 6)
    assert same(kept, before) and not any(np.shares_memory(a, b) for a in kept for b in kept if a is not b)


@pytest.mark.parametrize("name", ["RepeatPreviousMedium", "MemoryChain-5", "PositionOnlyCartPoleEasy"])
def test_random_return_in_the_table(name):
    envs = make_vec(name, 500, seed=1)
    envs.reset()
    rng = np.random.default_rng(0)
    total, returns = np.zeros(500), []
    for _ in range(4 * 103):
        _, reward, terminated, truncated, _ = envs.step(rng.integers(0, envs.single_action_space.n, 500))
        total += reward
        ended = terminated | truncated
        returns.append(total[ended])
        total[ended] = 0
    returns = np.concatenate(returns)
    assert abs(returns.mean() - envs.task.random_return) < 5 * returns.std() / np.sqrt(len(returns))


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 1, 4]), r"actions: expected values in \[0, 4\), got 4 for environment 2"),
        (np.array([0, -1, 0]), r"got -1 for environment 1"),
        (np.array([0, 2**64 - 1, 0], np.uint64), "for environment 1"),
        (np.zeros(3), r"actions: expected integers \(num_envs,\) = \(3,\), got float64 \(3,\); pass one"),
        (np.array([0, np.nan, 0]), "got float64"),
        (np.zeros(2, int), r"got int64 \(2,\)"),
        (np.zeros((3, 1), int), r"got int64 \(3, 1\)"),
        (0, r"got int64 \(\)"),
        (None, "got object"),
    ],
)
def test_bad_actions_leave_the_state_alone(actions, message):
    envs = make_vec("RepeatPreviousEasy", 3)
    envs.reset()
    before = envs.get_state()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)
    assert same(before.values(), envs.get_state().values())


def test_actions_of_any_integer_type():
    for actions in ([0, 1], np.array([0, 1], np.uint8), np.array([0, 5, 1])[::2]):
        envs = make_vec("MemoryChain-5", 2)
        envs.reset()
        envs.step(actions)


@pytest.mark.parametrize("action", [2, -1, 0.5, np.nan, None, np.zeros(1, int)])
def test_bad_single_actions(action):
    env = make_single("MemoryChain-5")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected an integer in Discrete\(2\), got"):
        env.step(action)


def test_step_without_an_episode():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        make_vec("MemoryChain-5", 2).step([0, 0])
    env = make_single("MemoryChain-1")
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    assert env.step(0)[2]
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_bad_seed_of_reset():
    for env in (make_vec("MemoryChain-5", 2), make_single("MemoryChain-5")):
        with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
            env.reset(seed=-1)


@pytest.mark.parametrize(
    "state", [{}, {"ints": np.zeros((2, 6))}, make_vec("MemoryChain-5", 3).get_state(), {"ints": None, "floats": None}]
)
def test_bad_state(state):
    envs = make_vec("MemoryChain-5", 2)
    with pytest.raises(
        ValueError, match=r"state\['ints'\]: expected int64 \(2, 6\), got .*; pass the state of the same"
    ):
        envs.set_state(state)
