"""The file of an agent, a plain .npz, read without pickle and written whole or not at all.

    format, version                          "minis5-agent", 1
    config, observation_space, action_space  JSON
    encoder/0/kernel, …                      one array for each parameter, under its public name

A setting that a file lacks, because it was added later, takes its value in ADDED_LATER or else its
default.

Leaves out: the state of a training run (minis5/run/state_file.py), other formats, and migration
between versions (there is one version). Tests: tests/rl/test_agent_file.py.
"""

import dataclasses
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from minis5.arrays import move, to_host
from minis5.files import VERSION, CheckpointError, read_npz, write_npz
from minis5.nn.cores import CORES
from minis5.rl.agent import ActorCritic
from minis5.rl.config import AgentConfig
from minis5.rl.spaces_json import space_from_json, space_to_json

AGENT_FORMAT = "minis5-agent"
# A field of AgentConfig that was added later, and its value in a file from before.
ADDED_LATER = {"scale_actions": False}


def agent_config_from_json(value: Mapping[str, Any]) -> AgentConfig:
    """Build the AgentConfig that `dataclasses.asdict` turned into JSON values.

    Raises
    ------
    ValueError
        This minis5 does not have a field or the core, or a value is wrong.
    """
    value = {**ADDED_LATER, **value}
    if value.get("core") not in CORES:
        known = ", ".join(CORES)
        raise ValueError(f"core: expected one of {known}, got {value.get('core')!r}")
    core_config, _ = CORES[value["core"]]
    value["core_config"] = from_fields(core_config, value["core_config"])
    return from_fields(AgentConfig, value)


def from_fields(kind: type, values: Mapping[str, Any]) -> Any:
    """Build the dataclass `kind` from JSON values, whose lists become tuples.

    A field that was added later takes its default, which leaves an agent as it was before.

    Raises
    ------
    ValueError
        This minis5 does not have a field, or a value is wrong.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    if odd := sorted(set(values) - names):
        raise ValueError(
            f"{kind.__name__}: unknown fields {', '.join(odd)}; written by a newer minis5?"
        )
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def save_agent(agent: ActorCritic, path: str | PathLike) -> None:
    """Write an agent to the file `path`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        The agent's spaces have no form in JSON.
    """
    header = {
        "format": AGENT_FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(agent.config)),
        "observation_space": json.dumps(space_to_json(agent.observation_space)),
        "action_space": json.dumps(space_to_json(agent.action_space)),
    }
    parameters = {name: to_host(value) for name, value in agent.parameters().items()}
    write_npz(path, {**header, **parameters})


def load_agent(path: str | PathLike, device: str = "cpu") -> ActorCritic:
    """Read an agent that `save_agent` wrote.

    Parameters
    ----------
    path : path
    device : {"cpu", "cuda"}
        Where the agent will be; it does not matter where it was.

    Returns
    -------
    minis5.ActorCritic

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        The file is damaged, foreign or newer, or its parameters do not fit its configuration.
    DeviceError
        Something that the GPU needs is missing.
    """
    arrays = read_npz(path, AGENT_FORMAT)
    try:
        header = [
            json.loads(str(arrays.pop(name)))
            for name in ("config", "observation_space", "action_space")
        ]
        config, observations, actions = header
        agent = ActorCritic(
            space_from_json(observations),
            space_from_json(actions),
            agent_config_from_json(config),
            device=device,
        )
        set_parameters(agent, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: its content does not fit together ({error}); restore it from a copy"
        ) from error
    return agent


def set_parameters(agent: ActorCritic, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the agent's parameters.

    Raises
    ------
    ValueError
        Names, shapes or dtypes differ.
    """
    parameters = agent.parameters()
    missing, extra = sorted(set(parameters) - set(arrays)), sorted(set(arrays) - set(parameters))
    if missing or extra:
        raise ValueError(f"parameters missing: {missing or 'none'}, not known: {extra or 'none'}")
    for name, parameter in parameters.items():
        wanted, found = (f"{array.dtype} {array.shape}" for array in (parameter, arrays[name]))
        if wanted != found:
            raise ValueError(f"parameter {name}: expected {wanted}, got {found}")
        parameter[...] = move(arrays[name], agent.device)


def start_from(agent: ActorCritic, path: str | PathLike) -> None:
    """Give a new agent the parameters of another, which is in the file or the run's folder `path`.

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
            f"init_from: the agent in {path} is made otherwise: {'; '.join(differing)}; "
            "give both the same settings"
        )
    set_parameters(agent, other.parameters())


def _makings(agent):
    """Return an agent's spaces and every field of its configurations in one dict."""
    fields = dataclasses.asdict(agent.config)
    fields |= fields.pop("core_config")
    return {
        "observation_space": agent.observation_space,
        "action_space": agent.action_space,
        **fields,
        "scale_actions": agent.actions.scaled,  # elsewhere it makes no difference
    }
