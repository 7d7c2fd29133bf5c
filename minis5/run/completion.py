"""`minis5 completion SHELL`: a script that completes commands, options and environments with Tab.

    minis5 completion bash > ~/.local/share/bash-completion/completions/minis5
    minis5 completion zsh > "${fpath[1]}/_minis5"

shtab writes it once, from the same parsers that read a command line, so completing starts no
Python. Options of all memory cores are in it.

Leaves out: names of runs beyond those of folders. Tests: tests/run/test_completion.py.
"""

import argparse
from collections.abc import Collection, Mapping

from minis5.envs.registry import REGISTRY
from minis5.nn.cores import CORES
from minis5.run.console import answer
from minis5.run.presets import PRESETS, fields
from minis5.run.summaries import SUMMARIES

SHELLS = ("bash", "zsh", "tcsh")
WORDS: dict[str, Collection[str]] = {
    "env": REGISTRY,
    "core": CORES,
    "preset": PRESETS,
    "device": ("cpu", "cuda"),
}


def completion_arguments(parser, argv):
    """Add the argument of `minis5 completion` to a Parser."""
    del argv
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def completion_run(options, commands: Mapping[str, tuple]) -> None:
    """Run `minis5 completion`; ``commands`` are those of minis5/run/commands.py.

    Raises
    ------
    ModuleNotFoundError
        shtab is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise ModuleNotFoundError(
            "completion: expected the library shtab, got none; pip install 'minis5[completion]'"
        ) from error
    parser = argparse.ArgumentParser("minis5")
    parser.add_argument("--version", action="version", version="")
    parts = parser.add_subparsers()
    for name, (add_arguments, _) in commands.items():
        part = parts.add_parser(name, help=SUMMARIES[name])
        if add_arguments is not None:
            add_arguments(part, [name])
        if name == "train":
            _add_other_cores(part)
        part.description = None
        for action in part._actions:
            files = {"FILE": shtab.FILE, "RUN": shtab.FILE, "FOLDER": shtab.DIRECTORY}
            if action.dest in WORDS:
                action.choices = list(WORDS[action.dest])
            elif action.metavar in files:
                action.complete = files[action.metavar]  # type: ignore[attr-defined]
    answer(shtab.complete(parser, options.shell))


def _add_other_cores(parser):
    """Add the options that the default core does not have."""
    known = {flag for action in parser._actions for flag in action.option_strings}
    for core in CORES:
        for name, (_, _, text) in fields(core).items():
            flag = f"--{name.replace('_', '-')}"
            if flag not in known:
                known.add(flag)
                parser.add_argument(flag, help=text.replace("%", "%%"))
