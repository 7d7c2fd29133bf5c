"""Files of a program: right, wrong, missing and damaged ones. None of them crashes the check."""

import os
from pathlib import Path

import numpy as np
import pytest

from minis5.verify.folders import check_folder
from minis5.verify.npy import to_npy
from minis5.verify.operations import OPERATIONS
from minis5.verify.vectors import Vectors, write


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "v"
    write(folder, operations=["scan", "scan_vjp"], small=True, dtypes="float32")
    return folder


@pytest.fixture
def got(vectors, tmp_path):
    """What a right program writes."""
    for operation in Vectors(vectors).operations:
        for case in Vectors(vectors).cases(operation):
            folder = tmp_path / operation / case.name
            folder.mkdir(parents=True)
            for name, z in case.expected.items():
                (folder / f"{name}.npy").write_bytes(to_npy(z))
    return tmp_path


def first(vectors, operation="scan"):
    return next(Vectors(vectors).cases(operation))


def test_right_files_pass(vectors, got):
    report = check_folder(vectors, got)
    assert report.passed and report.counts["passed"] == len(report.results) > 60
    assert {result.operation for result in report.results} == {"scan", "scan_vjp"}
    only = check_folder(vectors, got, operations=["scan"], flags="core,complex")
    assert only.passed and {result.operation for result in only.results} == {"scan"}
    assert all(set(result.flags) <= {"core", "complex"} for result in only.results)


def test_cases_may_lie_without_their_operation(vectors, got):
    for path in (got / "scan").iterdir():
        path.rename(got / path.name)
    report = check_folder(vectors, got, operations=["scan"])
    assert report.passed and report.results


def test_float32_and_numpy_s_complex_numbers_pass(vectors, got):
    for case in Vectors(vectors).cases("scan"):
        x = case.expected["x"]
        small = x.astype(np.complex64 if x.dtype.kind == "c" else np.float32)
        np.save(got / "scan" / case.name / "x.npy", small)
    assert check_folder(vectors, got, operations=["scan"]).passed


def test_missing_files_are_not_implemented(vectors, got):
    case, other = first(vectors), first(vectors, "scan_vjp")
    (got / case.id / "x.npy").unlink()
    (got / other.id / "dx0.npy").unlink()
    report = check_folder(vectors, got)
    missing = {r.id: r.message for r in report.results if r.status == "missing"}
    assert missing == {
        case.id: f"not implemented: no file {got / case.id / 'x.npy'}",
        other.id: f"not implemented: no file {got / other.id / 'dx0.npy'}",
    }
    assert not report.passed and report.counts["failed"] == 0
    assert check_folder(vectors, got, xfail=[case.id, other.id]).passed


def test_wrong_numbers_and_their_cause(vectors, got):
    for case in Vectors(vectors).cases("scan"):
        with np.errstate(all="ignore"):
            outputs = OPERATIONS["scan"].causes["resets are ignored"](case)
        (got / case.id / "x.npy").write_bytes(to_npy(outputs["x"]))
    report = check_folder(vectors, got, operations=["scan"])
    failed = [result for result in report.results if result.status == "failed"]
    assert failed and all({"reset", "reset_selects"} & set(result.flags) for result in failed)
    assert {result.cause for result in failed} == {"resets are ignored"}


def test_a_wrong_output_beside_a_missing_one_is_wrong(vectors, got):
    case = first(vectors, "scan_vjp")
    (got / case.id / "dx0.npy").unlink()
    (got / case.id / "db.npy").write_bytes(to_npy(case.expected["db"] + 1))
    report = check_folder(vectors, got, operations=["scan_vjp"])
    (failed,) = (result for result in report.results if result.status == "failed")
    assert failed.message.startswith("db[0, 0, 0]: expected")


