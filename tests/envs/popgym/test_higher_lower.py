"""HigherLower: an episode by hand, the best return, options, lockstep with POPGym."""

import pytest
from card_games import check_options, check_whole_packs, dealt, game
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import higher_lower
from minis5.envs.registry import make_single

LEVELS = ["Easy", "Medium", "Hard"]


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


def test_whole_packs_are_dealt_in_ever_new_order():
    check_whole_packs("HigherLowerHard", [12] * 13)


def test_other_options():
    check_options("HigherLowerEasy", {"decks": 2}, length=103, actions=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decks": 0}, r"decks: expected an integer in \[1, 1000\], got 0; .* has decks=1"),
        ({"k": 1}, "k: HigherLowerEasy has no such option; its options are decks"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_single("HigherLowerEasy", **options)


def test_pictures():
    env = game("HigherLowerEasy", higher_lower, [9] * 52)
    assert env.render() == "card 1/52: T"


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    def start(peer, env):
        first, _ = peer.reset()
        env._ints[0, higher_lower.CARDS :] = dealt(peer.deck, peer.deck.ranks_idx)
        return first

    assert set(lockstep("HigherLower" + level, start)) == {(True, False)}
