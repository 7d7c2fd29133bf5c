"""Reading weights that other people's programs wrote: a new agent, or new weights for one.

Every array of the file must have its place and every parameter its array. What the file does not
hold, such as the discretisation, is a setting. Nothing from a file is run.

Leaves out: what weight_names.py leaves out. Tests: tests/rl/test_weights.py.
"""

import dataclasses
import re
from os import PathLike
from typing import Any

import gymnasium as gym
import numpy as np

from minis5.arrays import to_host
from minis5.checks import check_choice
from minis5.nn.s5_core import S5Config
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import set_parameters
from minis5.rl.array_file import read_arrays
from minis5.rl.config import AgentConfig
from minis5.rl.weight_names import (
    FLAX,
    KINDS,
    NORMS,
    SETTINGS,
    TORCH,
    check_layer,
    check_s5,
    fold,
    layer_from_torch,
    their_name,
    translate,
)

__all__ = ["import_weights", "import_into"]
MISFIT = "the spaces or settings are not those of the file"


def import_weights(
    path: str | PathLike,
    observation_space: gym.Space,
    action_space: gym.Space,
    *,
    prefix: str = "",
    **settings: Any,
) -> ActorCritic:
    """Build an agent from a file of weights. Widths, layers and dtype come from the file's arrays.

    Parameters
    ----------
    path : path
        A .npz or .safetensors file with either column of names.
    observation_space, action_space : gymnasium.Space
        Of one environment.
    prefix : str
        Only the names that begin so are read, without it.
    **settings
        What the file does not hold: fields of AgentConfig and S5Config (SETTINGS). Defaults are the
        authors': scale_actions=False; for s5-pytorch conj_sym=False.

    Returns
    -------
    ActorCritic

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        An array is missing, unknown or of another shape, or a setting is needed and not given; the
        message names it. Nothing from the file is run.
    """
    for name in settings:
        check_choice("settings", name, SETTINGS)
    to, found = _read(path, prefix)
    config = _config(to, found, settings)
    agent = ActorCritic(observation_space, action_space, config)
    _fill(agent, to, found)
    return agent


def import_into(
    agent: ActorCritic, path: str | PathLike, *, prefix: str = "", layer: int | None = None
) -> None:
    """Give an agent the weights of a file, or one of its layers those of s5-pytorch's S5 there.

    Parameters
    ----------
    agent : ActorCritic
        Its spaces and settings are those of the weights.
    path, prefix
        As for :func:`import_weights`.
    layer : int, optional
        The file holds one S5 module ("seq.Lambda", …), which becomes this layer's SSM.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`import_weights`; then nothing has been changed.
    """
    to, found = _read(path, prefix, None if layer is None else check_layer(agent, layer))
    if layer is not None:
        begin = f"core/layers/{layer}/ssm/"
        kept = {n: to_host(a) for n, a in agent.parameters().items() if not n.startswith(begin)}
        found = {**kept, **found}
    _fill(agent, to, found, layer)


def _read(path, prefix, layer=None):
    """Return the format of a file of weights and its arrays by our names."""
    arrays = {
        name.removeprefix(prefix): array
        for name, array in read_arrays(path).items()
        if name.startswith(prefix)
    }
    if any(name.rpartition(".")[2] == "Lambda" for name in arrays):
        return "s5-pytorch", _from_torch(arrays, layer)
    if layer is None and any(re.split(r"[/.]", name)[-1] == "Lambda_re" for name in arrays):
        return "flax", _from_flax(arrays)
    wanted = "'seq.Lambda'" if layer is not None else "'layers.0.seq.Lambda' or '…/seq/Lambda_re'"
    got = ", ".join(list(arrays)[:3]) or "none"
    remedy = "give the prefix of all names" if not prefix else "look at the prefix"
    raise ValueError(f"{path}: expected names as {wanted}, got {got}; {remedy}")


def _from_flax(arrays):
    found, inverse = {}, {theirs: ours for ours, theirs in FLAX.items()}
    for name, array in arrays.items():
        theirs = name if "/" in name else name.replace(".", "/")
        ours = translate(re.sub("^(params/)+", "", theirs), inverse)
        if ours in found:
            raise ValueError(f"{name}: expected each array once, got it twice; look at 'params/'")
        found[ours or refuse(name)] = array
    return found


def _from_torch(arrays, layer):
    inverse = {theirs: ours for ours, theirs in TORCH.items()}
    if layer is not None:
        inverse = {"seq.": f"core/layers/{layer}/ssm/"}
    elif all(name.startswith("seq.") for name in arrays):
        remedy = "name an agent that it belongs to, and its layer"
        raise ValueError(f"layer: expected a whole agent, got one S5 module; {remedy}")
    found, layers = {}, {}
    for name, array in arrays.items():
        ours = translate(name, inverse) or refuse(name)
        begin, slash, leaf = ours.rpartition("/")
        if begin.endswith("/ssm"):
            known = ("Lambda", "B", "C", "D", "log_step")
            layers.setdefault(begin, {})[leaf if leaf in known else refuse(name)] = array
        elif leaf == "weight" and array.ndim == 2:
            found[f"{begin}/kernel"] = array.T
        elif leaf == "weight" and array.ndim == 4:  # (F, C, k, l)
            found[f"{begin}/kernel"] = array.transpose(2, 3, 1, 0)
        else:
            found[begin + slash + ("scale" if leaf == "weight" else leaf)] = array
    for begin, theirs in layers.items():
        found |= {f"{begin}/{name}": a for name, a in layer_from_torch(theirs).items()}
    return found


