"""Hyper-parameters by name: presets, changes for single environments, configurations from text.

``laptop`` (the default) learns the memory tasks here in seconds to minutes on two CPU cores.
``paper`` has the numbers of 2303.03982 exactly (its table for POPGym). ``a2c`` is the actor-critic
of its memory-length experiment: the same trainer with one pass, one minibatch and no bounds. A row
of TASKS changes the laptop preset for one environment, or for all levels of one; FOREIGN does for
those that are not minis5's own. The user's settings override all.

If the size of another core is not given, it has as many parameters as the S5 core, to the nearest
unit. A comparison is then one of the kinds of memory, not of sizes. In the paper's two presets, GRU
and LSTM have the paper's 256 units.

Leaves out: a search for better settings. Tests: tests/run/test_presets.py.
"""

import ast
import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minis5.envs.registry import MIXTURE, REGISTRY, family
from minis5.nn.cores import CORES
from minis5.nn.parameters import flatten_tree
from minis5.nn.s5_core import S5Config, S5Core
from minis5.rl.config import AgentConfig, PPOConfig

Settings = dict[str, Any]  # hyper-parameter: value

# preset: (changes to the defaults of AgentConfig, PPOConfig and the core's configuration,
#          default number of environment steps)
PRESETS: dict[str, tuple[Settings, int]] = {
    "laptop": ({"anneal_lr": True}, 500_000),
    "paper": (
        {
            "encoder": (128, 256),
            "heads": (128, 128),
            "n_layers": 4,
            "ssm_size": 256,
            "lr": 5e-5,
            "anneal_lr": False,
            "num_envs": 64,
            "unroll": 1024,
            "epochs": 30,
            "minibatches": 8,
            "gamma": 0.99,
            "gae_lambda": 1.0,
            "clip": 0.2,
            "entropy_coef": 0.0,
            "value_coef": 1.0,
            "max_grad_norm": 0.5,
        },
        15_000_000,
    ),
    # The paper leaves some settings of this experiment open. They are the plainest: heads of one
    # layer, advantages that are not normalised.
    "a2c": (
        {
            "encoder": (256, 256),
            "heads": (),
            "activation": "relu",
            "n_layers": 1,
            "ssm_size": 256,
            "lr": 3e-4,
            "anneal_lr": False,
            "num_envs": 1,
            "unroll": 32,
            "epochs": 1,
            "minibatches": 1,
            "gamma": 0.99,
            "gae_lambda": 0.9,
            "clip_value": False,
            "entropy_coef": 0.0,
            "value_coef": 1.0,
            "max_grad_norm": None,
            "normalize_advantages": False,
        },
        500_000,
    ),
}

# core: the field that is its size, and its value for n units
SIZES: dict[str, tuple[str, Callable[[int], Any]]] = {
    "gru": ("hidden", int),
    "lstm": ("hidden", int),
    "attention": ("mlp_width", int),
    "mlp": ("widths", lambda n: (n, n)),
}
# the widths in 2303.03982's tables, which have none for an MLP
PAPER_UNITS = {"gru": 256, "lstm": 256}

# what people change most, for the help
COMMON = {"encoder", "heads", "n_layers", "ssm_size", *(field for field, _ in SIZES.values())}
COMMON |= {"lr", "num_envs", "unroll", "epochs", "minibatches", "gamma", "gae_lambda"}
COMMON |= {"entropy_coef", "normalize_observations", "normalize_rewards"}

# If an action is paid at once and changes nothing later, a short horizon removes most of the noise
# from its advantage.
AT_ONCE = {"gamma": 0.5, "gae_lambda": 0.5, "lr": 2e-3, "entropy_coef": 0.01}
SOON = AT_ONCE | {"gamma": 0.9}
# A state forgets over about 1 / Δ steps: one that begins with Δ above 0.1 is useless over a whole
# pack of cards.
WHOLE_PACK = {"unroll": 256, "ssm_size": 128, "dt_min": 0.01}

