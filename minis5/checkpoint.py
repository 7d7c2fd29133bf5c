"""Files that are whole or absent, and the file of an agent, a plain .npz.

Every write goes to a temporary file in the same folder, is flushed to the disk and then renamed over the old one: a
kill at any moment leaves the previous file or the next, never a mix. An agent file is read with ``allow_pickle=False``
and holds:

    format, version                          "minis5-agent", 1
    config, observation_space, action_space  JSON
    encoder/0/kernel, …                      one array for each parameter, under its public name

A setting that the configuration in a file lacks, because it was added later, takes its default.

Left out: the state of a training run (runstate.py), other formats, and migration between versions (there is one
version). Tested in tests/test_checkpoint.py.
"""

import dataclasses
import io
import json
import os
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
from gymnasium import spaces

from .arrays import move, to_host

VERSION = 1
AGENT_FORMAT = "minis5-agent"
DAMAGE = (OSError, ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message says which, why, and what to do."""


# Atomic writes


def write_bytes(path, data):
    """Replace the file `path` by `data` (bytes), whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path, text):
    write_bytes(path, text.encode())


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_npz(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def read_npz(path, expected_format):
    """Read a file written by `write_npz` whose "format" is `expected_format`; dict of arrays.

    Raises
    ------
    FileNotFoundError
        No such file.
    CheckpointError
        Not an .npz, damaged, of another program or kind, or written by a newer minis5.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    try:
        with zipfile.ZipFile(path) as file:
            if (bad := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"checksum of {bad}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: not a readable minis5 checkpoint, damaged or cut short ({error}); restore it from a copy"
        ) from error
    found = str(arrays.pop("format", "")) or "none"
    if found != expected_format:
        raise CheckpointError(f"{path}: expected a file of format {expected_format!r}, got {found!r}")
    version = int(arrays.pop("version", 0))
    if version != VERSION:
        raise CheckpointError(f"{path}: format version {version}, this minis5 reads {VERSION}; upgrade minis5")
    return arrays


# Spaces as JSON


def space_to_json(space):
    """A Gymnasium space (those in `_ENCODERS`) as JSON values; `space_from_json` reads them."""
    kind = type(space).__name__
    encode = _ENCODERS.get(kind)
    if encode is None:
        raise ValueError(f"space: expected one of {', '.join(_ENCODERS)}, got {space}; wrap the environment")
    return {"space": kind, **encode(space)}


def space_from_json(value):
    """The space that `space_to_json` described."""
    return _DECODERS[value["space"]](value)


def _bounds(array):
    """A list of the shape of `array`, or one number where all are equal; infinities as text, which JSON lacks."""
    first = array.flat[0] if array.size else 0
    values = np.asarray(first) if (array == first).all() else array
    return np.where(np.isinf(values), values.astype(str), values.astype(object)).tolist()


def _box(value):
    dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
    low, high = (np.broadcast_to(np.asarray(value[side], dtype), shape) for side in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype)


_ENCODERS = {
    "Box": lambda s: {"low": _bounds(s.low), "high": _bounds(s.high), "shape": list(s.shape), "dtype": s.dtype.name},
    "Discrete": lambda s: {"n": int(s.n), "start": int(s.start)},
    "MultiDiscrete": lambda s: {"nvec": s.nvec.tolist(), "start": s.start.tolist(), "dtype": s.dtype.name},
    "MultiBinary": lambda s: {"n": s.n if isinstance(s.n, int) else list(s.n)},
    "Tuple": lambda s: {"spaces": [space_to_json(part) for part in s.spaces]},
    "Dict": lambda s: {"spaces": [[key, space_to_json(part)] for key, part in s.spaces.items()]},
}
_DECODERS = {
    "Box": _box,
    "Discrete": lambda v: spaces.Discrete(v["n"], start=v["start"]),
    "MultiDiscrete": lambda v: spaces.MultiDiscrete(v["nvec"], np.dtype(v["dtype"]), start=v["start"]),
    "MultiBinary": lambda v: spaces.MultiBinary(v["n"]),
    "Tuple": lambda v: spaces.Tuple([space_from_json(part) for part in v["spaces"]]),
    "Dict": lambda v: spaces.Dict(OrderedDict((key, space_from_json(part)) for key, part in v["spaces"])),
}


# Agents


def agent_config_from_json(value):
    """The AgentConfig that `dataclasses.asdict` turned into JSON values.

    Raises
    ------
    ValueError
        A field or a core that this minis5 does not have, or a wrong value.
    """
    from .agent import AgentConfig
    from .cores import CORES

    value = dict(value)
    if value.get("core") not in CORES:
        raise ValueError(f"core: expected one of {', '.join(CORES)}, got {value.get('core')!r}")
    core_config, _ = CORES[value["core"]]
    value["core_config"] = from_fields(core_config, value["core_config"])
    return from_fields(AgentConfig, value)


def from_fields(kind, values):
    """The dataclass `kind` with `values` read from JSON, whose lists become tuples.

    A field that a later minis5 has added takes its default, with which an agent is what it was before.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    if odd := sorted(set(values) - names):
        raise ValueError(f"{kind.__name__}: unknown fields {', '.join(odd)}; written by a newer minis5?")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def save_agent(path, agent):
    """Write an agent (minis5.ActorCritic) to the file `path`, whole or not at all."""
    header = {
        "format": AGENT_FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(agent.config)),
        "observation_space": json.dumps(space_to_json(agent.observation_space)),
        "action_space": json.dumps(space_to_json(agent.action_space)),
    }
    write_npz(path, {**header, **{name: to_host(value) for name, value in agent.parameters().items()}})


