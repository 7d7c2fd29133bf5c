"""NativeEnv: calls that are refused. test_all_levels.py compares its episodes with a batch's."""

import gymnasium
import numpy as np
import pytest

from minis5.envs.registry import make_single


@pytest.mark.parametrize("action", [2, -1, 0.5, np.nan, None, np.zeros(1, int)])
def test_bad_single_actions(action):
    env = make_single("MemoryChain-5")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: expected a member of Discrete\(2\), got"):
        env.step(action)


def test_step_without_an_episode():
    env = make_single("MemoryChain-1")
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=0)
    assert env.step(0)[2]
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_bad_seed_of_reset():
    with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
        make_single("MemoryChain-5").reset(seed=-1)


def test_bad_render_mode():
    with pytest.raises(ValueError, match="render_mode: expected None or 'ansi', got 'human'"):
        make_single("MemoryChain", render_mode="human")
