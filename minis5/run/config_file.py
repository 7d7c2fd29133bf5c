"""`minis5 train --config FILE`: the options of a run from a file; the command line overrides.

FILE is a run's folder, its config.json, an agent kept with its settings (.npz), or TOML with the
names of the command line:

    env = "MemoryChain"
    steps = "500k"
    lr = 2e-3
    encoder = [64, 64]
    env-option = {memory_length = 8}

`read_table` brings all of these into the form of the last. A run is repeated with the values that
it had: where presets have changed since, or config.json was edited, `changed_since` tells which.

Nothing from a file is run unasked: modules that it names need --trust, which it cannot give itself.

Leaves out: folders and trust as options of a file. Tests: tests/run/test_config_file.py.
"""

import tomllib
from pathlib import Path
from typing import Any

from minis5.envs.foreign.named import foreign_modules
from minis5.run.config import RunConfig, configure, read_config_file
from minis5.run.kept import find_agent
from minis5.run.parser import option_text
from minis5.run.presets import fields, parse, values
from minis5.run.trust import check_trust

REFUSED = ("config", "resume", "trust", "help")  # options that a file cannot have
PLAIN = [
    "env",
    "preset",
    "steps",
    "seed",
    "device",
    "precision",
    "workers",
    "target_return",
    "track",
]
PLAIN += ["eval_episodes", "eval_envs", "eval_steps", "eval_every", "init_from"]

Options = dict[str, Any]  # the destination of an option: its value


def read_table(path: str) -> tuple[dict[str, Any], RunConfig | None]:
    """Return the options that a file has, by their names without the hyphens in front.

    Returns
    -------
    table : dict
    config : RunConfig
        The file's run; None if it is TOML.

    Raises
    ------
    ValueError, OSError
        The file cannot be read, or is neither a run's nor TOML.
    """
    if Path(path).suffix != ".toml":
        config = _run(Path(path))
        return _table(config), config
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise type(error)(
            f"config: cannot read {path} ({error.strerror}); check its name"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config: expected TOML in {path}, got {error}; correct it") from error
    table = {name.replace("_", "-"): value for name, value in table.items()}
    if odd := [name for name in table if name in REFUSED]:
        wanted, remedy = "options of a new run", "give it on the command line"
        raise ValueError(f"config: expected {wanted} in {path}, got {odd[0]!r}; {remedy}")
    return table, None


def _run(path):
    alone = path.is_file() and path.suffix != ".npz"
    return read_config_file(path) if alone else find_agent(path)[0]


def _table(config):
    """Return a run's configuration as options; of hyper-parameters, those given by name."""
    table = {name.replace("_", "-"): getattr(config, name) for name in PLAIN}
    table |= {"core": config.agent.core, "wrapper": config.wrappers}
    table |= {"env-option": config.env_options, "vector-option": config.vector_options}
    table |= {name.replace("_", "-"): text for name, text in given_by_name(config).items()}
    return {name: value for name, value in table.items() if value not in (None, [], {})}


def given_by_name(config: RunConfig) -> dict[str, str]:
    """Return a run's overrides as text, with the values that the run had."""
    now, kinds, found = values(config.agent, config.ppo), fields(config.agent.core), {}
    for name, text in config.overrides.items():
        if name not in kinds:
            continue  # of a core that an older version had
        try:
            same = parse(name, text, kinds[name][0]) == now[name]
        except ValueError:  # given from Python, as a list
            same = False
        found[name] = text if same else option_text(now[name])
    return found


def changed_since(config: RunConfig) -> dict[str, str]:
    """Return the hyper-parameters of a run that its preset and overrides no longer give.

    One environment is made on trial.
    """
    draft = configure(
        config.env,
        env_options=config.env_options,
        wrappers=config.wrappers,
        vector_options=config.vector_options,
        preset=config.preset,
        core=config.agent.core,
        overrides=given_by_name(config),
        steps=config.steps,
        seed=config.seed,
        device="cpu",  # the rest has no influence on them
        precision="float32",
        workers=1,
        target_return=None,
        eval_episodes=1,
        eval_envs=None,
        eval_steps=None,
        eval_every=None,
        init_from=None,
    )
    now, then = values(draft.agent, draft.ppo), values(config.agent, config.ppo)
    return {name: option_text(value) for name, value in then.items() if now[name] != value}


def with_file(path: str, file: Options, config: RunConfig | None, given: Options) -> Options:
    """Return the options of a file and those of the command line, which override.

    Parameters
    ----------
    path : str
    file, given : dict
        Destination of an option: its value; hyper-parameters as "hyper NAME".
    config : RunConfig
        The file's run, if it is one.

    Raises
    ------
    ValueError
        The file names modules, and --trust is not given.
    """
    file = dict(file)
    moved = {"env", "device"} & {n for n in given if file.get(n, given[n]) != given[n]}
    if "env" in moved:  # another environment has options of its own
        drop(file, "env_option", "wrapper")
    if "device" in moved:
        drop(file, "precision", "workers")
    for one, other in (("seed", "seeds"), ("seeds", "seed"), ("wrapper", "wrapper")):
        if one in given:
            drop(file, other)
    modules = foreign_modules(
        "" if "env" in given else file.get("env", ""), file.get("wrapper", [])
    )
    check_trust(path, modules, False, given.get("trust", False), Path(path).name)
    if config is not None and "env" not in moved:
        changed, known = changed_since(config), fields(given.get("core", config.agent.core))
        file |= {f"hyper {name}": text for name, text in changed.items() if name in known}
    for name in ("env_option", "vector_option"):
        if name in file and name in given:
            given = given | {name: [*file[name], *given[name]]}  # the last of a name counts
    return file | given


def drop(options: Options, *names: str) -> None:
    """Take options out, if they are there."""
    for name in names:
        options.pop(name, None)