def load_agent(path, device="cpu"):
    """Read an agent that `save_agent` wrote, from whichever device, to "cpu" or "cuda".

    Returns
    -------
    minis5.ActorCritic

    Raises
    ------
    FileNotFoundError
        No such file.
    CheckpointError
        A damaged, foreign or newer file, or parameters that do not fit the configuration in it.
    """
    from .agent import ActorCritic

    arrays = read_npz(path, AGENT_FORMAT)
    try:
        header = [json.loads(str(arrays.pop(name))) for name in ("config", "observation_space", "action_space")]
        config, *pair = agent_config_from_json(header[0]), *map(space_from_json, header[1:])
        agent = ActorCritic(*pair, config, device=device)
        set_parameters(agent, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its content does not fit together ({error}); restore it from a copy") from error
    return agent


def set_parameters(agent, arrays):
    """Copy `arrays` into the agent's parameters; ValueError unless names, shapes and dtypes are the same."""
    parameters = agent.parameters()
    missing, extra = sorted(set(parameters) - set(arrays)), sorted(set(arrays) - set(parameters))
    if missing or extra:
        raise ValueError(f"parameters missing: {missing or 'none'}, not known: {extra or 'none'}")
    for name, parameter in parameters.items():
        wanted, found = (f"{array.dtype} {array.shape}" for array in (parameter, arrays[name]))
        if wanted != found:
            raise ValueError(f"parameter {name}: expected {wanted}, got {found}")
        parameter[...] = move(arrays[name], agent.device)


def start_from(agent, path):
    """Give a new agent the parameters of the one in the file `path`, or in the run's folder `path`.

    Raises
    ------
    FileNotFoundError, CheckpointError
        As `load_agent`.
    ValueError
        The two differ in their spaces or in their configuration; the message says in what.
    """
    path = Path(path) / "agent.npz" if Path(path).is_dir() else Path(path)
    other = load_agent(path)
    theirs, ours = _makings(other), _makings(agent)
    names = [name for name in ours if name in theirs and theirs[name] != ours[name]]  # of two cores, what both have
    differing = [f"{name} {theirs[name]} there, {ours[name]} here" for name in names]
    if differing:
        raise ValueError(f"init_from: the agent in {path} is made otherwise: {'; '.join(differing)}; give both the same settings")
    set_parameters(agent, other.parameters())


def _makings(agent):
    """What an agent is made from, in one dict: its spaces and every field of its configurations."""
    fields = dataclasses.asdict(agent.config)
    fields |= fields.pop("core_config")
    return {"observation_space": agent.observation_space, "action_space": agent.action_space, **fields}
