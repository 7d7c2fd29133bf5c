"""minis5 import-weights and export-weights: agents from and for other people's programs.

Leaves out: names and formats (minis5/rl/weight_names.py). Tests: tests/run/test_weights.py.
"""

import argparse
import os

from minis5.envs.registry import make_vec
from minis5.rl.agent_file import load_agent, save_agent
from minis5.rl.weight_names import FORMATS, SETTINGS
from minis5.rl.weights_in import import_into, import_weights
from minis5.rl.weights_out import export_weights
from minis5.run import presets
from minis5.run.console import answer
from minis5.run.parser import add_env_option, integer


def import_arguments(parser, argv):
    """Add the options of import-weights to a Parser."""
    del argv
    add, group = parser.add_argument, parser.add_argument_group
    add(
        "file",
        metavar="FILE",
        help="a .npz or .safetensors file of the authors' Flax tree or of "
        "a torch state dict with s5-pytorch's S5; minis5/rl/weight_names.py has the names",
    )
    add("--out", metavar="AGENT", default="agent.npz", help="default agent.npz")
    add("--env", metavar="ENV", help="the environment that the agent is for: its spaces")
    add_env_option(parser)
    add(
        "--like",
        metavar="RUN",
        help="instead of --env: a run or agent.npz of the same spaces and settings",
    )
    add(
        "--layer",
        type=integer,
        metavar="I",
        help="with --like: FILE is one S5 module, which becomes the SSM of that agent's layer I",
    )
    add("--prefix", default="", metavar="TEXT", help="read only the names that begin so")
    settings = group("settings that the file does not hold", "in brackets the default")
    for name in SETTINGS:
        kind, default, text = presets.fields("s5")[name]
        default = {"scale_actions": False, "conj_sym": "true, for s5-pytorch false"}.get(
            name, default
        )
        more = {"nargs": "?", "const": "true"} if kind is bool else {}
        settings.add_argument(
            "--" + name.replace("_", "-"),
            dest=f"setting {name}",
            default=argparse.SUPPRESS,
            metavar={bool: "BOOL", float: "X"}.get(kind, "NAME"),
            help=f"{text} [{str(default).lower()}]".replace("%", "%%"),
            **more,
        )


def import_run(options):
    """Build the agent and write its file."""
    known = presets.fields("s5")
    settings = {
        name.removeprefix("setting "): value
        for name, value in vars(options).items()
        if name.startswith("setting ")
    }
    settings = {name: presets.parse(name, text, known[name][0]) for name, text in settings.items()}
    if (options.env is None) == (options.like is None):
        given = "neither" if options.env is None else "both"
        raise ValueError(
            f"--env, --like: expected one of them, got {given}; --env takes its spaces"
        )
    if options.like is not None:
        if settings or options.env_option:
            odd = next(iter(settings), "env_option").replace("_", "-")
            raise ValueError(f"--{odd}: expected none with --like, which has its own; leave it out")
        agent = load_agent(agent_path(options.like), argument="--like")
        import_into(agent, options.file, prefix=options.prefix, layer=options.layer)
    else:
        if options.layer is not None:
            raise ValueError("--layer: expected --like RUN with it, got --env; name that agent")
        envs = make_vec(options.env, num_envs=1, env_options=dict(options.env_option or ()))
        spaces = envs.single_observation_space, envs.single_action_space
        envs.close()
        agent = import_weights(options.file, *spaces, prefix=options.prefix, **settings)
    save_agent(agent, options.out)
    core = agent.config.core_config
    answer(
        f"{options.out}: {core.n_layers} S5 layers of {agent.core.d_model} features and "
        f"{core.ssm_size} states, {agent.parameter_vector.size:,} {agent.config.dtype} parameters"
    )


def export_arguments(parser, argv):
    """Add the options of export-weights to a Parser."""
    del argv
    add = parser.add_argument
    add("run", metavar="RUN", help="a folder of minis5 train, or an agent.npz")
    add("--to", required=True, choices=list(FORMATS), metavar="FORMAT", help="flax or s5-pytorch")
    add("--out", required=True, metavar="FILE", help="a name that ends in .npz or .safetensors")
    add(
        "--layer",
        type=integer,
        metavar="I",
        help="only the SSM of layer I, as a state dict of s5-pytorch's S5",
    )


def export_run(options):
    """Write the agent's weights, and say what the file does not hold."""
    agent = load_agent(agent_path(options.run), argument="RUN")
    settings = export_weights(agent, options.out, options.to, options.layer)
    told = " ".join(f"{name}={str(value).lower()}" for name, value in settings.items())
    answer(f"{options.out}\nwithout the settings: {told}")


def agent_path(run):
    """Return the path of the agent of a run's folder, or of an agent's file itself."""
    return os.path.join(run, "agent.npz") if os.path.isdir(run) else run
