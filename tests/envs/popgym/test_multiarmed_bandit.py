"""MultiarmedBandit: an episode by hand, probabilities, options, lockstep with POPGym."""

import numpy as np
import pytest
from board_games import NEVER, chi_square, play
from gymnasium.spaces import Discrete
from popgym_peers import lockstep
from sampling import sampled

from minis5.envs.registry import find, make_single, make_vec
from minis5.random import next_bits
from minis5.verify.lockstep import Replay

LEVELS = ["Easy", "Medium", "Hard"]


def test_bandit_by_hand():
    env = make_single("MultiarmedBanditEasy", arms=3, episode_length=4, render_mode="ansi")
    assert env.reset(seed=7)[0] == 0
    assert env.render().splitlines()[0] == "step 0/4: not played yet"
    env._floats[0] = 1, 0, 0.25
    assert play(env, [0, 1]) == [(1, 1 / 4, False, False), (0, -1 / 4, False, False)]
    # An arm pays if the number drawn, known beforehand, is below its probability; not at it.
    for above in (1, 0):
        drawn = (next_bits(env._ints[0].copy()) >> 8) * 2.0**-24
        env._floats[0, 2] = drawn + above * 2.0**-24
        step = env.step(2)[:4]
        assert step == (above, 1 / 4 if above else -1 / 4, False, not above)
    assert env.render().splitlines()[0] == "step 4/4: no payout"


def test_bandits_keep_their_probabilities_for_an_episode():
    envs = make_vec("MultiarmedBanditEasy", 5, episode_length=3)
    envs.reset()
    arms = [envs.get_state()["floats"]]
    for _ in range(3):
        *_, truncated, infos = envs.step(np.arange(5))
        arms.append(envs.get_state()["floats"])
    assert (
        truncated.all()
        and (arms[0] == arms[1]).all()
        and (arms[0] == arms[2]).all()
        and (arms[0] != arms[3]).all()
    )


@pytest.mark.parametrize(
    ("level", "arms", "length"), [("Easy", 10, 200), ("Medium", 20, 400), ("Hard", 30, 600)]
)
def test_spaces_and_lengths(level, arms, length):
    task = find("MultiarmedBandit" + level)[1]
    assert task.action_space == Discrete(arms) and task.episode_length == length


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arms": 0}, "arms: expected an integer"),
        ({"episode_length": 0.5}, "episode_length: expected an integer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        make_vec("MultiarmedBanditEasy", 1, **options)


@pytest.mark.parametrize("level", sampled(LEVELS))
def test_lockstep_with_popgym(level):
    def same_arms(peer, env):
        peer.bandits = env._floats[0].astype(np.float32)
        assert (peer.bandits == env._floats[0]).all()
        peer.np_random = Replay(env._ints[0])
        return 0

    assert set(lockstep("MultiarmedBandit" + level, same_arms)) == {(False, True)}


def test_arms_pay_as_popgym_s_do():
    envs = make_vec("MultiarmedBanditHard", 4000)
    envs.reset()
    probabilities = envs.get_state()["floats"]
    assert (probabilities == probabilities.astype(np.float32)).all() and (
        probabilities * 2**24 % 1 == 0
    ).all()
    assert chi_square(np.bincount((probabilities * 64).astype(int).ravel(), minlength=64)) > NEVER
    arms = np.arange(4000) % 30
    paid = sum(envs.step(arms)[0] for _ in range(300))
    expected = probabilities[np.arange(4000), arms]
    scores = (paid - 300 * expected) / np.sqrt(300 * expected * (1 - expected) + 1e-9)
    clear = abs(expected - 0.5) < 0.45
    assert abs(scores[clear]).max() < 5.5 and abs(scores[clear].mean()) < 5 / np.sqrt(clear.sum())
