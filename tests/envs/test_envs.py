"""The native environments: hand-worked episodes, Python against Numba bit for bit, seeding, splitting, autoreset,
saving of the state, bad actions. Lockstep with the originals is in test_popgym_*.py and test_bsuite.py, names and options
in test_make_vec.py."""

import json
import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from compositions import COMPOSED, environment_and_task, id_and_options, single, vec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from minis5.envs import memory_chain as chain
from minis5.envs.popgym import cartpole
from minis5.envs.popgym import repeat_previous as repeat
from minis5.envs.registry import REGISTRY, find, make_single, make_vec
from minis5.spaces import leaves

SMALL = [*REGISTRY, "MemoryChain-5", *COMPOSED]


def rows(observations):
    """Observations of a batch as one array, (n, numbers in one of them)."""
    return np.column_stack([leaf.reshape(len(leaf), -1) for leaf in leaves(observations)])


def random_actions(envs, steps, seed=0, n=64):
    """Drawn for n environments, so that the parts of a batch get the same ones as the whole."""
    space = batch_space(envs.single_action_space, n)
    space.seed(seed)
    first = envs._first_index
    return [space.sample()[first : first + envs.num_envs] for _ in range(steps)]


def rollout(envs, steps, seed=0):
    """Steps with random actions: a list of [rows of observations, reward, terminated, truncated, infos]."""
    steps = [envs.step(actions) for actions in random_actions(envs, steps, seed)]
    return [[rows(step[0]), *step[1:]] for step in steps]


def same(a, b):
    return all(
        np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype
        for x, y in zip(a, b, strict=True)
    )


def test_repeat_previous_by_hand():
    env = make_single("RepeatPreviousEasy", k=2)
    first, _ = env.reset(seed=0)
    deck = [0, 1, 1, 3] + [i % 4 for i in range(48)]
    env._ints[0, repeat.CARDS :] = deck
    # One card seen: no answer yet. Then, with the cards 0 1 | 0 1 1 | 0 1 1 3 seen, the last but
    # one is 0, 1, 1.
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
from minis5.rollout import leaves
out = {}
for name, env_id, options, steps in json.loads(sys.argv[1]):
    envs = make_vec(env_id, 5, seed=11, first_index=2, **options)
    envs.action_space.seed(0)
    arrays = leaves(envs.reset()[0])
    for _ in range(steps):
        obs, *step, infos = envs.step(envs.action_space.sample())
        arrays += leaves(obs) + step + (leaves(infos["final_obs"]) if infos else [])
    arrays += envs.get_state().values()
    out[name] = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
