"""The report: a line for each failing case, a summary by flag, report.json and JUnit XML.

Leaves out: how a result comes about (judge.py). Tests: tests/verify/test_report.py.
"""

import fnmatch
import itertools
import re
from collections import Counter
from collections.abc import Iterable
from os import PathLike
from typing import Any, NamedTuple
from xml.etree import ElementTree

from minis5.files import write_bytes, write_json
from minis5.verify.compare import Wrong
from minis5.verify.flags import FLAGS

FORMAT, VERSION = "minis5 verify report", 1
STATUSES = {
    "passed": "right",
    "failed": "wrong numbers, or an exception",
    "missing": "not implemented: no file, NotImplementedError, or an argument that is not taken",
    "xfail": "wrong or missing, as the list of expected failures says",
    "xpass": "right, although the list of expected failures has it",
    "informational": "wrong, in a case that only informs (long, subnormal)",
}
FAILING = ("failed", "missing")


class Result(NamedTuple):
    """What became of one case."""

    operation: str
    case: str
    flags: tuple[str, ...]
    dtype: str
    status: str  # one of STATUSES
    message: str = ""  # what is wrong, a sentence; empty if nothing is
    wrong: Wrong | None = None  # the first wrong number, if it is numbers that are wrong
    causes: tuple[str, ...] = ()  # the faults that would give just these outputs
    cause: str = ""  # the likeliest of them
    accuracy: float | None = None  # largest max |error| / max |expected| of the outputs
    ours: float | None = None  # minis5's own, where it is measured

    @property
    def id(self) -> str:
        """The case's name among those of all operations."""
        return f"{self.operation}/{self.case}"

    @property
    def line(self) -> str:
        """The result in a line."""
        parts = [f"{self.status.upper() if self.status in FAILING else self.status} {self.id}"]
        parts += [self.message] if self.message else []
        parts += [f"probable cause: {self.cause}"] if self.cause else []
        if self.ours is not None:
            mine = "none" if self.accuracy is None else f"{self.accuracy:.1e}"
            parts.append(f"error {mine} of the largest number, minis5's {self.ours:.1e}")
        return ": ".join(parts[:2]) + "".join(f"; {part}" for part in parts[2:])


