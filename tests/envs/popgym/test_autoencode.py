"""Autoencode: an episode by hand, a player with a memory, options, lockstep with POPGym."""

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

from minis5.envs.popgym import autoencode
from minis5.envs.registry import make_single

LEVELS = ["Easy", "Medium", "Hard"]


def test_autoencode_by_hand():
    env = game("AutoencodeEasy", autoencode, [3, 1, *SUITS_IN_ORDER[2:50], 2, 0])
    shown = [1, *SUITS_IN_ORDER[2:50], 2]
    for card in shown:
        # watching: mode 1, any action is free
        assert env.step(0)[:4] == ((1, card), 0.0, False, False)
    assert env.step(0)[:4] == ((0, 0), 0.0, False, False)  # the last card, 0, comes with mode 0
    assert env.step(0)[:4] == ((0, 0), 1 / 52, False, False)  # and is the first to be named
    assert env.step(1)[:4] == ((0, 0), -1 / 52, False, False)  # 2 was right
    for card in SUITS_IN_ORDER[49:1:-1]:
        assert env.step(card)[:4] == ((0, 0), 1 / 52, False, False)
    assert env.step(1)[:4] == ((0, 0), 1 / 52, False, False)
    assert env.step(3)[:4] == ((0, 0), 1 / 52, True, False)


def recite(seen):
    """Watch first, with any actions; then name the suits seen, backwards."""
    watched = [suit for mode, suit in seen if mode == 1]
    watched += [seen[len(watched)][1]] if len(seen) > len(watched) else []
    return watched[len(watched) * 2 - 1 - len(seen)] if seen[-1][0] == 0 else 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_player_with_a_memory_returns_one(level):
    check_player_returns_one("Autoencode" + level, recite)


def test_whole_packs_are_dealt_in_ever_new_order():
    check_whole_packs("AutoencodeMedium", [26] * 4)


def test_other_options():
    check_options("AutoencodeEasy", {"decks": 4}, length=415, actions=4)


def test_bad_options():
    with pytest.raises(
        ValueError, match=r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1"
    ):
        make_single("AutoencodeEasy", **{"decks": 0})


def test_pictures():
    env = game("AutoencodeEasy", autoencode, SUITS_IN_ORDER)
    assert env.render() == "card 1/52: ♠"
    for _ in range(51):
        env.step(0)
    assert env.render() == "card 52/52: ♥  asked for: ♥"
    env.step(0)
    assert env.render() == "1/52 named  asked for: ♣"
    for _ in range(51):
        env.step(0)
    assert env.render() == "52/52 named  asked for: nothing"


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, autoencode.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return first

    assert set(lockstep("Autoencode" + level, start)) == {(True, False)}
