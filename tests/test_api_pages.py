"""The API reference: docstrings describe what is there, pages can be made, links lead somewhere.

Tests: tests/api_pages.py.
"""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import api_pages
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("page", api_pages.PAGES)
def test_docstrings_describe_what_is_there(page):
    assert list(api_pages.faults(page)) == []


@pytest.mark.parametrize("readme", ["README.md", "minis5/README.md", "minis5/envs/README.md"])
def test_what_a_readme_imports_is_on_a_page(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    for module, names in re.findall(r"^from (minis5[.\w]*) import ([\w, ]+)", text, re.MULTILINE):
        assert module in api_pages.PAGES, module
        for name in re.sub(r" as \w+", "", names).strip().split(", "):
            known = getattr(api_pages.load(module), "__all__", ())
            assert name in known or f"{module}.{name}" in api_pages.PAGES, name


CASES = {
    "no docstring": "def f(x): pass",
    r"describes \['y'\], but its parameters are \['x'\]": """
def f(x):
    '''Return x.

    Parameters
    ----------
    y : int
    '''
""",
    "no section Parameters, but it has x, y": "def f(x, y): 'Return x and y.'",
    "does not mention its parameter x": "def f(x): 'Return nothing.'",
    "refers to g, which is on no page": "def f(x): 'Return x, as :func:`g`.'",
    "names the file tests/test_none.py": "def f(x): 'Return x. Tests: tests/test_none.py.'",
    "needs an empty line": """
def f(x):
    '''Return x.

    The values of x are
        1, 2, 3.
    '''
""",
    "f.size: no comment": """
class f(NamedTuple):
    'Sizes.'
    size: int
""",
}


@pytest.mark.parametrize("fault", CASES)
def test_faults_are_found(fault, tmp_path, monkeypatch):
    name = "page_with_a_fault"
    source = f"'Head.'\nfrom typing import NamedTuple\n__all__ = ['f']\n{CASES[fault]}"
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)  # restored afterwards
    del sys.modules[name]
    found = list(api_pages.faults(name))
    assert len(found) == 1 and re.search(fault, found[0]), found


def test_pages_are_made_and_their_links_lead_somewhere(tmp_path):
    pytest.importorskip("pdoc")
    command = [sys.executable, ROOT / "tests" / "api_pages.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    files = {f"{page.replace('.', '/')}.html" for page in api_pages.PAGES}
    made = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.html")}
    assert made == files | {"index.html"}
    texts = {name: (tmp_path / name).read_text(encoding="utf-8") for name in files}
    source = re.compile(r'<div class="pdoc-code codehilite">.*?</div>', re.DOTALL)
    texts = {name: source.sub("", text) for name, text in texts.items()}
    for name, text in texts.items():
        assert "Absent" not in text and ":func:" not in text, name
        for link in re.findall(r'<a [^>]*href="([^"$]+)"', text):
            target, _, anchor = unescape(link).partition("#")
            if not target.startswith("http"):
                path = (tmp_path / name).parent / target if target else tmp_path / name
                to = path.resolve().relative_to(tmp_path.resolve()).as_posix()
                assert to in texts, f"{name}: {link}"
                assert not anchor or f'id="{anchor}"' in texts[to], f"{name}: {link}"
    assert "Multiplier, constant or different at every step" in texts["minis5.html"]
    assert "widths of the dense layers before the core" in texts["minis5.html"]
