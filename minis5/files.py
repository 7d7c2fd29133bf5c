"""Files that are written whole or not at all.

Every write goes to a temporary file in the same folder, is flushed to the disk and then renamed
over the old file. A kill at any moment leaves the old file or the new one, never a mix. An .npz is
read with ``allow_pickle=False`` and carries its format and version.

Leaves out: migration between versions (there is one version). Tests: tests/test_files.py.
"""

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
DAMAGE = (  # the errors of zipfile and NumPy when a file is damaged
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message says which, why, and what to do."""


def write_bytes(path: str | PathLike, data: bytes | memoryview) -> None:
    """Replace the file `path` by `data`, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | PathLike, text: str) -> None:
    """Replace the file `path` by `text`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | PathLike, value: Any) -> None:
    """Replace the file `path` by `value` as JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_npz(path: str | PathLike, arrays: Mapping[str, Any]) -> None:
    """Replace the file `path` by an .npz of `arrays`; "format" and "version" must be among them."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def read_npz(path: str | PathLike, expected_format: str) -> dict[str, np.ndarray]:
    """Read the arrays of a file that `write_npz` wrote, without "format" and "version".

    Raises
    ------
    FileNotFoundError
        There is no such file.
    CheckpointError
        The file is no .npz, is damaged, has another format than `expected_format`, or comes from a
        newer minis5.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}; give the path of one")
    try:
        with zipfile.ZipFile(path) as file:
            if (bad := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"checksum of {bad}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: not a readable minis5 checkpoint, damaged or cut short ({error}); "
            "restore it from a copy"
        ) from error
    found = str(arrays.pop("format", "")) or "none"
    if found != expected_format:
        raise CheckpointError(
            f"{path}: expected a file of format {expected_format!r}, got {found!r}; "
            "give one that minis5 wrote"
        )
    version = int(arrays.pop("version", 0))
    if version != VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this minis5 reads {VERSION}; upgrade minis5"
        )
    return arrays
