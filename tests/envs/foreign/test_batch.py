"""EnvBatch: the same as SyncVectorEnv where that is right, and an error that names the place."""

import pickle
from functools import partial

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Sequence, Text, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import minis5
from minis5.envs.foreign.batch import EnvBatch

NESTED = Dict({"b": Tuple([Discrete(9), Box(0, 1, (2,), np.float64)]), "a": MultiBinary(3)})
SPACES = {
    "box": Box(0, 1, (3, 2), np.float32),
    "scalar": Box(0, 1, (), np.float64),
    "discrete": Discrete(5, start=2),
    "nested": NESTED,
    "text": Dict({"said": Text(4), "seen": Discrete(3)}),
    "sequence": Sequence(Box(0, 1, (2,)), stack=True),
}


class Any(gymnasium.Env):
    """Samples of any space; 1 to 4 steps; infos of several kinds; `change` alters what it gives."""

    action_space = Discrete(2)

    def __init__(self, space="box", change=None):
        self.observation_space, self.change = SPACES[space], change

    def observe(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.length = 0, int(self.np_random.integers(1, 5))
        return self.observe(), {"length": self.length, "deep": {"options": str(options)}}

    def step(self, action):
        self.time += 1
        ended = self.time == self.length
        info = {"time": np.float32(self.time), "place": np.arange(3)} if self.time % 2 else {}
        result = [self.observe(), float(action), ended and action == 0, ended and action == 1, info]
        return tuple(self.change(self, result) if self.change else result)


def same(one, other):
    """Compare nested results."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        return all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        assert len(one) == len(other)
        return all(map(same, one, other))
    if isinstance(one, np.ndarray) and one.dtype == object:
        return all(map(same, one, other))
    assert np.asarray(one).dtype == np.asarray(other).dtype
    return np.array_equal(one, other)


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("space", SPACES)
def test_the_same_as_gymnasiums(space, mode):
    make = [partial(Any, space)] * 5
    one, other = (kind(make, autoreset_mode=mode) for kind in (SyncVectorEnv, EnvBatch))
    rng, ends = np.random.default_rng(0), 0
    for seed, options in ((3, None), (None, {"a": 1}), ([3, 4, 7, 5, 6], {})):
        assert same(one.reset(seed=seed, options=options), other.reset(seed=seed, options=options))
    for step in range(40):
        actions = rng.integers(2, size=5)
        before, after = one.step(actions), other.step(actions)
        assert same(before, after)
        done = after[2] | after[3]
        ends += done.sum()
        if mode == AutoresetMode.DISABLED and done.any():
            masks = ({"reset_mask": done.copy()} for _ in range(2))
            assert same(one.reset(options=next(masks)), other.reset(options=next(masks)))
        if step == 20:
            other = pickle.loads(pickle.dumps(other))
    assert ends > 20


def test_a_batch_of_gymnasium_becomes_one_of_these():
    """Runs of minis5 0.2 have pickled SyncVectorEnvs; state_file.py takes them up like this."""
    one, other = (kind([Any] * 4) for kind in (SyncVectorEnv, EnvBatch))
    one.reset(seed=1)
    for _ in range(7):
        one.step(np.ones(4, int))
    other.reset(seed=2)
    other.__dict__.update(pickle.loads(pickle.dumps(one)).__dict__)
    for _ in range(20):
        assert same(one.step(np.ones(4, int)), other.step(np.ones(4, int)))


def test_infos_of_varying_shapes():
    def varies(env, result):
        return [*result[:4], {"legal": np.arange(env.time), "deep": {"x": np.ones(env.length)}}]

    envs = EnvBatch([lambda: Any(change=varies)] * 5, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    seen = set()
    for _ in range(10):
        *_, infos = envs.step(np.zeros(5, int))
        legal = infos.get("legal")
        if legal is not None and legal.dtype == object:
            seen |= {len(row) for row in legal if row is not None}
    assert len(seen) >= 2


class Shared(Any):
    """All instances write what they see to one array, and return that."""

    buffer = np.zeros((3, 2), np.float32)

    def observe(self):
        self.buffer[:] = super().observe()
        return self.buffer


@pytest.mark.parametrize("mode", AutoresetMode)
def test_one_array_of_all_environments(mode):
    one, other = (EnvBatch([kind] * 4, autoreset_mode=mode) for kind in (Any, Shared))
    assert same(one.reset(seed=1), other.reset(seed=1))
    for _ in range(20):
        before, after = one.step(np.ones(4, int)), other.step(np.ones(4, int))
        assert same(before, after)
        done = after[2] | after[3]
        if mode == AutoresetMode.DISABLED and done.any():
            assert same(*(envs.reset(options={"reset_mask": done}) for envs in (one, other)))


def at(number, position, value):
    """Give `value` in place of what step returns there, in environment `number`'s second step."""

    def change(env, result):
        if env.number == number and env.time == 2:
            result[position] = value
        return result

    return change


def numbered(change, space="box", count=3, **settings):
    """Return a batch of environments that know their numbers and whose episodes last 4 steps."""
    envs = EnvBatch([lambda: Any(space, change)] * count, **settings)
    envs.reset(seed=0)
    for number, env in enumerate(envs.envs):
        env.number, env.length = number, 4
    return envs


@pytest.mark.parametrize(
    "reward", [np.array([2.0], np.float32), np.float64(2), 2, np.array(2), [2.0]]
)
def test_rewards_that_are_one_number(reward):
    envs = numbered(at(1, 1, reward))
    assert [envs.step(np.zeros(3, int))[1].tolist() for _ in range(2)][1] == [0, 2, 0]


@pytest.mark.parametrize("flag", [1, np.True_, np.array([True]), np.array(1)])
def test_flags_that_are_true(flag):
    envs = numbered(at(1, 2, flag))
    assert [envs.step(np.zeros(3, int))[2].tolist() for _ in range(2)][1] == [False, True, False]


PLACE = r"\(environment 12, step 2 of its episode\)"


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, None, "reward: expected a number, got None"),
        (1, "5", "reward: expected a number, got '5'"),
        (1, np.ones(2), r"reward: expected a number, got array\(\[1., 1.\]\)"),
        (1, [[1], [1, 2]], r"reward: expected a number, got \[\[1\], \[1, 2\]\]"),
        (1, 1j, "reward: expected a number, got 1j"),
        (1, np.nan, "reward: expected a finite number, got nan"),
        (1, -np.inf, "reward: expected a finite number, got -inf"),
        (1, np.array([np.nan]), "reward: expected a finite number, got nan"),
        (2, None, "terminated: expected True or False, got None"),
        (2, 2, "terminated: expected True or False, got 2"),
        (3, "no", "truncated: expected True or False, got 'no'"),
        (3, np.zeros(2, bool), "truncated: expected True or False, got array"),
        (0, np.zeros((2, 3), np.float32), r"observation: expected float32 \(3, 2\) as in the obs"),
        (0, np.zeros((3, 2), complex), r"observation: .* got complex128 \(3, 2\)"),
        (0, [[0.0]], r"observation: .* got float64 \(1, 1\)"),
        (0, [[0.0], []], r"observation: .* got object \(\)"),
        (0, None, r"observation: .* got object \(\)"),
        (0, {"a": 1}, r"observation: .* got object \(\)"),
    ],
)
def test_faults_are_named(position, value, message):
    envs = numbered(at(2, position, value))
    envs.first_index = 10
    envs.step(np.zeros(3, int))
    with pytest.raises(ValueError, match=f"^{message}.*{PLACE}; correct the environment"):
        envs.step(np.zeros(3, int))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": np.zeros(3, int)}, r"observation\['b'\]\[0\]: .* part at 'b', got dict without it"),
        ({"a": np.zeros(3, int), "b": (1,)}, r"observation\['b'\]\[1\]: .* part at 1, got tuple"),
        ({"a": np.zeros(3), "b": (1, np.zeros(2))}, r"observation\['a'\]: expected int8 \(3,\)"),
        ({"a": np.zeros(3, int), "b": (0.5, np.zeros(2))}, r"observation\['b'\]\[0\]: .*float64"),
        (3, r"observation\['a'\]: .*got int without it"),
    ],
)
def test_faults_of_parts_are_named(value, message):
    envs = numbered(at(1, 0, value), "nested")
    envs.step(np.zeros(3, int))
    with pytest.raises(ValueError, match=f"{message}.*environment 1, step 2 of its episode"):
        envs.step(np.zeros(3, int))


