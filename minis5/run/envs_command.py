"""`minis5 envs`: minis5's own environments as a table of 80 columns, or as JSON.

Leaves out: other people's environments, which Gymnasium lists.
Tests: tests/run/test_envs_command.py.
"""

import json
import textwrap

from minis5.envs.registry import table
from minis5.run.console import answer
from minis5.run.evaluate import json_figures

WIDTH = 80
COLUMNS = {  # column's heading: its figure
    "id": "id",
    "steps": "episode_length",
    "worst": "worst_return",
    "random": "random_return",
    "best": "best_return",
}
DETAILS = {"observation": "observation_space", "action": "action_space", "options": "options"}
NOTES = (
    "steps: the most in an episode. worst, random, best: its return, random with the uniform "
    "random policy. minis5 envs WORD tells spaces and options too, and --json everything.",
    "Any other Gymnasium environment goes by its id: CartPole-v1, module:Env-v0. Tasks of the "
    "DeepMind Control Suite, with pip install 'minis5[control]': dmc/cartpole-swingup, "
    "dmc/DOMAIN-TASK.",
)


def envs_arguments(parser, argv):
    """Add the arguments of `minis5 envs` to a Parser."""
    del argv
    parser.add_argument(
        "word", nargs="?", metavar="WORD", help="only ids that contain it, with spaces and options"
    )
    parser.add_argument("--json", action="store_true", help="a JSON list on stdout")


def envs_run(options):
    """Run `minis5 envs`."""
    levels = [level for level in table() if (options.word or "").lower() in level["id"].lower()]
    if not levels:
        raise ValueError(f"WORD: no native id contains {options.word!r}; minis5 envs lists them")
    if options.json:
        answer(json.dumps([json_figures(level) for level in levels], indent=2))
    else:
        answer("\n".join(lines(levels, options.word is not None)))


def lines(levels, details):
    """Yield the lines of the table; with details, those of each level below it."""
    rows = [list(COLUMNS), *([_cell(level[name]) for name in COLUMNS.values()] for level in levels)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, level in zip(rows, [None, *levels], strict=True):
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        yield "  ".join([row[0].ljust(widths[0]), *numbers])
        if details and level is not None:
            for word, name in DETAILS.items():
                if text := _cell(level[name]):
                    yield from textwrap.wrap(
                        f"{word}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    "
                    )
    if not details:
        for note in NOTES:
            yield from ("", *textwrap.wrap(note, WIDTH, break_on_hyphens=False))


def _cell(value):
    if isinstance(value, dict):
        return " ".join(f"{name}={number}" for name, number in value.items())
    # + 0: no "-0"
    return f"{round(value, 3) + 0:g}" if isinstance(value, float) else " ".join(str(value).split())
