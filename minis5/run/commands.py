"""The functions behind the commands. This file imports them all; `minis5 --help` does without.

Leaves out: the work itself, done by the other files of this folder. Tests: tests/run/test_cli.py.
"""

import json

from minis5.envs.foreign.named import foreign_modules
from minis5.rl.agent_file import load_agent
from minis5.run import bench
from minis5.run.completion import completion_arguments, completion_run
from minis5.run.console import answer
from minis5.run.envs_command import envs_arguments, envs_run
from minis5.run.evaluate import evaluate, json_figures
from minis5.run.kept import find_agent
from minis5.run.parser import add_trust, count, integer
from minis5.run.plot import plot
from minis5.run.train_command import add_environment, add_evaluation, train_arguments, train_run
from minis5.run.trust import check_trust
from minis5.run.watch import watch_arguments, watch_run
from minis5.run.weights import export_arguments, export_run, import_arguments, import_run


def _eval_arguments(parser, argv):
    del argv
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a folder of minis5 train, or an agent that is kept with its settings (.npz)",
    )
    parser.add_argument(
        "--episodes", type=count, metavar="N", help="default: the run's, as at its end"
    )
    parser.add_argument(
        "--seed", type=integer, metavar="N", help="default: the run's, as at its end"
    )
    parser.add_argument(
        "--stochastic", action="store_true", help="sampled actions instead of the likeliest"
    )
    add_evaluation(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    add_trust(parser)
    add_environment(parser)


def _eval(options):
    config, file = find_agent(options.run)
    environment = config.environment()
    environment["env_options"] = {**config.env_options, **dict(options.env_option or ())}
    theirs = config.wrappers if options.wrapper is None else []  # the user may name others
    environment["wrappers"] = theirs or options.wrapper
    check_trust(options.run, foreign_modules(config.env, theirs), False, options.trust)
    how = config.evaluation()
    how["num_envs"] = how["num_envs"] if options.eval_envs is None else options.eval_envs
    how["step_limit"] = how["step_limit"] if options.eval_steps is None else options.eval_steps
    result = evaluate(
        load_agent(file, argument="run"),
        config.env,
        config.eval_episodes if options.episodes is None else options.episodes,
        config.seed if options.seed is None else options.seed,
        not options.stochastic,
        quiet=options.quiet,
        **how,
        **environment,
    )
    if options.json:
        answer(json.dumps(json_figures(result)))
    else:
        answer("\n".join(f"{name:12} {value:g}" for name, value in result.items()))


def _plot_arguments(parser, argv):
    del argv
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of minis5 train")
    parser.add_argument(
        "--out",
        default="curves.png",
        metavar="FILE",
        help="default curves.png; .svg and .pdf do too",
    )


def _plot(options):
    answer(str(plot(options.runs, options.out)))


def _kit():
    """Return the commands that check other code; training does not wait for their import."""
    from minis5.run import verify

    return verify


# name: (a function that adds arguments to a Parser, a function of the parsed options); without the
# first, the second takes the arguments as they are
FUNCTIONS: dict[str, tuple] = {
    "train": (train_arguments, train_run),
    "eval": (_eval_arguments, _eval),
    "watch": (watch_arguments, watch_run),
    "plot": (_plot_arguments, _plot),
    "envs": (envs_arguments, envs_run),
    "import-weights": (import_arguments, import_run),
    "export-weights": (export_arguments, export_run),
    "completion": (completion_arguments, lambda options: completion_run(options, FUNCTIONS)),
    "bench": (None, bench.main),
    "vectors": (
        lambda parser, argv: _kit().vectors_arguments(parser, argv),
        lambda options: _kit().run_vectors(options),
    ),
    "verify": (
        lambda parser, argv: _kit().verify_arguments(parser, argv),
        lambda options: _kit().run_verify(options),
    ),
}
