"""What every native level and composition must do: Python against Numba bit for bit, one
environment against a batch, splitting, autoreset, seeding, saving of the state, Gymnasium's
checker."""

import json
import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from batches import random_actions, rollout, rows, same
from compositions import COMPOSED, environment_and_task, id_and_options, single, vec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from minis5.envs.registry import REGISTRY

LEVELS = [*REGISTRY, "MemoryChain-5", *COMPOSED]


DIGEST = """
import hashlib, json, sys
import numpy as np
from minis5.envs.registry import make_vec
from minis5.spaces import leaves
out = {}
for name, env_id, options, steps in json.loads(sys.argv[1]):
    envs = make_vec(env_id, 5, seed=11, first_index=2, **options)
    envs.action_space.seed(0)
    arrays = leaves(envs.reset()[0])
    for _ in range(steps):
        obs, *step, infos = envs.step(envs.action_space.sample())
        arrays += leaves(obs) + step + (leaves(infos["final_obs"]) if infos else [])
    arrays += envs.get_state().values()
    data = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
    out[name] = hashlib.sha256(data).hexdigest()
print(json.dumps(out))
"""


def test_plain_python_and_numba_give_the_same_bits():
    runs = [
        (
            name,
            *id_and_options(name),
            min(330, 2 * environment_and_task(name)[1].episode_length + 3),
        )
        for name in LEVELS
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


@pytest.mark.parametrize("name", LEVELS)
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


@pytest.mark.parametrize("name", LEVELS)
def test_a_batch_split_over_first_index_gives_the_same_episodes(name):
    parts = [vec(name, n, seed=9, first_index=first) for n, first in [(64, 0), (40, 0), (24, 40)]]
    starts = [rows(envs.reset()[0]) for envs in parts]
    assert np.array_equal(starts[0], np.concatenate(starts[1:]))
    for whole, *pieces in zip(*(rollout(envs, 120) for envs in parts), strict=True):
        assert same(
            whole[:4], [np.concatenate(x) for x in zip(*[p[:4] for p in pieces], strict=True)]
        )


@pytest.mark.parametrize("name", LEVELS)
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


@pytest.mark.parametrize("name", LEVELS)
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


@pytest.mark.parametrize("name", LEVELS)
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


@pytest.mark.parametrize("name", [*REGISTRY, *COMPOSED])
def test_gymnasium_checker_finds_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for remark in ("value is -?infinity", "recommend using a symmetric and normalized space"):
            warnings.filterwarnings("ignore", f"(?s).*{remark}")  # the spaces are POPGym's
        env_id, options = id_and_options(name)
        env = gymnasium.make(f"minis5/{env_id}-v0", **options)
        check_env(env.unwrapped)
        env.close()
