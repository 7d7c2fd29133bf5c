"""Spaces come back from JSON as they were."""

import inspect
import json

import numpy as np
import pytest
from gymnasium import spaces

from minis5.rl.spaces_json import space_from_json, space_to_json

BOX = spaces.Box(-1, 1, (3,), np.float32)
SPACES = [
    BOX,
    spaces.Box(np.array([-np.inf, 0.1, -2], np.float32), np.array([np.inf, np.inf, 7], np.float32)),
    spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    spaces.Box(0, 255, (2, 3, 1), np.uint8),
    spaces.Box(-1, 1, (), np.float16),
    spaces.Box(0, 1, (2,), bool),
    spaces.Box(np.array([-(2**63), 1]), np.array([2**63 - 1, 7]), dtype=np.int64),
    spaces.Discrete(5),
    spaces.Discrete(3, start=-1),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, 1], [-1, 0]]),
    spaces.MultiDiscrete([2, 3], start=[1, -4], dtype=np.int32),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 2)),
    spaces.Tuple((spaces.Discrete(2), BOX)),
    spaces.Dict([("z", BOX), ("a", spaces.Tuple((spaces.Discrete(2), spaces.MultiBinary(3))))]),
]
if "dtype" in inspect.signature(spaces.Discrete).parameters:  # Gymnasium 1.2.3 and newer
    SPACES.append(spaces.Discrete(3, start=1, dtype=np.int8))


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_space_round_trip(space):
    value = json.loads(json.dumps(space_to_json(space), allow_nan=False))
    back = space_from_json(value)
    assert back == space and type(back) is type(space) and back.dtype == space.dtype
    if isinstance(space, spaces.Dict):
        assert list(back) == list(space)


def test_discrete_from_before_its_dtype_was_kept():
    assert space_from_json({"space": "Discrete", "n": 3, "start": 1}) == spaces.Discrete(3, start=1)


def test_uniform_bounds_are_short():
    assert len(json.dumps(space_to_json(spaces.Box(0, 255, (84, 84, 4), np.uint8)))) < 100


def test_unsupported_space():
    with pytest.raises(ValueError, match="space: expected one of Box, .*, got Text"):
        space_to_json(spaces.Text(3))
