"""Files that are whole or absent.

Every write goes to a temporary file in the same folder, is flushed to the disk and then renamed over the old one: a kill at any
moment leaves the previous file or the next, never a mix. An .npz is read with ``allow_pickle=False`` and carries its format and
version.

Left out: migration between versions (there is one version). Tests: tests/test_files.py.
"""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

VERSION = 1
DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message says which, why, and what to do."""


def write_bytes(path, data):
    """Replace the file `path` by `data` (bytes), whole or not at all."""
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


def write_text(path, text):
    write_bytes(path, text.encode())


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_npz(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getbuffer())


def read_npz(path, expected_format):
    """Read a file written by `write_npz` whose "format" is `expected_format`; dict of arrays.

    Raises
    ------
    FileNotFoundError
        No such file.
    CheckpointError
        Not an .npz, damaged, of another program or kind, or written by a newer minis5.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}")
    try:
        with zipfile.ZipFile(path) as file:
            if (bad := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"checksum of {bad}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DAMAGE as error:
        raise CheckpointError(
            f"{path}: not a readable minis5 checkpoint, damaged or cut short ({error}); restore it from a copy"
        ) from error
    found = str(arrays.pop("format", "")) or "none"
    if found != expected_format:
        raise CheckpointError(
            f"{path}: expected a file of format {expected_format!r}, got {found!r}"
        )
    version = int(arrays.pop("version", 0))
    if version != VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this minis5 reads {VERSION}; upgrade minis5"
        )
    return arrays
