"""The scan in C++ and in Rust, through files: the right one passes, the one that multiplies by zero
fails in just the cases where a reset must select.

Skipped where there is no compiler.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from minis5.verify.folders import check_folder
from minis5.verify.vectors import write

HERE = Path(__file__).parent
LANGUAGES = {  # command, source, its options, what switches the fault on
    "C++": (("c++", "g++", "clang++"), "scan.cpp", ("-std=c++17",), ("-DMULTIPLY",)),
    "Rust": (("rustc",), "scan.rs", ("--edition", "2021"), ("--cfg", "multiply")),
}


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors") / "all"
    write(folder, operations=["scan"])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("faulty", [False, True], ids=["right", "faulty"])
def test_a_program(language, faulty, vectors, tmp_path):
    commands, source, options, switch = LANGUAGES[language]
    compiler = next(filter(None, map(shutil.which, commands)), None)
    if compiler is None or subprocess.run([compiler, "--version"]).returncode:
        pytest.skip(f"no compiler for {language}")
    assert len((HERE / source).read_text(encoding="utf-8").splitlines()) < 60
    program = tmp_path / "scan"
    options = (*options, *switch) if faulty else options
    subprocess.run([compiler, *options, HERE / source, "-o", program], check=True)
    subprocess.run([program, vectors, tmp_path / "got"], check=True)
    report = check_folder(vectors, tmp_path / "got")
    failed = {result.id for result in report.results if result.status == "failed"}
    selects = {result.id for result in report.results if "reset_selects" in result.flags}
    assert failed == (selects if faulty else set()) and selects
    assert report.passed is not faulty and not report.counts["missing"]
    if faulty:
        assert all("multiplies the old state" in r.cause for r in report.results if r.cause)
