"""The file of an agent, a plain .npz, read without pickle and written whole or not at all.

    format, version                          "minis5-agent", 1
    config, observation_space, action_space  JSON
    observation_moments                      (3, size), if observations are normalised
    behind                                   JSON: wrappers around the batch it learnt in, if any
    run                                      JSON: a run's configuration, in a file that is kept
                                             without the run's folder (minis5/run/kept.py)
    encoder/0/kernel, …                      one array for each parameter, under its public name
    digest                                   of all these (minis5/files.py); older files have none

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
from gymnasium import Space

from minis5.arrays import move, to_host
from minis5.files import (
    MISFIT,
    VERSION,
    CheckpointError,
    check_intact,
    holds_npz,
    parse_json,
    read_npz,
    reason,
    text,
    write_npz,
)
from minis5.nn.cores import CORES
from minis5.rl.agent import ActorCritic
from minis5.rl.config import AgentConfig
from minis5.rl.images import Images, sees
from minis5.rl.settings_json import from_fields, short
from minis5.rl.spaces_json import space_from_json, space_to_json
from minis5.spaces import ObservationEncoder

AGENT_FORMAT = "minis5-agent"
MOMENTS, BEHIND, RUN = "observation_moments", "behind", "run"
# A field of AgentConfig that was added later, and its value in a file from before.
ADDED_LATER = {
    "scale_actions": False,
    "clip_previous_action": False,
    "action_masks": False,
    "conv": "none",
}


def agent_config_from_json(value: Mapping[str, Any]) -> AgentConfig:
    """Build the AgentConfig that `dataclasses.asdict` turned into JSON values.

    Raises
    ------
    ValueError
        This minis5 does not have a field or the core, or a value is wrong.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"AgentConfig: expected an object, got {short(value)}")
    value = {**ADDED_LATER, **value}
    if not isinstance(value.get("core"), str) or value["core"] not in CORES:
        known = ", ".join(CORES)
        raise ValueError(f"core: expected one of {known}, got {short(value.get('core'))}")
    core_config, _ = CORES[value["core"]]
    value["core_config"] = from_fields(core_config, value.get("core_config", {}))
    return from_fields(AgentConfig, value)


def save_agent(agent: ActorCritic, path: str | PathLike) -> None:
    """Write an agent to a file, whole or not at all.

    The file is a plain .npz that NumPy reads without minis5 and without pickle.

    Parameters
    ----------
    agent : ActorCritic
        On the CPU or on a GPU.
    path : path
        The file's name. An older file of that name is replaced.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        The agent's spaces have no form in JSON.
    """
    write_npz(path, agent_arrays(agent))


def is_saved(agent: ActorCritic, path: str | PathLike) -> bool:
    """Return whether the file `path` is what `save_agent` would write."""
    return holds_npz(path, agent_arrays(agent))


def agent_arrays(agent: ActorCritic) -> dict[str, Any]:
    """Return the arrays of an agent's file, by name."""
    header = {
        "format": AGENT_FORMAT,
        "version": VERSION,
        "config": json.dumps(dataclasses.asdict(agent.config)),
        "observation_space": json.dumps(space_to_json(agent.observation_space)),
        "action_space": json.dumps(space_to_json(agent.action_space)),
    }
    parameters = {name: to_host(value) for name, value in agent.parameters().items()}
    moments = {} if agent.normalizer is None else {MOMENTS: agent.normalizer.to_array()}
    behind = {BEHIND: json.dumps(agent.behind)} if agent.behind else {}
    return {**header, **behind, **moments, **parameters}


def load_agent(path: str | PathLike, device: str = "cpu", *, argument: str = "path") -> ActorCritic:
    """Read an agent that :func:`minis5.save` wrote. No code in the file is run.

    Parameters
    ----------
    path : path
        An agent.npz of this version of minis5 or of an older one.
    device : {"cpu", "cuda"}
        Where the agent will be; it does not matter where it was.
    argument : str
        The name of the argument that the path came from, for messages.

    Returns
    -------
    ActorCritic
        With the parameters, settings, spaces and running moments of the one that was saved.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        The file is damaged, foreign or newer, its parameters do not fit its configuration, or one
        of them is not finite.
    DeviceError
        Something that the GPU needs is missing.
    """
    arrays = read_npz(path, AGENT_FORMAT, argument)
    try:
        header = []
        for name in ("config", "observation_space", "action_space"):
            if name not in arrays:
                raise ValueError(f"there is no {name!r}")
            header.append(parse_json(text(arrays, name)))
            del arrays[name]
        config, (observations, actions) = agent_config_from_json(header[0]), header[1:]
        check_sizes(config, {name: array.shape for name, array in arrays.items()})
        most = max((max(array.shape, default=0) for array in arrays.values()), default=0)
        seen = {name.split("/")[1] for name in arrays if name.startswith("images/")}
        images = 0 if config.conv == "none" else len(seen)
        spaces = space_from_json(observations, most, images), space_from_json(actions, most)
        check_images(config, spaces[0], {name: array.shape for name, array in arrays.items()})
        agent = ActorCritic(*spaces, config, device=device)
        if BEHIND in arrays:
            agent.behind = tuple(map(str, parse_json(text(arrays, BEHIND))))
            del arrays[BEHIND]
        arrays.pop(RUN, None)
        if agent.normalizer is not None:
            agent.normalizer.load(arrays.pop(MOMENTS))
        set_parameters(agent, arrays)
    except MISFIT as error:
        raise CheckpointError(
            f"{path}: its content does not fit together ({reason(error)}); restore it from a copy"
        ) from error
    check_intact(path, arrays)
    return agent


