"""Ctrl-C and closed streams while the command line is still being imported.

Importing takes a second or more, and Python shows a KeyboardInterrupt there as a traceback. So for
`minis5` and `python -m minis5`, and for no other program, the system's own answer to Ctrl-C holds
until the command line begins: it ends the process. And streams that are closed are opened first,
because NumPy 2.0 looks at stderr when it is imported.

Tests: tests/run/test_cli.py.
"""

import os
import signal
import sys
import threading
from itertools import pairwise
from pathlib import PurePath


def _is_our_command():
    started = PurePath(sys.argv[0]).stem if sys.argv else ""
    return started == "minis5" or ("-m", "minis5") in pairwise(sys.orig_argv)


def _replace(old, new):
    """Let Ctrl-C do `new` if it does `old` now."""
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is old:
            signal.signal(signal.SIGINT, new)


def open_closed_streams() -> None:
    """Give /dev/null to standard streams that are closed.

    The next file that is opened would take the number of a closed one, and then everything that is
    written there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on, as Python has it."""
    if _is_our_command():
        _replace(signal.SIG_DFL, signal.default_int_handler)


if _is_our_command():
    _replace(signal.default_int_handler, signal.SIG_DFL)
    open_closed_streams()