print(json.dumps(out))
"""


def test_plain_python_and_numba_give_the_same_bits():
    runs = [
        (
            name,
            *id_and_options(name),
            min(330, 2 * environment_and_task(name)[1].episode_length + 3),
        )
        for name in SMALL
    ]
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
    envs, env = vec(name, 3, seed=5), single(name)
    (obs, _), (alone, _) = envs.reset(), env.reset(seed=5)
    for actions in random_actions(envs, min(3 * envs.task.episode_length + 2, 1500)):
        assert np.array_equal(rows(obs)[0], np.ravel(alone)) and alone in env.observation_space
        obs, reward, terminated, truncated, infos = envs.step(actions)
        alone, *rest = env.step(actions[0])
        assert rest == [reward[0], terminated[0], truncated[0], {}]
        if terminated[0] or truncated[0]:
            assert np.array_equal(rows(infos["final_obs"])[0], np.ravel(alone))
            alone, _ = env.reset()


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_split_over_first_index_gives_the_same_episodes(name):
    parts = [vec(name, n, seed=9, first_index=first) for n, first in [(64, 0), (40, 0), (24, 40)]]
    starts = [rows(envs.reset()[0]) for envs in parts]
    assert np.array_equal(starts[0], np.concatenate(starts[1:]))
    for whole, *pieces in zip(*(rollout(envs, 120) for envs in parts), strict=True):
        assert same(
            whole[:4], [np.concatenate(x) for x in zip(*[p[:4] for p in pieces], strict=True)]
        )


@pytest.mark.parametrize("name", SMALL)
def test_final_obs_and_the_observation_after_it(name):
    envs = vec(name, 64, seed=2)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    obs, infos = envs.reset()
    assert infos == {} and obs in envs.observation_space
    ends = 0
    for actions in random_actions(envs, 2 * envs.task.episode_length + 1):
        obs, reward, terminated, truncated, infos = envs.step(actions)
        ended = terminated | truncated
        assert reward.dtype == np.float64 and ended.dtype == bool and bool(infos) == ended.any()
        if infos:
            final = infos["final_obs"]
            ends += ended.sum()
            assert obs in envs.observation_space and final in envs.observation_space
            assert set(infos) == {"final_obs", "_final_obs"} and np.array_equal(
                infos["_final_obs"], ended
            )
            assert not rows(final)[~ended].any()
            if name.startswith("MemoryChain"):
                assert not final[ended].any()
                assert (obs[ended, 0] == 1).all() and (obs[ended, 2] != 0).all()
            if name.startswith("PositionOnlyCartPole"):
                assert (abs(obs[ended]) <= 0.05).all()
                assert (abs(final[ended]) > 0.2).any(axis=1).all()
    assert ends >= 64


@pytest.mark.parametrize("name", SMALL)
def test_seeding(name):
    envs, again, other = (vec(name, 16, seed=s) for s in (1, 1, 2))
    first, same_seed, _ = (rows(e.reset()[0]) for e in (envs, again, other))
    assert np.array_equal(first, same_seed)
    assert not same(envs.get_state().values(), other.get_state().values())
    goes_on = rollout(envs, 200), rollout(again, 200)
    assert all(same(a[:4], b[:4]) for a, b in zip(*goes_on, strict=True))
    envs.reset(seed=2)
    other.reset(seed=2)
    assert same(envs.get_state().values(), other.get_state().values())
    other.reset()  # without a seed the streams go on: other episodes
    assert not same(envs.get_state().values(), other.get_state().values())


@pytest.mark.parametrize("name", SMALL)
def test_state_round_trip(name):
    envs = vec(name, 8, seed=3)
    envs.reset()
    rollout(envs, 30)
    state = envs.get_state()
    ahead = rollout(envs, 100, seed=4)
    fresh = vec(name, 8, seed=77)
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
    assert same(kept, before) and not any(
        np.shares_memory(a, b) for a in kept for b in kept if a is not b
    )


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([0, 1, 4]), r"actions: expected values in \[0, 3\], got 4 for environment 2"),
        (np.array([0, -1, 0]), r"got -1 for environment 1"),
        (np.array([0, 2**64 - 1, 0], np.uint64), "for environment 1"),
        (
            np.zeros(3),
            r"actions: expected integers \(3,\), num_envs first, got float64 \(3,\); pass one action of Discrete\(4\)",
        ),
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


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            np.array([[0, 0], [7, 8]]),
            r"expected values in \[0, 0\] to \[7, 7\], got \[7 8\] for environment 1",
        ),
        (np.array([[0, 0], [-1, 0]]), r"got \[-1  0\] for environment 1"),
        (np.zeros(2, int), r"expected integers \(2, 2\), num_envs first, got int64 \(2,\)"),
        (np.zeros((2, 2)), "got float64"),
    ],
)
def test_bad_actions_of_a_board(actions, message):
    envs = make_vec("BattleshipEasy", 2)
    envs.reset()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            np.array([[0], [2.1]]),
            r"expected values in \[-2.0, 2.0\], got \[2.1\] for environment 1",
        ),
        (np.array([[np.nan], [0]]), r"got \[nan\] for environment 0"),
        (np.array([[0], [-np.inf]]), r"got \[-inf\] for environment 1"),
        (np.zeros(2), r"expected floats \(2, 1\), num_envs first, got float64 \(2,\)"),
        (np.zeros((2, 1), int), "got int64"),
    ],
)
def test_bad_torques(actions, message):
    envs = make_vec("PositionOnlyPendulumEasy", 2)
    envs.reset()
    before = envs.get_state()
    with pytest.raises(ValueError, match=message):
        envs.step(actions)
    assert same(before.values(), envs.get_state().values())


@pytest.mark.parametrize(
    "name", ["MultiarmedBanditEasy", "AutoencodeEasy", "NoisyPositionOnlyPendulumEasy"]
)
def test_threads_make_no_difference(name):
    alone, shared = make_vec(name, 64, seed=4), make_vec(name, 64, seed=4, num_threads=3)
    assert np.array_equal(rows(alone.reset()[0]), rows(shared.reset()[0]))
    for one, other in zip(rollout(alone, 250), rollout(shared, 250), strict=True):
        assert same(one[:4], other[:4])
        assert one[4].keys() == other[4].keys()
    assert same(alone.get_state().values(), shared.get_state().values())
    shared.close()


def test_actions_of_any_integer_type():
    for actions in ([0, 1], np.array([0, 1], np.uint8), np.array([0, 5, 1])[::2]):
        envs = make_vec("MemoryChain-5", 2)
        envs.reset()
        envs.step(actions)


@pytest.mark.parametrize("action", [2, -1, 0.5, np.nan, None, np.zeros(1, int)])
def test_bad_single_actions(action):
    env = make_single("MemoryChain-5")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected a member of Discrete\(2\), got"):
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
    "state",
    [
        {},
        {"ints": np.zeros((2, 6))},
        make_vec("MemoryChain-5", 3).get_state(),
        {"ints": None, "floats": None},
    ],
)
def test_bad_state(state):
    envs = make_vec("MemoryChain-5", 2)
    with pytest.raises(
        ValueError,
        match=r"state\['ints'\]: expected int64 \(2, 6\), got .*; pass the state of the same",
    ):
        envs.set_state(state)
