"""Autoencode: watch a whole pack card by card, then name the suits in reverse order.

A pack of `decks` times 52 cards is shuffled. The observation is (mode, suit). While the agent
watches, mode is 1 and the suit is that of the card dealt; actions are free and earn 0. The last
card comes with mode 0. From then on each action is compared with the suit of the last card not yet
named and earns plus or minus 1 / (52 decks), while the observation stays (0, 0). Naming the first
card ends the episode: 104 decks - 1 steps, terminated.

POPGym's quirks, kept: the last card is shown with mode 0; the constant suit 0 shown while playing
is a legal one (spades) and tells nothing.
Source: POPGym 1.0.7, popgym/envs/autoencode.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_autoencode.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, Tuple
from numba import njit

from minis5.checks import check_integer
from minis5.envs.popgym.deck import PACK, SUITS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "AutoencodeEasy": {"decks": 1},
    "AutoencodeMedium": {"decks": 2},
    "AutoencodeHard": {"decks": 3},
}
TIME = GENERATOR_SIZE  # ints[TIME]: number of steps done
CARDS = TIME + 1  # ints[CARDS:]: suits in the order they are dealt


class AutoencodeParams(NamedTuple):
    cards: int


def configure(decks):
    """Return the task for a pack of `decks` * 52 cards."""
    cards = PACK * check_integer("decks", decks, 1, 1000, "AutoencodeEasy has decks=1")
    return Task(
        params=AutoencodeParams(cards),
        ints=CARDS + cards,
        floats=0,
        observation_space=Tuple((Discrete(2), Discrete(SUITS))),
        action_space=Discrete(SUITS),
        episode_length=2 * cards - 1,
        worst_return=-1.0,  # every card is asked for once
        best_return=1.0,
        truncates=False,
        ranges=(
            Range("ints", TIME, CARDS, 0, 2 * cards - 2),
            Range("ints", CARDS, CARDS + cards, 0, SUITS - 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    shuffled_pack(ints, CARDS, params.cards, SUITS)
    ints[TIME] = 0


@njit(nogil=True)
def step(params, ints, floats, action):
    asked = 2 * params.cards - 2 - ints[TIME]  # number of the card that is due, if below `cards`
    reward = 0.0
    if asked < params.cards:
        reward = 1.0 / params.cards
        if action != ints[CARDS + asked]:
            reward = -reward
    ints[TIME] += 1
    return reward, asked == 0, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    time, cards = ints[TIME], params.cards
    out[0] = 1 if time < cards - 1 else 0
    out[1] = ints[CARDS + time] if time < cards else 0


def render(params, ints, floats):
    time, cards, suits = ints[TIME], params.cards, SYMBOLS[SUITS]
    if time < cards - 1:
        return f"card {time + 1}/{cards}: {suits[ints[CARDS + time]]}"
    asked = 2 * cards - 2 - time
    shown = (
        f"card {cards}/{cards}: {suits[ints[CARDS + time]]}"
        if time < cards
        else f"{cards - 1 - asked}/{cards} named"
    )
    return f"{shown}  asked for: {suits[ints[CARDS + asked]] if asked >= 0 else 'nothing'}"
