"""CountRecall: an episode by hand, a player with a memory, options, lockstep with POPGym."""

import numpy as np
import pytest
from card_games import (
    check_options,
    check_player_returns_one,
    check_whole_packs,
    close,
    dealt,
    game,
)
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import count_recall
from minis5.envs.registry import make_single

LEVELS = ["Easy", "Medium", "Hard"]


def test_count_recall_by_hand():
    values, queries = [0, 0, 1] + [1, 0] * 24 + [1], [1, 0, 1] + [0, 1] * 24 + [0]
    env = game("CountRecallEasy", count_recall, values + queries)
    env._ints[0, count_recall.COUNTS : count_recall.COUNTS + 2] = 1, 0  # the value 0 has been seen
    unit = 1 / 51
    assert close(env.step(0), [0, 0], unit)  # asked for 1: none yet
    assert close(env.step(2), [1, 1], unit)  # asked for 0: the one just seen counts
    assert close(env.step(2), [1, 0], -unit)  # asked for 1: one, not two
    # asked for 0: two; a far miss costs no more than a near one
    assert close(env.step(26), [0, 1], -unit)
    assert close(env.step(2), [1, 0], unit)
    ones = 3
    for t in range(5, 51):
        ones += values[t] == 1 and t > 5
        answer = ones if queries[t] == 1 else t + 1 - ones
        assert close(env.step(answer), [values[t + 1], queries[t + 1]], unit, t == 50)


def count(seen):
    """Count the values seen that equal the one asked for."""
    return sum(value == seen[-1][1] for value, _ in seen)


@pytest.mark.parametrize("level", LEVELS)
def test_a_player_with_a_memory_returns_one(level):
    check_player_returns_one("CountRecall" + level, count)


@pytest.mark.parametrize(
    ("level", "counts"), [("Easy", [52] * 2), ("Medium", [52] * 4), ("Hard", [32] * 13)]
)
def test_whole_packs_are_dealt_in_ever_new_order(level, counts):
    check_whole_packs("CountRecall" + level, counts)


def test_values_and_queries_are_shuffled_apart():
    env = make_single("CountRecallHard")
    env.reset(seed=0)
    values, queries = env._ints[0, count_recall.CARDS :].reshape(2, -1)
    assert 4 < np.sum(values == queries) < 40  # 208 / 13 = 16 on average


@pytest.mark.parametrize(
    ("level", "options", "length", "actions"),
    [
        ("Easy", {"decks": 3, "deck_type": "ranks"}, 155, 13),
        ("Hard", {"deck_type": "colors"}, 207, 105),
    ],
)
def test_other_options(level, options, length, actions):
    check_options("CountRecall" + level, options, length, actions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decks": 0}, r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1"),
        (
            {"deck_type": "hearts"},
            "deck_type: expected one of 'colors', 'suits', 'ranks', got 'hearts'",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_single("CountRecallEasy", **options)


def test_pictures():
    env = game("CountRecallEasy", count_recall, [0, 1] * 52)
    env._ints[0, count_recall.COUNTS : count_recall.COUNTS + 2] = 1, 0
    assert env.render() == "card 1/52: b  how many b: 1"


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
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
        """Count the values on the table itself, and err by one at times."""
        cards, seen = env.task.params.cards, env._ints[0, count_recall.SEEN]
        values, queries = env._ints[0, count_recall.CARDS :].reshape(2, cards)
        count = np.sum(values[:seen] == queries[seen - 1])
        return min(count + (rng.random() < 0.3), env.action_space.n - 1)

    for policy in (None, mostly_right):
        assert set(lockstep("CountRecall" + level, start, policy=policy)) == {(True, False)}
