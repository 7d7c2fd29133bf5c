"""RepeatFirst: an episode by hand, a player with a memory, options, lockstep with POPGym."""

import pytest
from card_games import (
    SUITS_IN_ORDER,
    check_options,
    check_player_returns_one,
    check_whole_packs,
    dealt,
    game,
)
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import repeat_first
from minis5.envs.popgym.deck import KINDS, SYMBOLS
from minis5.envs.registry import make_single

LEVELS = ["Easy", "Medium", "Hard"]


def test_repeat_first_by_hand():
    env = game("RepeatFirstEasy", repeat_first, [2, *SUITS_IN_ORDER[:2], *SUITS_IN_ORDER[3:]])
    assert env.step(2)[:4] == (0, 1 / 51, False, False)
    assert env.step(0)[:4] == (1, -1 / 51, False, False)  # the card before, not the first one
    for suit in SUITS_IN_ORDER[3:51]:
        assert env.step(2)[:4] == (suit, 1 / 51, False, False)
    assert env.step(2)[:4] == (3, 1 / 51, True, False)


@pytest.mark.parametrize("level", LEVELS)
def test_a_player_with_a_memory_returns_one(level):
    check_player_returns_one("RepeatFirst" + level, lambda seen: seen[0])


def test_whole_packs_are_dealt_in_ever_new_order():
    check_whole_packs("RepeatFirstEasy", [13] * 4)


def test_other_options():
    check_options("RepeatFirstEasy", {"decks": 2}, length=103, actions=4)


def test_bad_options():
    with pytest.raises(
        ValueError, match=r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1"
    ):
        make_single("RepeatFirstEasy", **{"decks": 0})


def test_pictures():
    suits = SYMBOLS[KINDS["suits"]]
    env = game("RepeatFirstEasy", repeat_first, SUITS_IN_ORDER)
    env.step(0)
    assert env.render() == f"card 2/52: {suits[1]}  asked for: {suits[0]}"


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, repeat_first.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return first

    assert set(lockstep("RepeatFirst" + level, start)) == {(True, False)}