# An episode has 100 or 200 steps. States that begin with a memory of 3 to 100 steps suit it. A step
# earns 1/100 or less: unless rewards are normalised, values are so small that they hardly shape the
# memory.
SWING = {"gamma": 0.98, "dt_min": 0.01, "dt_max": 0.3, "normalize_rewards": True}

# Other people's environments, whose observations and rewards may be of any size. Most that were
# tried need half of the steps.
FOREIGN: tuple[Settings, int] = (
    {"normalize_observations": True, "normalize_rewards": True, "center_values": True},
    1_000_000,
)

# MuJoCo's tasks take many small updates: with 64 environments and lr 1e-3, a double pendulum whose
# velocities are hidden earned 5,800 instead of 9,100. HalfCheetah earned as much.
MUJOCO = ({"num_envs": 16, "lr": 3e-4}, 1_000_000)
ROBOTS = (
    "Ant- HalfCheetah- Hopper- Humanoid- HumanoidStandup- InvertedPendulum- "
    "InvertedDoublePendulum- Pusher- Reacher- Swimmer- Walker2d-"
).split()

# how the id of such an environment begins, without its module: changes to FOREIGN, steps
FAMILIES: dict[str, tuple[Settings, int]] = {
    # A view has 147 one-hot vectors, of which hardly any change: normalised, the few that do are
    # seen. Without the bonus the agent soon runs to either end and no longer looks at what the
    # start shows. Large updates, which target_kl ends, forget what it has learnt. Rewards are in
    # [0, 1].
    "MiniGrid-": (
        {
            "num_envs": 32,
            "entropy_coef": 0.02,
            "target_kl": 0.03,
            "normalize_one_hot": True,
            "normalize_rewards": False,
        },
        2_000_000,
    ),
    # The cue is a few steps back, and is seen only by an agent that turns round: memories begin
    # short, and γ makes the way back cheap. What is paid at the end is blamed on the last steps.
    "MiniGrid-Memory": (
        {"num_envs": 64, "lr": 2e-3, "gae_lambda": 0.8, "dt_min": 0.02, "dt_max": 0.5},
        3_000_000,
    ),
    "MiniGrid-MemoryS7": ({}, 500_000),
    "LunarLander": ({}, 2_000_000),  # after half of them, one seed of three was below 200
    # A rollout of 16 x 128 images of 210 x 160 x 3 has 206 MB.
    "ALE/": ({"num_envs": 16}, 1_000_000),
    **dict.fromkeys(ROBOTS, MUJOCO),
}

EPISODES = 10_000  # of MemoryChain-N, as in the paper's experiment

BOOLS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
WANTED = {bool: "true or false", int: "a whole number", float: "a number"}  # in messages

