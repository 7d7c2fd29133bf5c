"""The card games by hand: worked episodes, what a player with a memory earns, options, pictures.

Lockstep with POPGym is in test_popgym_cards.py, what holds for all environments in test_envs.py.
"""

import numpy as np
import pytest

from minis5.envs.popgym import autoencode, concentration, count_recall, higher_lower, repeat_first
from minis5.envs.popgym.deck import KINDS, SYMBOLS
from minis5.envs.registry import REGISTRY, find, make_single

SUITS_IN_ORDER = [i % 4 for i in range(52)]


def game(name, module, cards, **options):
    """A game of `name` with these cards, in the order in which they are dealt."""
    env = make_single(name, render_mode="ansi", **options)
    env.reset(seed=0)
    env._ints[0, module.CARDS :] = cards
    return env


def play(env, player):
    """Return, number of steps and the way an episode ends with the actions `player(observations so far)`."""
    seen, total, flags = [env.reset(seed=3)[0]], 0.0, [False, False]
    while not any(flags):
        obs, reward, *flags, _ = env.step(player(seen))
        seen.append(obs)
        total += reward
    return total, len(seen) - 1, flags


def close(step, observation, reward, terminated=False, truncated=False):
    obs, *rest, _ = step
    return np.array_equal(obs, observation) and rest == [
        pytest.approx(reward, abs=1e-15),
        terminated,
        truncated,
    ]


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


