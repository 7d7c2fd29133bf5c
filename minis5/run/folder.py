"""A run's folder: its name, its files, and the one process that may write into it.

The writer holds a lock on the file `.lock` in the folder. The kernel releases it when the process
ends, however it ends. Forked workers close their copy of it at once, so that a worker that outlives
its run holds nothing. The file goes when the run ends, and is harmless where a kill left it.

Leaves out: locks on Windows, and on file systems that have none; there nothing stops a second
writer. Tests: tests/run/test_folder.py.
"""

import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minis5 import files
from minis5.run.config import read_config
from minis5.run.console import tell

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
# files of a run that has begun
TRAINED = ("state.npz", "agent.npz", "evaluations.csv", "best.npz", "summary.json", "curve.png")
FILES = ("config.json", "progress.csv", *TRAINED)

_held: set[int] = set()  # descriptors of the locks of this process


def _forget() -> None:
    """Close the locks that a forked process inherited: they are its parent's."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def make_folder(out: str | os.PathLike | None, env: str, core: str, seed: int) -> Path:
    """Make the folder of a new run, or take the one that is there.

    Parameters
    ----------
    out : path
        None makes runs/ENV-CORE-seedN-DATE-TIME, with -2, -3, … behind a name that is taken.
    env, core : str
    seed : int

    Raises
    ------
    OSError
        The folder cannot be made.
    """
    try:
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
            return Path(out)
        name = re.sub(r"[^\w.-]+", "_", env)[:100]
        stem = f"{name}-{core}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        Path("runs").mkdir(exist_ok=True)
        number = 1
        while True:
            folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        raise cannot_write("runs" if out is None else out, error) from error


def cannot_write(folder: str | os.PathLike, error: OSError) -> OSError:
    """Return the error that a new run's folder cannot be written to."""
    reason = error.strerror or getattr(error.__cause__, "strerror", None) or error
    return OSError(f"out: cannot write to the folder {folder} ({reason}); choose another, --out")


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock on a run's folder.

    Raises
    ------
    ValueError
        Another process holds it.
    OSError
        The folder cannot be written to.
    """
    descriptor = _acquire(folder)
    try:
        yield
    finally:
        if descriptor in _held:  # not in a process that was forked in between
            with suppress(OSError):
                os.unlink(folder / LOCK)
            _held.discard(descriptor)
            os.close(descriptor)


def _acquire(folder):
    path = folder / LOCK
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise files.cannot_write(path, error) from error
        _held.add(descriptor)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last writer may have removed the file between our opening and our locking it.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            _drop(descriptor)
            raise ValueError(
                f"{folder}: another process trains in this folder; wait until it has ended, "
                "or choose another folder"
            ) from None
        except FileNotFoundError:
            pass
        except OSError:  # a file system without locks
            tell(f"{folder}: this file system has no locks; let no other process train there")
            return descriptor
        _drop(descriptor)


def _drop(descriptor):
    _held.discard(descriptor)
    os.close(descriptor)


def check_unused(folder: Path) -> None:
    """Raise ValueError unless a new run may begin in `folder`.

    It may in an empty folder, and in one where an earlier run was stopped before it began.
    """
    names = {file.name for file in folder.iterdir()} - {LOCK}
    names -= {file.name for file in leftovers(folder)}
    log = folder / "progress.csv"
    begun = not names <= {"config.json", "progress.csv"} or (log.exists() and log.stat().st_size)
    if not begun and (not names or _is_ours(folder)):
        return
    remedy = "choose another with --out"
    if {"config.json", "state.npz"} <= names:
        remedy += f", or continue its run: minis5 train --resume {shlex.quote(str(folder))}"
    raise ValueError(f"out: the folder {folder} is not empty; {remedy}")


def _is_ours(folder):
    """Return whether config.json is that of a run."""
    try:
        read_config(folder)
    except (ValueError, OSError):
        return False
    return True


def check_not_lost(folder: Path) -> None:
    """Raise ValueError if a run's state.npz is gone although the run has begun."""
    log = folder / "progress.csv"
    found = [name for name in TRAINED if (folder / name).exists()]
    found += ["progress.csv"] if log.exists() and log.stat().st_size else []
    if not (folder / "state.npz").exists() and found:
        raise ValueError(
            f"{folder / 'state.npz'}: the file is gone, but there is {' and '.join(found)} of a "
            "run that has begun; restore it from a copy, or begin a new run with this agent: "
            f"minis5 train ENV --init-from {folder}"
        )


def leftovers(folder: Path) -> list[Path]:
    """Return the temporary files that a write left when a kill cut it short."""
    return [file for name in FILES for file in folder.glob(f".{name}.*.tmp")]
