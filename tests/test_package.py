"""The installed package: its version, its folders, and the mark that it has type hints.

Tests: setup.cfg. .ci/run tests a built wheel.
"""

import configparser
import re
from importlib import metadata
from pathlib import Path

import minis5_cuda
import pytest

import minis5

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def test_version_is_that_of_the_metadata():
    assert metadata.version("minis5") == minis5.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == minis5.__version__


def test_every_package_is_listed():
    """setup.cfg cannot find packages in two folders, so it lists them."""
    found = set()
    for folder in (ROOT, ROOT / "cuda"):
        for file in folder.glob("minis5*/**/__init__.py"):
            found.add(".".join(file.parent.relative_to(folder).parts))
    assert found == set(SETUP["options"]["packages"].split())
    with_code = {file.parent for name in ("minis5", "cuda") for file in (ROOT / name).rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in with_code)


@pytest.mark.parametrize("package", [minis5, minis5_cuda])
def test_type_hints_are_announced(package):
    assert (Path(package.__file__).parent / "py.typed").exists()
    assert "py.typed" in SETUP["options.package_data"][package.__name__].split()


def test_public_names_exist():
    assert len(set(minis5.__all__)) == len(minis5.__all__)
    assert all(hasattr(minis5, name) for name in minis5.__all__)


def test_description_needs_no_repository():
    """A package index shows it where no file of the repository is."""
    text = SETUP["metadata"]["long_description"]
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and all(link.startswith("https://") for link in links)
    for command in re.findall(r"^minis5 (.*)$", text, re.MULTILINE):
        assert command in ("--help", "train CartPole-v1") or command in README, command


def test_classifiers_name_the_pythons_that_are_tested():
    named = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    tested = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert f"every Python of {', '.join(named[:-1])} and {named[-1]} " in tested
    assert named[0] == SETUP["options"]["python_requires"].removeprefix(">=")


def test_pre_commit_has_the_same_ruff():
    version = re.search(r"^ruff==(.*)$", SETUP["options.extras_require"]["test"], re.MULTILINE)[1]
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert f"ruff-pre-commit\n    rev: v{version}\n" in hooks


def test_contributing_names_files_that_exist():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert targets and all((ROOT / target).exists() for target in targets)