def test_old_interfaces_are_named():
    class OldStep(Any):
        def step(self, action):
            return super().step(action)[:4]

    class OldReset(Any):
        def reset(self, **arguments):
            return super().reset(**arguments)[0]

    envs = EnvBatch([OldStep])
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"step: expected step to return \(observation, reward, "):
        envs.step([0])
    with pytest.raises(ValueError, match=r"reset: expected reset to return \(observation, info\)"):
        EnvBatch([OldReset]).reset()


def test_mistakes_of_the_caller():
    envs = EnvBatch([Any] * 3, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="seed: expected 3 seeds, got 2"):
        envs.reset(seed=[1, 2])
    envs.reset(seed=0)
    for mask in (np.zeros(3, bool), np.ones(2, bool), np.ones(3)):
        with pytest.raises(ValueError, match=r"reset_mask: expected bool \(3,\) with a true value"):
            envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="has ended; reset it by reset_mask"):
        for _ in range(5):
            envs.step(np.zeros(3, int))


def test_places_are_numbered_over_processes():
    gymnasium.register("Place-v0", lambda: Any(change=place_of_a_fault))
    for settings in ({}, {"processes": 2}):
        envs = minis5.make_vec("Place-v0", 4, first_index=4, **settings)
        with pytest.raises((ValueError, RuntimeError), match="environment 7, step 1 of its"):
            envs.step(np.array([0, 0, 0, 1]))
        envs.close()
    del gymnasium.registry["Place-v0"]


def place_of_a_fault(env, result):
    return [result[0], np.nan if result[1] == 1 else 0.0, *result[2:]]
