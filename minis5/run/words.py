"""What an agent saw and what it did, in the words of the game.

WORDS has two functions for each game: of its parameters and an observation, and of its parameters
and an action. Everything else is numbers.

Leaves out: the state as a whole, which a game's own `render` shows.
Tests: tests/run/test_watch.py.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import utils

from minis5.envs import memory_chain
from minis5.envs.popgym import (
    autoencode,
    battleship,
    cartpole,
    concentration,
    count_recall,
    higher_lower,
    labyrinth,
    minesweeper,
    multiarmed_bandit,
    repeat_first,
    repeat_previous,
)
from minis5.envs.popgym.deck import RANKS, SUITS, SYMBOLS
from minis5.envs.single import NativeEnv

MOST_NUMBERS = 8  # of an observation that are shown


def numbers(value: Any) -> str:
    """Return an observation or an action as a few numbers."""
    flat = np.asarray(value).ravel()
    if flat.size == 1:
        return f"{flat[0]:.3g}"
    shown = " ".join(f"{x:.3g}" for x in flat[:MOST_NUMBERS])
    return f"({shown}{f' … {flat.size} numbers' if flat.size > MOST_NUMBERS else ''})"


def suit(params, value):
    return SYMBOLS[SUITS][value]


def place(params, action):
    return f"row {action[0] + 1}, column {action[1] + 1}"


def number(params, value):
    return str(value)


def around(params, seen):
    """Return the nine squares around the agent, by rows."""
    rows = ["".join(" #SE "[square] for square in seen[i : i + 3]) for i in (0, 3, 6)]
    return f"[{'|'.join(rows)}]"


WORDS = {
    repeat_previous: (suit, suit),
    repeat_first: (suit, suit),
    autoencode: (
        lambda params, seen: (
            suit(params, seen[1]) if seen[0] else f"{suit(params, seen[1])} (play)"
        ),
        suit,
    ),
    count_recall: (
        lambda params, seen: "{}, asked for {}".format(*(SYMBOLS[params.kind][v] for v in seen)),
        number,
    ),
    higher_lower: (
        lambda params, rank: SYMBOLS[RANKS][rank],
        lambda params, action: ("higher", "lower")[action],
    ),
    concentration: (
        lambda params, cards: f"{int(np.sum(cards < params.kind))} cards up",
        lambda params, action: f"card {action + 1}",
    ),
    multiarmed_bandit: (
        lambda params, paid: ("no payout", "a payout")[paid],
        lambda params, arm: f"arm {arm + 1}",
    ),
    battleship: (lambda params, hit: ("no hit", "a hit")[hit], place),
    minesweeper: (lambda params, near: f"{near} mines near", place),
    labyrinth: (around, lambda params, action: ("left", "right", "up", "down")[action]),
    memory_chain: (
        lambda params, seen: f"cue {seen[2:].astype(int).tolist()}, query {int(seen[1])}",
        number,
    ),
    cartpole: (
        lambda params, seen: numbers(seen),
        lambda params, action: ("left", "right")[action],
    ),
}


def in_words(env: gymnasium.Env, observation: Any, action: Any) -> tuple[str, str]:
    """Return what the agent saw in a single environment, and its action, in words."""
    if isinstance(env, NativeEnv) and env.module in WORDS:
        saw, did = WORDS[env.module]
        return saw(env.task.params, observation), did(env.task.params, action)
    try:
        seen = numbers(utils.flatten(env.observation_space, observation))
    except NotImplementedError:  # a space without a flat form
        seen = str(observation)
    return seen, numbers(action)
