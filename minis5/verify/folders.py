"""The files that a program wrote from test vectors, compared with what is expected.

Leaves out: writing the vectors (vectors.py). Tests: tests/verify/test_folders.py.
"""

import stat
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from minis5.checks import check_choice
from minis5.files import reason
from minis5.verify.case import Case, Operation
from minis5.verify.flags import is_selected
from minis5.verify.judge import judge, not_implemented
from minis5.verify.npy import from_npy, kind_of
from minis5.verify.operations import OPERATIONS
from minis5.verify.report import Report, Result, check_xfail
from minis5.verify.vectors import Vectors

SPARE = 1 << 20  # bytes that an output may have beyond 64 times those that are expected


def check_folder(
    vectors: str | PathLike,
    got: str | PathLike,
    *,
    operations: Iterable[str] | None = None,
    flags: Iterable[str] | None = None,
    xfail: Iterable[str] = (),
) -> Report:
    """Return the report on the files of a program.

    Parameters
    ----------
    vectors : path
        What ``minis5 vectors`` wrote.
    got : path
        Has ``OPERATION/CASE/NAME.npy``, or ``CASE/NAME.npy``, for each output.
    operations : names, optional
        Default: all that the vectors have.
    flags, xfail
        As in checks.run_operation.

    Raises
    ------
    OSError, ValueError
        A folder is missing, the test vectors are damaged, the program's folder holds test vectors
        itself, or a name is not known. (What is wrong with the program's own files is in the
        report.)
    """
    there, folder, listed = Vectors(vectors), Path(got), check_xfail(xfail)
    remedy = "write GOT/OPERATION/CASE/NAME.npy, as README.txt of the test vectors says"
    if not folder.exists():
        raise FileNotFoundError(f"{folder}: no such folder; {remedy}")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, got a file; {remedy}")
    names = list(there.operations if operations is None else dict.fromkeys(operations))
    for name in names:
        check_choice("operations", name, there.operations)
    _check_that_not_compared_with_itself(folder, names)
    results = [
        _result(OPERATIONS[name], case, folder)
        for name in names
        for case in there.cases(name)
        if is_selected(case.flags, flags)
    ]
    return Report(results, listed)


def _check_that_not_compared_with_itself(folder, names):
    """Raise ValueError if a folder of a program has the expected numbers, which would pass."""
    for place in (folder, *(folder / name for name in names)):
        for mark in ("schema.json", "cases.tsv"):
            if (place / mark).exists():
                wanted, got = "what a program wrote", f"test vectors (they have {mark})"
                remedy = "give it a folder of its own, and minis5 verify DIR GOT in this order"
                raise ValueError(f"{place}: expected {wanted}, got {got}; {remedy}")


def _read(files, largest):
    """Return the bytes of the first of ``files`` that is there; None if none is.

    Raises
    ------
    OSError, ValueError
        It is no plain file (a pipe would never end), cannot be read, or is larger than ``largest``.
    """
    for file in files:
        try:
            status = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(status.st_mode):
            got = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise ValueError(f"expected a file, got {got}; write a .npy file there")
        if status.st_size > largest:
            wanted, size = f"at most {largest} bytes", status.st_size
            raise ValueError(f"expected {wanted}, got a file of {size}; write this output alone")
        return file.read_bytes()
    return None


def _result(operation: Operation, case: Case, folder: Path) -> Result:
    """Return the result of a case from the program's files."""
    outputs, absent = {}, []
    for name, expected in case.expected.items():
        places = [folder / case.operation / case.name, folder / case.name]
        files = [place / f"{name}.npy" for place in places]
        try:
            data = _read(files, SPARE + 64 * expected.nbytes)
            if data is None:
                absent.append(f"no file {files[0]}")
                continue
            outputs[name] = from_npy(data, kind_of(expected))
        except (OSError, ValueError) as error:
            words = f"{name}: {reason(error)}"
            return Result(case.operation, case.name, case.flags, case.dtype, "failed", words)
    if not outputs:
        return not_implemented(case, absent[0])
    there = {name: z for name, z in case.expected.items() if name in outputs}
    result = judge(operation, case._replace(expected=there), outputs)
    if absent and result.status == "passed":
        return not_implemented(case, absent[0])
    return result
