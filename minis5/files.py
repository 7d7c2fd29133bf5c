"""Files that are written whole or not at all, and read with suspicion.

Every write goes to a temporary file in the same folder, is flushed to the disk and then renamed
over the old file. A kill at any moment leaves the old file or the new one, never a mix; the folder
is flushed too, so that a power cut does no more. (A pipe or a device is written to as it is.) An
.npz is read with ``allow_pickle=False``. It carries its format, its version and a digest of its
arrays. Sizes that a file declares are compared with the file's own before memory is taken, so that
reading takes little more memory than the file: at most MOST_RATIO times as much where compressed.

Leaves out: migration between versions (there is one version). Tests: tests/test_files.py.
"""

import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
DIGEST = "digest"
MOST_RATIO = 8  # bytes for each byte of a compressed file; weights have hardly more than one
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
MISFIT = (  # what values of a file can raise in the code that takes them
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RecursionError,
)


class CheckpointError(ValueError):
    """A file cannot be used as a checkpoint; the message says which, why, and what to do."""


class Arrays(dict[str, np.ndarray]):
    """The arrays of a file by name. ``intact``: they are those that were written."""

    intact = True


def reason(error: Exception) -> str:
    """Return what an error of `MISFIT` says, in one line of at most 300 characters."""
    message = " ".join(str(error).split()) or type(error).__name__
    message = f"there is no {message}" if isinstance(error, KeyError) else message
    return message if len(message) <= 300 else f"{message[:300]}…"


def write_bytes(path: str | PathLike, data: bytes | memoryview) -> None:
    """Replace the file `path` by `data`, whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written; the message names it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if str(path.parent) in ("/dev", "/dev/fd") or path.is_fifo() or path.is_char_device():
            path.write_bytes(data)  # /dev/stdout: it must not be replaced
            return
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise cannot_write(path, error) from error
        raise


REMEDIES = {  # of errors of the system
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.EFBIG: "allow larger files (ulimit -f)",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close other programs",
}


def cannot_write(path: str | PathLike, error: OSError) -> OSError:
    """Return an error of the same kind that names the file, the reason and the remedy."""
    remedy = REMEDIES.get(error.errno or 0, "give it a folder where this user may write")
    return type(error)(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


def _flush_folder(folder):
    """Flush a folder's list of names to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: str | PathLike, text: str) -> None:
    """Replace the file `path` by `text`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | PathLike, value: Any) -> None:
    """Replace the file `path` by `value` as JSON."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises
    ------
    ValueError
        It is no JSON, is nested too deeply, or has a name twice in one object.
    """

    def build(pairs):
        value = dict(pairs)
        if len(value) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the name {twice!r} is there twice")
        return value

    try:
        return json.loads(text, object_pairs_hook=build)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def digest(arrays: Mapping[str, Any], leave_out: Collection[str] = ()) -> str:
    """Return a digest of arrays and their names, but for those whose names end in `leave_out`."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        if not name.endswith(tuple(leave_out)):
            array = np.asarray(arrays[name])
            total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            total.update(array.tobytes())
    return total.hexdigest()


def write_npz(
    path: str | PathLike,
    arrays: Mapping[str, Any],
    leave_out: Collection[str] = (),
    compress: bool = False,
) -> None:
    """Replace the file `path` by an .npz of `arrays`; "format" and "version" must be among them.

    Its "digest" leaves out the arrays whose names end in `leave_out`.
    """
    with _npz(arrays, leave_out, np.savez_compressed if compress else np.savez).getbuffer() as view:
        write_bytes(path, view)


def holds_npz(path: str | PathLike, arrays: Mapping[str, Any]) -> bool:
    """Return whether the file `path` is what `write_npz` would write."""
    try:
        with open(path, "rb") as file:
            return file.read() == _npz(arrays, ()).getvalue()
    except OSError:
        return False


def _npz(arrays, leave_out, save=np.savez):
    buffer = io.BytesIO()
    save(buffer, **{**arrays, DIGEST: digest(arrays, leave_out)})
    return buffer


def read_npz(
    path: str | PathLike,
    expected_format: str,
    argument: str = "path",
    leave_out: Collection[str] = (),
) -> Arrays:
    """Read the arrays of a file that `write_npz` wrote, without "format", "version" and "digest".

    A file without a digest, from before there was one, is taken for intact.

    Parameters
    ----------
    path : path
    expected_format : str
    argument : str
        The name of the argument that the path came from, for the message.
    leave_out : collection of str
        As for `write_npz`.

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
        raise FileNotFoundError(f"{argument}: no file {path}; give the path of one")
    try:
        arrays = Arrays(load_npz(path))
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a readable minis5 checkpoint, damaged or cut short ({reason(error)}); "
            "restore it from a copy"
        ) from error
    found = text(arrays, "format") or "none"
    if found != expected_format:
        raise CheckpointError(
            f"{path}: expected a file of format {expected_format!r}, got {found[:40]!r}; "
            "give one that minis5 wrote"
        )
    version = arrays.get("version", np.array(0))
    if version.shape != () or version.dtype.kind not in "iu" or int(version) != VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, this minis5 reads {VERSION}; upgrade minis5"
        )
    if DIGEST in arrays:
        found = text(arrays, DIGEST)
        del arrays[DIGEST]
        arrays.intact = digest(arrays, leave_out) == found
    del arrays["format"], arrays["version"]
    return arrays


def load_npz(path: str | PathLike) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, once their sizes are known to be the file's; no pickle.

    Raises
    ------
    Exception
        The file is no .npz, or damaged, which makes zipfile and NumPy raise almost anything.
    """
    with zipfile.ZipFile(path) as file:
        _check_sizes(file, os.path.getsize(path))
        if (bad := file.testzip()) is not None:
            raise zipfile.BadZipFile(f"checksum of {bad}")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _check_sizes(file, size):
    """Raise BadZipFile unless the arrays of a zip file have the sizes that they declare."""
    members = file.infolist()
    if len({member.filename for member in members}) < len(members):
        raise zipfile.BadZipFile("a name is there twice")
    ratio = 1
    for member in members:
        if member.compress_type == zipfile.ZIP_DEFLATED:
            ratio = MOST_RATIO
        elif member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise zipfile.BadZipFile(f"{member.filename} is compressed in a way of its own")
    if sum(member.file_size for member in members) > ratio * size:
        times = f"{ratio} times those that it has" if ratio > 1 else "it has"
        raise zipfile.BadZipFile(f"it declares more bytes than {times}")
    for member in members:
        with file.open(member) as stream:
            read_header = HEADERS[np.lib.format.read_magic(stream)]
            shape, _, dtype = read_header(stream)
            if dtype.hasobject:
                raise zipfile.BadZipFile(f"{member.filename} holds pickled objects")
            declared = stream.tell() + math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or declared != member.file_size:
                raise zipfile.BadZipFile(
                    f"{member.filename} declares {dtype} {shape} in {member.file_size} bytes"
                )


def text(arrays: Mapping[str, np.ndarray], name: str) -> str:
    """Return the text that is one of a file's arrays; "" if it is missing or no text."""
    value = arrays.get(name)
    return str(value) if value is not None and value.shape == () and value.dtype.kind == "U" else ""


def check_intact(path: str | PathLike, arrays: Arrays) -> None:
    """Raise CheckpointError if the arrays of a file are not those that were written into it."""
    if not arrays.intact:
        raise CheckpointError(
            f"{path}: its arrays are not those that were written (their digest differs); restore "
            "it from a copy, or, if the change is yours, take the array 'digest' out of it"
        )
