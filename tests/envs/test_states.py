"""What set_state refuses: each number of a state must be one that an episode can reach.

The ranges are not too narrow: random episodes of every environment stay within them. They are not
too wide: states at their edges, everything else at random within its range, touch no memory but
their own. (.ci/run has that test with NUMBA_BOUNDSCHECK=1, where a stray index is an error.)
"""

import numpy as np
import pytest
from batches import rollout
from compositions import COMPOSED, environment_and_task, vec

from minis5.envs.registry import REGISTRY, make_vec
from minis5.envs.states import GENERATOR

SENTENCE = r"expected .*, got .*; pass "
NAMES = [*REGISTRY, *COMPOSED]


def started(name, num_envs=2):
    envs = vec(name, num_envs, seed=1)
    envs.reset()
    return envs


@pytest.mark.parametrize("name", NAMES)
def test_states_of_random_episodes_are_legal(name):
    envs = started(name, 8)
    for _ in range(20):
        rollout(envs, 7)
        state = envs.get_state()
        envs.set_state(state)
        for array, again in zip(state.values(), envs.get_state().values(), strict=True):
            np.testing.assert_array_equal(array, again)


@pytest.mark.parametrize("name", NAMES)
def test_a_number_out_of_its_range_is_refused(name):
    envs = started(name)
    task, good = envs.task, envs.get_state()
    for range_ in (GENERATOR, *task.ranges):
        for place in {range_.begin, range_.end - 1}:
            for value in (range_.low - 1, range_.high + 1, -(2**62), 2**62):
                bad = {key: array.copy() for key, array in good.items()}
                if range_.only:
                    bad["ints"][1, range_.only[0]] = range_.only[1]
                bad[range_.array][1, place] = value
                with pytest.raises(ValueError, match=rf"^state\['{range_.array}'\]: {SENTENCE}"):
                    envs.set_state(bad)
    for place in range(task.floats):
        for value in (np.nan, np.inf, -np.inf):
            bad = {"ints": good["ints"], "floats": good["floats"].copy()}
            bad["floats"][0, place] = value
            with pytest.raises(ValueError, match=rf"^state\['floats'\]: {SENTENCE}"):
                envs.set_state(bad)
    for array, before in zip(envs.get_state().values(), good.values(), strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("name", NAMES)
def test_every_integer_has_a_range(name):
    task = environment_and_task(name)[1]
    covered = np.zeros(task.ints, bool)
    for range_ in (GENERATOR, *task.ranges):
        if range_.array == "ints":
            covered[range_.begin : range_.end] = True
            assert 0 <= range_.begin < range_.end <= task.ints
            # -1: no card of Concentration is up; else they are counts, places and kinds
            assert (
                range_.low >= (-1 if name.startswith("Concentration") else 0) or range_ is GENERATOR
            )
    assert covered.all()


@pytest.mark.parametrize("name", REGISTRY)
def test_a_count_of_steps_is_below_the_length_of_an_episode(name):
    env, task = environment_and_task(name)
    place = getattr(env, "STEPS", getattr(env, "TIME", None))
    if place is None:  # the position in the pack counts
        return
    (counted,) = (r for r in task.ranges if r.array == "ints" and r.begin <= place < r.end)
    assert (counted.low, counted.high) == (0, task.episode_length - 1)


def anything_legal(task, rng, n=64):
    """Return a state whose numbers are at random within their ranges, often at an edge."""
    ints, floats = np.zeros((n, task.ints), np.int64), rng.uniform(-1, 1, (n, task.floats))
    for range_ in (GENERATOR, *task.ranges):
        size = n, range_.end - range_.begin
        edges = rng.choice([range_.low, range_.high], size)
        rows = np.ones(n, bool)
        if range_.only:
            rows = ints[:, range_.only[0]] == range_.only[1]
        array, inside = floats, rng.uniform(range_.low, range_.high, size)
        if range_.array == "ints":
            array, inside = ints, rng.integers(range_.low, range_.high + 1, size)
        values = np.where(rng.random(size) < 0.5, edges, inside)
        array[rows, range_.begin : range_.end] = values[rows]
    return {"ints": ints, "floats": floats}


@pytest.mark.parametrize("name", NAMES)
def test_any_state_within_the_ranges_can_be_played(name):
    envs = vec(name, 64)
    for seed in range(3):
        state = anything_legal(envs.task, np.random.default_rng(seed))
        envs.set_state(state)
        for _, reward, *_ in rollout(envs, 20):
            assert np.isfinite(reward).all()


MASKED = np.ma.ones((2, 6), np.int64)


@pytest.mark.parametrize(
    "state", [None, [], "text", {"ints": None}, {"ints": [[1]], "floats": []}, {"ints": MASKED}]
)
def test_what_is_no_state(state):
    envs = make_vec("MemoryChain-5", 2)
    with pytest.raises((TypeError, ValueError), match=r"^state.*: expected .*, got .*; "):
        envs.set_state(state)