def refuse(name, remedy="take it out, or give a prefix"):
    """Raise ValueError: a name for which there is no place."""
    parts = re.split(r"[/.]", name)
    kinds = [kind for p, kind in KINDS.items() if any(re.fullmatch(p, part) for part in parts)]
    remedy = f"it belongs to {kinds[0]}" if kinds else remedy
    raise ValueError(f"{name}: expected the names of minis5/rl/weight_names.py; {remedy}")


def _config(to, found, settings):
    """Return the AgentConfig of a file's arrays and of the settings that it does not hold."""

    def widths(part):
        numbers = []
        while (kernel := found.get(f"{part}/{len(numbers)}/kernel")) is not None:
            if kernel.ndim != 2:
                raise ValueError(f"{part} kernel: expected (in, out), got {kernel.shape}")
            numbers.append(kernel.shape[1])
        return tuple(numbers)

    layers = 0
    while f"core/layers/{layers}/ssm/Lambda_re" in found:
        layers += 1
    if not layers or "encoder/0/kernel" not in found:
        lacking = "encoder/0/kernel" if layers else "core/layers/0/ssm/Lambda_re"
        remedy = "the file is no whole agent's"
        raise ValueError(f"{their_name(lacking, to)}: expected this array, got none; {remedy}")
    given = {"scale_actions": False, "conj_sym": to == "flax", **settings}
    first = {name.split("/")[3] for name in found if name.startswith("core/layers/0/")}
    if "out1" in first or "out2" not in first:
        given.setdefault("gate", "full_glu" if "out1" in first else "gelu")
    elif "gate" not in given:
        wanted = "'half_glu1' or 'half_glu2', which have the same arrays"
        raise ValueError(f"gate: expected {wanted}, got none; say which")
    if to != "flax":
        given |= {setting: True for setting, name in NORMS.items() if name in first}
    elif "norm" in first and not any(given.get(setting) for setting in NORMS):
        wanted = f"one or two of {', '.join(NORMS)}, because the file has a norm in each layer"
        raise ValueError(f"norms: expected {wanted}, got none; say where it is applied")
    size = found["core/layers/0/ssm/Lambda_re"].size  # in s5-pytorch, both states of each pair
    size *= 2 if to == "flax" and given["conj_sym"] else 1
    names = [field.name for field in dataclasses.fields(S5Config)]
    core = {name: given.pop(name) for name in list(given) if name in names}
    return AgentConfig(
        encoder=widths("encoder"),
        heads=widths("actor"),
        core_config=S5Config(n_layers=layers, ssm_size=size, **core),
        dtype=found["encoder/0/kernel"].dtype.name,
        **given,
    )


def _fill(agent, to, found, layer=None):
    """Copy arrays by our names into an agent; errors have the file's names."""
    check_s5(agent)
    core, wanted, found = agent.config.core_config, agent.parameters(), dict(found)
    for i in range(core.n_layers):
        begin = f"core/layers/{i}/"
        if to == "flax":  # theirs has one norm for all
            for leaf in ("scale", "bias"):
                shared = found.pop(f"{begin}norm/{leaf}", None)
                norms = [f"{begin}{norm}/{leaf}" for norm in NORMS.values()]
                found |= {n: shared for n in norms if n in wanted and shared is not None}
        elif core.conj_sym and layer in (None, i):
            names = [name for name in wanted if name.startswith(f"{begin}ssm/")]
            _check_there(to, names, found)
            ssm = {name.rpartition("/")[2]: found[name] for name in names}
            one = fold(ssm, "" if layer is not None else f"layers.{i}.seq.")
            found |= {f"{begin}ssm/{name}": array for name, array in one.items()}
    for name in found:
        if name not in wanted:
            refuse(their_name(name, to), MISFIT)
    _check_there(to, wanted, found)
    for name, parameter in wanted.items():
        if found[name].shape != parameter.shape:
            remedy = MISFIT
            if name == "encoder/0/kernel" and found[name].shape[1:] == parameter.shape[1:]:
                sizes = agent.observation_encoder.size, agent.distribution.encoded_size
                remedy = "its rows are {} numbers of the observation, {} of the previous action, "
                remedy = f"{remedy.format(*sizes)}and 1 at an episode's start"
            got = f"{found[name].shape}; {remedy}"
            raise ValueError(f"{their_name(name, to)}: expected {parameter.shape}, got {got}")
    set_parameters(agent, {name: np.ascontiguousarray(found[name]) for name in wanted})


def _check_there(to, names, found):
    """Raise ValueError unless all of ``names`` are among the arrays ``found``."""
    if odd := [their_name(name, to) for name in names if name not in found]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise ValueError(f"{odd[0]}{more}: expected this array, got none; {MISFIT}")
