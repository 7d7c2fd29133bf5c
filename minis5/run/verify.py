"""The commands `minis5 vectors` and `minis5 verify`: checks of other people's code.

The function of ``minis5 verify scan module:function`` is imported by its name, because the user
asks for just that. Nothing else in minis5 imports a module by a string.

Leaves out: what is checked (minis5/verify). Tests: tests/run/test_verify.py.
"""

import argparse
import fnmatch
import sys
from pathlib import Path

from minis5.envs.foreign.named import import_named
from minis5.run.console import answer
from minis5.run.parser import integer
from minis5.verify import CHECKS, check_env
from minis5.verify.case import DTYPES
from minis5.verify.checks import Failed, run_own
from minis5.verify.flags import FLAGS
from minis5.verify.folders import check_folder
from minis5.verify.operations import OPERATIONS
from minis5.verify.vectors import SMALL, write

VECTORS = """\
Writes test vectors: inputs and what must come out, as .npy files that any language reads without a
library. DIR/README.txt says how, in a page. The same seed gives the same bytes.

  minis5 vectors DIR               everything, {size}
  minis5 vectors DIR --small       the set that minis5 ships, in a second
  minis5 vectors DIR scan gae      these operations only; there are
                                   {operations}
"""
VERIFY = """\
Tells what is wrong with a recurrence, an S5 layer, advantages, a loss: a line for each failing
case with the first wrong number and the probable cause, and a summary by flag. The exit code is 0
if all is right, 1 if a case is not, 2 if nothing was compared: a wrong option or folder.

  minis5 verify scan mymodule:my_scan    your Python function, in the current folder, which gets
                                         NumPy arrays; the same from a test of yours:
                                             from minis5.verify import check_scan
                                             def test_scan(): check_scan(my_scan)
  minis5 verify env mymodule:MyEnv RepeatPreviousEasy
                                         is this environment (a gymnasium.Env, a batch of them, or a
                                         function that makes one) the task of that name?
  minis5 verify DIR GOT                  the files of a program in any language:
                                         1. minis5 vectors DIR   writes the inputs
                                         2. your program reads DIR/scan/CASE/a.npy, b.npy, ...
                                            and writes GOT/scan/CASE/x.npy, for each CASE in
                                            DIR/scan/cases.tsv; DIR/README.txt has the details
                                         3. this command compares
  minis5 verify DIR GOT scan gae         some operations only
  minis5 verify                          minis5 itself, on the small set that it ships

A function may lack something (an argument that it does not take, a NotImplementedError, a file that
is not there): that is "not implemented", which fails unless --flags leaves it out or --xfail
expects it. Files in GOT that no case asks for are left alone.

{operations}

Flags, what a case asks of a function:

{flags}
"""


def vectors_arguments(parser, argv):
    """Add the arguments of `minis5 vectors`."""
    del argv
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    names = "\n                                   ".join(OPERATIONS)
    parser.description = VECTORS.format(operations=names, size="under 20 MB")
    add = parser.add_argument
    add("folder", metavar="DIR", help="a new or empty folder, or a file that ends in .tar.xz")
    add("operations", nargs="*", metavar="OPERATION", help="default: all")
    add("--seed", type=integer, default=0, metavar="N", help="of the inputs (default 0)")
    add("--small", action="store_true", help="only the small set")
    add("--dtype", choices=DTYPES, metavar="NAME", help="float32 or float64 only")


def run_vectors(options):
    """Run `minis5 vectors`."""
    n = write(
        options.folder,
        seed=options.seed,
        small=options.small,
        dtypes=options.dtype or DTYPES,
        operations=options.operations or None,
    )
    answer(f"{n} cases in {options.folder}; {Path('README.txt')} there says how to read them")


def verify_arguments(parser, argv):
    """Add the arguments of `minis5 verify`."""
    del argv
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    abouts = "\n\n".join(f"{name}\n    {operation.about}" for name, operation in OPERATIONS.items())
    flags = "\n".join(f"  {flag:14} {about}" for flag, about in FLAGS.items())
    parser.usage = "minis5 verify [OPERATION MODULE:FUNCTION... | DIR GOT [OPERATION...]] [options]"
    parser.description = VERIFY.format(operations=abouts, flags=flags)
    add = parser.add_argument
    add("what", nargs="*", metavar="WHAT", help="as above")
    add(
        "--flags",
        metavar="A,B",
        help="what it can do: only cases that need nothing else (core is "
        "always tried); no-A leaves out what needs A",
    )
    add(
        "--xfail",
        metavar="FILE",
        help="expected failures, one a line: scan/CASE, a pattern such "
        "as scan/*-float64, or a flag; after # comes the reason",
    )
    add("--report", metavar="FILE", help="write the report as JSON")
    add("--junit", metavar="FILE", help="write the report as JUnit XML")
    add("--small", action="store_true", help="of a Python function: only the small set of cases")
    add("--seed", type=integer, metavar="N", help="of a Python function: of the inputs (default 0)")
    add("--dtype", choices=DTYPES, metavar="NAME", help="of a Python function: one precision only")


