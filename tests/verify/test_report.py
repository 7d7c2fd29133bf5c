"""The report: text, counts, expected failures, causes, report.json, JUnit XML."""

import json
from xml.etree import ElementTree

import pytest

from minis5.verify.compare import Wrong
from minis5.verify.report import STATUSES, Report, Result

WRONG = Wrong("x", (1, 0), "2", "3", "x[1, 0]: expected 2, got 3")


def result(case, status="passed", flags=("core",), **more):
    return Result("scan", case, flags, "float32", status, **more)


def some():
    return [
        result("a"),
        result("b", "failed", ("reset",), message=WRONG.words, wrong=WRONG, causes=("one", "two")),
        result("c", "failed", ("reset", "long"), message="raised ValueError: no", causes=("two",)),
        result("d", "missing", ("varying",), message="not implemented: no file x.npy"),
        result("e", "informational", ("long",), message="x[0]: …", accuracy=0.5, ours=1e-7),
        result("f", "passed", ("long",), accuracy=1e-6, ours=1e-7),
        Result("gae", "a", ("core",), "float64", "passed"),
    ]


def test_text():
    text = Report(some()).text()
    lines = text.splitlines()
    assert lines[:5] == [
        "FAILED scan/b: x[1, 0]: expected 2, got 3; probable cause: two",
        "FAILED scan/c: raised ValueError: no; probable cause: two",
        "MISSING scan/d: not implemented: no file x.npy",
        "informational scan/e: x[0]: …; error 5.0e-01 of the largest number, minis5's 1.0e-07",
        "passed scan/f: error 1.0e-06 of the largest number, minis5's 1.0e-07",
    ]
    assert "     2 cases  two" in lines
    assert not any("none of the faults" in line for line in lines)
    strange = [*some(), result("g", "failed", ("core",), message="x[0]: expected 1, got 2")]
    told = Report(strange).text().splitlines()
    assert "     1 cases  none of the faults that are known" in told
    table = {
        line.split()[0]: line.split()[1:] for line in lines if line.startswith(("core", "var"))
    }
    assert table == {"core": ["2"], "varying": ["1"]}
    assert lines[-1] == "FAILED in reset, varying: 3 passed, 2 failed, 1 missing, 1 informational"


def test_an_operation_that_is_missing_takes_one_line():
    none = [
        Result("gae", name, ("core",), "float32", "missing", "not implemented: no file")
        for name in ("a", "b")
    ]
    lines = Report([*some()[:-1], *none]).text().splitlines()
    assert lines[3] == "MISSING gae: all 2 cases, such as a: not implemented: no file"
    assert lines[2].startswith("MISSING scan/d: ") and "gae/b" not in "".join(lines)


def test_expected_failures_that_no_case_matches_are_told():
    unknown = ["scan/z", "*/z", "scan/*-float16", "adam/z", "masks"]
    report = Report(some(), [*unknown, "scan/b", "scan/[cd]", "varying"])
    assert report.unmatched == ("scan/z", "*/z", "scan/*-float16")  # adam was not tried
    assert "xfail: no case that was tried is 'scan/z'; correct it or take it out" in report.text()
    assert "xfail: " not in Report(some(), ["scan/b"]).text()
    both = Report(some()[:-1], ["*/z", "gae/*"]) + Report(some()[-1:], ["*/z", "gae/*", "gae/z"])
    assert both.unmatched == ("*/z", "gae/z")


def test_most_lines():
    text = Report(some()).text(most=1)
    assert "scan/b" in text and "scan/c" not in text and "… and 4 more" in text


def test_counts():
    report = Report(some())
    assert report.counts == dict.fromkeys(STATUSES, 0) | {
        "passed": 3,
        "failed": 2,
        "missing": 1,
        "informational": 1,
    }
    assert report.by_flag["reset"]["failed"] == 2 and report.by_flag["long"]["passed"] == 1
    assert list(report.by_flag) == ["core", "varying", "reset", "long"]
    assert not report.passed and Report([]).passed
    assert Report([]).text().endswith("PASSED: no case was tried")
    assert Report([result("e", "informational")]).passed


