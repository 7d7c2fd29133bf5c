"""What a run says, to people who may not be able to hear it: stdout and stderr in any condition.

They can be closed, full, a pipe without a reader, or a terminal that knows ASCII only. None of this
may end a training run. `tell` writes to stderr and never fails. `answer` writes a command's result
to stdout and says if that is impossible.

Leaves out: what is said. Tests: tests/run/test_console.py.
"""

import io
import os
import sys
from contextlib import suppress

from minis5.ctrl_c import open_closed_streams


def prepare() -> None:
    """Make the standard streams of this process safe to write to.

    Those that are closed get /dev/null. Characters that a stream cannot encode become question
    marks.
    """
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def tell(text: str) -> None:
    """Write a line to stderr, if it can be written."""
    stream = sys.stderr
    if stream is None:
        return
    try:
        print(text, file=stream, flush=True)
    except RuntimeError:  # a signal came while this stream was being written to
        with suppress(OSError):
            os.write(2, f"{text}\n".encode(errors="replace"))
    except (OSError, ValueError):
        silence(stream)


def is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    with suppress(OSError, ValueError):
        return sys.stderr is not None and sys.stderr.isatty()
    return False


def answer(text: str = "") -> None:
    """Write lines to stdout, or only flush it.

    Raises
    ------
    BrokenPipeError
        The reader of a pipe has left.
    OSError
        They cannot be written; the message says why. Nothing is left that Python could complain
        about when it ends.
    """
    stream = sys.stdout
    if stream is None:
        return
    try:
        print(_encodable(text, stream), end="\n" if text else "", file=stream, flush=True)
    except OSError as error:
        silence(stream)
        raise type(error)(
            f"stdout: cannot be written ({error.strerror}); send it where there is room"
        ) from error


def _encodable(text, stream):
    """Return the text with +- instead of ± where the stream knows ASCII only."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeError:
        return text.replace("±", "+-").encode("ascii", "replace").decode()
    return text


def silence(stream) -> None:
    """Send a stream that fails to /dev/null, what it still holds included."""
    with suppress(OSError, ValueError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, stream.fileno())
        os.close(sink)
