"""The arguments of `minis5 train`, and of those that it shares with `minis5 eval`.

Hyper-parameters are options named after the fields of the configuration dataclasses
(minis5/run/presets.py), so that none is written twice. The help shows the values that hold for the
environment, the preset and the core that are named before --help.

Leaves out: training itself (minis5/run/train.py). Tests: tests/run/test_cli.py.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from minis5.run import presets
from minis5.run.config import TRACKERS
from minis5.run.config_file import read_table, with_file
from minis5.run.console import answer, tell
from minis5.run.evaluate import result_text
from minis5.run.other_names import ADVICE
from minis5.run.parser import (
    add_env_option,
    add_trust,
    count,
    env_option,
    integer,
    option_text,
    real,
    seeds,
)
from minis5.run.train import resume, train

RESUMED = ("steps", "device", "track")  # options beside --resume
METAVARS = {int: "N", int | None: "N", bool | None: "BOOL", float: "X", str: "NAME", bool: "BOOL"}


def _wrapper(text):
    name, equals, options = text.partition("=")
    try:
        return name, json.loads(options) if equals else {}
    except json.JSONDecodeError:
        raise argparse.ArgumentTypeError(
            f'expected module:Name or module:Name={{"option": value}} with JSON, got {text!r}'
        ) from None


def add_environment(parser):
    """Add options of the environment to a Parser."""
    add = parser.add_argument
    add_env_option(parser)
    add(
        "--wrapper",
        type=_wrapper,
        action="append",
        metavar="MODULE:NAME[=JSON]",
        help="around each environment, innermost first, with options: "
        'gymnasium.wrappers:TimeLimit={"max_episode_steps": 200}',
    )


def add_evaluation(parser):
    """Add options of an evaluation to a Parser."""
    add = parser.add_argument
    add(
        "--eval-envs",
        type=count,
        metavar="N",
        help="environments in which the evaluation plays (default: one for each episode)",
    )
    add(
        "--eval-steps",
        type=count,
        metavar="N",
        help="most steps of each of them; only episodes that have ended count",
    )


def train_arguments(parser, argv):
    """Add the arguments of `minis5 train`; ``argv``: the command's."""
    core, preset, env, values, steps, file = _defaults(argv[1:])
    table = file[1] if file else {}
    parser.advice, parser.usage = ADVICE, "minis5 train ENV [options]"
    add = parser.add_argument
    add(
        "env",
        nargs="?",
        metavar="ENV",
        help="minis5 envs lists its own; any Gymnasium id or module:Env-v0 does too",
    )
    add("--preset", metavar="NAME", help="laptop (the default), paper or a2c")
    add(
        "--core",
        metavar="NAME",
        help="the memory: s5 (the default), gru, lstm, attention; without memory: mlp, none",
    )
    add(
        "--steps",
        type=count,
        metavar="N",
        help="environment steps in all, such as 500k, 2e6 or 10M, rounded up to whole updates "
        f"[{table.get('steps', f'{steps:,}')}]",
    )
    add("--seed", type=integer, metavar="N", help="default 0")
    add(
        "--seeds",
        type=seeds,
        metavar="A-B",
        help="a run for each seed, one after another, and their mean: 0-4 or 0,2,5; "
        "with --out in the folders FOLDER/seedN",
    )
    add("--device", metavar="NAME", help="cpu (the default) or cuda, for minis5's own environments")
    add(
        "--precision",
        metavar="NAME",
        help="of matrix products on cuda: float32 (the default); tf32 or bf16, on tensor cores",
    )
    add(
        "--workers",
        type=count,
        metavar="N",
        help="processes (default: one for each CPU that divides the work, one on cuda); on cuda "
        "each needs a GPU",
    )
    add("--out", metavar="FOLDER", help="default runs/ENV-CORE-seedN-DATE-TIME")
    add(
        "--resume",
        metavar="RUN",
        help="go on with the run in this folder; "
        "only --steps, --device, --track, --quiet and --trust go with it",
    )
    add(
        "--config",
        metavar="FILE",
        help="options from a file, which those given here override: a run's folder or its "
        "config.json, to repeat it, or TOML with the names of this list",
    )
    add_trust(parser, "with --resume or --config: ")
    add(
        "--init-from",
        metavar="RUN",
        help="begin with this run's agent, or an agent.npz, of the same settings",
    )
    add(
        "--target-return",
        type=real,
        metavar="R",
        help="stop when a rollout's mean return is at least R, with the agent that played it",
    )
    add(
        "--eval-episodes",
        type=count,
        metavar="N",
        help="episodes of the evaluation at the end (default 100)",
    )
    add_evaluation(parser)
    add(
        "--eval-every",
        type=count,
        metavar="N",
        help="also evaluate on the way, after each N steps, into evaluations.csv; keep the best "
        "agent in best.npz",
    )
    add(
        "--track",
        action="append",
        choices=TRACKERS,
        metavar="NAME",
        help="also send every figure to tensorboard (an event file in the run's folder) or wandb; "
        "may be given twice",
    )
    add("--quiet", action="store_true", help="no progress line, no count of parameters")
    add_environment(parser)
    add(
        "--vector-option",
        type=env_option,
        action="append",
        metavar="NAME=VALUE",
        help="for the batch: processes, num_threads, vectorization_mode, vector_kwargs",
    )
    where = f"{preset} for {env}" if env else preset
    about = f"by field name; in brackets the values of {where}"
    groups = {
        True: parser.add_argument_group("common hyper-parameters", about),
        False: parser.add_argument_group("all other hyper-parameters"),
    }
    for name, (kind, _, text) in presets.fields(core).items():
        several = isinstance(values[name], tuple)
        value = option_text(table.get(name.replace("_", "-"), values[name]))
        settings = {"nargs": "?", "const": "true"} if kind in (bool, bool | None) else {}
        settings["dest"], settings["default"] = f"hyper {name}", argparse.SUPPRESS
        settings["metavar"] = METAVARS.get(kind, "N,N" if several else "X")
        settings["help"] = f"{text} [{value}]".replace("%", "%%")
        groups[name in presets.COMMON].add_argument(f"--{name.replace('_', '-')}", **settings)
    if file is not None:
        path, _, config = file
        try:
            lost = set(presets.fields(table.get("core", "s5"))) - set(presets.fields(core))
            kept = {n: v for n, v in table.items() if n.replace("-", "_") not in lost}
            parser.set_defaults(file=(path, _given(parser.parse_table(kept)), config))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _defaults(arguments):
    """Return core, preset, environment, values of hyper-parameters and steps, if nothing else is
    said; and of --config the path, the table and the run.

    The core decides which hyper-parameters there are. What is wrong is said later.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--config")
    file, rest = None, [token for token in arguments if token not in ("-h", "--help")]
    if (path := early.parse_known_args(rest)[0].config) is not None:
        file = path, *read_table(path)
    table = file[1] if file else {}
    for name, default in {"core": "s5", "preset": "laptop"}.items():
        early.add_argument(f"--{name}", default=table.get(name, default))
    early.add_argument("env", nargs="?", default=table.get("env", ""))
    said = early.parse_known_args(rest)[0]
    preset = said.preset if said.preset in presets.PRESETS else "laptop"
    agent, ppo, steps = presets.resolve(said.env, preset, said.core)
    return said.core, preset, said.env, presets.values(agent, ppo), steps, file


def _given(options):
    """Return the options that were given: their destinations and values."""
    return {n: v for n, v in vars(options).items() if v is not None and v is not False}


def train_run(options):
    """Run `minis5 train`."""
    given = _given(options)
    if "file" in given and "resume" not in given:
        path, options_of_file, config = given.pop("file")
        given = with_file(path, options_of_file, config, given)
        del given["config"]
    settings = {name: given.pop(name) for name in list(given) if not name.startswith("hyper ")}
    overrides = {name.removeprefix("hyper "): value for name, value in given.items()}
    folder, quiet = settings.pop("resume", None), settings.pop("quiet", False)
    trust = settings.pop("trust", False)
    if folder is not None:
        kept = {name: settings.pop(name) for name in RESUMED if name in settings}
        extra = [*settings, *overrides]
        if extra:
            raise ValueError(
                f"--resume takes the run's own settings; leave out {', '.join(map(str, extra))}"
            )
        summary = resume(folder, **kept, quiet=quiet, trust=trust)
    else:
        if "env" not in settings:
            raise ValueError("ENV is missing; minis5 envs lists the environments")
        for name in ("env_option", "vector_option"):
            settings[f"{name}s"] = dict(settings.pop(name, ()))
        settings["wrappers"] = settings.pop("wrapper", [])
        if "seeds" in settings:
            _several(settings.pop("env"), settings, overrides=overrides, quiet=quiet)
            return
        summary = train(settings.pop("env"), overrides=overrides, quiet=quiet, **settings)
    _tell_result(summary)


def _several(env, settings, **others):
    """Train a run for each seed; tell each result, then the mean over seeds."""
    if "seed" in settings:
        raise ValueError("--seed, --seeds: expected one of them, got both; leave out --seed")
    numbers, out, found = settings.pop("seeds"), settings.pop("out", None), []
    for seed in numbers:
        folder = None if out is None else Path(out) / f"seed{seed}"
        found.append(train(env, seed=seed, out=folder, **settings, **others))
        _tell_result(found[-1])
    returns = [summary["mean_return"] for summary in found]
    if None in returns:
        answer(f"{env}: no mean over seeds, because in a run no episode of the evaluation ended")
        return
    if len(returns) > 1:
        error = np.std(returns, ddof=1) / np.sqrt(len(returns))
        answer(
            f"{env}, {len(returns)} seeds: mean return {np.mean(returns):.3f} ± {error:.3f} "
            f"(standard error), worst {min(returns):.3f}, best {max(returns):.3f}"
        )


def _sampled_was_better(summary):
    """Return a line if the last rollout's sampled actions earned clearly more than the likeliest.

    Clearly: by five standard errors of the evaluation and by a tenth.
    """
    sampled, episodes = summary["training_return_last"], summary["episodes"]
    if sampled is None or not episodes:
        return ""
    error = summary["std_return"] / np.sqrt(episodes)
    if sampled - summary["mean_return"] <= max(5 * error, 0.1 * abs(sampled)):
        return ""
    remedy = f"compare minis5 eval {summary['folder']} --stochastic"
    return f"\nthe last rollout's sampled actions earned more, {sampled:.3f}; {remedy}"


def _tell_result(summary):
    result = (
        f"{summary['env']}: {result_text(summary)}, "
        "after {steps:,} steps in {seconds:.1f} s ({steps_per_second:,.0f} steps/s)\n"
        "{folder}".format(**summary)
    )
    if "best_step" in summary:
        best = {name: summary[f"best_{name}"] for name in ("mean_return", "std_return", "episodes")}
        result += f"\nbest.npz, of step {summary['best_step']:,}: {result_text(best)}"
    result += _sampled_was_better(summary)
    try:
        answer(result)
    except OSError as error:  # the run has finished all the same
        tell(f"{error}; the run has finished\n{result}")
