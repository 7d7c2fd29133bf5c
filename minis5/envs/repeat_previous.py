"""RepeatPrevious: name the suit of the card seen k - 1 steps before the present one.

A pack of `decks` times 52 cards is shuffled and dealt one card a step; the observation is the card's suit. From the
moment that k cards have been seen, each action is compared with the suit of the k-th last card (k = 1: the one now
seen) and earns plus or minus 1 / (52 decks - k). The last card ends the episode: 52 decks - 1 steps, terminated.

Leaves out: ranks (POPGym deals them but never shows them).
Source: POPGym 1.0.7, popgym/envs/repeat_previous.py (Morad et al., ICLR 2023).
Tested in tests/test_envs.py and, in lockstep with popgym, tests/test_envs_lockstep.py.
"""

import numpy as np
from gymnasium.spaces import Discrete
from numba import njit

from minis5.envs.task import Task, check_integer
from minis5.random import GENERATOR_SIZE, shuffle

LEVELS = {
    "RepeatPreviousEasy": {"decks": 1, "k": 4},
    "RepeatPreviousMedium": {"decks": 2, "k": 32},
    "RepeatPreviousHard": {"decks": 3, "k": 64},
}
SUITS = 4
SEEN = GENERATOR_SIZE  # ints[SEEN]: number of cards dealt
CARDS = SEEN + 1  # ints[CARDS:]: suits in the order they are dealt


def configure(decks, k):
    """Task for a pack of `decks` * 52 cards and the k-th last card asked for."""
    decks = check_integer("decks", decks, 1, 1000, "RepeatPreviousEasy has decks=1")
    cards = 52 * decks
    k = check_integer("k", k, 1, cards - 1, "k must be below the number of cards, 52 * decks")
    return Task(
        params=np.array([cards, k]),
        ints=CARDS + cards,
        floats=0,
        observation_space=Discrete(SUITS),
        action_space=Discrete(SUITS),
        episode_length=cards - 1,
        random_return=2 / SUITS - 1,  # each answer is right with probability 1/4
        best_return=1.0,
    )


@njit(nogil=True)
def reset(params, ints, floats):
    cards = params[0]
    for i in range(cards):
        ints[CARDS + i] = i % SUITS
    shuffle(ints, CARDS, cards)
    ints[SEEN] = 1


@njit(nogil=True)
def step(params, ints, floats, action):
    cards, k = params[0], params[1]
    seen = ints[SEEN]
    reward = 0.0
    if seen >= k:
        reward = 1.0 / (cards - k)
        if action != ints[CARDS + seen - k]:
            reward = -reward
    ints[SEEN] = seen + 1
    return reward, seen + 1 == cards, False


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[CARDS + ints[SEEN] - 1]


def render(params, ints, floats):
    cards, k = params
    seen = ints[SEEN]
    asked = "♠♦♣♥"[ints[CARDS + seen - k]] if seen >= k else "nothing yet"
    return f"card {seen}/{cards}: {'♠♦♣♥'[ints[CARDS + seen - 1]]}  asked for: {asked}"
