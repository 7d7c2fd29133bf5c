"""The files that a program wrote from test vectors, compared with what is expected.

Leaves out: writing the vectors (vectors.py). Tests: tests/verify/test_folders.py.
"""

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
        A folder is missing, the test vectors are damaged, or a name is not known. (What is wrong
        with the program's own files is in the report.)
    """
    there, folder, listed = Vectors(vectors), Path(got), check_xfail(xfail)
    if not folder.is_dir():
        remedy = "write GOT/OPERATION/CASE/NAME.npy, as README.txt of the test vectors says"
        raise FileNotFoundError(f"{folder}: no such folder; {remedy}")
    names = there.operations if operations is None else list(operations)
    for name in names:
        check_choice("operations", name, there.operations)
    results = [
        _result(OPERATIONS[name], case, folder)
        for name in names
        for case in there.cases(name)
        if is_selected(case.flags, flags)
    ]
    return Report(results, listed)


def _result(operation: Operation, case: Case, folder: Path) -> Result:
    """Return the result of a case from the program's files."""
    outputs, absent = {}, []
    for name, expected in case.expected.items():
        places = [folder / case.operation / case.name, folder / case.name]
        files = [place / f"{name}.npy" for place in places]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            absent.append(f"no file {files[0]}")
            continue
        try:
            outputs[name] = from_npy(file.read_bytes(), kind_of(expected))
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
