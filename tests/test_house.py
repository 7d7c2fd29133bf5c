"""The house rules: who may import whom, no circle, no private name across files, and the length of
the auditor's path.

Imports are read from the source, those inside functions too. Importing a module also runs the
``__init__`` of every package on its way that the importer is not in itself.
"""

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"minis5": ROOT / "minis5", "minis5_cuda": ROOT / "cuda" / "minis5_cuda"}
GROUND = (
    "ctrl_c",
    "arrays",
    "checks",
    "files",
    "ops",
    "device",
    "columns",
    "random",
    "seeds",
    "elementary",
    "spaces",
    "processes",
)
MAY_IMPORT = {  # room: rooms that its files may import
    "reference": {"reference"},
    "ground": {"ground"},
    "nn": {"ground", "nn"},
    "rl": {"ground", "nn", "rl"},
    "envs": {"ground", "envs"},
    "verify": {"ground", "nn", "rl", "envs", "reference", "verify"},
    "run": {"ground", "nn", "rl", "envs", "run", "reference", "verify", "minis5"},
    "minis5": {"ground", "public"},  # minis5/__init__.py
    "public": {"ground", "nn", "rl", "envs", "reference"},
    "minis5_cuda": {"ground", "nn", "rl", "envs", "minis5_cuda"},
}
PATH = (  # the auditor's path, an evening
    "reference/s5_ppo",
    "ops",
    "nn/scan",
    "nn/discretize",
    "nn/layers",
    "nn/s5",
    "nn/s5_core",
    "rl/agent",
    "rl/rollout",
    "rl/gae",
    "rl/loss",
    "rl/adam",
    "rl/ppo",
    "rl/distributions",
)
LEFT_OUT = {"rl/distributions": ("MultiCategorical", "DiagGaussian")}  # read when needed
MOST_LINES = 2500  # blank ones not counted


@cache
def modules():
    """Return {module: (path, syntax tree)} of both packages."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found[name] = path, ast.parse(path.read_text(encoding="utf-8"))
    return found


def room(module):
    """Return the room of a module: a package's folder, "ground", or the package itself."""
    package, *rest = module.split(".")
    if package == "minis5_cuda" or not rest:
        return package
    return "ground" if rest[0] in GROUND else "run" if rest[0] == "__main__" else rest[0]


def imported(module):
    """Yield (module, name or None) for each import in ``module`` of these packages."""
    path, tree = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, None) for a in node.names if a.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")
                base = ".".join([*above[: len(above) + 1 - node.level], *filter(None, [base])])
            for alias in node.names if base.split(".")[0] in PACKAGES else ():
                inner = f"{base}.{alias.name}"
                yield (inner, None) if inner in modules() else (base, alias.name)


def edges(module):
    """Return the modules that importing ``module`` imports: named ones, and packages on the way."""
    found = set()
    for target, _ in imported(module):
        found.add(target)
        parts = target.split(".")
        above = (".".join(parts[:i]) for i in range(1, len(parts)))
        found |= {package for package in above if not f"{module}.".startswith(f"{package}.")}
    return found - {module, "minis5"} if module != "minis5" else found - {module}


@pytest.mark.parametrize("module", modules())
def test_a_file_imports_what_its_room_may_import(module):
    for target, name in imported(module):
        if room(target) == "minis5_cuda" and module.split(".")[0] == "minis5":
            assert module == "minis5.device", f"{module} imports {target}; device.py alone may"
        else:
            allowed = MAY_IMPORT[room(module)]
            allowed = allowed | (
                {"minis5"} if target == "minis5.public" and module == "minis5" else set()
            )
            assert room(target) in allowed, f"{module} ({room(module)}) imports {target}"
        last = name or target.rpartition(".")[2]
        public = not last.startswith("_") or last.startswith("__")
        assert public, f"{module} imports {last}, which is private to {target}"


def test_the_device_is_reached_by_two_files_only():
    """minis5/__init__, which hands its loader to arrays.py, and run/learn.py: the precision."""
    users = {m for m in modules() for target, _ in imported(m) if target == "minis5.device"}
    assert users == {"minis5", "minis5.run.learn"}


def test_only_launch_imports_the_compiler_of_kernels():
    """Moving to another compiler is one file's work."""
    files = [path for path, _ in modules().values()] + sorted((ROOT / "experiments").glob("*.py"))
    users = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in getattr(node, "names", ()) if hasattr(alias, "name")]
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{name}" for name in names]
            elif not isinstance(node, ast.Import):
                continue
            if any(f"{name}.".startswith(("numba.cuda.", "numba_cuda")) for name in names):
                users.add(path.relative_to(ROOT).as_posix())
    assert users == {"cuda/minis5_cuda/launch.py"}


def test_no_import_circle():
    try:
        list(TopologicalSorter({module: edges(module) for module in modules()}).static_order())
    except CycleError as error:
        pytest.fail(f"import circle: {' → '.join(error.args[1])}")


def test_importing_minis5_does_not_import_verify():
    """``import minis5.verify`` is the user's line: ``import minis5`` and training are no slower."""
    importers = {m for m in modules() for target, _ in imported(m) if room(target) == "verify"}
    assert {m for m in importers if room(m) != "verify"} == {"minis5.run.verify"}
    code = (
        "import sys, minis5.run.cli; sys.exit(any('minis5.verify' in name for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_no_module_is_found_by_a_string():
    """But for that which the user asks for: ``minis5 verify scan module:function``."""
    for module, (_, tree) in modules().items():
        if module == "minis5.run.verify":
            continue
        for node in ast.walk(tree):
            name = getattr(node, "id", getattr(node, "attr", None))
            assert name not in ("import_module", "__import__"), f"{module} imports by a string"


def lines_to_read(stop):
    """Return the number of lines of a stop on the path that are not blank."""
    path, tree = modules()["minis5." + stop.replace("/", ".")]
    lines = path.read_text(encoding="utf-8").splitlines()
    named = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in (named[name] for name in LEFT_OUT.get(stop, ())):
        lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    return sum(bool(line.strip()) for line in lines)


def test_the_auditors_path_is_short():
    lengths = {stop: lines_to_read(stop) for stop in PATH}
    print(sum(lengths.values()), lengths)
    assert sum(lengths.values()) <= MOST_LINES, lengths


@pytest.mark.parametrize("folder", ["envs", "envs/foreign", "nn", "reference", "rl", "run"])
def test_a_folders_first_page_names_its_files(folder):
    page = (ROOT / "minis5" / folder / "__init__.py").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", ast.get_docstring(ast.parse(page))))
    names = {path.stem for path in (ROOT / "minis5" / folder).glob("[!_]*.py")}
    assert names <= words, f"minis5/{folder}/__init__.py does not name {sorted(names - words)}"
