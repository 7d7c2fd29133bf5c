"""The command line: train, eval, watch, plot, envs and the other commands.

A user's mistake gives one line on stderr and exit code 2; Ctrl-C and SIGTERM give 130. An error in
code that is not minis5's, such as the user's environment, comes with its last places there.
MINIS5_TRACEBACK=1 shows where an error came from.

Leaves out: the work itself, done by the other files of this folder. Tests: tests/run/test_cli.py.
"""

import json
import os
import sys

import gymnasium

from minis5 import __version__
from minis5.arrays import DeviceError
from minis5.ctrl_c import raise_again
from minis5.envs.foreign.named import foreign_modules
from minis5.envs.foreign.processes import ProcessError
from minis5.rl.agent_file import load_agent
from minis5.rl.comm import RankError
from minis5.run import bench
from minis5.run.blame import blame
from minis5.run.callbacks import CallbackError
from minis5.run.completion import completion_arguments, completion_run
from minis5.run.console import answer, prepare, silence, tell
from minis5.run.envs_command import envs_arguments, envs_run
from minis5.run.evaluate import evaluate, json_figures
from minis5.run.kept import find_agent
from minis5.run.parser import Parser, add_trust, count, integer
from minis5.run.plot import plot
from minis5.run.train_command import add_environment, add_evaluation, train_arguments, train_run
from minis5.run.trust import check_trust
from minis5.run.watch import watch_arguments, watch_run
from minis5.run.weights import export_arguments, export_run, import_arguments, import_run

# errors that tell of a mistake that the user can mend, or of something missing
USER_ERRORS = (
    ValueError,
    OSError,
    ModuleNotFoundError,
    FloatingPointError,
    MemoryError,
    DeviceError,
    RankError,
    CallbackError,
    ProcessError,
    gymnasium.error.Error,
    gymnasium.error.CustomSpaceError,
)


def main(argv=None):
    """Run the command line `argv` (default: the process's) and return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    prepare()
    raise_again()
    try:
        code = _main(argv) or 0
        answer()
        return code
    except KeyboardInterrupt as interrupt:
        tell(f"\nminis5: {str(interrupt) or 'interrupted'}")
        return 130
    except Exception as error:
        if os.environ.get("MINIS5_TRACEBACK"):
            raise
        places, sentence, by_gymnasium = blame(error)
        if places:
            text = "\n".join(f"  {line}" for line in "\n".join(places).splitlines())
            tell(f"{text}\nminis5: error: the code above, which is not minis5's, raised {sentence}")
            return 2
        if isinstance(error, BrokenPipeError):  # the reader of a pipe left; nothing is left to say
            silence(sys.stdout)
            return 1
        if isinstance(error, USER_ERRORS):
            lines = str(error).strip().splitlines() or [repr(error)]
            # another process's error has its traceback in the message, and its last line says what
            nested = any(line.startswith("Traceback (most recent") for line in lines)
            sentence = lines[-1] if nested else " ".join(lines)
        elif not by_gymnasium:
            raise
        tell(f"minis5: error: {sentence}")
        return 2


def _main(argv):
    if argv and argv[0] in COMMANDS:
        name, (summary, add_arguments, run) = argv[0], COMMANDS[argv[0]]
        if add_arguments is None:
            return run(argv[1:])
        parser = Parser(prog=f"minis5 {name}", description=summary, allow_abbrev=False)
        add_arguments(parser, argv)
        return run(parser.parse_args(argv[1:]))
    parser = Parser(
        prog="minis5",
        description="Resettable S5 trained by PPO on tasks that need memory.",
        epilog="minis5 COMMAND --help tells a command's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minis5 {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, (summary, _, _) in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    parser.parse_args(argv)
    return None


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


# name: (summary, a function that adds arguments to a Parser, a function of the parsed options);
# without the second, the third takes the arguments as they are
COMMANDS: dict[str, tuple] = {
    "train": ("train an agent on an environment", train_arguments, train_run),
    "eval": ("play fresh episodes with a trained agent", _eval_arguments, _eval),
    "watch": (
        "show an episode of a trained agent, as text or pictures",
        watch_arguments,
        watch_run,
    ),
    "plot": ("draw learning curves of one or more runs", _plot_arguments, _plot),
    "envs": ("list minis5's own environments", envs_arguments, envs_run),
    "import-weights": ("make an agent of another program's weights", import_arguments, import_run),
    "export-weights": (
        "write an agent's weights for another program",
        export_arguments,
        export_run,
    ),
    "completion": (
        "write a script that completes commands with Tab",
        completion_arguments,
        lambda options: completion_run(options, COMMANDS),
    ),
    "bench": ("measure the speed on this machine", None, bench.main),
    "vectors": (
        "write test vectors for any language",
        lambda parser, argv: _kit().vectors_arguments(parser, argv),
        lambda options: _kit().run_vectors(options),
    ),
    "verify": (
        "check other code against them",
        lambda parser, argv: _kit().verify_arguments(parser, argv),
        lambda options: _kit().run_verify(options),
    ),
}
