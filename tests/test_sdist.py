"""The source distribution: it holds every file of the repository, and its tests run.

Leaves out: the wheel, which .ci/run builds.
Tests: MANIFEST.in, setup.cfg.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MADE = {"PKG-INFO", "setup.cfg"}  # by setuptools, beside the folder *.egg-info
BUILD = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
SOME_TESTS = ["tests/reference", "tests/test_checks.py"]


def tracked():
    """Return the files of the repository, but for those that were deleted."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [name for name in names if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Build a source distribution of the tracked files; return the folder that it becomes."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("sdist")
    for name in tracked():
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "tree" / name)
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=folder / "tree", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("minis5-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.mark.slow
def test_it_holds_every_file(unpacked):
    there = {p.relative_to(unpacked).as_posix() for p in unpacked.rglob("*") if p.is_file()}
    there = {name for name in there if ".egg-info/" not in name}
    assert there - MADE == set(tracked()) - MADE


@pytest.mark.slow
@pytest.mark.parametrize("tests", [["--collect-only"], SOME_TESTS], ids=["collect", "run"])
def test_its_tests_run(unpacked, tests):
    """All can be collected, which opens the files that they read; some are run."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    paths = os.pathsep.join([str(unpacked), str(unpacked / "cuda")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
