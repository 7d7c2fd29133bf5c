"""How many small faults in minis5's own code its tests catch.

    pip install cosmic-ray
    python experiments/mutation.py [--count 300] [--seed 0] [--jobs 1]
    python experiments/mutation.py --quick       leave those that need slow tests for later
    python experiments/mutation.py --again       the survivors, once more
    python experiments/mutation.py --again 0-17 0-64 --tests tests/envs/test_states.py

Places in the code (operators, comparisons, numbers, loops, decorators, …) are drawn at random by
seed, over SCOPE; each gets one of cosmic-ray's mutations of it, drawn too. The mutant is written
into a copy of the repository, and the tests that the file's header names run there, until one
fails: first the quick ones, then those marked slow. ``mutants.csv`` gets a row for each: caught,
survived, or timeout (which is caught as well). A run that was stopped goes on where it was.

``--again`` runs the survivors, or those named, against the tests of today, or those named, and
fills the column ``after``. Write "equivalent: why" into the column ``remark``, which is kept.

Annotations are left out, which no test can see, and so is what does not change the code. mutmut
does not fit: it puts all mutants of a function into one, which Numba cannot compile. So cosmic-ray
makes the mutants, and this script runs them. Numba keeps compiled code of a file until that file
changes, even if it contains other files' code; so a mutant runs without the kept code of all
files that import the mutated one.

Leaves out: judging survivors; tests that the header does not name. Tests: tests/test_mutation.py.
"""

import argparse
import ast
import csv
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
SCOPE = ("minis5/nn", "minis5/rl", "minis5/envs", "minis5/run/evaluate.py", "cuda/minis5_cuda")
COLUMNS = ("id", "file", "line", "operator", "was", "is", "outcome", "caught_by", "seconds")
COLUMNS += ("after", "now_caught_by", "remark")
LEFT_OUT = (".git", "__pycache__", "runs", ".*_cache", "*.egg-info", "agents", "unfinished")
MEMORY = 12 << 30  # bytes that a mutant's tests may take


def files():
    """Return the files of SCOPE with code in them, as paths from the root."""
    found = []
    for part in SCOPE:
        path = ROOT / part
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [str(path.relative_to(ROOT)) for path in found if path.name != "__init__.py"]


def tests_of(file):
    """Return the tests that a file's header names; those of its name if it names none."""
    head = ast.get_docstring(ast.parse((ROOT / file).read_text(encoding="utf-8"))) or ""
    named = re.findall(r"tests/[\w/]+\.py", head.partition("Tests:")[2])
    name = f"test_{Path(file).name}"
    same = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "tests").rglob(name))]
    tests = [test for test in named or same if "/test_" in test and "/gpu/" not in test]
    return [test for test in dict.fromkeys(tests) if (ROOT / test).exists()]