def run_verify(options):
    """Run `minis5 verify`; return the exit code."""
    what, how = options.what, {"flags": options.flags, "xfail": expected_failures(options.xfail)}
    check_report_files(options)
    only = {name: getattr(options, name) for name in ("small", "seed", "dtype")}
    given = [f"--{name}" for name, value in only.items() if value or value == 0 and name == "seed"]
    if what and what[0] == "env":
        report = _of_an_environment(what[1:], how, only)
    elif what and what[0] in CHECKS:
        report = _of_functions(what[0], what[1:], how, only)
    elif given:
        raise ValueError(f"{', '.join(given)}: only with OPERATION MODULE:FUNCTION; leave it out")
    elif not what:
        report = run_own(SMALL, **how)
    elif len(what) == 1:
        known = ", ".join((*CHECKS, "env"))
        wanted = "DIR GOT, or OPERATION MODULE:FUNCTION"
        raise ValueError(f"WHAT: expected {wanted}, got {what[0]!r}; operations are {known}")
    else:
        report = check_folder(what[0], what[1], operations=what[2:] or None, **how)
    if not report.results:
        raise ValueError("--flags: expected flags that leave a case, got none; ask for others")
    if options.report is not None:
        report.write_json(options.report)
    if options.junit is not None:
        report.write_junit(options.junit)
    answer(report.text())
    return 0 if report.passed else 1


def _of_functions(operation, names, how, only):
    """Return the report on functions that are given as "module:function"."""
    if not names:
        wanted, remedy = "MODULE:FUNCTION", f"write minis5 verify {operation} mymodule:my_function"
        raise ValueError(f"{operation}: expected {wanted} after it, got nothing; {remedy}")
    sys.path.insert(0, "")
    functions = [named_function(name) for name in names]
    if only["seed"] is not None:
        how["seed"] = only["seed"]
    if only["dtype"] is not None:
        how["dtypes"] = only["dtype"]
    try:
        return CHECKS[operation](*functions, small=only["small"], **how)
    except Failed as error:
        return error.report


def _of_an_environment(names, how, only):
    """Return the report on an environment, "module:name", that claims to be a task."""
    if len(names) != 2:
        wanted, got = "MODULE:NAME TASK after it", " ".join(names) or "nothing"
        remedy = "write minis5 verify env mymodule:MyEnv RepeatPreviousEasy"
        raise ValueError(f"env: expected {wanted}, got {got}; {remedy}")
    if how["flags"] or only["small"] or only["dtype"]:
        raise ValueError("env: expected --seed and --xfail only, got others; leave them out")
    sys.path.insert(0, "")
    try:
        env = named_function(names[0])
        return check_env(env, names[1], seed=only["seed"] or 0, xfail=how["xfail"])
    except Failed as error:
        return error.report


def named_function(name):
    """Return the object that "module:function" names.

    Raises
    ------
    ValueError
        It has another form, there is no such module or no such name in it, or it is no function.
    """
    module, colon, path = name.partition(":")
    if not colon or not module or not path:
        remedy = "write the module's name, a colon, the function's name"
        raise ValueError(f"function: expected MODULE:FUNCTION, got {name!r}; {remedy}")
    found = import_named("function", name, module)
    for part in path.split("."):
        if not hasattr(found, part):
            there = [n for n in vars(found) if not n.startswith("_")] if module else []
            wanted = f"a name in {module}, such as {', '.join(there[:5]) or 'none'}"
            raise ValueError(f"function: expected {wanted}, got {path!r}; correct the name")
        found = getattr(found, part)
    if not callable(found):
        got, remedy = type(found).__name__, "name the function itself"
        raise ValueError(f"function: expected a callable as {name}, got {got}; {remedy}")
    return found


def expected_failures(path):
    """Return the lines of a file of expected failures, without comments.

    Raises
    ------
    ValueError
        There is no such text file, or a line has an operation that is not known.
    """
    if path is None:
        return ()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        wanted, remedy = "a text file in UTF-8", "write one expected failure a line"
        raise ValueError(f"--xfail: expected {wanted}, got {path!r} ({error}); {remedy}") from None
    found = tuple(line for line in (text.partition("#")[0].strip() for text in lines) if line)
    known = (*OPERATIONS, *CHECKS, "env")
    for line in found:
        name, slash, _ = line.partition("/")
        if slash and not any(fnmatch.fnmatchcase(operation, name) for operation in known):
            wanted = f"an operation among {', '.join(dict.fromkeys(known))}"
            raise ValueError(f"--xfail: expected {wanted}, got {line!r}; correct that line")
    return found


def check_report_files(options):
    """Raise ValueError if a report could not be written: before the cases are tried, not after."""
    paths = {f"--{name}": getattr(options, name) for name in ("report", "junit")}
    given = {name: Path(path) for name, path in paths.items() if path is not None}
    for name, path in given.items():
        if path.is_dir() or not path.parent.is_dir():
            wanted, remedy = "a file in a folder that is there", "make the folder, or name another"
            raise ValueError(f"{name}: expected {wanted}, got {str(path)!r}; {remedy}")
    if len(given) == 2 and len(set(given.values())) == 1:
        wanted, got = "another file than --report", repr(options.junit)
        raise ValueError(f"--junit: expected {wanted}, got {got}; name two files")
