"""Help for the tests of card games: known cards, whole episodes, checks that games share."""

import numpy as np
import pytest

from minis5.envs.registry import find, make_single

SUITS_IN_ORDER = [i % 4 for i in range(52)]


def game(name, module, cards, **options):
    """Return a game of `name` with these cards, in the order in which they are dealt."""
    env = make_single(name, render_mode="ansi", **options)
    env.reset(seed=0)
    env._ints[0, module.CARDS :] = cards
    return env


def play(env, player):
    """Play an episode with the actions `player(observations so far)`.

    Return the sum of rewards, the number of steps and the last flags.
    """
    seen, total, flags = [env.reset(seed=3)[0]], 0.0, [False, False]
    while not any(flags):
        obs, reward, *flags, _ = env.step(player(seen))
        seen.append(obs)
        total += reward
    return total, len(seen) - 1, flags


def close(step, observation, reward, terminated=False, truncated=False):
    """Tell whether a step returned this observation, this reward to rounding and these flags."""
    obs, *rest, _ = step
    return np.array_equal(obs, observation) and rest == [
        pytest.approx(reward, abs=1e-15),
        terminated,
        truncated,
    ]


def dealt(deck, values):
    """Return the values of POPGym's `deck` as its cards are dealt: from the end."""
    return values[deck.idx[::-1]]


def check_player_returns_one(name, player):
    """A player with a memory earns 1; one that always gives another answer earns -1."""
    env = make_single(name)
    total, *_ = play(env, lambda seen: (player(seen) + 1) % env.action_space.n)
    assert (total, env.task.worst_return) == (pytest.approx(-1), -1)
    total, steps, flags = play(env, player)
    assert (total, env.task.best_return) == (pytest.approx(1), 1)
    assert (steps, flags) == (env.task.episode_length, [True, False])


def check_whole_packs(name, counts):
    """Every episode deals whole packs, with `counts` cards of each value, in another order."""
    env, module = make_single(name), find(name)[0]
    env.reset(seed=0)
    orders = []
    for _ in range(20):
        env.reset()
        orders.append(tuple(env._ints[0, module.CARDS :]))
        assert np.bincount(orders[-1]).tolist() == counts
    assert len(set(orders)) == 20


def check_options(name, options, length, actions):
    """With other options an episode has `length` steps, an agent `actions` choices."""
    env = make_single(name, **options)
    assert (env.task.episode_length, env.action_space.n) == (length, actions)
    env.action_space.seed(0)
    total, steps, _ = play(env, lambda seen: env.action_space.sample())
    assert steps == length and -1 <= total <= 1
