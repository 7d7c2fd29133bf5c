"""Packs of cards for the card games: what card number i shows, and a shuffled pack in a state row.

Card i of POPGym's pack has rank (i // 4) mod 13 (ace, 2 … 10, jack, queen, king), suit i mod 4
(spades, diamonds, clubs, hearts) and colour i mod 2 (black, red). A game only ever shows one of the
three, so the state holds that value alone.

Source: POPGym 1.0.7, popgym/core/deck.py.
Tests: tests/envs/popgym/test_deck.py, against popgym, and those of the card games.
"""

from numba import njit

from minis5.random import shuffle

COLORS, SUITS, RANKS = 2, 4, 13  # kinds of value, named by the number of distinct ones
KINDS = {"colors": COLORS, "suits": SUITS, "ranks": RANKS}  # by POPGym's names
PACK = 52
SYMBOLS = {COLORS: "br", SUITS: "♠♦♣♥", RANKS: "A23456789TJQK"}  # as text, by kind and value


@njit(nogil=True)
def card_value(card, kind):
    """Return the value of card number `card`: its colour, suit or rank."""
    return card // SUITS % RANKS if kind == RANKS else card % kind


@njit(nogil=True)
def shuffled_pack(ints, start, cards, kind):
    """Write the values of `cards` cards, a multiple of 52, to ints[start:] in random order."""
    for i in range(cards):
        ints[start + i] = card_value(i, kind)
    shuffle(ints, start, cards)