# level or family: changes to the laptop preset, default number of environment steps
TASKS: dict[str, tuple[Settings, int]] = {
    "RepeatPreviousEasy": ({"lr": 2e-3}, 300_000),
    "PositionOnlyCartPoleEasy": ({}, 300_000),
    # Half of the core's gradients are below 2e-6 at first. Under PPO's usual epsilon of 1e-5, Adam
    # hardly moves them; experiments/README.md shows the cost. As in the games below, an action is
    # paid at once: a short horizon. Actions before the last change nothing. Those of training are
    # noise in the memory; the same ones over and over, as the deterministic policy has them, are a
    # sum that training never met.
    "MemoryChain": (
        {"adam_eps": 1e-12, "gamma": 0.9, "gae_lambda": 0.5, "show_previous_action": False},
        500_000,
    ),
    # Every state starts with a memory of 33 to 100 steps, because the delay is 64, and keeps about
    # that length, because it learns slowly. An action is paid at once: a short horizon.
    "RepeatPreviousHard": (
        {
            "ssm_size": 128,
            "dt_min": 0.01,
            "dt_max": 0.03,
            "unroll": 256,
            "lr": 2e-3,
            "ssm_lr_factor": 0.3,
            "gamma": 0.5,
            "gae_lambda": 0.5,
            "entropy_coef": 0.01,
        },
        3_000_000,
    ),
    # With less entropy, some runs soon name one suit whatever they saw, and repeat it, because they
    # see their own last action.
    "RepeatFirst": ({"lr": 2e-3, "gae_lambda": 0.5, "entropy_coef": 0.03}, 1_000_000),
    "Autoencode": (AT_ONCE | WHOLE_PACK, 3_000_000),
    "CountRecall": (AT_ONCE | WHOLE_PACK, 3_000_000),
    "Concentration": (SOON, 3_000_000),
    "MineSweeper": (SOON, 2_000_000),
    "Battleship": (AT_ONCE | {"gamma": 0.1, "gae_lambda": 0.0, "entropy_coef": 0.05}, 3_000_000),
    "MultiarmedBandit": (
        {"gamma": 0.95, "gae_lambda": 0.9, "lr": 2e-3, "entropy_coef": 0.01, "unroll": 256},
        2_000_000,
    ),
    "PositionOnlyPendulum": ({"gamma": 0.95}, 1_000_000),
    "NoisyPositionOnlyPendulum": ({"gamma": 0.95}, 1_000_000),
    "PositionOnlyPendulumHard": (SWING, 3_000_000),
    # With 64 environments the return stopped rising after 2M steps, while gradients grew.
    "NoisyPositionOnlyPendulumHard": (SWING | {"num_envs": 256, "lr": 2e-3}, 5_000_000),
    "PositionOnlyCartPole": ({}, 1_000_000),
    # After 1M steps one seed of eight drifted to the edge of the track, and stayed so.
    "PositionOnlyCartPoleHard": ({}, 3_000_000),
    "NoisyPositionOnlyCartPole": ({}, 1_000_000),
    "NoisyPositionOnlyCartPoleHard": ({}, 10_000_000),
    "LabyrinthEscape": ({"gamma": 0.997, "entropy_coef": 0.01}, 2_000_000),
}


def fields(core: str) -> dict[str, tuple[Any, Any, str]]:
    """Return every hyper-parameter of an agent with this core.

    Returns
    -------
    dict
        Name → (type, default of the configuration's class, help).

    Raises
    ------
    ValueError
        The core is unknown.
    """
    if core not in CORES:
        raise ValueError(f"core: expected one of {', '.join(CORES)}, got {core!r}")
    found = {}
    for config in (AgentConfig, CORES[core][0], PPOConfig):
        hints, comments = typing.get_type_hints(config), field_comments(config)
        for f in dataclasses.fields(config):
            if f.name not in ("core", "core_config"):
                found[f.name] = (hints[f.name], f.default, comments[f.name])
    return found


def values(agent: AgentConfig, ppo: PPOConfig) -> Settings:
    """Return the value of every name that `fields` gives for the agent's core."""
    found = vars(agent) | vars(agent.core_config) | vars(ppo)
    return {name: value for name, value in found.items() if name not in ("core", "core_config")}


