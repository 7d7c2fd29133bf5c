"""`minis5 envs`: every level, in 80 columns."""

import json

from command_line import error_of

from minis5.envs.registry import table
from minis5.run.cli import main

LEVELS = ("Easy", "Medium", "Hard")


def test_envs(capsys):
    assert main(["envs"]) == 0
    text = capsys.readouterr().out
    assert "RepeatPreviousHard" in text and "module:Env-v0" in text
    assert main(["envs", "repeat"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == [
        f"Repeat{which}{level}" for which in ("Previous", "First") for level in LEVELS
    ]
    assert "no native id contains 'zebra'" in error_of(capsys, "envs zebra")


def test_envs_as_json(capsys):
    assert main(["envs", "--json"]) == 0
    levels = json.loads(capsys.readouterr().out)
    assert [level["id"] for level in levels] == [level["id"] for level in table()]
    by_id = {level["id"]: level for level in levels}
    assert by_id["MemoryChain"]["options"] == {"memory_length": 64, "num_bits": 1}
    assert all(level["random_return"] is not None for level in levels)


def test_80_columns_are_enough(capsys):
    assert main(["envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if line} >= {level["id"] for level in table()}
    for word in "aeo":
        assert main(["envs", word]) == 0
        lines += capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80


def test_a_word_tells_spaces_and_options(capsys):
    assert main(["envs", "countrecallhard"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "CountRecallHard    207     -1  -0.882     1",
        "  observation: MultiDiscrete([13] * 2)",
        "  action: Discrete(17)",
        "  options: decks=4 deck_type=ranks",
    ]
