"""Files that are whole or absent, and the file of an agent, a plain .npz.

Every write goes to a temporary file in the same folder, is flushed to the disk and then renamed over the old one: a
kill at any moment leaves the previous file or the next, never a mix. An agent file is read with ``allow_pickle=False``
and holds:

    format, version                          "minis5-agent", 1
    config, observation_space, action_space  JSON
    encoder/0/kernel, …                      one array for each parameter, under its public name

A setting that the configuration in a file lacks, because it was added later, takes its default.

Left out: the state of a training run (runstate.py), other formats, and migration between versions (there is one
version). Tested in tests/rl/test_agent_file.py.
"""

import dataclasses
import json
from pathlib import Path

from minis5.arrays import move, to_host
from minis5.files import VERSION, CheckpointError, read_npz, write_npz
from minis5.nn.cores import CORES
from minis5.rl.agent import ActorCritic
from minis5.rl.config import AgentConfig
from minis5.rl.spaces_json import space_from_json, space_to_json

AGENT_FORMAT = "minis5-agent"


def agent_config_from_json(value):
    """The AgentConfig that `dataclasses.asdict` turned into JSON values.

    Raises
    ------
    ValueError
        A field or a core that this minis5 does not have, or a wrong value.
    """
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
        raise ValueError(
            f"{kind.__name__}: unknown fields {', '.join(odd)}; written by a newer minis5?"
        )
    return kind(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def save_agent(agent, path):
    """Write an agent (minis5.ActorCritic) to the file `path`, whole or not at all."""
    header = {
        "format": AGENT_FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(agent.config)),
        "observation_space": json.dumps(space_to_json(agent.observation_space)),
        "action_space": json.dumps(space_to_json(agent.action_space)),
    }
    write_npz(
        path, {**header, **{name: to_host(value) for name, value in agent.parameters().items()}}
    )


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
    arrays = read_npz(path, AGENT_FORMAT)
    try:
        header = [
            json.loads(str(arrays.pop(name)))
            for name in ("config", "observation_space", "action_space")
        ]
        config, *pair = agent_config_from_json(header[0]), *map(space_from_json, header[1:])
        agent = ActorCritic(*pair, config, device=device)
        set_parameters(agent, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its content does not fit together ({error}); restore it from a copy"
        ) from error
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
    # of two cores, what both have
    names = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    differing = [f"{name} {theirs[name]} there, {ours[name]} here" for name in names]
    if differing:
        raise ValueError(
            f"init_from: the agent in {path} is made otherwise: {'; '.join(differing)}; give both the same settings"
        )
    set_parameters(agent, other.parameters())


def _makings(agent):
    """What an agent is made from, in one dict: its spaces and every field of its configurations."""
    fields = dataclasses.asdict(agent.config)
    fields |= fields.pop("core_config")
    return {
        "observation_space": agent.observation_space,
        "action_space": agent.action_space,
        **fields,
    }