def resolve(
    env_id: str,
    preset: str = "laptop",
    core: str = "s5",
    overrides: Mapping[str, Any] | None = None,
) -> tuple[AgentConfig, PPOConfig, int]:
    """Return the configurations of a run.

    Parameters
    ----------
    env_id : str
        "" for none in particular.
    preset : {"laptop", "paper", "a2c"}
    core : str
        A name in minis5.nn.cores.CORES.
    overrides : dict
        Hyper-parameter name → value, or its text as typed on a command line: "64,64", "true",
        "1e-3", "none".

    Returns
    -------
    AgentConfig, PPOConfig, steps : int

    Raises
    ------
    ValueError
        The preset, the core or a name is unknown, or a value does not fit.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    known = fields(core)
    settings, steps = PRESETS[preset]
    name = re.sub(r"^minis5/(.*)-v0$", r"\1", env_id)
    chain = re.fullmatch(r"MemoryChain-(\d+)", name)
    name = "MemoryChain" if chain else name
    if preset == "laptop":
        task, steps = _changes(name) or ({}, steps)
        settings = settings | task
    if chain and preset != "paper":
        length = int(chain[1])
        settings, steps = settings | {"window": length}, EPISODES * length
        if preset == "laptop":  # whole episodes, and enough of them if they are short
            settings = settings | {"unroll": max(PPOConfig().unroll, length)}
            steps = max(TASKS["MemoryChain"][1], steps)
    s5 = {f.name: settings[f.name] for f in dataclasses.fields(S5Config) if f.name in settings}
    settings = {name: value for name, value in settings.items() if core == "s5" or name not in s5}
    for name, value in (overrides or {}).items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"{name}: no such hyper-parameter for the core {core!r}; {hint}")
        settings[name] = parse(name, value, known[name][0])

    if core in SIZES and SIZES[core][0] not in settings:
        field, value = SIZES[core]
        units = PAPER_UNITS.get(core) if preset != "laptop" else None
        if units is None:
            encoder = settings.get("encoder", AgentConfig().encoder)
            units = equal_units(core, S5Config(**s5), encoder[-1])
        settings[field] = value(units)

    def build(config, **more):
        names = [field.name for field in dataclasses.fields(config)]
        return config(**{name: settings[name] for name in names if name in settings}, **more)

    return build(AgentConfig, core=core, core_config=build(CORES[core][0])), build(PPOConfig), steps


def _changes(name):
    """Return what changes the laptop preset for an environment, and its steps; None: nothing."""
    if name and name not in REGISTRY and name != MIXTURE:
        bare, (changes, steps) = name.rpartition(":")[2], FOREIGN
        for begin, (more, own_steps) in FAMILIES.items():
            if bare.startswith(begin):
                changes, steps = changes | more, own_steps
        return changes, steps
    return TASKS.get(name) or TASKS.get(family(name))


def equal_units(core: str, s5_config: S5Config, d_model: int) -> int:
    """Return how many units give a core as many parameters as the S5 core, as nearly as possible.

    The number is the ``n`` of `SIZES`.

    Parameters
    ----------
    core : a name in `SIZES`
    s5_config : S5Config
    d_model : int
        Width of the encoder's last layer, the core's input.
    """
    s5 = flatten_tree(S5Core(s5_config, d_model).init(np.random.default_rng(0)))
    wanted = sum(array.size for array in s5.values())
    (config, kind), (field, value) = CORES[core], SIZES[core]

    def count(n):
        shapes = flatten_tree(kind(config(**{field: value(n)}), d_model).shapes())
        return sum(math.prod(shape) for shape in shapes.values())

    most = 1
    while count(most) < wanted:
        most *= 2
    return min(range(1, 2 * most), key=lambda n: abs(count(n) - wanted))


def parse(name, value, kind):
    """Convert text, or a value, to the type ``kind``.

    The types are int, float, bool, str, a tuple of int, and each of these or None.
    """
    if isinstance(kind, types.UnionType):
        if value is None or value == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    try:
        if typing.get_origin(kind) is tuple:
            parts = value.split(",") if isinstance(value, str) else value
            return () if value == "none" else tuple(_whole(v) for v in parts)
        if kind is bool:
            return BOOLS[str(value).lower()]
        return _whole(value) if kind is int else kind(value)
    except (KeyError, TypeError, ValueError):
        wanted = WANTED.get(kind, "whole numbers with commas between")
        raise ValueError(f"{name}: expected {wanted}, got {value!r}") from None


def _whole(value):
    number = int(value.replace("_", "")) if isinstance(value, str) else int(value)
    if not isinstance(value, str) and number != value:
        raise ValueError(value)
    return number


def field_comments(config):
    """Return field → help: the comment behind each field of a configuration, or above it."""
    source = inspect.getsource(config)
    lines = source.splitlines()
    comments = {}
    for node in ast.parse(source).body[0].body:
        if isinstance(node, ast.AnnAssign):
            behind = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2]
            above = []
            for line in reversed(lines[: node.lineno - 1]):
                if not line.strip().startswith("#"):
                    break
                above.insert(0, line.strip().lstrip("# "))
            comments[node.target.id] = behind.strip() or " ".join(above)
    return comments