def test_higher_lower_by_hand():
    env = game("HigherLowerEasy", higher_lower, [5, 9, 9, 0, 12] + [i // 4 for i in range(47)])
    higher, lower, unit = 0, 1, 1 / 52
    assert env.step(higher)[:4] == (9, unit, False, False)
    assert env.step(lower)[:4] == (9, 0.0, False, False)  # a tie
    assert env.step(higher)[:4] == (0, -unit, False, False)
    assert env.step(lower)[:4] == (12, -unit, False, False)
    assert env.step(lower)[:4] == (0, unit, False, False)
    for i in range(1, 46):
        reward = unit if i % 4 == 0 else 0.0
        assert env.step(higher)[:4] == (i // 4, reward, False, False)
    assert env.step(higher)[:4] == (11, 0.0, True, False)


def test_higher_lower_returns_less_than_one_without_any_mistake():
    env = game("HigherLowerEasy", higher_lower, list(range(13)) * 4)
    rewards = [env.step(1 if t % 13 == 12 else 0)[1] for t in range(51)]
    assert sum(rewards) == pytest.approx(51 / 52) == env.task.best_return == -env.task.worst_return


def test_repeat_first_by_hand():
    env = game("RepeatFirstEasy", repeat_first, [2, *SUITS_IN_ORDER[:2], *SUITS_IN_ORDER[3:]])
    assert env.step(2)[:4] == (0, 1 / 51, False, False)
    assert env.step(0)[:4] == (1, -1 / 51, False, False)  # the card before, not the first one
    for suit in SUITS_IN_ORDER[3:51]:
        assert env.step(2)[:4] == (suit, 1 / 51, False, False)
    assert env.step(2)[:4] == (3, 1 / 51, True, False)


def rows_of_pairs():
    """Concentration with a known layout: places 0 1 2 3 hold aces (0), 4 5 6 7 twos (1), and so on."""
    return game("ConcentrationHard", concentration, [place // 4 for place in range(52)])


def showing(**places):
    """An observation with these places up: p8=2 shows value 2 at place 8."""
    row = np.full(52, 13)
    for place, value in places.items():
        row[int(place[1:])] = value
    return row


def test_concentration_by_hand():
    env = rows_of_pairs()
    lost, won = -1 / 104, 1 / 26
    assert close(env.step(0), showing(p0=0), 0)
    assert close(env.step(4), showing(p0=0, p4=1), 2 * lost)  # a mismatch is seen once
    assert close(env.step(4), showing(p4=1), 0)
    assert close(env.step(4), showing(p4=1), 2 * lost)  # the same card twice is none
    assert close(env.step(8), showing(p8=2), 0)
    assert close(env.step(9), showing(p8=2, p9=2), won)
    up = {"p8": 2, "p9": 2}
    assert close(env.step(8), showing(**up), lost)  # already up, as first card: a turn of one step
    assert close(env.step(51), showing(**up, p51=12), 0)
    # already up, as second: the first is turned down
    assert close(env.step(9), showing(**up, p51=12), 2 * lost)
    assert close(env.step(9), showing(**up), lost)
    assert close(env.step(50), showing(**up, p50=12), 0)
    assert close(env.step(10), showing(**up, p50=12, p10=2), 2 * lost)
    assert close(env.step(51), showing(**up, p51=12), 0)
    assert close(env.step(50), showing(**up, p50=12, p51=12), won)
    rest = [place for place in range(48) if place not in (8, 9)]
    for step, place in enumerate([*rest, 48, 49]):
        obs, reward, terminated, truncated, _ = env.step(place)
        assert reward == (won if step % 2 else 0) and terminated == (place == 49) and not truncated
    assert np.array_equal(obs, [place // 4 for place in range(52)])


def test_concentration_ends_at_twice_the_number_of_cards():
    env = rows_of_pairs()
    steps = [env.step(7)[1:4] for _ in range(104)]
    assert [ended for _, *ended in steps] == [[False, False]] * 103 + [[False, True]]
    assert sum(reward for reward, *_ in steps) == pytest.approx(-1) == env.task.worst_return


def test_concentration_may_be_won_with_the_last_step():
    env = rows_of_pairs()
    steps = [env.step(place)[1:4] for place in [7] * 52 + list(range(52))]
    assert [ended for _, *ended in steps] == [[False, False]] * 103 + [[True, True]]
    assert sum(reward for reward, *_ in steps) == pytest.approx(0.5)


@pytest.mark.parametrize("actions", [[0], [0, 4], [0, 1], [0, 0], [0, 1, 0], [0, 1, 5, 0]])
def test_concentration_begins_anew_face_down(actions):
    env = rows_of_pairs()
    for action in actions:
        env.step(action)
    assert (env.reset()[0] == 13).all()
    assert np.bincount(env._ints[0, concentration.CARDS :]).tolist() == [4] * 13
    assert env.render().startswith("step 0/104, 0 cards matched\n? ?")
    assert (
        env._ints[0, concentration.FIRST]
        == env._ints[0, concentration.SECOND]
        == concentration.NOWHERE
    )
    for action in (3, 3):
        assert np.flatnonzero(env.step(action)[0] != 13).tolist() == [3]
    assert env.step(4)[1] == 0  # the first of a turn


def recite(seen):
    """Autoencode's player: free actions while watching, then the suits seen, backwards."""
    watched = [suit for mode, suit in seen if mode == 1]
    watched += [seen[len(watched)][1]] if len(seen) > len(watched) else []
    return watched[len(watched) * 2 - 1 - len(seen)] if seen[-1][0] == 0 else 0


def count(seen):
    """CountRecall's player."""
    return sum(value == seen[-1][1] for value, _ in seen)


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
@pytest.mark.parametrize(
    ("name", "player"),
    [("Autoencode", recite), ("CountRecall", count), ("RepeatFirst", lambda seen: seen[0])],
)
def test_a_player_with_a_memory_returns_one(name, player, level):
    env = make_single(name + level)
    total, *_ = play(env, lambda seen: (player(seen) + 1) % env.action_space.n)
    assert (total, env.task.worst_return) == (pytest.approx(-1), -1)
    total, steps, flags = play(env, player)
    assert (total, env.task.best_return) == (pytest.approx(1), 1)
    assert (steps, flags) == (env.task.episode_length, [True, False])


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
def test_a_player_with_a_memory_matches_all_cards(level):
    env = make_single("Concentration" + level)
    cards = env.task.params.cards
    env.reset(seed=3)  # the episode that `play` begins
    order = np.argsort(env._ints[0, concentration.CARDS :])
    total, steps, flags = play(env, lambda seen: order[len(seen) - 1])
    assert (total, env.task.best_return) == (pytest.approx(1), 1)
    assert (steps, flags) == (cards, [True, False])


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("AutoencodeMedium", [26] * 4),
        ("HigherLowerHard", [12] * 13),
        ("RepeatFirstEasy", [13] * 4),
        ("CountRecallEasy", [52] * 2),
        ("CountRecallMedium", [52] * 4),
        ("CountRecallHard", [32] * 13),
        ("ConcentrationMedium", [52] * 2),
    ],
)
def test_whole_packs_are_dealt_in_ever_new_order(name, counts):
    env, module = make_single(name), find(name)[0]
    env.reset(seed=0)
    orders = []
    for _ in range(20):
        env.reset()
        orders.append(tuple(env._ints[0, module.CARDS :]))
        assert np.bincount(orders[-1]).tolist() == counts
    assert len(set(orders)) == 20


def test_values_and_queries_are_shuffled_apart():
    env = make_single("CountRecallHard")
    env.reset(seed=0)
    values, queries = env._ints[0, count_recall.CARDS :].reshape(2, -1)
    assert 4 < np.sum(values == queries) < 40  # 208 / 13 = 16 on average


@pytest.mark.parametrize(
    ("name", "options", "length", "actions"),
    [
        ("AutoencodeEasy", {"decks": 4}, 415, 4),
        ("CountRecallEasy", {"decks": 3, "deck_type": "ranks"}, 155, 13),
        ("CountRecallHard", {"deck_type": "colors"}, 207, 105),
        ("HigherLowerEasy", {"decks": 2}, 103, 2),
        ("RepeatFirstEasy", {"decks": 2}, 103, 4),
        ("ConcentrationEasy", {"decks": 2, "deck_type": "ranks"}, 208, 104),
    ],
)
def test_other_options(name, options, length, actions):
    env = make_single(name, **options)
    assert (env.task.episode_length, env.action_space.n) == (length, actions)
    env.action_space.seed(0)
    total, steps, _ = play(env, lambda seen: env.action_space.sample())
    assert steps == length and -1 <= total <= 1


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        *[(game, {"decks": 0}, r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1")
          for game in ("AutoencodeEasy", "CountRecallEasy", "HigherLowerEasy", "RepeatFirstEasy", "ConcentrationEasy")],
        ("CountRecallEasy", {"deck_type": "hearts"}, "deck_type: expected one of 'colors', 'suits', 'ranks', got 'hearts'"),
        ("ConcentrationEasy", {"deck_type": "suits"}, "deck_type: expected one of 'colors', 'ranks', got 'suits'"),
        ("HigherLowerEasy", {"k": 1}, "k: HigherLowerEasy has no such option; its options are decks"),
    ],
)  # fmt: skip
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_single(name, **options)


def test_no_two_environments_have_params_of_the_same_name_and_fields():
    """Numba tells named tuples apart by these two at first; where they are equal, each call takes 0.3 ms longer."""
    kinds = {type(env.configure(**options).params) for env, options in REGISTRY.values()}
    assert len({(kind.__name__, kind._fields) for kind in kinds}) == len(kinds)


def test_pictures():
    suits = SYMBOLS[KINDS["suits"]]
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
    env = game("RepeatFirstEasy", repeat_first, SUITS_IN_ORDER)
    env.step(0)
    assert env.render() == f"card 2/52: {suits[1]}  asked for: {suits[0]}"
    env = game("HigherLowerEasy", higher_lower, [9] * 52)
    assert env.render() == "card 1/52: T"
    env = game("CountRecallEasy", count_recall, [0, 1] * 52)
    env._ints[0, count_recall.COUNTS : count_recall.COUNTS + 2] = 1, 0
    assert env.render() == "card 1/52: b  how many b: 1"
    env = rows_of_pairs()
    env.step(0)
    env.step(51)
    down = " ".join("?" * 13)
    lines = ["step 2/104, 0 cards matched", "A" + down[1:], down, down, down[:-1] + "K"]
    assert env.render().splitlines() == lines
