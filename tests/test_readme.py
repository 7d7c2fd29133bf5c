"""The pages: snippets print what is shown, links exist, commands parse, settings are true.

Pages are README.md and those of the folders that they describe. The snippets of a page run in order
and in one namespace. A snippet that begins with a file's name is that file, which the snippets of
every page can import.
"""

import argparse
import contextlib
import io
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import threadpoolctl

from minis5.run import cli, parser, presets, train_command

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "minis5/README.md",
        "minis5/envs/README.md",
        "cuda/README.md",
        "experiments/README.md",
    )
}
EVERY_PAGE = pytest.mark.parametrize("page", PAGES)
PYTHON = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
FENCES = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def modules():
    """Name and text of the files that the pages show."""
    for text in PAGES.values():
        for code, _ in PYTHON.findall(text):
            if name := re.match(r"# (\w+\.py)\n", code):
                yield name[1], code


# --- snippets -------------------------------------------------------------------------------------


@EVERY_PAGE
def test_snippets(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, code in modules():
        Path(name).write_text(code, encoding="utf-8")
    namespace, before = {}, set(sys.modules)
    try:
        for match in PYTHON.finditer(PAGES[page]):
            code, shown = match.groups()
            if re.match(r"# \w+\.py\n", code):
                continue
            line = 1 + PAGES[page][: match.start(1)].count("\n")
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), threadpoolctl.threadpool_limits(1):
                exec(compile("\n" * (line - 1) + code, page, "exec"), namespace)
            assert printed.getvalue() == (shown or ""), f"{page}, the snippet at line {line}"
    finally:
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def test_how_many_snippets_show_what_they_print():
    shown = {page: sum(bool(s) for _, s in PYTHON.findall(text)) for page, text in PAGES.items()}
    assert shown["README.md"] >= 3
    assert shown["minis5/README.md"] >= 8
    assert shown["minis5/envs/README.md"] >= 4


# --- links and files ------------------------------------------------------------------------------


def anchors(text):
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCES.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@EVERY_PAGE
def test_links(page):
    for target in re.findall(r"\]\(([^)]+)\)", FENCES.sub("", PAGES[page])):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            text = path.read_text(encoding="utf-8")
            assert anchor in anchors(text), f"{page}: {target}"


@EVERY_PAGE
def test_headings_give_different_anchors(page):
    headings = re.findall(r"^#+ .+$", FENCES.sub("", PAGES[page]), re.MULTILINE)
    assert len(anchors(PAGES[page])) == len(headings)


