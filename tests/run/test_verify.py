"""The commands `minis5 vectors` and `minis5 verify`: what they print, write and return."""

import json
import textwrap
from xml.etree import ElementTree

import pytest

from minis5.run.cli import main
from minis5.verify.flags import FLAGS
from minis5.verify.operations import OPERATIONS

RIGHT = """
import minis5

class Scans:
    right = staticmethod(minis5.scan)

def multiplies(a, b, reset=None, x0=None):
    x, previous = b.copy(), 0 * b[0] if x0 is None else x0
    for t in range(len(b)):
        alive = 1 if reset is None else 1 - reset[t][:, None]
        x[t] = previous = (a if a.ndim == 1 else a[t]) * previous * alive + b[t]
    return x

def bare(a, b):
    return minis5.scan(a, b)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a user's module, in which the command runs."""
    (tmp_path / "users_scan.py").write_text(RIGHT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_right_function(folder, capsys):
    code, out, _ = run(capsys, "verify", "scan", "users_scan:Scans.right")
    assert code == 0 and out.splitlines()[-1].startswith("PASSED: ")
    assert "minis5's" in out  # the accuracy of long sequences


def test_a_wrong_function(folder, capsys):
    options = "--small --report report.json --junit junit.xml --dtype float64".split()
    code, out, _ = run(capsys, "verify", "scan", "users_scan:multiplies", *options)
    assert code == 1 and out.splitlines()[-1].startswith("FAILED in reset_selects: ")
    assert "instead of selecting: NaN and Inf pass it" in out
    report = json.loads((folder / "report.json").read_text())
    failed = [row for row in report["results"] if row["status"] == "failed"]
    assert failed and all("reset_selects" in row["flags"] for row in failed)
    assert {row["dtype"] for row in report["results"]} == {"float64"} and not report["passed"]
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]
    assert int(suite.attrib["failures"]) == len(failed)
    assert out.count("\nFAILED scan/") + out.startswith("FAILED scan/") == len(failed)


def test_flags_and_expected_failures(folder, capsys):
    code, out, _ = run(capsys, "verify", "scan", "users_scan:multiplies", "--flags", "no-extreme")
    assert code == 1 and "reset_selects" in out and "extreme" not in out
    code, out, _ = run(capsys, "verify", "scan", "users_scan:bare", "--flags", "core,complex")
    assert code == 0 and "missing" in out
    (folder / "known").write_text("# not yet\nreset_selects  # issue 7\n\nscan/none-*\n")
    code, out, _ = run(capsys, "verify", "scan", "users_scan:multiplies", "--xfail", "known")
    assert code == 0 and " xfail" in out.splitlines()[-1]


def test_files_of_a_program(folder, capsys):
    code, out, _ = run(capsys, "vectors", "v", "gae", "--small", "--dtype", "float32", "--seed", 7)
    assert code == 0 and out == "30 cases in v; README.txt there says how to read them\n"
    assert json.loads((folder / "v/schema.json").read_text())["seed"] == 7
    assert run(capsys, "verify", "v", "v")[0] == 0
    assert run(capsys, "verify", "v", "v", "gae")[0] == 0
    case = (folder / "v/gae/cases.tsv").read_text().splitlines()[1].split("\t")[0]
    (folder / "v/gae" / case / "advantages.npy").unlink()
    code, out, err = run(capsys, "verify", "v", "v")
    assert code == 2 and "write it anew with minis5 vectors" in err and not out
    (folder / "got/gae").mkdir(parents=True)
    run(capsys, "vectors", "w", "--small", "gae", "--dtype", "float32")
    code, out, _ = run(capsys, "verify", "w", "got")
    assert code == 1 and out.count("MISSING gae/") == 30
    assert out.splitlines()[-1] == "FAILED in core, truncation, extreme, reset: 30 missing"


def test_ours(folder, capsys):
    code, out, _ = run(capsys, "verify", "--flags", "core")
    assert code == 0 and out.splitlines()[-1].startswith("PASSED: ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("verify scan", "scan: expected MODULE:FUNCTION after it, got nothing; write minis5 verif"),
        ("verify scan users_scan", "function: expected MODULE:FUNCTION, got 'users_scan'; write"),
        ("verify scan users_scan:", "function: expected MODULE:FUNCTION, got 'users_scan:'"),
        ("verify scan users_scan:nothing", "function: expected a name in users_scan, such as min"),
        ("verify scan no_such_module:scan", "No module named 'no_such_module'"),
        (
            "verify scan users_scan:minis5",
            "function: expected a callable as users_scan:minis5, got mod",
        ),
        ("verify scna users_scan:bare", "scna: no such folder"),
        ("verify folder", "WHAT: expected DIR GOT, or OPERATION MODULE:FUNCTION, got 'folder'"),
        ("verify none none", "none: no such folder; minis5 vectors DIR writes test vectors"),
        ("verify . .", "no readable schema.json"),
        ("verify --small", "--small: only with OPERATION MODULE:FUNCTION; leave it out"),
        ("verify a b --seed 0", "--seed: only with OPERATION MODULE:FUNCTION; leave it out"),
        ("verify --flags fast", "flags: expected names of flags, got 'fast'"),
        ("verify --xfail nowhere", "No such file or directory: 'nowhere'"),
        ("verify scan users_scan:bare --dtype float16", "unknown NAME 'float16'"),
        ("vectors . scan", "folder: expected a new or empty folder"),
        ("vectors v scna", "operations: expected one of 'scan'"),
        ("vectors v --seed -1", "--seed: expected"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, folder, capsys):
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_an_error_in_the_user_s_module_comes_with_its_place(folder, capsys):
    (folder / "broken_scan.py").write_text("def f():\n    return 1 / 0\n\nf()\n")
    code, _, err = run(capsys, "verify", "scan", "broken_scan:f")
    assert code == 2 and "broken_scan.py" in err and "ZeroDivisionError" in err


@pytest.mark.parametrize("command", ["vectors", "verify"])
def test_help_says_all(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and max(map(len, out.splitlines())) <= 100
    assert all(name in out for name in OPERATIONS)
    if command == "verify":
        assert all(textwrap.shorten(about, 60, placeholder="") in out for about in FLAGS.values())
        assert "GOT/scan/CASE/x.npy" in out and "check_scan" in out
