"""How many small faults in minis5's own code its tests catch.

    pip install cosmic-ray
    python experiments/mutation.py [--count 300] [--seed 0] [--limit 180] [--out FOLDER]

Places in the code (operators, comparisons, numbers, loops, decorators, …) are drawn at random by
seed, over SCOPE; each gets one of cosmic-ray's mutations of it, drawn too. The mutant is written
into a copy of the repository, and the tests that the file's header names run there, until one
fails. ``mutants.csv`` gets a row for each: caught, survived, or timeout (which is caught as well).
A run that was stopped goes on where it was.

Annotations are left out, which no test can see, and so is what does not change the code. mutmut
does not fit: it puts all mutants of a function into one, which Numba cannot compile. So cosmic-ray
makes the mutants, and this script runs them.

Leaves out: judging survivors. Write "equivalent: why" into the column ``remark``, which is kept.
"""

import argparse
import ast
import csv
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCOPE = ("minis5/nn", "minis5/rl", "minis5/envs", "minis5/run/evaluate.py", "cuda/minis5_cuda")
COLUMNS = ("id", "file", "line", "operator", "was", "is", "tests", "outcome", "seconds", "remark")
LEFT_OUT = (".git", "__pycache__", "runs", ".*_cache", "*.egg-info")


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
    """Return the first line that differs, before and after."""
    pairs = zip(source.splitlines(), mutated.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), ("", "one line less"))


class Copy:
    """A copy of the repository, in which a file at a time is changed and tests run."""

    def __init__(self, folder, limit):
        self.folder, self.limit, self.sound = Path(folder), limit, set()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(ROOT, self.folder, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def outcome(self, file, source, tests):
        """Return what becomes of tests with a file changed, and the seconds that it took."""
        path = self.folder / file
        original, begun = path.read_text(encoding="utf-8"), time.monotonic()
        path.write_text(source, encoding="utf-8")
        try:
            return self.run(tests, self.limit), time.monotonic() - begun
        finally:
            path.write_text(original, encoding="utf-8")

    def run(self, tests, limit):
        """Return "survived", "caught" or "timeout"."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        paths = os.pathsep.join((str(self.folder), str(self.folder / "cuda")))
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return "caught" if process.wait(limit) else "survived"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)  # the tests' own processes too
            process.wait()
            return "timeout"

    def check(self, tests):
        """Raise RuntimeError unless tests pass without a mutant."""
        if tuple(tests) in self.sound:
            return
        self.sound.add(tuple(tests))
        outcome = self.run(tests, self.limit)
        if outcome != "survived":
            why = "fail" if outcome == "caught" else f"take over {self.limit:g} s (--limit)"
            raise RuntimeError(f"{' '.join(tests)} {why} without any mutant")


def main():
    """Draw mutants and run the tests of each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=300, metavar="N", help="default 300")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    parser.add_argument(
        "--limit", type=float, default=180, metavar="S", help="seconds for the tests"
    )
    parser.add_argument("--out", default=str(ROOT / "experiments" / "mutation"), metavar="FOLDER")
    parser.add_argument("--copy", default="/tmp/minis5-mutants", metavar="FOLDER", help="the copy")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table = out / "mutants.csv"
    rows = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    done, copy = {row["id"] for row in rows}, None
    for number, (path, line, operator, mutated) in enumerate(draw(options.count, options.seed)):
        name = f"{options.seed}-{number}"
        if name in done:
            continue
        copy = copy or Copy(options.copy, options.limit)
        tests = tests_of(path)
        copy.check(tests)
        outcome, seconds = copy.outcome(path, mutated, tests)
        was, now = differing((ROOT / path).read_text(encoding="utf-8"), mutated)
        facts = (
            name,
            path,
            line,
            operator,
            was,
            now,
            " ".join(tests),
            outcome,
            f"{seconds:.0f}",
            "",
        )
        rows.append(dict(zip(COLUMNS, facts, strict=True)))
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        print(f"{name} {outcome} {path}:{line}: {was} → {now}", flush=True)
    survived = [row for row in rows if row["outcome"] == "survived"]
    equivalent = sum(row["remark"].startswith("equivalent") for row in survived)
    caught = len(rows) - len(survived)
    print(
        f"{len(rows)} mutants: {caught} caught, {equivalent} equivalent, "
        f"{len(survived) - equivalent} survived"
    )


if __name__ == "__main__":
    main()
