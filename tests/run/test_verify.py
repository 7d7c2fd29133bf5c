"""The commands `minis5 vectors` and `minis5 verify`: what they print, write and return."""

import json
import shlex
import shutil
import textwrap
from xml.etree import ElementTree

import pytest

from minis5.run.cli import main
from minis5.verify.flags import FLAGS
from minis5.verify.operations import OPERATIONS
from minis5.verify.vectors import write

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
    (folder / "got").mkdir()
    code, out, _ = run(capsys, "verify", "v", "got")
    assert code == 1 and out.startswith("MISSING gae: all 30 cases, such as ends-none-gamma0.99-")
    assert out.splitlines()[-1] == "FAILED in core, truncation, extreme, reset: 30 missing"
    right(folder)
    assert run(capsys, "verify", "v", "got")[0] == 0
    assert run(capsys, "verify", "v", "got", "gae")[0] == 0
    case = (folder / "v/gae/cases.tsv").read_text().splitlines()[1].split("\t")[0]
    (folder / "v/gae" / case / "advantages.npy").unlink()
    code, out, err = run(capsys, "verify", "v", "got")
    assert code == 2 and "write it anew with minis5 vectors" in err and not out


def right(folder):
    """Write got, what a right program makes of v."""
    outputs = [path for path in folder.glob("v/gae/*/advantages.npy")]
    for path in outputs:
        there = folder / "got/gae" / path.parent.name
        there.mkdir(parents=True)
        shutil.copy(path, there)


@pytest.fixture(scope="module")
def gae(tmp_path_factory):
    """A folder with test vectors, v, and what a right program makes of them, got."""
    folder = tmp_path_factory.mktemp("gae")
    write(folder / "v", operations=["gae"], small=True, dtypes="float64")
    right(folder)
    return folder


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("v v", "v: expected what a program wrote, got test vectors (they have schema.json)"),
        ("got v", "got: expected test vectors, got no schema.json in it"),
        ("v v/schema.json", "v/schema.json: expected a folder, got a file; write GOT/OPERATION"),
        ("v/schema.json got", "v/schema.json: not a readable .tar.xz archive"),
        ("v got scan", "operations: expected one of 'gae', got 'scan'"),
        ("v got --flags core,fast", "flags: expected names of flags, got 'fast'; the flags are "),
        ("v got --flags no-core", "flags: expected names of features, got 'no-core'; core is alw"),
        ("v got --xfail none", "--xfail: expected a text file in UTF-8, got 'none' ([Errno 2] No"),
        ("v got --xfail v", "--xfail: expected a text file in UTF-8, got 'v' ([Errno 21] Is a di"),
        ("v got --xfail bytes", "--xfail: expected a text file in UTF-8, got 'bytes' ('utf-8' co"),
        ("v got --xfail typo", "--xfail: expected an operation among scan, scan_vjp, ssm, ssm_vj"),
        ("v got --xfail typo", "env, got 'gea/last-*'; correct that line"),
        ("v got --junit no/x", "--junit: expected a file in a folder that is there, got 'no/x'; "),
        ("v got --report r --junit no/x", "--junit: expected a file in a folder that is there"),
        ("v got --report v", "--report: expected a file in a folder that is there, got 'v'; make"),
        ("v got --report ''", "--report: expected a file in a folder that is there, got '.'; mak"),
        ("v got --report r --junit r", "--junit: expected another file than --report, got 'r'; n"),
    ],
)
def test_a_mistake_with_files_is_one_line(arguments, message, gae, capsys, monkeypatch):
    monkeypatch.chdir(gae)
    (gae / "bytes").write_bytes(b"\xff\xfe")
    (gae / "typo").write_text("# known\ngae/last-*\ngea/last-*\n")
    code, out, err = run(capsys, "verify", *shlex.split(arguments))
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert {path.name for path in gae.iterdir()} == {"v", "got", "bytes", "typo"}  # no report


def test_flags_that_leave_no_case(folder, capsys):
    write(folder / "v", operations=["replay"], small=True, dtypes="float64")
    (folder / "got").mkdir()
    code, out, err = run(capsys, "verify", "v", "got", "--flags", "core")
    assert (code, out) == (2, "") and "--flags: expected flags that leave a case, got none" in err


def test_names_with_spaces_and_an_xfail_file_of_windows(gae, capsys, monkeypatch):
    monkeypatch.chdir(gae)
    (gae / "v").rename(gae / "the vectors")
    (gae / "got").rename(gae / "my own")
    (gae / "list").write_bytes(b"\xef\xbb\xbfgae/ends-*\r\ngae/no such  # issue 7\r\n")
    code, out, _ = run(capsys, "verify", "the vectors", "my own", "--xfail", "list")
    (gae / "the vectors").rename(gae / "v")
    (gae / "my own").rename(gae / "got")
    (gae / "list").unlink()
    assert code == 0 and out.startswith("xpass gae/ends-") and " xpass" in out.splitlines()[-1]
    assert "xfail: no case that was tried is 'gae/no such'; correct it or take it out\n" in out


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
        ("verify . .", ".: expected test vectors, got no schema.json in it; write it anew with"),
        ("verify --small", "--small: only with OPERATION MODULE:FUNCTION; leave it out"),
        ("verify a b --seed 0", "--seed: only with OPERATION MODULE:FUNCTION; leave it out"),
        ("verify --flags fast", "flags: expected names of flags, got 'fast'"),
        ("verify --xfail nowhere", "--xfail: expected a text file in UTF-8, got 'nowhere' ("),
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
