"""NativeVectorEnv: new arrays in every step, threads, calls that are refused."""

import gymnasium
import numpy as np
import pytest
from batches import rollout, rows, same

from minis5.envs.registry import make_vec


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


def test_step_without_an_episode():
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        make_vec("MemoryChain-5", 2).step([0, 0])


def test_bad_seed_of_reset():
    with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
        make_vec("MemoryChain-5", 2).reset(seed=-1)


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


def test_views_are_copies_and_known_by_name():
    envs = make_vec("PositionOnlyCartPoleEasy", 3, trials=2)
    envs.reset()
    first = envs.view("trial")
    assert first.tolist() == [0, 0, 0]
    first[:] = 7
    assert envs.view("trial").tolist() == [0, 0, 0]
    for name in ("trail", None, 3, ["trial"]):
        with pytest.raises(ValueError, match=r"name: expected one of .*'trial'.*, got"):
            envs.view(name)
    with pytest.raises(ValueError, match="name: expected no name at all, as this environment has"):
        make_vec("MemoryChain-5", 1).view("trial")
