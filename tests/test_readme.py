"""The README: its snippets run and print what it shows, its reading order is whole, its table of numbers is true."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest
import threadpoolctl

from minis5.run import presets

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", TEXT, re.DOTALL | re.MULTILINE
)


def test_snippets(tmp_path, monkeypatch):
    """In order and in one namespace; a block that begins with a file's name is that file, to be imported by the others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    namespace, modules = {}, set(sys.modules)
    assert sum(bool(shown) for _, shown in BLOCKS) >= 8
    try:
        for code, shown in BLOCKS:
            line = 2 + TEXT[: TEXT.index(code)].count("\n")
            if name := re.match(r"# (\w+\.py)\n", code):
                Path(name[1]).write_text(code, encoding="utf-8")
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), threadpoolctl.threadpool_limits(1):
                exec(compile("\n" * (line - 2) + code, "README.md", "exec"), namespace)
            assert printed.getvalue() == shown, f"README.md, the snippet at line {line}"
    finally:
        for name in set(sys.modules) - modules:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def test_reading_order():
    section = TEXT.partition("\n## Reading order\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \| [^|]+ \| (.+) \|$", section, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    listed = [name for _, name, _ in rows]
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in ("minis5", "cuda")
        for path in (ROOT / folder).rglob("*.py")
    ]
    assert sorted(listed) == sorted(files)


@pytest.mark.parametrize("pattern", [r"`(test_\w+\.py)`", r"\]\(([^)#:]+)\)"])
def test_files_that_are_named_exist(pattern):
    for name in re.findall(pattern, TEXT):
        assert (ROOT / ("tests" if name.startswith("test_") else ".") / name).exists(), name


def test_anchors():
    heads = {
        re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-")
        for head in re.findall(r"^#+ (.+)$", TEXT, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= heads


def test_hyper_parameters():
    def value(preset, name):
        agent, ppo, _ = presets.resolve("any", preset)
        found = next(getattr(c, name) for c in (agent, agent.core_config, ppo) if hasattr(c, name))
        return (
            (", ".join(map(str, found)) or "none")
            if isinstance(found, tuple)
            else str(found).lower()
        )

    section = TEXT.partition("\n## Hyper-parameters\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert {name for name, *_ in rows} >= {
        name for settings, _ in presets.PRESETS.values() for name in settings
    }
    for name, *values in rows:
        assert values == [value(preset, name) for preset in presets.PRESETS], name
