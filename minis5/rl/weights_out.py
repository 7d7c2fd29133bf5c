"""Writing an agent's weights under the names of other people's programs.

Leaves out: what weight_names.py leaves out, and anything that the other program cannot compute,
which is refused. Tests: tests/rl/test_weights.py.
"""

import re
from os import PathLike
from typing import Any

import numpy as np

from minis5.arrays import to_host
from minis5.checks import check_choice
from minis5.rl.agent import ActorCritic
from minis5.rl.array_file import check_suffix, write_arrays
from minis5.rl.weight_names import (
    FLAX,
    FORMATS,
    SETTINGS,
    TORCH,
    check_layer,
    check_s5,
    layer_to_torch,
    translate,
)

__all__ = ["export_weights", "to_flax", "to_torch"]


def export_weights(
    agent: ActorCritic, path: str | PathLike, to: str, layer: int | None = None
) -> dict[str, Any]:
    """Write an agent's weights under other names to a .npz or .safetensors file.

    Parameters
    ----------
    agent : ActorCritic
        With the core "s5".
    path : path
        A name that ends in .npz or .safetensors.
    to : {"flax", "s5-pytorch"}
        Whose names: the authors' Flax tree, or a torch state dict with s5-pytorch's S5.
    layer : int, optional
        With "s5-pytorch": only this layer's SSM, as a state dict of its module S5.

    Returns
    -------
    dict
        The settings that the file does not hold.

    Raises
    ------
    OSError
        The file cannot be written.
    ValueError
        The other program cannot compute what this agent computes; the message names the setting.
    """
    check_suffix(path, "path")
    arrays = to_flax(agent) if check_choice("to", to, FORMATS) == "flax" else to_torch(agent)
    if layer is not None:
        check_choice("to", to, ("s5-pytorch",))
        begin = f"layers.{check_layer(agent, layer)}.seq."
        arrays = {f"seq.{n.removeprefix(begin)}": a for n, a in arrays.items() if begin in n}
    if str(path).endswith(".safetensors"):  # it has no complex128
        wide = {name for name, array in arrays.items() if array.dtype == np.complex128}
        pairs = {name: np.stack([arrays[name].real, arrays[name].imag], -1) for name in wide}
        arrays = {name: pairs.get(name, array) for name, array in arrays.items()}
    write_arrays(path, arrays)
    fields = {**vars(agent.config), **vars(agent.config.core_config)}
    return {name: fields[name] for name in SETTINGS}


def to_flax(agent: ActorCritic) -> dict[str, np.ndarray]:
    """Return an agent's weights by the names of the authors' Flax tree, "params/" in front.

    Parameters
    ----------
    agent : ActorCritic
        With the core "s5".

    Returns
    -------
    dict of arrays
        Copies, on the CPU.

    Raises
    ------
    ValueError
        The authors' agent has no such setting, or the norms of a layer differ.
    """
    check_s5(agent)
    config, core = agent.config, agent.config.core_config
    if config.activation != "leaky_relu":
        got = config.activation
        raise ValueError(f"activation: expected 'leaky_relu', got {got!r}; theirs has no other")
    if core.prenorm and core.postnorm:
        remedy = "their layer has a norm before the SSM or after the skip connection"
        raise ValueError(f"prenorm, postnorm: expected one of them, got both; {remedy}")
    found: dict[str, np.ndarray] = {}
    for name, value in agent.parameters().items():
        ours = re.sub(r"/(gtrxl_norm|postnorm)/", "/norm/", name)
        theirs, value = f"params/{translate(ours, FLAX)}", to_host(value).copy()
        if not np.array_equal(found.setdefault(theirs, value), value):
            wanted = f"the numbers of the layer's other norm, because both are {theirs}"
            raise ValueError(f"{name}: expected {wanted}, got others; train with one norm")
    return found


def to_torch(agent: ActorCritic) -> dict[str, np.ndarray]:
    """Return an agent's weights by the names of a torch state dict with s5-pytorch's S5 inside.

    Parameters
    ----------
    agent : ActorCritic
        With the core "s5".

    Returns
    -------
    dict of arrays
        Copies, on the CPU; kernels are transposed, as torch.nn.Linear has them.

    Raises
    ------
    ValueError
        s5-pytorch has no such setting.
    """
    check_s5(agent)
    core, found = agent.config.core_config, {}
    layers: dict[str, dict[str, np.ndarray]] = {}
    if core.discretization != "zoh":
        got = core.discretization
        raise ValueError(f"discretization: expected 'zoh', got {got!r}; its S5 has no other")
    for name, value in agent.parameters().items():
        value, (begin, _, leaf) = to_host(value).copy(), name.rpartition("/")
        theirs = translate(f"{begin}/" if begin else name, TORCH)
        if begin.endswith("/ssm"):
            layers.setdefault(theirs, {})[leaf] = value
        elif begin:
            if leaf == "kernel":  # (in, out) or, of a convolution, (k, l, C, F)
                axes = (1, 0) if value.ndim == 2 else (3, 2, 0, 1)
                value = np.ascontiguousarray(value.transpose(axes))
            found[theirs + ("bias" if leaf == "bias" else "weight")] = value
        else:
            found[theirs] = value
    for begin, layer in layers.items():
        if core.clip_eigs and (layer["Lambda_re"] > -1e-4).any():
            wanted = "eigenvalues that need no clipping"
            raise ValueError(f"clip_eigs: expected {wanted}, got one above; its S5 clips none")
        torch = layer_to_torch(layer, core.conj_sym)
        found |= {begin + name: value for name, value in torch.items()}
    return found
