"""Gymnasium spaces as JSON values, and back.

Leaves out: Text, Graph, Sequence, OneOf, and custom spaces. Tests: tests/rl/test_spaces_json.py.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

PIXELS = 1 << 24  # most numbers of an image


def space_to_json(space: spaces.Space) -> dict[str, Any]:
    """Return a Gymnasium space as JSON values, which `space_from_json` reads.

    Raises
    ------
    ValueError
        The space is none of those that an agent can have.
    """
    kind = type(space).__name__
    encode = _ENCODERS.get(kind)
    if encode is None:
        raise ValueError(
            f"space: expected one of {', '.join(_ENCODERS)}, got {space}; "
            "wrap the environment in one that has such a space"
        )
    return {"space": kind, **encode(space)}


def space_from_json(value: Any, most: int | None = None, images: int = 0) -> spaces.Space:
    """Build the space that `space_to_json` described.

    Parameters
    ----------
    value : JSON values
    most : int
        What the space's arrays may hold at most: a text in a file can name any shape.
    images : int
        How many of its arrays may be images, and hold up to PIXELS numbers.

    Raises
    ------
    ValueError
        The value is no space's, or the space is larger than `most`. A damaged value can raise any
        error of minis5.files.MISFIT.
    """
    if most is not None and (found := _check_size(value, most)) > images:
        raise ValueError(f"space: expected at most {images} images, got {found}")
    if not isinstance(value, Mapping) or value.get("space") not in _DECODERS:
        raise ValueError(f"space: expected one of {', '.join(_DECODERS)}, got {str(value)[:60]}")
    return _DECODERS[value["space"]](value)


def _check_size(value, most):
    """Return how many parts of the space have more than `most` numbers; these can be images.

    Raises ValueError if a part is too large for an image too, or is none.
    """
    kind = value["space"]
    if kind in ("Tuple", "Dict"):
        parts = [part if kind == "Tuple" else part[1] for part in value["spaces"]]
        return sum(_check_size(part, most) for part in parts)
    numbers = [int(n) for n in np.ravel(value[_SIZES[kind]]).tolist()]
    size = sum(numbers) if kind == "MultiDiscrete" else math.prod(numbers)
    image = kind == "Box" and value["dtype"] == "uint8" and len(numbers) == 3
    allowed = max(most, PIXELS) if image else most
    if min(numbers, default=0) < 0 or size > allowed:
        raise ValueError(f"space: expected at most {allowed} numbers, got {kind} of {size}")
    return int(size > most)


def _bounds(array):
    """Return `array` as a list, or as one number if all are equal.

    Infinities are text, because JSON has none.
    """
    first = array.flat[0] if array.size else 0
    values = np.asarray(first) if (array == first).all() else array
    return np.where(np.isinf(values), values.astype(str), values.astype(object)).tolist()


def _box(value):
    dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
    low, high = (np.broadcast_to(np.asarray(value[side], dtype), shape) for side in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype)


def _discrete(value):
    dtype = np.dtype(value.get("dtype", np.int64))
    other = {} if dtype == np.int64 else {"dtype": dtype.type}  # not in Gymnasium before 1.2.3
    return spaces.Discrete(value["n"], start=value["start"], **other)


_ENCODERS = {
    "Box": lambda s: {
        "low": _bounds(s.low),
        "high": _bounds(s.high),
        "shape": list(s.shape),
        "dtype": s.dtype.name,
    },
    "Discrete": lambda s: {"n": int(s.n), "start": int(s.start), "dtype": s.dtype.name},
    "MultiDiscrete": lambda s: {
        "nvec": s.nvec.tolist(),
        "start": s.start.tolist(),
        "dtype": s.dtype.name,
    },
    "MultiBinary": lambda s: {"n": s.n if isinstance(s.n, int) else list(s.n)},
    "Tuple": lambda s: {"spaces": [space_to_json(part) for part in s.spaces]},
    "Dict": lambda s: {"spaces": [[key, space_to_json(part)] for key, part in s.spaces.items()]},
}
# kind: where its JSON values say how many numbers its vectors have
_SIZES = {"Box": "shape", "MultiBinary": "n", "Discrete": "n", "MultiDiscrete": "nvec"}
_DECODERS = {
    "Box": _box,
    "Discrete": _discrete,
    "MultiDiscrete": lambda v: spaces.MultiDiscrete(
        v["nvec"], np.dtype(v["dtype"]), start=v["start"]
    ),
    "MultiBinary": lambda v: spaces.MultiBinary(v["n"]),
    "Tuple": lambda v: spaces.Tuple([space_from_json(part) for part in v["spaces"]]),
    "Dict": lambda v: spaces.Dict(
        OrderedDict((key, space_from_json(part)) for key, part in v["spaces"])
    ),
}
