"""The card games in lockstep with POPGym's."""

import numpy as np
import pytest
from lockstep import lockstep

from minis5.envs.popgym import (
    autoencode,
    concentration,
    count_recall,
    higher_lower,
    repeat_first,
    repeat_previous,
)
from minis5.envs.popgym.deck import KINDS, card_value

LEVELS = ["Easy", "Medium", "Hard"]


def dealt(deck, values):
    """A deck's values in the order in which its cards are dealt: from the end."""
    return values[deck.idx[::-1]]


def test_cards_of_the_pack():
    deck = pytest.importorskip("popgym.core.deck").Deck(3)
    for name, kind in KINDS.items():
        np.testing.assert_array_equal(
            [card_value(i, kind) for i in range(3 * 52)], getattr(deck, name + "_idx")
        )


@pytest.mark.parametrize("level", LEVELS)
def test_repeat_previous(level):
    def start(peer, env):
        env._ints[0, repeat_previous.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return peer.deck.suits_idx[peer.deck.idx[-1]]

    def mostly_right(env, rng):
        seen, k = env._ints[0, repeat_previous.SEEN], env.task.params.k
        known = seen >= k and rng.random() < 0.6
        return env._ints[0, repeat_previous.CARDS + seen - k] if known else rng.integers(4)

    for policy in (None, mostly_right):
        assert set(lockstep("RepeatPrevious" + level, start, policy=policy)) == {(True, False)}


@pytest.mark.parametrize("level", LEVELS)
def test_repeat_first(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, repeat_first.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return first

    assert set(lockstep("RepeatFirst" + level, start)) == {(True, False)}


@pytest.mark.parametrize("level", LEVELS)
def test_autoencode(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, autoencode.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return first

    assert set(lockstep("Autoencode" + level, start)) == {(True, False)}


@pytest.mark.parametrize("level", LEVELS)
def test_higher_lower(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, higher_lower.CARDS :] = dealt(peer.deck, peer.deck.ranks_idx)
        return first

    assert set(lockstep("HigherLower" + level, start)) == {(True, False)}


@pytest.mark.parametrize("level", LEVELS)
def test_count_recall(level):
    def start(peer, env):
        first, _ = peer.reset()
        row = env._ints[0]
        values, queries = (
            dealt(deck, peer.deck_idx_type) for deck in (peer.value_deck, peer.query_deck)
        )
        row[count_recall.CARDS :] = np.concatenate([values, queries])
        row[count_recall.COUNTS : count_recall.CARDS] = np.bincount(values[:1], minlength=13)
        return first

    def mostly_right(env, rng):
        """Counts the values on the table itself, and errs by one at times."""
        cards, seen = env.task.params.cards, env._ints[0, count_recall.SEEN]
        values, queries = env._ints[0, count_recall.CARDS :].reshape(2, cards)
        count = np.sum(values[:seen] == queries[seen - 1])
        return min(count + (rng.random() < 0.3), env.action_space.n - 1)

    for policy in (None, mostly_right):
        assert set(lockstep("CountRecall" + level, start, policy=policy)) == {(True, False)}


def start_concentration(peer, env):
    first, _ = peer.reset()
    env._ints[0, concentration.CARDS :] = peer.state
    return first


def table(env):
    """What a cheat needs: all values, the places not yet matched, and the place turned up in this turn or None."""
    row, kind = env._ints[0], env.task.params.kind
    cards, first, second = (
        row[concentration.CARDS :],
        row[concentration.FIRST],
        row[concentration.SECOND],
    )
    unmatched = cards < kind
    unmatched[[place for place in (first, second) if place >= 0]] = True
    return cards % kind, unmatched, first if first >= 0 and second < 0 else None


def matching(env, rng):
    """Any card first, then one that is equal."""
    values, unmatched, first = table(env)
    if first is not None:
        unmatched = unmatched & (values == values[first])
        unmatched[first] = False
    return rng.choice(np.flatnonzero(unmatched))


def matching_at_the_last_moment(env, rng):
    """The same place again and again, until there are as many steps left as cards."""
    return matching(env, rng) if env._ints[0, concentration.STEPS] >= env.task.params.cards else 5


def clumsy(env, rng):
    """A match mostly; sometimes a card that is up already, the same one twice, or any."""
    _, unmatched, first = table(env)
    whim = rng.random()
    if whim < 0.15 and not unmatched.all():
        return rng.choice(np.flatnonzero(~unmatched))
    if whim < 0.3 and first is not None:
        return first
    return rng.integers(len(unmatched)) if whim < 0.4 else matching(env, rng)


@pytest.mark.parametrize("level", LEVELS)
def test_concentration(level):
    name = "Concentration" + level
    assert (False, True) in lockstep(name, start_concentration)
    assert (False, True) in lockstep(name, start_concentration, episodes=100, policy=clumsy)
    assert set(lockstep(name, start_concentration, episodes=25, policy=matching)) == {(True, False)}
    assert set(
        lockstep(name, start_concentration, episodes=25, policy=matching_at_the_last_moment)
    ) == {(True, True)}
