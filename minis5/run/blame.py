"""Whose code an error comes from: the user's is shown, with its last lines; ours is one sentence.

An environment or a wrapper may fail in any way, here or in another process, whose traceback then is
text within a message. So all tracebacks are read as text: that of the error, those of its causes,
and those within messages.

Tests: tests/run/test_blame.py.
"""

import re
import sysconfig
import traceback
from pathlib import Path
from typing import NamedTuple

import gymnasium

import minis5
from minis5.arrays import DeviceError
from minis5.envs.foreign.processes import ProcessError
from minis5.rl.comm import RankError
from minis5.run.callbacks import CallbackError

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
FRAMES = 4  # most that are shown
LIBRARIES: tuple[str, ...] = (
    "gymnasium",
    "numpy",
    "numba",
    "llvmlite",
    "scipy",
    "matplotlib",
    "tqdm",
    "cupy",
)
LIBRARIES += ("threadpoolctl", "cloudpickle", "minis5", "minis5_cuda")
FILE = re.compile(r'^(\s*)File "(.*)", line \d+')


class Frame(NamedTuple):
    """A place in a traceback."""

    path: str
    text: str  # its lines: place and source


def frames(text: str) -> list[Frame]:
    """Return all places in a text with tracebacks, in its order."""
    found: list[Frame] = []
    indent = None
    for line in text.splitlines():
        if match := FILE.match(line):
            indent = len(match[1])
            found.append(Frame(match[2], line.strip()))
        elif indent is not None and line[: indent + 1].isspace() and len(line) > indent:
            frame = found.pop()
            found.append(Frame(frame.path, f"{frame.text}\n{line[indent:].rstrip()}"))
        else:
            indent = None
    return found


def library(path: str) -> str | None:
    """Return which library a file belongs to ("python" for Python's own); None: the user's code."""
    folder = Path(minis5.__file__).resolve().parent
    roots = {folder: "minis5", folder.parent / "cuda" / "minis5_cuda": "minis5_cuda"}
    for root, name in roots.items():
        if Path(path).is_relative_to(root):
            return name
    parts = Path(path).parts
    for packages in ("site-packages", "dist-packages"):
        if packages in parts[:-1]:
            top = parts[parts.index(packages) + 1]
            return top if top in LIBRARIES else None
    of_python = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    if path.startswith("<") or any(Path(path).is_relative_to(root) for root in of_python):
        return "python"
    return None


def blame(error: BaseException) -> tuple[list[str], str, bool]:
    """Say whose code an error comes from.

    Returns
    -------
    places : list of str
        The last places in the user's own code, with their source; none if it took no part.
    sentence : str
        Type and message of the error, in one line.
    by_gymnasium : bool
        Gymnasium raised it, about what it was given.
    """
    text = "".join(traceback.format_exception(error))
    passed = frames(text)
    places = [frame.text for frame in passed if library(frame.path) is None]
    message = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if any(line.startswith("Traceback (most recent") for line in message):
        sentence = message[-1]  # another process's error, whose last line says what it was
    else:
        name = type(error).__name__
        sentence = f"{name}: {' '.join(message)}" if message else name
    by_gymnasium = bool(passed) and library(passed[-1].path) == "gymnasium"
    return places[-FRAMES:], sentence, by_gymnasium