class Report:
    """What became of all cases.

    Parameters
    ----------
    results : iterable of Result
    xfail : names
        Expected failures: cases (``scan/last-T33-float32``), patterns (``scan/*-float64``) or
        flags (``reset_selects``).

    Attributes
    ----------
    results : tuple of Result
    xfail : tuple of str
    passed : bool
        No case failed and none is missing, but for expected ones.

    Raises
    ------
    ValueError
        An expected failure is neither a flag nor has the ``/`` of a case.
    """

    def __init__(self, results: Iterable[Result], xfail: Iterable[str] = ()) -> None:
        results, self.xfail = list(results), check_xfail(xfail)
        often = Counter(cause for result in results for cause in result.causes)
        self.results = tuple(_finished(result, self.xfail, often) for result in results)

    @property
    def passed(self) -> bool:
        """Whether no case failed and none is missing."""
        return not any(result.status in FAILING for result in self.results)

    @property
    def counts(self) -> dict[str, int]:
        """How many cases have each status."""
        return _counts(self.results)

    @property
    def by_flag(self) -> dict[str, dict[str, int]]:
        """For each flag that occurs, how many cases have each status."""
        groups = {flag: [r for r in self.results if flag in r.flags] for flag in FLAGS}
        return {flag: _counts(group) for flag, group in groups.items() if group}

    @property
    def causes(self) -> dict[str, int]:
        """The probable causes, and how many failing cases each explains; the commonest first."""
        found = Counter(r.cause for r in self.results if r.cause and r.status in FAILING)
        return dict(found.most_common())

    @property
    def fails_in(self) -> tuple[str, ...]:
        """The flags that explain the failures: of each failing case, the one that fails most often.

        A case that fails where a reset must select may be complex, too. It does not count against
        complex numbers if other cases with them pass.
        """
        left = [r for r in self.results if r.status in FAILING]
        groups = {flag: [r for r in self.results if flag in r.flags] for flag in FLAGS}
        found: list[str] = []

        def weight(flag):
            share = sum(r.status in FAILING for r in groups[flag]) / len(groups[flag])
            return share, flag == "core", sum(flag in r.flags for r in left)

        while left:
            found.append(max({flag for r in left for flag in r.flags}, key=weight))
            left = [r for r in left if found[-1] not in r.flags]
        return tuple(found)

    def __add__(self, other: "Report") -> "Report":
        both = Report((), dict.fromkeys(self.xfail + other.xfail))
        both.results = self.results + other.results
        return both

    @property
    def unmatched(self) -> tuple[str, ...]:
        """The expected failures that no case matches, but for those of operations not tried."""
        tried = {result.operation for result in self.results}
        return tuple(
            line
            for line in self.xfail
            if not any(_is_meant(line, result) for result in self.results)
            and any(fnmatch.fnmatchcase(name, line.partition("/")[0]) for name in tried)
        )

    def text(self, most: int | None = None) -> str:
        """Return the report in lines: what is wrong, probable causes, the summary by flag.

        Parameters
        ----------
        most : int, optional
            The most lines for single cases; default: one for each.
        """
        told = [r for r in self.results if r.status in (*FAILING, "xpass")]
        told += [r for r in self.results if r.ours is not None and r not in told]
        told += [r for r in self.results if r.status == "informational" and r not in told]
        lines = [*self._lines(told)]
        if most is not None and len(lines) > most:
            lines[most:] = [f"… and {len(lines) - most} more"]
        remedy = "correct it or take it out"
        lines += [f"xfail: no case that was tried is {x!r}; {remedy}" for x in self.unmatched]
        if self.causes:
            lines += ["", "Probable causes:"]
            lines += [f"  {n:4d} cases  {cause}" for cause, n in self.causes.items()]
            left = self.counts["failed"] - sum(self.causes.values())
            lines += [f"  {left:4d} cases  none of the faults that are known"] if left else []
        return "\n".join([*lines, *([""] if lines else []), *self._table(), "", self.headline])

    @property
    def headline(self) -> str:
        """One line: passed or failed, and how many cases."""
        counts = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
        where = f" in {', '.join(self.fails_in)}" if self.fails_in else ""
        return f"{'PASSED' if self.passed else f'FAILED{where}'}: {counts or 'no case was tried'}"

    def _lines(self, told):
        """Yield the lines of results; one for an operation that is missing as a whole."""
        for operation, group in itertools.groupby(told, key=lambda result: result.operation):
            results, all_of_it = list(group), [r for r in self.results if r.operation == operation]
            if len(all_of_it) > 1 and all(r.status == "missing" for r in all_of_it):
                some = f"all {len(results)} cases, such as {results[0].case}"
                yield f"MISSING {operation}: {some}: {results[0].message}"
            else:
                yield from (result.line for result in results)

    def _table(self):
        rows = [("flag", *STATUSES)]
        for flag, counts in self.by_flag.items():
            rows.append((flag, *(str(counts[status] or "") for status in STATUSES)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            yield "  ".join(cells).rstrip()

    def __str__(self) -> str:
        return self.text()

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values; README.txt of the test vectors describes them."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "passed": self.passed,
            "counts": self.counts,
            "fails_in": list(self.fails_in),
            "flags": self.by_flag,
            "results": [_as_json(result) for result in self.results],
        }

    def write_json(self, path: str | PathLike) -> None:
        """Write the report as JSON to the file ``path``."""
        write_json(path, self.as_json())

    def as_junit(self) -> bytes:
        """Return the report as JUnit XML: a suite for each operation, a test for each case."""
        root = ElementTree.Element("testsuites", name="minis5 verify")
        for operation in dict.fromkeys(result.operation for result in self.results):
            results = [r for r in self.results if r.operation == operation]
            wrong = sum(r.status in FAILING for r in results)
            skipped = sum(r.status in ("xfail", "informational") for r in results)
            sizes = {"tests": len(results), "failures": wrong, "errors": 0, "skipped": skipped}
            attributes = {"name": operation} | {key: str(n) for key, n in sizes.items()}
            suite = ElementTree.SubElement(root, "testsuite", attributes)
            for result in results:
                suite.append(_test(result))
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"

    def write_junit(self, path: str | PathLike) -> None:
        """Write the report as JUnit XML to the file ``path``."""
        write_bytes(path, self.as_junit())


def check_xfail(xfail: Iterable[str]) -> tuple[str, ...]:
    """Return the expected failures; raise ValueError for what is neither a flag nor a case."""
    listed = tuple(line.strip() for line in ([xfail] if isinstance(xfail, str) else xfail))
    for line in listed:
        if line not in FLAGS and "/" not in line:
            wanted = "a case, a pattern of cases or a flag"
            remedy = "write scan/NAME, scan/*-float64 or reset_selects"
            raise ValueError(f"xfail: expected {wanted}, got {line!r}; {remedy}")
    return listed


def _is_meant(line, result):
    """Return whether a line of the expected failures means a result."""
    return line in result.flags or fnmatch.fnmatchcase(result.id, line)


def _finished(result, listed, often):
    """Return a result with its likeliest cause, and with its status if it was expected to fail."""
    cause = max(result.causes, key=lambda cause: often[cause], default="")
    expected = any(_is_meant(line, result) for line in listed)
    changes = {"failed": "xfail", "missing": "xfail", "passed": "xpass"} if expected else {}
    return result._replace(cause=cause, status=changes.get(result.status, result.status))


def _counts(results):
    counts = Counter(result.status for result in results)
    return {status: counts[status] for status in STATUSES}


def _as_json(result):
    """Return a result as JSON values, with the same names in every case."""
    wrong = result.wrong
    return {
        "id": result.id,
        "operation": result.operation,
        "case": result.case,
        "flags": list(result.flags),
        "dtype": result.dtype,
        "status": result.status,
        "message": result.message,
        "output": wrong.output if wrong else None,
        "index": list(wrong.at) if wrong and wrong.at is not None else None,
        "expected": wrong.expected if wrong else None,
        "got": wrong.got if wrong else None,
        "cause": result.cause,
        "accuracy": result.accuracy,
        "minis5_accuracy": result.ours,
    }


def _test(result):
    test = ElementTree.Element("testcase", classname=result.operation, name=result.case)
    line = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", result.line)
    if result.status in FAILING:
        ElementTree.SubElement(test, "failure", type=result.status, message=line).text = line
    elif result.status in ("xfail", "informational"):
        ElementTree.SubElement(test, "skipped", message=line)
    elif result.line and result.status == "xpass":
        ElementTree.SubElement(test, "system-out").text = line
    return test