def annotations(source):
    """Return the lines and columns of annotations, which no test can see."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        for field in ("annotation", "returns"):
            if (part := getattr(node, field, None)) is not None:
                spans.append(
                    ((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset))
                )
    return spans


def places(file, operators):
    """Return {(begin, end) in the file: [(operator's name, occurrence), …]}."""
    from cosmic_ray.ast import ast_nodes, get_ast

    source = (ROOT / file).read_text(encoding="utf-8")
    unseen, counts, found = annotations(source), defaultdict(int), defaultdict(list)
    for node in ast_nodes(get_ast(source)):
        for name, operator in operators.items():
            for begin, end in operator.mutation_positions(node):
                counts[name] += 1
                if not any(low <= begin and end <= high for low, high in unseen):
                    found[begin, end].append((name, counts[name] - 1))
    return found


def draw(count, seed):
    """Yield ``count`` mutants by seed: (file, line, operator's name, mutated source)."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    operators = {}
    for name in sorted(operator_names()):
        try:
            operators[name] = get_operator(name)()
        except TypeError:  # it wants arguments
            continue
    everywhere = []
    for file in files():
        if tests_of(file):
            everywhere += [(file, at, ways) for at, ways in places(file, operators).items()]
    print(f"{len(everywhere)} places in {len({file for file, *_ in everywhere})} files", flush=True)
    rng = random.Random(seed)
    rng.shuffle(everywhere)
    for file, (begin, _), ways in everywhere:
        source = (ROOT / file).read_text(encoding="utf-8")
        name, occurrence = rng.choice(ways)
        mutated = mutate_code(source, operators[name], occurrence)
        if mutated is None or is_same(source, mutated):
            continue
        yield file, begin[0], name.removeprefix("core/"), mutated
        count -= 1
        if not count:
            return


def is_same(source, mutated):
    """Return whether two sources compile to the same syntax tree, or the second to none."""
    try:
        return ast.dump(ast.parse(source)) == ast.dump(ast.parse(mutated))
    except SyntaxError:
        return True


def differing(source, mutated):
    """Return the lines that differ, before and after, and the number of the first."""
    before, after = source.splitlines(), mutated.splitlines()
    same = next(i for i, (a, b) in enumerate(zip_longest(before, after)) if a != b)
    while before and after and before[-1] == after[-1] and min(len(before), len(after)) > same:
        before.pop()
        after.pop()
    return "\n".join(before[same:]), "\n".join(after[same:]), same + 1


def applied(source, row):
    """Return a source with a row's mutation, or None if its lines are no longer there."""
    lines, was = source.splitlines(), row["was"].splitlines()
    places = [i for i in range(len(lines)) if lines[i : i + len(was)] == was]
    if not places:
        return None
    at = min(places, key=lambda i: abs(i + 1 - int(row["line"])))
    return "\n".join([*lines[:at], *row["is"].splitlines(), *lines[at + len(was) :]]) + "\n"


def imports(root):
    """Return {file: (its module's name, names that it imports)} over the package and its tests."""
    found = {}
    for path in [p for part in ("minis5", "cuda", "tests") for p in (root / part).rglob("*.py")]:
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        found[path] = module(path.relative_to(root)), names
    return found


def module(path):
    """Return the name by which a file is imported."""
    parts = path.with_suffix("").parts
    inner = parts[1:] if parts[0] in ("cuda", "tests") else parts
    return ".".join(inner).removesuffix(".__init__")


def dependents(known, path):
    """Return the files whose compiled code may contain that of a file: importers, and theirs.

    Parameters
    ----------
    known : dict
        Of :func:`imports`.
    """
    wanted, todo = {path}, [known[path][0]]
    while todo:
        one = todo.pop()
        for importer, (name, needed) in known.items():
            if one in needed and importer not in wanted:
                wanted.add(importer)
                todo.append(name)
    return wanted


class Copy:
    """A copy of the repository, in which a file at a time is changed and tests run.

    Parameters
    ----------
    folder : Path
        Of the copy, which is made anew. Numba's compiled code is kept beside it.
    marks : sequence of str
        Which tests run, one after the other, as pytest's -m has it.
    """

    def __init__(self, folder, marks=("not slow", "slow")):
        self.folder, self.sound, self.marks = folder / "code", {}, marks
        self.kept, self.used = folder / "compiled", folder / "compiled-mutant"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
        self.imports = imports(self.folder)

    def outcome(self, file, source, tests):
        """Return what becomes of tests with a file changed, and the test that caught it."""
        path = self.folder / file
        original, times = path.read_text(encoding="utf-8"), path.stat()
        result = "none", ""
        for marks in self.marks:
            seconds = self.check(tests, marks)
            if seconds is None:
                continue
            shutil.rmtree(self.used, ignore_errors=True)
            shutil.copytree(self.kept, self.used, copy_function=os.link)
            for one in dependents(self.imports, path):
                for kept in self.used.glob(f"*/{one.stem}.*"):
                    kept.unlink()
            path.write_text(source, encoding="utf-8")
            try:
                result = self.run(tests, marks, 30 + 3 * seconds, self.used)
            finally:
                path.write_text(original, encoding="utf-8")  # with its times, by which Numba goes
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            if result[0] != "survived":
                break
        return result

    def run(self, tests, marks, limit, compiled):
        """Return ("survived", "caught", "timeout" or "none", name of the test that failed)."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        paths = os.pathsep.join((str(self.folder), str(self.folder / "cuda")))
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen(
                [*command, "-m", marks, *tests],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(compiled)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)  # the tests' own processes too
                process.wait()
                return "timeout", ""
            output.seek(0)
            text = output.read()
        if code in (0, 5):
            return ("none" if code else "survived"), ""
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.M)
        return "caught", failed[0] if failed else f"exit code {code}"

    def check(self, tests, marks):
        """Return the seconds that tests take without a mutant, or None if there are none.

        Raises
        ------
        RuntimeError
            They fail.
        """
        key = (*tests, marks)
        if key not in self.sound:
            begun = time.monotonic()
            outcome, failed = self.run(tests, marks, 3600, self.kept)
            if outcome not in ("survived", "none"):
                raise RuntimeError(f"{failed or tests}: {outcome} without any mutant")
            self.sound[key] = None if outcome == "none" else time.monotonic() - begun
        return self.sound[key]


def read(table):
    """Return the rows of a table of mutants."""
    if not table.exists():
        return []
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(table, rows):
    """Write the rows, in order of their ids, whole or not at all."""
    rows = sorted(rows, key=lambda row: [int(part) for part in row["id"].split("-")])
    partial = table.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(table)


def new_rows(options, done):
    """Yield (row, mutated source) for each mutant that has no row yet."""
    for number, (file, line, operator, mutated) in enumerate(draw(options.count, options.seed)):
        name = f"{options.seed}-{number}"
        if name not in done:
            was, now, line = differing((ROOT / file).read_text(encoding="utf-8"), mutated)
            facts = (name, file, line, operator, was, now)
            yield dict.fromkeys(COLUMNS, "") | dict(zip(COLUMNS, facts, strict=False)), mutated


def survivors(rows, names=()):
    """Yield (row, mutated source) for each mutant that still survives and is not explained.

    Only those with ids among ``names``, if any are given.
    """
    for row in rows:
        alive = (row["after"] or row["outcome"]) in ("survived", "none")
        if row["id"] in names or not names and alive and not row["remark"].startswith("equivalent"):
            source = (ROOT / row["file"]).read_text(encoding="utf-8")
            mutated = applied(source, row)
            if mutated is None:
                row["after"] = "gone: the line has changed"
            else:
                yield row, mutated


def summary(rows):
    """Return how many mutants were caught at first and are now, as text."""
    alive = [row for row in rows if row["outcome"] in ("survived", "none")]
    same = [row for row in alive if row["remark"].startswith("equivalent")]
    still = [row for row in alive if row["after"] in ("", "survived", "none") and row not in same]
    return (
        f"{len(rows)} mutants: {len(rows) - len(alive)} caught at first, {len(alive)} survived; "
        f"now {len(alive) - len(same) - len(still)} of these are caught, "
        f"{len(same)} equivalent, {len(still)} survive"
    )


def main():
    """Draw mutants and run the tests of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300, metavar="N", help="default 300")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="at once; default 1")
    about = "run quick tests only, and keep what they catch"
    parser.add_argument("--quick", action="store_true", help=about)
    about = "run the survivors once more, or these"
    parser.add_argument("--again", nargs="*", metavar="ID", help=about)
    parser.add_argument("--tests", nargs="+", metavar="FILE", help="instead of the header's")
    parser.add_argument("--out", default=str(ROOT / "experiments" / "mutation"), metavar="FOLDER")
    parser.add_argument("--copy", default="/tmp/minis5-mutants", metavar="FOLDER", help="the copy")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "mutants.csv"
    rows = read(table)
    again = options.again is not None
    done = {row["id"] for row in rows}
    todo = list(survivors(rows, options.again) if again else new_rows(options, done))
    copies, lock = SimpleQueue(), threading.Lock()
    for job in range(options.jobs):
        marks = {"marks": ("not slow",)} if options.quick else {}
        copies.put(Copy(Path(options.copy) / str(job), **marks))

    def judge(row, mutated):
        copy, begun = copies.get(), time.monotonic()
        try:
            tests = options.tests or tests_of(row["file"])
            outcome, failed = copy.outcome(row["file"], mutated, tests)
        finally:
            copies.put(copy)
        with lock:
            if again:
                row |= {"after": outcome, "now_caught_by": failed}
            else:
                row |= {"outcome": outcome, "caught_by": failed}
                row["seconds"] = f"{time.monotonic() - begun:.0f}"
                if not options.quick or outcome not in ("survived", "none"):
                    rows.append(row)
            write(table, rows)
            place = f"{row['file']}:{row['line']}"
            print(f"{row['id']} {outcome} {place}: {row['was']} → {row['is']}", flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(judge, *one) for one in todo]
        try:
            for future in futures:
                future.result()
        finally:  # after an error or a Ctrl-C: begin no others
            pool.shutdown(wait=False, cancel_futures=True)
    print(summary(rows))


if __name__ == "__main__":
    main()