DAMAGE = {
    "x: expected a .npy file of format 1.0 or 2.0, got an empty file": lambda x: b"",
    "x: expected a .npy file": lambda x: b"no numbers",
    "bytes of numbers for shape": lambda x: to_npy(x)[:-3],
    "x: expected little-endian float64 ('<f8'), got big-endian '>f8'": lambda x: to_npy(x).replace(
        b"<f8", b">f8"
    ),
    "got int64 ('<i8')": lambda x: to_npy(x).replace(b"<f8", b"<i8"),
    "x: expected shape": lambda x: to_npy(x[:, :1, :1][:1].repeat(3, axis=2)),
    "x: expected a last axis of 2 (real, imaginary), got shape": lambda x: to_npy(np.ones(3)),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_files_are_said(message, vectors, got):
    case = first(vectors)
    assert "complex" in case.flags
    (got / case.id / "x.npy").write_bytes(DAMAGE[message](case.expected["x"]))
    report = check_folder(vectors, got)
    (failed,) = (result for result in report.results if result.status == "failed")
    assert failed.id == case.id and message in failed.message and "\n" not in failed.line
    assert report.counts["passed"] == len(report.results) - 1


def sparse(path):
    path.touch()
    os.truncate(path, 1 << 40)


NO_FILES = {  # what lies in the place of a file; a pipe without a writer would be waited for
    "x: expected a file, got a folder; write a .npy file there": Path.mkdir,
    "x: expected a file, got a pipe or a device": os.mkfifo,
    "x: expected at most 1054720 bytes, got a file of 1099511627776; write this": sparse,
}


@pytest.mark.parametrize("message", NO_FILES)
def test_what_lies_in_the_place_of_a_file_is_said(message, vectors, got):
    case = next(c for c in Vectors(vectors).cases("scan") if c.expected["x"].nbytes == 96)
    (got / case.id / "x.npy").unlink()
    NO_FILES[message](got / case.id / "x.npy")
    (failed,) = (r for r in check_folder(vectors, got).results if r.status == "failed")
    assert failed.id == case.id and failed.message.startswith(message)


def test_a_folder_that_cannot_be_read_is_said(vectors, got, monkeypatch):
    """The system's refusal is played: root, who runs tests in containers, may read everything."""
    case, stat = first(vectors), Path.stat

    def refuse(path, **options):
        if path.name == "x.npy" and path.parent.name == case.name:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    (failed,) = (r for r in check_folder(vectors, got).results if r.status == "failed")
    assert failed.id == case.id and "x: [Errno 13] Permission denied" in failed.message


def test_links_are_followed_and_dangling_ones_are_missing_files(vectors, got):
    case, other = list(Vectors(vectors).cases("scan"))[:2]
    (got / case.id).rename(got / "elsewhere")
    (got / case.id).symlink_to(got / "elsewhere")
    (got / other.id / "x.npy").unlink()
    (got / other.id / "x.npy").symlink_to(got / "nowhere")
    wrong = {r.id: r.status for r in check_folder(vectors, got).results if r.status != "passed"}
    assert wrong == {other.id: "missing"}


def test_pickled_objects_are_not_executed(vectors, got, tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    case = first(vectors)
    np.save(got / case.id / "x.npy", np.array([Evil()], object), allow_pickle=True)
    (failed,) = (r for r in check_folder(vectors, got).results if r.status == "failed")
    assert "got pickled objects; convert them" in failed.message
    assert not (tmp_path / "executed").exists()


def test_columns_first_and_files_that_nobody_asked_for_pass(vectors, got):
    for case in Vectors(vectors).cases("scan"):
        path = got / case.id / "x.npy"
        np.save(path, np.asfortranarray(np.load(path)))
    (got / "scan/of mine").mkdir()
    (got / "scan/of mine/x.npy").write_text("notes")
    assert check_folder(vectors, got).passed


def test_an_operation_asked_for_twice_is_compared_once(vectors, got):
    once, twice = (check_folder(vectors, got, operations=["scan"] * n) for n in (1, 2))
    assert once.counts == twice.counts


@pytest.mark.parametrize("place", [".", "scan"])
def test_test_vectors_are_not_compared_with_themselves(place, vectors, got):
    """They hold the expected numbers, so that all would pass."""
    with pytest.raises(ValueError, match="expected what a program wrote, got test vectors"):
        check_folder(vectors, vectors / place)
    (got / "scan/cases.tsv").touch()
    with pytest.raises(ValueError, match="minis5 verify DIR GOT in this order"):
        check_folder(vectors, got)


def test_what_cannot_be_asked(vectors, got):
    with pytest.raises(FileNotFoundError, match="no such folder; write GOT/OPERATION/CASE"):
        check_folder(vectors, got / "none")
    (got / "file").touch()
    with pytest.raises(NotADirectoryError, match="expected a folder, got a file; write GOT/OPERA"):
        check_folder(vectors, got / "file")
    with pytest.raises(FileNotFoundError, match="minis5 vectors DIR writes test vectors"):
        check_folder(got / "none", got)
    with pytest.raises(ValueError, match="operations: expected one of 'scan', 'scan_vjp', got 'g"):
        check_folder(vectors, got, operations=["gae"])
    with pytest.raises(ValueError, match="flags: expected names of flags"):
        check_folder(vectors, got, flags="fast")
    with pytest.raises(ValueError, match="xfail: expected a case"):
        check_folder(vectors, got, xfail=["nothing"])
