"""Concentration: episodes by hand, POPGym's quirks, options, lockstep with POPGym."""

import numpy as np
import pytest
from card_games import check_options, check_whole_packs, close, game, play
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import concentration
from minis5.envs.registry import make_single

LEVELS = ["Easy", "Medium", "Hard"]


def rows_of_pairs():
    """Return Concentration with aces (0) at the places 0 to 3, twos (1) at 4 to 7, and so on."""
    return game("ConcentrationHard", concentration, [place // 4 for place in range(52)])


def showing(**places):
    """Return an observation with these places up: p8=2 shows value 2 at place 8."""
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


@pytest.mark.parametrize("level", ["Easy", "Medium", "Hard"])
def test_a_player_with_a_memory_matches_all_cards(level):
    env = make_single("Concentration" + level)
    cards = env.task.params.cards
    env.reset(seed=3)  # the episode that `play` begins
    order = np.argsort(env._ints[0, concentration.CARDS :])
    total, steps, flags = play(env, lambda seen: order[len(seen) - 1])
    assert (total, env.task.best_return) == (pytest.approx(1), 1)
    assert (steps, flags) == (cards, [True, False])


def test_whole_packs_are_dealt_in_ever_new_order():
    check_whole_packs("ConcentrationMedium", [52] * 2)


def test_other_options():
    check_options("ConcentrationEasy", {"decks": 2, "deck_type": "ranks"}, length=208, actions=104)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decks": 0}, r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1"),
        ({"deck_type": "suits"}, "deck_type: expected one of 'colors', 'ranks', got 'suits'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_single("ConcentrationEasy", **options)


def test_pictures():
    env = rows_of_pairs()
    env.step(0)
    env.step(51)
    down = " ".join("?" * 13)
    lines = ["step 2/104, 0 cards matched", "A" + down[1:], down, down, down[:-1] + "K"]
    assert env.render().splitlines() == lines


def start_concentration(peer, env):
    first, _ = peer.reset()
    env._ints[0, concentration.CARDS :] = peer.state
    return first


def table(env):
    """Return what a cheat needs: all values, the places not yet matched, and the place turned up.

    The last is that of this turn, or None.
    """
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
    """Turn up any card, then one that is equal."""
    values, unmatched, first = table(env)
    if first is not None:
        unmatched = unmatched & (values == values[first])
        unmatched[first] = False
    return rng.choice(np.flatnonzero(unmatched))


def matching_at_the_last_moment(env, rng):
    """Turn up the same place again and again, until there are as many steps left as cards."""
    return matching(env, rng) if env._ints[0, concentration.STEPS] >= env.task.params.cards else 5


def clumsy(env, rng):
    """Make a match mostly; sometimes take a card that is up already, the same one twice, or any."""
    _, unmatched, first = table(env)
    whim = rng.random()
    if whim < 0.15 and not unmatched.all():
        return rng.choice(np.flatnonzero(~unmatched))
    if whim < 0.3 and first is not None:
        return first
    return rng.integers(len(unmatched)) if whim < 0.4 else matching(env, rng)


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    name = "Concentration" + level
    assert (False, True) in lockstep(name, start_concentration, episodes=50)
    assert (False, True) in lockstep(name, start_concentration, episodes=50, policy=clumsy)
    assert set(lockstep(name, start_concentration, episodes=25, policy=matching)) == {(True, False)}
    assert set(
        lockstep(name, start_concentration, episodes=25, policy=matching_at_the_last_moment)
    ) == {(True, True)}
