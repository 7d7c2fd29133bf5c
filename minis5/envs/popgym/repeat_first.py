"""RepeatFirst: name the suit of the first card, again and again.

A pack of `decks` times 52 cards is shuffled and dealt one card a step; the observation is the
card's suit. Each action is compared with the suit of the episode's first card and earns plus or
minus 1 / (52 decks - 1). The last card ends the episode: 52 decks - 1 steps, terminated.

POPGym's quirks, kept: nothing marks the first card, although POPGym's documentation speaks of an
indicator. The agent has to know when an episode begins.
Source: POPGym 1.0.7, popgym/envs/repeat_first.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_repeat_first.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.popgym.deck import PACK, SUITS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "RepeatFirstEasy": {"decks": 1},
    "RepeatFirstMedium": {"decks": 8},
    "RepeatFirstHard": {"decks": 16},
}
SEEN = GENERATOR_SIZE  # ints[SEEN]: number of cards dealt
CARDS = SEEN + 1  # ints[CARDS:]: suits in the order they are dealt


class RepeatFirstParams(NamedTuple):
    cards: int


def configure(decks):
    """Return the task for a pack of `decks` * 52 cards."""
    cards = PACK * check_integer("decks", decks, 1, 1000, "RepeatFirstEasy has decks=1")
    return Task(
        params=RepeatFirstParams(cards),
        ints=CARDS + cards,
        floats=0,
        observation_space=Discrete(SUITS),
        action_space=Discrete(SUITS),
        episode_length=cards - 1,
        worst_return=-1.0,
        best_return=1.0,
        truncates=False,
        ranges=(
            Range("ints", SEEN, CARDS, 1, cards - 1),
            Range("ints", CARDS, CARDS + cards, 0, SUITS - 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    shuffled_pack(ints, CARDS, params.cards, SUITS)
    ints[SEEN] = 1


@njit(nogil=True)
def step(params, ints, floats, action):
    reward = 1.0 / (params.cards - 1)
    if action != ints[CARDS]:
        reward = -reward
    ints[SEEN] += 1
    return reward, ints[SEEN] == params.cards, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[CARDS + ints[SEEN] - 1]


def render(params, ints, floats):
    seen, suits = ints[SEEN], SYMBOLS[SUITS]
    shown, asked = suits[ints[CARDS + seen - 1]], suits[ints[CARDS]]
    return f"card {seen}/{params.cards}: {shown}  asked for: {asked}"
