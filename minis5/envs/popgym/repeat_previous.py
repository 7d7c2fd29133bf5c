"""RepeatPrevious: name the suit of the card seen k - 1 steps before the present one.

A pack of `decks` times 52 cards is shuffled and dealt one card a step; the observation is the
card's suit. Once k cards have been seen, each action is compared with the suit of the k-th last
card (k = 1: the one now seen) and earns plus or minus 1 / (52 decks - k). The last card ends the
episode: 52 decks - 1 steps, terminated.

Leaves out: ranks (POPGym deals them but never shows them).
Source: POPGym 1.0.7, popgym/envs/repeat_previous.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_repeat_previous.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.popgym.deck import PACK, SUITS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "RepeatPreviousEasy": {"decks": 1, "k": 4},
    "RepeatPreviousMedium": {"decks": 2, "k": 32},
    "RepeatPreviousHard": {"decks": 3, "k": 64},
}
SEEN = GENERATOR_SIZE  # ints[SEEN]: number of cards dealt
CARDS = SEEN + 1  # ints[CARDS:]: suits in the order they are dealt


class Params(NamedTuple):
    cards: int
    k: int


def configure(decks, k):
    """Return the task for a pack of `decks` * 52 cards that asks for the k-th last card."""
    decks = check_integer("decks", decks, 1, 1000, "RepeatPreviousEasy has decks=1")
    cards = PACK * decks
    k = check_integer("k", k, 1, cards - 1, "k must be below the number of cards, 52 * decks")
    return Task(
        params=Params(cards, k),
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
    seen, k = ints[SEEN], params.k
    reward = 0.0
    if seen >= k:
        reward = 1.0 / (params.cards - k)
        if action != ints[CARDS + seen - k]:
            reward = -reward
    ints[SEEN] = seen + 1
    return reward, seen + 1 == params.cards, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[CARDS + ints[SEEN] - 1]


def render(params, ints, floats):
    seen, suits = ints[SEEN], SYMBOLS[SUITS]
    asked = suits[ints[CARDS + seen - params.k]] if seen >= params.k else "nothing yet"
    return f"card {seen}/{params.cards}: {suits[ints[CARDS + seen - 1]]}  asked for: {asked}"
