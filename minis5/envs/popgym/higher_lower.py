"""HigherLower: will the next card be higher or lower than this one?

A pack of `decks` times 52 cards is shuffled and dealt one card a step; the observation is the
card's rank, ace low. The action guesses that the next card's rank is higher (0) or lower (1). Right
or wrong, it earns plus or minus 1 / (52 decks); it earns 0 if the ranks are equal. The last card
ends the episode: 52 decks - 1 steps, terminated.

POPGym's quirks, kept: rewards are scaled by the number of cards, one more than the guesses. So even
an episode without a wrong guess or a tie returns less than 1.
Source: POPGym 1.0.7, popgym/envs/higher_lower.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_higher_lower.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.popgym.deck import PACK, RANKS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "HigherLowerEasy": {"decks": 1},
    "HigherLowerMedium": {"decks": 2},
    "HigherLowerHard": {"decks": 3},
}
SEEN = GENERATOR_SIZE  # ints[SEEN]: number of cards dealt
CARDS = SEEN + 1  # ints[CARDS:]: ranks in the order they are dealt
HIGHER, LOWER = 0, 1  # actions


class HigherLowerParams(NamedTuple):
    cards: int


def configure(decks):
    """Return the task for a pack of `decks` * 52 cards."""
    cards = PACK * check_integer("decks", decks, 1, 1000, "HigherLowerEasy has decks=1")
    return Task(
        params=HigherLowerParams(cards),
        ints=CARDS + cards,
        floats=0,
        observation_space=Discrete(RANKS),
        action_space=Discrete(2),
        episode_length=cards - 1,
        worst_return=-(cards - 1) / cards,  # all guesses wrong, in a pack without ties
        best_return=(cards - 1) / cards,
        truncates=False,
        ranges=(
            Range("ints", SEEN, CARDS, 1, cards - 1),
            Range("ints", CARDS, CARDS + cards, 0, RANKS - 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    shuffled_pack(ints, CARDS, params.cards, RANKS)
    ints[SEEN] = 1


@njit(nogil=True)
def step(params, ints, floats, action):
    seen = ints[SEEN]
    now, following = ints[CARDS + seen - 1], ints[CARDS + seen]
    reward = 0.0
    if following != now:
        reward = 1.0 / params.cards
        if (following > now) != (action == HIGHER):
            reward = -reward
    ints[SEEN] = seen + 1
    return reward, seen + 1 == params.cards, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[CARDS + ints[SEEN] - 1]


def render(params, ints, floats):
    seen = ints[SEEN]
    return f"card {seen}/{params.cards}: {SYMBOLS[RANKS][ints[CARDS + seen - 1]]}"
