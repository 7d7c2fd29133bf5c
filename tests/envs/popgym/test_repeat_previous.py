"""RepeatPrevious: an episode worked by hand, lengths and returns, lockstep with POPGym."""

import numpy as np
import pytest
from card_games import dealt
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.popgym import repeat_previous
from minis5.envs.registry import find, make_single

LEVELS = ["Easy", "Medium", "Hard"]


def test_repeat_previous_by_hand():
    env = make_single("RepeatPreviousEasy", k=2)
    first, _ = env.reset(seed=0)
    deck = [0, 1, 1, 3] + [i % 4 for i in range(48)]
    env._ints[0, repeat_previous.CARDS :] = deck
    # One card seen: no answer is due yet. Then, with 0 1 | 0 1 1 | 0 1 1 3 seen, the last card
    # but one is 0, 1, 1.
    unit = 1 / 50
    assert env.step(3)[:4] == (1, 0.0, False, False)
    assert env.step(0)[:4] == (1, unit, False, False)
    assert env.step(0)[:4] == (3, -unit, False, False)
    assert env.step(1)[:4] == (deck[4], unit, False, False)
    for seen in range(5, 51):
        assert env.step(deck[seen - 2])[:4] == (deck[seen], unit, False, False)
    assert env.step(deck[49])[:4] == (deck[51], unit, True, False)


@pytest.mark.parametrize(("level", "cards"), [("Easy", 52), ("Medium", 104), ("Hard", 156)])
def test_repeat_previous_has_cards_minus_one_steps_and_a_best_return_of_one(level, cards):
    env, task = find("RepeatPrevious" + level)
    single = make_single("RepeatPrevious" + level)
    seen, total, steps, ended = [single.reset(seed=1)[0]], 0.0, 0, False
    while not ended:
        k = task.params[1]
        obs, reward, ended, truncated, _ = single.step(seen[-k] if len(seen) >= k else 0)
        seen.append(obs)
        total, steps = total + reward, steps + 1
    assert steps == task.episode_length == cards - 1 and not truncated
    assert abs(total - 1) < 1e-12
    assert np.bincount(seen).tolist() == [cards // 4] * 4  # a whole pack


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    def start(peer, env):
        env._ints[0, repeat_previous.CARDS :] = dealt(peer.deck, peer.deck.suits_idx)
        return peer.deck.suits_idx[peer.deck.idx[-1]]

    def mostly_right(env, rng):
        seen, k = env._ints[0, repeat_previous.SEEN], env.task.params.k
        known = seen >= k and rng.random() < 0.6
        return env._ints[0, repeat_previous.CARDS + seen - k] if known else rng.integers(4)

    for policy in (None, mostly_right):
        assert set(lockstep("RepeatPrevious" + level, start, policy=policy)) == {(True, False)}
