"""MultiarmedBandit: find out which of some slot machines pay most often, and play those.

At the start each of the `arms` arms gets a probability, uniform in [0, 1), that lasts for the
episode. The action is an arm; it pays with its probability. The observation is 1 if it paid,
otherwise 0, and 0 at the start; the reward is plus or minus 1 / episode_length accordingly. The
observation does not name the arm: an agent needs its previous action as well. The episode is
truncated at step `episode_length`, never terminated.

POPGym's quirks, kept: an arm that does not pay costs as much as one that pays earns, although
POPGym's docstring says that it earns nothing. POPGym's `info` tells the probabilities; here only
the state has them.

Probabilities are multiples of 2^-24 as POPGym's (float32), and so are the numbers drawn to compare
with them: an arm pays with exactly its probability. POPGym draws a float64, which NumPy 2 rounds to
float32 for the comparison: the chances differ by less than 2^-24.

Source: POPGym 1.0.7, popgym/envs/multiarmed_bandit.py (Morad et al., ICLR 2023).
Tests: tests/envs/popgym/test_multiarmed_bandit.py, by hand and in lockstep with popgym.
"""

from typing import NamedTuple

from gymnasium.spaces import Discrete
from numba import njit

from minis5.checks import check_integer
from minis5.envs.task import Range, Task
from minis5.random import GENERATOR_SIZE, next_bits

LEVELS = {
    "MultiarmedBanditEasy": {"arms": 10, "episode_length": 200},
    "MultiarmedBanditMedium": {"arms": 20, "episode_length": 400},
    "MultiarmedBanditHard": {"arms": 30, "episode_length": 600},
}
STEPS = GENERATOR_SIZE  # ints[STEPS]: arms played; floats: the arms' probabilities
PAID = STEPS + 1  # ints[PAID]: 1 if the last arm paid, the observation


class Params(NamedTuple):
    arms: int
    episode_length: int


def configure(arms, episode_length):
    """Return the task for `arms` arms and episodes of `episode_length` steps."""
    arms = check_integer("arms", arms, 1, 10_000, "MultiarmedBanditEasy has arms=10")
    episode_length = check_integer(
        "episode_length",
        episode_length,
        1,
        2**31 - 1,
        "MultiarmedBanditEasy has episode_length=200",
    )
    return Task(
        params=Params(arms, episode_length),
        ints=PAID + 1,
        floats=arms,
        observation_space=Discrete(2),
        action_space=Discrete(arms),
        episode_length=episode_length,
        worst_return=-1.0,
        best_return=1.0,
        ranges=(
            Range("ints", STEPS, PAID, 0, episode_length - 1),
            Range("ints", PAID, PAID + 1, 0, 1),
            Range("floats", 0, arms, 0.0, 1.0),
        ),
    )


@njit(nogil=True)
def next_fraction(ints):
    """Draw a multiple of 2^-24 in [0, 1): exact in float32 and float64."""
    return (next_bits(ints) >> 8) * 2.0**-24


@njit(nogil=True)
def reset(params, ints, floats):
    ints[STEPS], ints[PAID] = 0, 0
    for arm in range(params.arms):
        floats[arm] = next_fraction(ints)


@njit(nogil=True)
def step(params, ints, floats, action):
    paid = next_fraction(ints) < floats[action]
    ints[PAID] = paid
    ints[STEPS] += 1
    reward = 1.0 / params.episode_length
    return reward if paid else -reward, False, ints[STEPS] == params.episode_length


@njit(nogil=True)
def observe(params, ints, floats, out):
    out[0] = ints[PAID]


def render(params, ints, floats):
    last = ("no payout", "payout")[ints[PAID]] if ints[STEPS] else "not played yet"
    probabilities = " ".join(f"{probability:.2f}" for probability in floats)
    return f"step {ints[STEPS]}/{params.episode_length}: {last}\narms: {probabilities}"