def test_the_cause_that_explains_most_is_named():
    causes = [r.cause for r in Report(some()).results]
    assert causes == ["", "two", "two", "", "", "", ""]
    alone = Report([result("b", "failed", causes=("one", "two"))])
    assert alone.results[0].cause == "one"  # the first of those that explain as much


@pytest.mark.parametrize(
    "line, statuses",
    [
        ("scan/b", "passed xfail failed missing informational passed passed"),
        ("scan/*", "xpass xfail xfail xfail informational xpass passed"),
        ("reset", "passed xfail xfail missing informational passed passed"),
        ("core", "xpass failed failed missing informational passed xpass"),
        ("gae/*", "passed failed failed missing informational passed xpass"),
        ("*/d", "passed failed failed xfail informational passed passed"),
    ],
)
def test_expected_failures(line, statuses):
    report = Report(some(), [line])
    assert " ".join(r.status for r in report.results) == statuses


def test_expected_failures_pass():
    report = Report(some(), ["reset", "scan/d"])
    assert report.passed and report.counts["xfail"] == 3
    assert "xpass scan/a" in Report(some(), ["scan/a"]).text()


@pytest.mark.parametrize("line", ["resets", "b", ""])
def test_what_no_expected_failure_is(line):
    with pytest.raises(ValueError, match="xfail: expected a case, a pattern of cases or a flag"):
        Report([], [line])


def test_json(tmp_path):
    Report(some(), ["scan/c"]).write_json(tmp_path / "report.json")
    value = json.loads((tmp_path / "report.json").read_text())
    assert list(value) == ["format", "version", "passed", "counts", "fails_in", "flags", "results"]
    assert (value["format"], value["version"]) == ("minis5 verify report", 1)
    assert value["passed"] is False and value["counts"]["xfail"] == 1
    assert value["results"][1] == {
        "id": "scan/b",
        "operation": "scan",
        "case": "b",
        "flags": ["reset"],
        "dtype": "float32",
        "status": "failed",
        "message": "x[1, 0]: expected 2, got 3",
        "output": "x",
        "index": [1, 0],
        "expected": "2",
        "got": "3",
        "cause": "two",
        "accuracy": None,
        "minis5_accuracy": None,
    }
    assert value["results"][0]["output"] is None
    assert len({tuple(row) for row in value["results"]}) == 1


def test_junit(tmp_path):
    more = result("g", "failed", message="raised X: \x00\x1b[0m <&> \ud800 é \U0001f600")
    Report([*some(), more], ["scan/c", "scan/a"]).write_junit(tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root.tag == "testsuites"
    scan, gae = root
    assert scan.attrib == {
        "name": "scan",
        "tests": "7",
        "failures": "3",
        "errors": "0",
        "skipped": "2",
    }
    assert gae.attrib["tests"] == "1" and gae[0].attrib == {"classname": "gae", "name": "a"}
    tests = {test.attrib["name"]: test for test in scan}
    children = {name: [child.tag for child in test] for name, test in tests.items()}
    assert children == {
        "a": ["system-out"],
        "b": ["failure"],
        "c": ["skipped"],
        "d": ["failure"],
        "e": ["skipped"],
        "f": [],
        "g": ["failure"],
    }
    assert tests["b"][0].attrib["message"] == some()[1]._replace(cause="two").line
    assert tests["g"][0].text == "FAILED scan/g: raised X: ??[0m <&> ? é \U0001f600"


def test_reports_add_up():
    both = Report(some()[:2]) + Report(some()[2:], ["scan/c"])
    assert len(both.results) == 7 and both.counts["xfail"] == 1


def test_failures_are_put_down_to_the_flags_that_fail_most_often():
    """With ties, the flag with more failures; core alone before what builds on it."""
    selects = [result(f"s{i}", "failed", ("complex", "reset_selects")) for i in range(2)]
    passing = [result(f"c{i}", "passed", ("complex",)) for i in range(3)]
    assert Report([*selects, *passing]).fails_in == ("reset_selects",)
    assert Report(passing).fails_in == ()
    broken = [result("k", "failed"), result("z", "failed", ("complex",))]
    assert Report([*selects, *broken]).fails_in == ("core", "complex")
    report = Report([*selects, *passing, result("m", "missing", ("varying",))])
    assert set(report.fails_in) == {"reset_selects", "varying"}
    assert report.as_json()["fails_in"] == list(report.fails_in)
