"""minis5 verify env MODULE:NAME TASK: exit codes, words, wrong arguments."""

import pytest

from minis5.run.cli import main

MODULE = """
from minis5.envs.registry import make_single

def right():
    return make_single("RepeatFirstEasy")

def wrong():
    return make_single("RepeatFirstEasy", decks=2)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "environments_of_mine.py").write_text(MODULE)


def run(*words):
    return main(["verify", "env", *words])


def test_a_right_environment(here, capsys):
    assert not run("environments_of_mine:right", "RepeatFirstEasy", "--seed", "3")
    assert "PASSED: 7 passed" in capsys.readouterr().out


def test_a_wrong_environment(here, capsys, tmp_path):
    assert run("environments_of_mine:wrong", "RepeatFirstEasy", "--junit", "report.xml") == 1
    assert "it goes on after 61 steps, expected at most 51" in capsys.readouterr().out
    assert "RepeatFirstEasy-bounds" in (tmp_path / "report.xml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "env: expected MODULE:NAME TASK after it, got nothing; write minis5 verify env"),
        (["environments_of_mine:right", "CartPole-v1"], "task: expected a native task"),
        (["environments_of_mine:right", "RepeatFirstEasy", "--small"], "env: expected --seed and"),
    ],
)
def test_wrong_arguments(here, words, message, capsys):
    assert run(*words) not in (0, None)
    assert message in capsys.readouterr().err
