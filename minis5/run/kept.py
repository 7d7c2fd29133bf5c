"""An agent kept as one file, with all that evaluating it needs: its run's settings inside.

A run's folder has config.json beside agent.npz. `keep_agent` puts both into one compressed .npz
(the entry "run"), which can be sent, or stored in a repository. `minis5 eval` and `minis5 watch`
take either, through `find_agent`.

Leaves out: what resuming needs (state.npz). Tests: tests/run/test_kept.py.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from minis5.files import MISFIT, read_npz, reason, text, write_npz
from minis5.rl.agent import ActorCritic
from minis5.rl.agent_file import AGENT_FORMAT, RUN, agent_arrays, load_agent
from minis5.run.config import RunConfig, parse_config, read_config


def keep_agent(
    run: str | PathLike, path: str | PathLike, command: Sequence[str] | None = None
) -> None:
    """Write the agent of a run, with the run's settings, into one compressed file.

    The parameters keep their dtype, so the copy plays as the run's own agent does, bit for bit.

    Parameters
    ----------
    run : path
        The run's folder.
    path : path
        The file, .npz; replaced whole or not at all.
    command : sequence of str
        The command line that the file tells of; None: the one of the run's process. Another is
        wanted where that one holds paths of a machine.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `minis5.load` and `read_config`, or the file cannot be written.
    """
    config, agent = read_config(run), load_agent(Path(run) / "agent.npz", argument="run")
    keep(agent, replace(config, command=list(command or config.command)), path)


def keep(agent: ActorCritic, config: RunConfig, path: str | PathLike) -> None:
    """Write an agent with the settings of its run into one compressed file, .npz.

    Raises
    ------
    OSError
        The file cannot be written; one that was there is as it was.
    """
    config = replace(config, init_from=None)  # a path that only training needs
    write_npz(path, {**agent_arrays(agent), RUN: json.dumps(config.to_json())}, compress=True)


def find_agent(run: str | PathLike) -> tuple[RunConfig, Path]:
    """Return the settings of a run and the file of its agent.

    Parameters
    ----------
    run : path
        A run's folder, or a file of `keep_agent`, whose ".npz" may be left out.

    Raises
    ------
    FileNotFoundError
        There is neither.
    ValueError
        The file is damaged, or holds an agent without settings.
    """
    file = Path(run)
    named = file.with_name(f"{file.name}.npz")
    if not file.exists() and named.is_file():
        file = named
    if not file.is_file():
        return read_config(file), file / "agent.npz"
    arrays = read_npz(file, AGENT_FORMAT, "run")
    if RUN not in arrays:
        raise ValueError(
            f"run: expected a run's folder or an agent kept with its settings, got {file}, an "
            "agent alone; give the folder of its run"
        )
    try:
        return parse_config(text(arrays, RUN)), file
    except MISFIT as error:
        raise ValueError(
            f"{file}: the settings of its run do not fit ({reason(error)}); restore it from a copy"
        ) from error
