"""CountRecall: how often has a card like this been dealt?

Two packs of `decks` times 52 cards are shuffled. Each step deals one card of the first, the value,
and one of the second, the query. The observation is both, as colours, suits or ranks. The action is
the number of values dealt so far, including the one now seen, that equal the query now seen. Right
or wrong, it earns plus or minus 1 / (52 decks - 1). The last card ends the episode, and its query
is not asked: 52 decks - 1 steps, terminated.

POPGym's quirks, kept: a near miss costs as much as any other. (POPGym's option error_clamp, said to
soften this, has no effect and is left out.)
Source: POPGym 1.0.7, popgym/envs/count_recall.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_count_recall.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete, MultiDiscrete
from numba import njit

from minis5.checks import check_choice, check_integer
from minis5.envs.popgym.deck import KINDS, PACK, RANKS, SYMBOLS, shuffled_pack
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE

LEVELS = {
    "CountRecallEasy": {"decks": 1, "deck_type": "colors"},
    "CountRecallMedium": {"decks": 2, "deck_type": "suits"},
    "CountRecallHard": {"decks": 4, "deck_type": "ranks"},
}
SEEN = GENERATOR_SIZE  # ints[SEEN]: number of cards dealt from each pack
COUNTS = SEEN + 1  # ints[COUNTS + v]: how many of them had value v; v < kind <= RANKS
# ints[CARDS:]: `cards` values, then `cards` queries, in the order they are dealt
CARDS = COUNTS + RANKS


class CountRecallParams(NamedTuple):
    cards: int
    kind: int


def configure(decks, deck_type):
    """Return the task for two packs of `decks` * 52 cards, as "colors", "suits" or "ranks"."""
    cards = PACK * check_integer("decks", decks, 1, 1000, "CountRecallEasy has decks=1")
    kind = KINDS[check_choice("deck_type", deck_type, tuple(KINDS))]
    return Task(
        params=CountRecallParams(cards, kind),
        ints=CARDS + 2 * cards,
        floats=0,
        observation_space=MultiDiscrete([kind, kind]),
        action_space=Discrete(cards // kind + 1),
        episode_length=cards - 1,
        worst_return=-1.0,
        best_return=1.0,
        truncates=False,
        ranges=(
            Range("ints", SEEN, COUNTS, 1, cards - 1),
            Range("ints", COUNTS, CARDS, 0, cards),
            Range("ints", CARDS, CARDS + 2 * cards, 0, kind - 1),
        ),
    )


@njit(nogil=True)
def reset(params, ints, floats):
    shuffled_pack(ints, CARDS, params.cards, params.kind)
    shuffled_pack(ints, CARDS + params.cards, params.cards, params.kind)
    for value in range(params.kind):
        ints[COUNTS + value] = 0
    ints[COUNTS + ints[CARDS]] = 1
    ints[SEEN] = 1


@njit(nogil=True)
def step(params, ints, floats, action):
    seen = ints[SEEN]
    reward = 1.0 / (params.cards - 1)
    if action != ints[COUNTS + ints[CARDS + params.cards + seen - 1]]:
        reward = -reward
    ints[COUNTS + ints[CARDS + seen]] += 1
    ints[SEEN] = seen + 1
    return reward, seen + 1 == params.cards, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    last = CARDS + ints[SEEN] - 1
    out[0] = ints[last]
    out[1] = ints[last + params.cards]


def render(params, ints, floats):
    seen, names = ints[SEEN], SYMBOLS[params.kind]
    value, query = ints[CARDS + seen - 1], ints[CARDS + params.cards + seen - 1]
    asked = f"how many {names[query]}: {ints[COUNTS + query]}"
    return f"card {seen}/{params.cards}: {names[value]}  {asked}"
