"""Environments as people write them: each trains, or is refused in one sentence that names it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    Sequence,
    Text,
    Tuple,
)
from small_runs import TINY, UPDATE

from minis5.run.train import train


class Plain(gymnasium.Env):
    """Ten steps; the reward is the action's first number."""

    observation_space, action_space = Box(-1, 1, (2,), np.float32), Discrete(2)
    length = 10

    def observe(self):
        return np.array([self.time / 10, 1], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.observe(), {}

    def step(self, action):
        self.time += 1
        ended = self.time >= self.length
        return self.observe(), self.reward(action), ended, False, self.info()

    def reward(self, action):
        return float(np.ravel(action)[0])

    def info(self):
        return {}


def with_actions(space):
    return type("Acting", (Plain,), {"action_space": space})


def with_observations(space, value):
    parts = {"observation_space": space, "observe": lambda self: value}
    return type("Observing", (Plain,), parts)


def with_rewards(value):
    return type("Rewarding", (Plain,), {"reward": lambda self, action: value})


class VaryingInfo(Plain):
    def info(self):
        return {"legal": np.arange(1 + self.time % 3), "deep": {"path": np.ones(self.time)}}


class Masked(Plain):
    """Half of the actions are legal; all environments end in the same step."""

    action_space = Discrete(8)

    def mask(self):
        return np.arange(8) % 2 == self.time % 2

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"action_mask": self.mask()}

    def step(self, action):
        assert self.mask()[action]
        return super().step(action)

    def info(self):
        return {"action_mask": self.mask()}


class SmallIntegers(Plain):
    action_space = Discrete(3, start=-1)

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action)


class Matrix(Plain):
    action_space = Box(-np.inf, np.inf, (2, 3), np.float64)

    def step(self, action):
        assert action.shape == (2, 3) and action.dtype == np.float64
        return super().step(action)


class Flags(Plain):
    """Flags and a reward as NumPy and PyTorch programs leave them."""

    def step(self, action):
        self.time += 1
        ended = np.array([self.time >= 10])
        return self.observe(), np.float32([1.0]), ended, np.array(0), {}


class OldReset(Plain):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0]


class OldStep(Plain):
    def step(self, action):
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, info


class NoneAtTheEnd(Plain):
    def step(self, action):
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, None, info


class NanLater(Plain):
    def observe(self):
        return np.full(2, np.nan if self.time == 5 else 0.0, np.float32)


class Shared(Plain):
    """All instances write their observations to one array."""

    buffer = np.zeros(2, np.float32)

    def observe(self):
        self.buffer[:] = self.time / 10, self.length / 10
        return self.buffer

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.length = int(self.np_random.integers(2, 9))
        return result


NESTED = Tuple([MultiBinary(3), Dict({"b": Discrete(3, start=5), "a": Box(-9, 9, (), np.float64)})])
TRAINS = {
    "plain": Plain,
    "many bits": with_actions(MultiBinary(4)),
    "a grid": with_actions(MultiDiscrete([[2, 3], [4, 5]])),
    "integers in a box": with_actions(Box(0, 3, (2,), np.int64)),
    "a scalar box": with_actions(Box(-1, 1, (), np.float32)),
    "a matrix": Matrix,
    "a tiny box": with_actions(Box(-0.01, 0.01, (1,), np.float32)),
    "a shifted start": SmallIntegers,
    "rewards (1,)": with_rewards(np.array([1.0], np.float32)),
    "rewards of NumPy": with_rewards(np.float64(1)),
    "whole rewards": with_rewards(1),
    "true rewards": with_rewards(np.True_),
    "flags (1,)": Flags,
    "integer keys": with_observations(
        Dict({0: Box(-1, 1, (1,)), 1: Discrete(3)}), {0: np.float32([0.5]), 1: 2}
    ),
    "nested": with_observations(
        NESTED, (np.int8([0, 1, 1]), {"a": np.float64(0.25), "b": np.int64(6)})
    ),
    "float64": with_observations(Box(-1, 1, (2,), np.float32), np.ones(2)),
    "lists": with_observations(Box(-1, 1, (2,), np.float32), [0.5, 0.5]),
    "out of bounds": with_observations(Box(-1, 1, (2,), np.float32), np.float32([50, -3])),
    "varying infos": VaryingInfo,
    "masks": Masked,
    "one array for all": Shared,
}
PLACE = r"\(environment \d, step \d+ of its episode\)"
REFUSED = {
    "no rewards": (with_rewards(None), f"reward: expected a number, got None {PLACE}"),
    "texts": (with_rewards("1"), f"reward: expected a number, got '1' {PLACE}"),
    "two rewards": (with_rewards(np.ones(2)), rf"reward: .* got array\(\[1., 1.\]\) {PLACE}"),
    "NaN": (with_rewards(np.nan), f"reward: expected a finite number, got nan {PLACE}"),
    "inf": (with_rewards(-np.inf), f"reward: expected a finite number, got -inf {PLACE}"),
    "huge": (with_rewards(1e300), "reward: expected a finite number within float32, got inf"),
    "no flag": (NoneAtTheEnd, f"truncated: expected True or False, got None {PLACE}"),
    "old reset": (OldReset, r"reset: expected reset to return \(observation, info\), got array"),
    "old step": (OldStep, rf"step: expected step to return .* got (fewer|\(array).* {PLACE}"),
    "NaN seen": (NanLater, rf"observation: expected finite float32 .* nan .* {PLACE}"),
    "a wrong shape": (
        with_observations(Box(-1, 1, (2,)), np.zeros(3, np.float32)),
        rf"observation: expected float32 \(2,\) as in .* got float32 \(3,\) {PLACE}",
    ),
    "floats for bytes": (
        with_observations(Box(0, 255, (2,), np.uint8), np.ones(2, np.float32)),
        rf"observation: expected uint8 \(2,\) as in .* got float32 \(2,\) {PLACE}",
    ),
    "beyond Discrete": (
        with_observations(Discrete(3), 5),
        rf"observation: expected values in \[0, 3\), got 5 .* {PLACE}",
    ),
    "a missing part": (
        with_observations(Dict({"a": Discrete(3), "b": Discrete(2)}), {"a": 1}),
        rf"(part at 'b', got dict without it|observation keys is not same as) .*{PLACE}",
    ),
    "dict of actions": (with_actions(Dict({"move": Discrete(3)})), "action_space: expected Discr"),
    "text": (with_observations(Dict({"x": Text(9)}), {"x": "go"}), "Text.* is not supported|Text"),
    "a graph": (with_observations(Graph(Box(-1, 1, (2,)), None), None), "Graph"),
    "a sequence": (with_observations(Sequence(Discrete(2)), (1,)), "Sequence.* not supported"),
}


def run(kind, folder, checked):
    gymnasium.register("Strange-v0", kind, disable_env_checker=not checked)
    try:
        settings = {"overrides": TINY, "eval_episodes": 3, "quiet": True, "workers": 1}
        return train("Strange-v0", steps=2 * UPDATE, out=folder / "run", **settings)
    finally:
        del gymnasium.registry["Strange-v0"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRAINS)
def test_it_trains(name, tmp_path):
    summary = run(TRAINS[name], tmp_path, checked=True)
    assert summary["updates"] == 2 and summary["episodes"] == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name, checked, tmp_path):
    """With Gymnasium's checks of every environment, and without."""
    kind, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        run(kind, tmp_path, checked)
