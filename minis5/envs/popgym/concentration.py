"""Concentration (memory, pairs): find equal cards among cards that lie face down.

`decks` times 52 cards lie in random order. The observation is what each place shows: the card's
value (colour or rank) or, face down, the number of values k. Each action turns up the card at a
place, and two actions make a turn. Two equal cards stay up, and the turn earns 1 / (26 decks). Two
others cost 2 / L, L = 104 decks, and are seen in this observation only. Choosing a card that has
been matched already ends the turn at once and costs 1 / L for each action of the turn. The episode
is terminated when all cards are up, and truncated at step L (both may be true).

POPGym's quirks, kept: choosing the same place twice is a failed turn, and no illegal action;
choosing a matched card in the middle of a turn costs two steps' worth and turns down the first
card. POPGym computes L by a formula about perfect players that gives twice the number of cards for
every pack.
Source: POPGym 1.0.7, popgym/envs/concentration.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_concentration.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, MultiDiscrete
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.envs.popgym.deck import KINDS, PACK, RANKS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "ConcentrationEasy": {"decks": 1, "deck_type": "colors"},
    "ConcentrationMedium": {"decks": 2, "deck_type": "colors"},
    "ConcentrationHard": {"decks": 1, "deck_type": "ranks"},
}
NOWHERE = -1
STEPS = GENERATOR_SIZE  # ints[STEPS]: number of steps done
MATCHED = STEPS + 1  # ints[MATCHED]: number of cards that stay up
# ints[FIRST]: place turned up first in this turn or, after a failed turn, in that one; or NOWHERE
FIRST = MATCHED + 1
# ints[SECOND]: after a failed turn the other place to turn down again (FIRST itself if only one)
SECOND = FIRST + 1
CARDS = SECOND + 1  # ints[CARDS:]: each place's value, plus `kind` while the card is up


class ConcentrationParams(NamedTuple):
    cards: int
    kind: int


def configure(decks, deck_type):
    """Return the task for `decks` * 52 cards, paired by "colors" or "ranks".

    The 13 cards of a suit would not make pairs.
    """
    cards = PACK * check_integer("decks", decks, 1, 1000, "ConcentrationEasy has decks=1")
    kind = KINDS[check_choice("deck_type", deck_type, ("colors", "ranks"))]
    return Task(
        params=ConcentrationParams(cards, kind),
        ints=CARDS + cards,
        floats=0,
        observation_space=MultiDiscrete([kind + 1] * cards),
        action_space=Discrete(cards),
        episode_length=2 * cards,
        worst_return=-1.0,  # a turn costs at most 1 / episode_length for each of its steps
        best_return=1.0,  # cards / 2 pairs
        ranges=(
            Range("ints", STEPS, MATCHED, 0, 2 * cards - 1),
            Range("ints", MATCHED, FIRST, 0, cards - 2),
            Range("ints", FIRST, CARDS, NOWHERE, cards - 1),
            Range("ints", CARDS, CARDS + cards, 0, 2 * kind - 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    shuffled_pack(ints, CARDS, params.cards, params.kind)
    ints[STEPS] = ints[MATCHED] = 0
    ints[FIRST] = ints[SECOND] = NOWHERE


@njit(nogil=True)
def step(params, ints, floats, action):
    cards, kind = params.cards, params.kind
    first, second = ints[FIRST], ints[SECOND]
    if second != NOWHERE:  # the turn before has failed
        ints[CARDS + first] %= kind
        ints[CARDS + second] %= kind
        first = second = NOWHERE
    up = ints[CARDS + action] >= kind  # matched already, or this turn's first card
    ints[CARDS + action] = ints[CARDS + action] % kind + kind
    reward = 0.0
    if first == NOWHERE:
        if up:
            reward = -0.5 / cards
        else:
            first = action
    elif up or ints[CARDS + action] != ints[CARDS + first]:
        reward = -1.0 / cards
        second = first if up else action
    else:
        reward = 2.0 / cards
        ints[MATCHED] += 2
        first = NOWHERE
    ints[FIRST], ints[SECOND] = first, second
    ints[STEPS] += 1
    return reward, ints[MATCHED] == cards, ints[STEPS] == 2 * cards


@njit(nogil=True)
def observe(params, ints, floats, out):
    kind = params.kind
    for place in range(params.cards):
        value = ints[CARDS + place]
        out[place] = value - kind if value >= kind else kind


def render(params, ints, floats):
    kind = params.kind
    shown = ["?" if value < kind else SYMBOLS[kind][value - kind] for value in ints[CARDS:]]
    rows = [" ".join(shown[i : i + RANKS]) for i in range(0, params.cards, RANKS)]
    return "\n".join(
        [f"step {ints[STEPS]}/{2 * params.cards}, {ints[MATCHED]} cards matched", *rows]
    )
