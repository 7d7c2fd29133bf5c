"""Lockstep: an environment equals itself; another space, reward, flag or observation is told."""

import gymnasium
import numpy as np
import pytest

from minis5.envs.registry import make_single
from minis5.random import next_integer, next_normal, next_uniform
from minis5.verify.lockstep import Replay, lockstep

TASK = "MemoryChain"


class Peer(gymnasium.Wrapper):
    """Our environment, whose step may be changed."""

    def __init__(self, change=lambda *step: step, **options):
        super().__init__(make_single(TASK, **{"memory_length": 4} | options))
        self.change = change

    def step(self, action):
        return (*self.change(*self.env.step(action)[:4]), {})


def start(peer, env):
    return peer.env.observation()  # both were reset with one seed


def play(peer):
    return lockstep(peer, TASK, start, 5, memory_length=4)


def test_an_environment_is_in_lockstep_with_itself():
    assert play(Peer()) == [(True, False)] * 5


WRONG = {
    "reward": lambda obs, reward, *flags: (obs, reward + 1e-9, *flags),
    "terminated, truncated": lambda obs, reward, *flags: (obs, reward, *flags[::-1]),
    "observation": lambda obs, *rest: (obs[::-1], *rest),
}


@pytest.mark.parametrize("word", WRONG)
def test_differences_are_told(word):
    with pytest.raises(AssertionError, match=rf"^{TASK}, episode 0, step \d: {word} "):
        play(Peer(WRONG[word]))


def test_other_spaces_are_told():
    with pytest.raises(AssertionError, match="^observations: Box.*, not Box"):
        play(Peer(num_bits=2))


def test_replay_makes_our_draws():
    row = [7, 0, 0]
    ours, replay = np.array(row), Replay(row)
    assert replay.uniform(-1, 1, 2).tolist() == [2 * next_uniform(ours) - 1 for _ in range(2)]
    assert replay.normal(0, 3, 1).tolist() == [3 * next_normal(ours)]
    assert replay.randrange(2, 12, 2) == 2 + 2 * next_integer(ours, 5)
    assert replay.choice("abc") == "abc"[next_integer(ours, 3)]
