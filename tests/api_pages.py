"""The API reference: pages of the public names, made of their docstrings by pdoc.

    pip install -e '.[docs]'
    python tests/api_pages.py          writes build/api/index.html
    python tests/api_pages.py FOLDER

A page has the names in its module's ``__all__``, and below a folder's page are those of its files.
The comment behind a field of a configuration is the field's text. What pdoc warns of is an error,
and so is what `faults` finds.

Tests: tests/test_api_pages.py.
"""

import importlib
import inspect
import re
import sys
import warnings
from pathlib import Path

from minis5.run.presets import field_comments

ROOT = Path(__file__).resolve().parents[1]
PAGES = (  # in the order of the list on the first of them
    "minis5",
    "minis5.nn",
    "minis5.nn.scan",
    "minis5.nn.s5",
    "minis5.envs",
    "minis5.envs.foreign",
    "minis5.envs.foreign.wrappers",
    "minis5.rl",
    "minis5.rl.rollout",
    "minis5.rl.gae",
    "minis5.rl.weights_in",
    "minis5.rl.weights_out",
    "minis5.run",
    "minis5.run.train",
    "minis5.run.callbacks",
    "minis5.run.evaluate",
    "minis5.verify",
    "minis5.verify.torch",
    "minis5.verify.jax",
    "minis5.reference",
)
TERSE = "minis5.reference"  # its docstrings are sentences, with shapes in them
SECTION = re.compile(r"^(\w+)\n-{3,}\n(.*?)(?=^\w+\n-{3,}$|\Z)", re.DOTALL | re.MULTILINE)
ROLE = re.compile(r":(?:func|meth|class|mod):`([\w.]+)`")
OWN_LINE = re.compile(r"(?<=\n)((?:Leaves out|Differs from|Source|Specification|GPU form|Tests): )")
LAST_COLON = re.compile(r"\):(?=(?:</p>)?\s*</li>)")  # pdoc's, where no text follows a type
PATH = re.compile(r"\b(?:minis5|tests|cuda|experiments)/[\w/]+\.\w+")


class Absent:
    """Stands for a library that is not installed, and for what is in it."""

    def __init__(self, name):
        self.name = name

    def __getattr__(self, attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Absent(f"{self.name}.{attribute}")

    def __repr__(self):
        return self.name


def load(page):
    """Import a page's module. PyTorch and JAX, which it may import, may be missing."""
    library = page.rpartition(".")[2]
    if library in ("torch", "jax") and page not in sys.modules:
        try:
            importlib.import_module(library)
        except ImportError:
            sys.modules[library] = Absent(library)
            importlib.import_module(page)
            del sys.modules[library]
    return importlib.import_module(page)


def public(page):
    """Yield (name, object, whether it is a method) for what a page shows."""
    module = load(page)
    yield page, module, False
    if not hasattr(module, "__path__") and not hasattr(module, "__all__"):
        raise ValueError(f"{page}: expected __all__, a list of the public names, got none")
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if inspect.ismodule(thing) or not callable(thing):
            continue
        yield f"{page}.{name}", thing, False
        for key, member in vars(thing).items() if inspect.isclass(thing) else ():
            if not key.startswith("_") and (inspect.isfunction(member) or is_descriptor(member)):
                yield f"{page}.{name}.{key}", member, True


def is_descriptor(member):
    return isinstance(member, property | classmethod | staticmethod)


def parameters(thing):
    """Return the names of the parameters, without self."""
    if isinstance(thing, property) or inspect.ismodule(thing):
        return []
    if inspect.isclass(thing) and "__init__" not in vars(thing):  # an exception, a NamedTuple
        return []
    signature = inspect.signature(getattr(thing, "__func__", thing))
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [stars.get(p.kind, "") + name for name, p in signature.parameters.items()]
    return [name for name in names if name not in ("self", "cls")]


def described(text):
    """Return the parameters that a docstring's section describes, or None if it has none."""
    sections = dict(SECTION.findall(text))
    if "Parameters" not in sections:
        return None
    lines = re.findall(r"^(\S.*)$", sections["Parameters"], re.MULTILINE)
    return [name.strip() for line in lines for name in line.partition(" : ")[0].split(",")]


def faults(page):
    """Yield what is wrong with the docstrings of a page, a line each."""
    module = load(page)
    for name, thing, is_method in public(page):
        text, wanted = inspect.getdoc(thing) or "", parameters(thing)
        if not text or text.startswith(f"{name.rpartition('.')[2]}("):  # a dataclass's own
            yield f"{name}: no docstring"
            continue
        found, fields = described(text), inspect.isclass(thing) and field_comments(thing)
        if found is not None and found != wanted:
            yield f"{name}: describes {found}, but its parameters are {wanted}"
        if found is None and fields:  # each has a text of its own
            yield from (f"{name}.{field}: no comment" for field in fields if not fields[field])
            continue
        if found is None and len(wanted) > 1 and not is_method and page != TERSE:
            yield f"{name}: no section Parameters, but it has {', '.join(wanted)}"
        shared = inspect.getdoc(module) if page == TERSE else ""
        for parameter in wanted if found is None else ():
            if not re.search(rf"\b{parameter.lstrip('*')}\b", text + shared):
                yield f"{name}: does not mention its parameter {parameter}"
        for role in ROLE.findall(text):
            if not resolves(role, name):
                yield f"{name}: refers to {role}, which is on no page"
        head = re.split(r"^\w+\n-{3,}$", text, maxsplit=1, flags=re.MULTILINE)[0]
        if line := re.search(r"^\S.*\n {4}\S.*$", head, re.MULTILINE):
            yield f"{name}: needs an empty line above the indented one in {line[0]!r}"
        for path in PATH.findall(text):
            if not (ROOT / path).exists():
                yield f"{name}: names the file {path}, which does not exist"


def resolves(reference, name):
    """Return whether a cross reference in the docstring ``name`` leads to something on a page."""
    names = {known for page in PAGES for known, _, _ in public(page)}
    scopes = [name.rsplit(".", i)[0] for i in range(1, name.count(".") + 1)]
    return any(
        full in names for full in (reference, *(f"{s}.{reference}" for s in (name, *scopes)))
    )


def write(folder):
    """Write the pages; a warning of pdoc is an error."""
    import pdoc

    for page in PAGES:
        above, _, name = page.rpartition(".")
        if above and hasattr(load(above), "__all__"):  # its page lists the pages below it too
            load(above).__all__ = [*dict.fromkeys([*load(above).__all__, name])]
        load(page)
        module = pdoc.doc.Module.from_name(page)
        module.docstring = OWN_LINE.sub(r"\n\1", module.docstring)
        for shown in module.classes:
            texts, bases = field_comments(shown.obj), shown.obj.__bases__
            shown.bases = [(b.__module__, b.__name__, b.__name__) for b in bases if b is not object]
            for member in shown.members.values():
                if member.name == "__init__":  # the class has the parameters
                    member.docstring = ""
                elif member.kind == "variable":
                    own = member.docstring if member.name in vars(shown.obj) else ""
                    member.docstring = texts.get(member.name) or own or "@private"
    pdoc.render.configure(docformat="numpy")
    others = f"!(?!({'|'.join(PAGES)})$)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc("minis5", others, output_directory=folder)
    for file in folder.rglob("*.html"):
        text = LAST_COLON.sub(")", file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    found = [fault for page in PAGES for fault in faults(page)]
    if found:
        sys.exit("\n".join(found))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "api"
    write(folder)
    print(folder / "index.html")