@EVERY_PAGE
def test_tests_that_are_named_exist(page):
    files = [f"/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "tests").rglob("*.py")]
    for name in re.findall(r"`((?:[\w/]+/)?test_\w+\.py)`", PAGES[page]):
        assert any(file.endswith(f"/{name}") for file in files), f"{page}: {name}"
    for table in re.findall(r"^\| claim \|.*\n((?:\|.*\n)+)", PAGES[page], re.MULTILINE):
        for name in re.findall(r"`([\w/]+/)`", table):
            assert (ROOT / "tests" / name).is_dir(), f"{page}: {name}"


@EVERY_PAGE
def test_list_of_sections(page):
    """Every page but README.md begins with a list of its sections, in their order."""
    head, _, rest = PAGES[page].partition("\n## ")
    listed = re.findall(r"^- \[[^]]+\]\(#([^)]+)\)", head, re.MULTILINE)
    sections = [
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^## (.+)$", FENCES.sub("", "## " + rest), re.MULTILINE)
    ]
    assert listed == ([] if page == "README.md" else sections)


def test_size_of_the_readme():
    assert len(PAGES["README.md"].splitlines()) <= 300


def test_blocks_that_experiments_write():
    """Every block is in experiments/README.md once; README.md has memory_tasks only."""
    blocks = {page: re.findall(r"<!-- (\w+):begin -->", text) for page, text in PAGES.items()}
    assert blocks.pop("README.md") == ["memory_tasks"]
    assert sorted(blocks.pop("experiments/README.md")) == [
        "cluster",
        "gpu_bench",
        "gpu_bench_series",
        "memory_length",
        "memory_tasks",
        "meta_cartpole",
        "meta_control",
        "other_environments",
        "popgym",
        "popgym_hard",
        "popgym_throughput",
        "precision",
        "runtime",
        "soak",
        "versus",
    ]
    assert not any(blocks.values())


# --- commands -------------------------------------------------------------------------------------


PLACEHOLDERS = {"N": "1", "S": "1", "CORE": "gru"}  # that the pages use for values


class Parsed(BaseException):
    """A command line was accepted; what it asks for is not done."""


def parses_only(monkeypatch):
    """Let every parser stop the program once it has accepted its arguments; no file is there."""
    monkeypatch.setattr(train_command, "read_table", lambda path: ({}, None))
    for kind in (argparse.ArgumentParser, parser.Parser):
        parse = kind.parse_args

        def parse_args(self, *args, parse=parse, **kwargs):
            parse(self, *args, **kwargs)
            raise Parsed

        monkeypatch.setattr(kind, "parse_args", parse_args)


def commands(pattern):
    """Commands that match, each with its page: in blocks of sh, and in code within a line."""
    found = []
    for page, text in PAGES.items():
        lines = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
        inline = re.findall(r"`([^`\n]+)`", FENCES.sub("", text))
        for command in [*lines.splitlines(), *inline]:
            command = re.sub(r"^(\w+=\S+ )+|\s+#.*", "", command)  # PYTHONPATH=., remarks
            if re.match(pattern, command) and (page, command) not in found:
                found.append((page, command))
    return found


@pytest.mark.parametrize("page, command", commands(r"minis5 [a-z]+\b"))
def test_commands_of_minis5(page, command, monkeypatch):
    arguments = shlex.split(command)[1:]
    arguments = [PLACEHOLDERS.get(argument, argument) for argument in arguments]
    parses_only(monkeypatch)
    try:
        assert cli.main(arguments) == 0, command
    except Parsed:
        pass
    except SystemExit as stop:  # --help
        assert stop.code in (0, None), command


@pytest.mark.parametrize("page, command", commands(r"python experiments/"))
def test_commands_of_experiments(page, command, monkeypatch):
    script, *arguments = shlex.split(command)[1:]
    path = ROOT / script
    assert path.exists(), command
    if not re.search(r"from sweep import|parse_args", path.read_text(encoding="utf-8")):
        assert not arguments, f"{script} takes no arguments"
        return
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    parses_only(monkeypatch)
    with pytest.raises(Parsed):
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("page, command", commands(r"--[a-z]"))
def test_options_within_a_line(page, command, monkeypatch, capsys):
    """An option that stands alone belongs to one of minis5's commands."""
    arguments = [PLACEHOLDERS.get(argument, argument) for argument in shlex.split(command)]
    parses_only(monkeypatch)
    tried = [["train", "X"], ["train"], ["eval", "X"], ["bench"]]
    tried += [["import-weights", "X"], ["export-weights", "X"]]
    for begin in tried:
        with contextlib.suppress(Parsed, SystemExit):
            cli.main([*begin, *arguments])
            with contextlib.suppress(Parsed, SystemExit):  # an option that wants a value
                cli.main([*begin, *arguments, "1"])
                continue
        break
    else:
        pytest.fail(f"{page}: {command}: {capsys.readouterr().err}")


@pytest.mark.parametrize("page, command", commands(r"(tests/|\.ci/|python -m )"))
def test_other_commands(page, command):
    words = shlex.split(command)
    if words[0] == "python":
        assert words[2] in ("pytest", "minis5", "minis5_cuda.ptx"), command
        words = words[3:]
    for word in words:
        if word.startswith(("tests/", ".ci/")):
            assert (ROOT / word).exists(), command
    if command.startswith(("tests/", ".ci/")) and (ROOT / words[0]).is_file():
        assert words[0].endswith(".py") or os.access(ROOT / words[0], os.X_OK), command


# --- hyper-parameters -----------------------------------------------------------------------------


def shown(value):
    """A setting as the tables show it."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value).lower()


def setting(preset, name, core="s5"):
    """What a preset gives a hyper-parameter."""
    agent, ppo, _ = presets.resolve("", preset, core)
    return next(getattr(c, name) for c in (agent, agent.core_config, ppo) if hasattr(c, name))


def hyper_parameters(columns):
    """Rows of the tables with so many columns in the section."""
    section = PAGES["minis5/README.md"].partition("\n## Hyper-parameters\n")[2]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.partition("\n## ")[0].splitlines()
        if line.startswith("|") and "`" in line
    ]
    return [[cell.strip("`") for cell in row] for row in rows if len(row) == columns]


def test_hyper_parameters_of_the_presets():
    for name, *values, _ in hyper_parameters(5):
        assert values == [shown(setting(preset, name)) for preset in presets.PRESETS], name


def test_hyper_parameters_that_no_preset_changes():
    for name, value, _ in hyper_parameters(3):
        for preset in presets.PRESETS:
            assert value == shown(setting(preset, name)), name


def test_every_hyper_parameter_is_listed_once():
    names = [name for name, *_ in [*hyper_parameters(5), *hyper_parameters(3)]]
    assert sorted(names) == sorted(presets.fields("s5"))


def test_hyper_parameters_of_other_cores():
    rows = hyper_parameters(4)
    for core, name, value, _ in rows:
        if value == "as S5":
            assert presets.SIZES[core][0] == name, name
        else:
            assert value == shown(setting("laptop", name, core)), name
    own = {
        (core, name)
        for core in presets.CORES
        for name in set(presets.fields(core)) - set(presets.fields("s5"))
    }
    assert {(core, name) for core, name, *_ in rows} == own
