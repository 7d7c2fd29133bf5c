"""The command line: train, eval, watch, plot, envs and the other commands.

A user's mistake gives one line on stderr and exit code 2; Ctrl-C and SIGTERM give 130. An error in
code that is not minis5's, such as the user's environment, comes with its last places there.
MINIS5_TRACEBACK=1 shows where an error came from.

Leaves out: the commands (commands.py), which are imported when one is called.
Tests: tests/run/test_cli.py.
"""

import os
import sys

from minis5 import __version__
from minis5.ctrl_c import raise_again
from minis5.processes import started_by_mpi
from minis5.run.console import answer, prepare, silence, tell
from minis5.run.parser import Parser
from minis5.run.summaries import SUMMARIES


def main(argv=None):
    """Run the command line `argv` (default: the process's) and return the exit code.

    Of several ranks that MPI has started, number 0 runs it; the others work for it (rl/mpi.py).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    prepare()
    raise_again()
    if not started_by_mpi():
        return _guarded(argv)
    from minis5.rl import mpi

    return mpi.lead(lambda: _guarded(argv))


def _guarded(argv):
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
        from minis5.run.blame import USER_ERRORS, blame

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
    if argv and argv[0] in SUMMARIES:
        from minis5.run import commands  # imports all that a command needs, for a second

        name = argv[0]
        add_arguments, run = commands.FUNCTIONS[name]
        if add_arguments is None:
            return run(argv[1:])
        parser = Parser(prog=f"minis5 {name}", description=SUMMARIES[name], allow_abbrev=False)
        add_arguments(parser, argv)
        return run(parser.parse_args(argv[1:]))
    parser = Parser(
        prog="minis5",
        description="Resettable S5 trained by PPO on tasks that need memory.",
        epilog="minis5 COMMAND --help tells a command's options.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minis5 {__version__}")
    parts = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, parser_class=Parser
    )
    for name, summary in SUMMARIES.items():
        parts.add_parser(name, help=summary, add_help=False)
    parser.parse_args(argv)
    return None
