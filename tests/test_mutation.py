"""experiments/mutation.py: mutants of a small repository, without cosmic-ray.

Leaves out: the drawing, which is cosmic-ray's.
"""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "experiments"))
import mutation

INNER = """from numba import njit

@njit(cache=True)
def double(x):
    return 2 * x
"""
OUTER = '''"""Tests: tests/test_outer.py."""
from numba import njit

from minis5.inner import double

@njit(cache=True)
def four_times(x):
    return double(double(x))
'''
TESTS = """import pytest

from minis5.outer import four_times

def test_four_times():
    assert four_times(3) == 12

@pytest.mark.slow
def test_negative():
    assert four_times(-1) == -4
"""
MARKERS = "[tool:pytest]\nmarkers =\n    slow: slow\n"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    root = tmp_path / "repository"
    for name in ("minis5", "cuda", "tests"):
        (root / name).mkdir(parents=True)
    (root / "minis5" / "__init__.py").write_text("")
    (root / "minis5" / "inner.py").write_text(INNER)
    (root / "minis5" / "outer.py").write_text(OUTER)
    (root / "tests" / "test_outer.py").write_text(TESTS)
    (root / "setup.cfg").write_text(MARKERS)
    monkeypatch.setattr(mutation, "ROOT", root)
    return root


def row(was, now, line=1, **others):
    return dict.fromkeys(mutation.COLUMNS, "") | {"was": was, "is": now, "line": line} | others


@pytest.mark.parametrize(
    "mutated",
    [
        INNER.replace("2 *", "3 *"),
        INNER.replace("@njit(cache=True)\n", ""),
        INNER.replace("    return 2 * x\n", "    y = 1\n    return 2 * x + y\n"),
        INNER.replace("double(x):", "double(x): return 0").replace("    return 2 * x\n", ""),
    ],
)
def test_a_mutation_is_kept_by_its_lines_and_made_again(mutated):
    was, now, line = mutation.differing(INNER, mutated)
    assert mutation.applied(INNER, row(was, now, line)) == mutated
    later = "# a new line\n" + INNER
    assert mutation.applied(later, row(was, now, line)) == "# a new line\n" + mutated


def test_the_nearest_of_equal_lines_is_changed():
    source = "x = 1\ny = 0\nx = 1\n"
    assert mutation.applied(source, row("x = 1", "x = 2", line=4)) == "x = 1\ny = 0\nx = 2\n"
    assert mutation.applied(source, row("z = 1", "z = 2")) is None


def test_tests_are_those_of_the_header(repository):
    assert mutation.tests_of("minis5/outer.py") == ["tests/test_outer.py"]
    shutil.copy(repository / "tests" / "test_outer.py", repository / "tests" / "test_inner.py")
    assert mutation.tests_of("minis5/inner.py") == ["tests/test_inner.py"]


def test_importers_of_importers_are_dependents(repository):
    known = mutation.imports(repository)
    found = mutation.dependents(known, repository / "minis5" / "inner.py")
    assert {path.name for path in found} == {"inner.py", "outer.py", "test_outer.py"}
    found = mutation.dependents(known, repository / "minis5" / "outer.py")
    assert {path.name for path in found} == {"outer.py", "test_outer.py"}


@pytest.mark.slow
def test_mutants_are_judged_by_code_compiled_anew(repository, tmp_path):
    copy, tests = mutation.Copy(tmp_path / "copy"), ["tests/test_outer.py"]

    def outcome(now):
        return copy.outcome("minis5/inner.py", INNER.replace("2 * x", now), tests)

    assert outcome("x * 2") == ("survived", "")
    assert outcome("3 * x") == ("caught", "tests/test_outer.py::test_four_times")
    assert outcome("2 * abs(x)") == ("caught", "tests/test_outer.py::test_negative")
    assert outcome("2 *") == ("caught", "tests/test_outer.py")
    assert outcome("x * 2") == ("survived", "")
    assert (copy.folder / "minis5" / "inner.py").read_text() == INNER


@pytest.mark.slow
def test_tests_that_fail_anyway_judge_nothing(repository, tmp_path):
    (repository / "tests" / "test_outer.py").write_text(TESTS.replace("12", "13"))
    copy = mutation.Copy(tmp_path / "copy")
    with pytest.raises(RuntimeError, match="test_four_times: caught without any mutant"):
        copy.outcome("minis5/inner.py", INNER, ["tests/test_outer.py"])


def test_survivors_are_counted_before_and_after(repository, tmp_path):
    rows = [
        row("2 * x", "3 * x", 5, id="0-2", outcome="caught"),
        row("    return 2 * x", "    return 3 * x", 5, id="0-10", outcome="survived"),
        row("gone", "away", id="0-1", outcome="survived"),
        row("a", "b", id="0-3", outcome="survived", remark="equivalent: because"),
        row("a", "b", id="0-4", outcome="survived", after="caught"),
    ]
    for one in rows:
        one["file"] = "minis5/inner.py"
    text = "5 mutants: 1 caught at first, 4 survived; now 1 of these are caught, "
    assert mutation.summary(rows) == text + "1 equivalent, 2 survive"
    [(found, mutated)] = mutation.survivors(rows)
    assert (found["id"], mutated) == ("0-10", INNER.replace("2 *", "3 *"))
    assert rows[2]["after"] == "gone: the line has changed"
    mutation.write(tmp_path / "mutants.csv", rows)
    read = mutation.read(tmp_path / "mutants.csv")
    assert [one["id"] for one in read] == ["0-1", "0-2", "0-3", "0-4", "0-10"]
    assert read[-1]["is"] == "    return 3 * x"
    assert mutation.read(tmp_path / "none.csv") == []