def check_sizes(config: AgentConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if a configuration is larger than the parameters that belong to it.

    An agent's memory is taken afterwards. What is still wrong then is small.

    Parameters
    ----------
    config : AgentConfig
    shapes : mapping
        Parameter's name → shape.
    """
    for part, widths in {"encoder": config.encoder, "actor": config.heads}.items():
        for i, width in enumerate(widths):
            name = f"{part}/{i}/kernel"
            if name in shapes and shapes[name][1:] != (width,):
                raise ValueError(
                    f"parameter {name}: expected {width} columns, got the shape {shapes[name]}"
                )
            if name not in shapes:
                raise ValueError(f"parameters missing: {name!r} and perhaps others")
    largest = max((max(shape, default=0) for shape in shapes.values()), default=0)
    most = 2 * largest + len(shapes)  # ssm_size counts the conjugate states too
    for field in dataclasses.fields(config.core_config):
        value = getattr(config.core_config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            # a window has no parameters of its own
            if type(number) is int and field.name != "window" and number > most:
                raise ValueError(f"{field.name}: expected at most {most}, got {number}")


def check_images(config: AgentConfig, space: Space, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError if an agent would see the images of a space with more than its parameters.

    Parameters
    ----------
    config : AgentConfig
    space : gymnasium.Space
        Of the observations.
    shapes : mapping
        Parameter's name → shape.
    """
    encoder = ObservationEncoder(space, sees(config))
    images = Images(encoder.image_shapes, config, encoder.size)
    for n, kernels in enumerate(images.kernels()):
        for i, kernel in enumerate(kernels):
            name = f"images/{n}/{i}/kernel"
            if (got := shapes.get(name)) != kernel:
                raise ValueError(f"parameter {name}: expected {kernel}, got {got or 'none'}")
    if (rows := shapes["encoder/0/kernel"][0]) < images.width:
        wanted = f"at least {images.width} rows for the observations"
        raise ValueError(f"parameter encoder/0/kernel: expected {wanted}, got {rows}")


def set_parameters(agent: ActorCritic, arrays: Mapping[str, np.ndarray]) -> None:
    """Copy `arrays` into the agent's parameters.

    Raises
    ------
    ValueError
        Names, shapes or dtypes differ, or a value is not finite. Nothing has been changed.
    """
    parameters = agent.parameters()
    missing, extra = sorted(set(parameters) - set(arrays)), sorted(set(arrays) - set(parameters))
    if missing or extra:
        raise ValueError(f"parameters missing: {missing or 'none'}, not known: {extra or 'none'}")
    for name, parameter in parameters.items():
        wanted, found = (f"{array.dtype} {array.shape}" for array in (parameter, arrays[name]))
        if wanted != found:
            raise ValueError(f"parameter {name}: expected {wanted}, got {found}")
        if not np.isfinite(to_host(arrays[name])).all():
            raise ValueError(f"parameter {name}: expected finite values, got NaN or Inf")
    for name, parameter in parameters.items():
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
    other = load_agent(path, argument="init_from")
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
    if agent.normalizer is not None and other.normalizer is not None:
        agent.normalizer.load(other.normalizer.to_array())


def _makings(agent):
    """Return an agent's spaces and every field of its configurations in one dict."""
    fields = dataclasses.asdict(agent.config)
    fields |= fields.pop("core_config")
    del fields["action_masks"]  # these may differ, because they change no parameter
    return {
        "observation_space": agent.observation_space,
        "action_space": agent.action_space,
        **fields,
        # elsewhere they make no difference
        "scale_actions": agent.actions.scaled,
        "conv": [image.layers for image in agent.images.images],
    }
