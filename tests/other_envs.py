"""Environments that others might write: right ones in plain NumPy, and wrong ones, an edit away.

RIGHT: {task: class}. WRONG: rows of (words of the kit, task, function that makes it, options).
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete, MultiDiscrete, Tuple

from minis5.envs.registry import make_single, make_vec


class Cards(gymnasium.Env):
    """A game in which a pack of 52 is dealt; a subclass says what is shown and what it earns."""

    kinds, last, unit, actions = 4, 51, 1 / 51, 4

    def __init__(self):
        self.observation_space, self.action_space = Discrete(self.kinds), Discrete(self.actions)

    def shuffled(self):
        return self.np_random.permutation(np.arange(52) % self.kinds)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.deck, self.t = self.shuffled(), 0
        return self.show(), {}

    def card(self, t):
        return int(self.deck[min(t, 51)])  # as JAX reads past an array's end

    def show(self):
        return self.card(self.t)

    def step(self, action):
        reward = self.judge(action)
        self.t += 1
        return self.show(), reward, self.t == self.last, False, {}

    def judge(self, action):
        return self.unit if action == self.answer() else -self.unit


class RepeatPrevious(Cards):
    k, unit = 4, 1 / 48

    def judge(self, action):
        return super().judge(action) if self.t + 1 >= 4 else 0.0

    def answer(self):
        return self.card(self.t + 1 - self.k)


class RepeatFirst(Cards):
    asked = 0

    def answer(self):
        return self.card(self.asked)


class HigherLower(Cards):
    kinds, actions, unit, tie = 13, 2, 1 / 52, 0.0

    def judge(self, action):
        now, following = self.card(self.t), self.card(self.t + 1)
        return self.tie if now == following else super().judge(action)

    def answer(self):
        return 0 if self.card(self.t + 1) > self.card(self.t) else 1


class CountRecall(Cards):
    kinds, actions, late = 2, 27, 0

    def __init__(self):
        super().__init__()
        self.observation_space = MultiDiscrete([2, 2])

    def reset(self, *, seed=None, options=None):
        gymnasium.Env.reset(self, seed=seed)
        self.queries = self.shuffled()
        return super().reset()

    def show(self):
        return np.array([self.card(self.t), self.queries[min(self.t, 51)]])

    def answer(self):
        return np.sum(self.deck[: self.t + 1 - self.late] == self.queries[min(self.t, 51)])


class Autoencode(Cards):
    last, unit, watching = 103, 1 / 52, 51

    def __init__(self):
        super().__init__()
        self.observation_space = Tuple((Discrete(2), Discrete(4)))

    def show(self):
        return int(self.t < self.watching), self.card(self.t) if self.t < 52 else 0

    def judge(self, action):
        return super().judge(action) if self.t >= 51 else 0.0

    def answer(self):
        return self.deck[max(102 - self.t, 0)]


RIGHT = {
    f"{kind.__name__}Easy": kind
    for kind in (RepeatPrevious, RepeatFirst, HigherLower, CountRecall, Autoencode)
}


def edited(kind, **changes):
    """Return a class with other attributes or methods."""
    return type(kind.__name__, (kind,), changes)


class Changed(gymnasium.Wrapper):
    """A right environment, one of whose returned values is changed."""

    def __init__(self, task, change, **options):
        super().__init__(make_single(task, **options))
        self.change = change

    def step(self, action):
        self.old = getattr(self, "old", None)
        result = self.change(self, *self.env.step(action)[:4])
        return (*result, {})


def changed(task, change, **options):
    return lambda: Changed(task, change, **options)


def with_action(task, change, **options):
    """Return a maker of a right environment, which gets other actions than it is given."""
    return lambda: gymnasium.wrappers.TransformAction(
        make_single(task, **options), change, make_single(task, **options).action_space
    )


class Unseeded(RepeatPrevious):
    def shuffled(self):
        return np.random.default_rng().permutation(np.arange(52) % 4)


class Frozen(RepeatPrevious):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=0 if seed is None else seed)


class EmptyAutoencode(Autoencode):
    """Nothing is shown while watching, and cards are shown while they are asked for."""

    last = 105

    def show(self):
        watching = self.t < self.watching
        return int(watching), 0 if watching else self.card(max(102 - self.t, 0))


class Sweeper(gymnasium.Env):
    """MineSweeper, with a number that leaves out the chosen square itself."""

    observation_space, action_space = Discrete(3), MultiDiscrete([4, 4])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.board = np.zeros((6, 6), int)
        for square in self.np_random.choice(16, 2, replace=False):
            self.board[1 + square // 4, 1 + square % 4] = 1
        self.seen, self.t = set(), 0
        return 0, {}

    def step(self, action):
        i, j = (int(place) + 1 for place in action)
        near = self.board[i - 1 : i + 2, j - 1 : j + 2].sum() - self.board[i, j]
        mine, again = self.board[i, j], (i, j) in self.seen
        self.seen.add((i, j))
        self.t += 1
        reward = -0.5 - 1 / 14 if mine else -0.5 / 12 if again else 1 / 14
        ended = bool(mine) or len(self.seen) == 14
        return near, reward, ended, not ended and self.t == 14, {}


class Restless(gymnasium.Env):
    """MultiarmedBandit, whose arms get new probabilities in every step."""

    observation_space, action_space = Discrete(2), Discrete(10)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return 0, {}

    def step(self, action):
        self.t += 1
        paid = int(self.np_random.random() < self.np_random.random())
        return paid, (2 * paid - 1) / 200, False, self.t == 200, {}


def truncates(env, obs, reward, terminated, truncated):
    return obs, reward, truncated, terminated


def nan_once(env, obs, reward, terminated, truncated):
    return obs, np.nan if terminated else reward, terminated, truncated


def last_reward_lost(env, obs, reward, terminated, truncated):
    return obs, 0.0 if terminated else reward, terminated, truncated


def first_of_next(env, obs, reward, terminated, truncated):
    """The last observation is lost: the next episode's first one comes instead."""
    ended = terminated or truncated
    return env.env.reset()[0] if ended else obs, reward, terminated, truncated


def in_numpy_s_types(env, obs, reward, terminated, truncated):
    """Right: what is returned is of NumPy's types, rewards are float32."""
    return np.int64(obs), np.float32(reward), np.bool_(terminated), np.bool_(truncated)


def free_of_cost(env, obs, reward, terminated, truncated):
    return obs, max(reward, 0.0), terminated, truncated


def times(factor):
    return lambda env, obs, reward, *flags: (obs, reward * factor, *flags)


def shown_late(env, obs, reward, terminated, truncated):
    """Each observation is that of the step before."""
    late, env.old = obs if env.old is None else env.old, obs
    return late, reward, terminated, truncated


class WrongMode:
    """A batch that says NEXT_STEP, and resets in the step that ends an episode."""

    def __new__(cls):
        envs = make_vec("RepeatPreviousEasy", 4)
        envs.native = False
        envs.metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
        return envs


PAST = "an episode has 52 steps instead of 51: it goes on past the deck"
WRONG = [
    # faults of well-known ports of POPGym
    (PAST, "RepeatPreviousEasy", edited(RepeatPrevious, last=52), {}),
    (PAST, "RepeatFirstEasy", edited(RepeatFirst, last=52), {}),
    (PAST, "HigherLowerEasy", edited(HigherLower, last=52), {}),
    (PAST, "CountRecallEasy", edited(CountRecall, last=52), {}),
    (
        "2 actions: a count above 1 cannot be answered",
        "CountRecallEasy",
        edited(CountRecall, actions=2),
        {},
    ),
    ("the task cannot be solved", "AutoencodeEasy", EmptyAutoencode, {}),
    (
        "an episode has 105 steps instead of 103: it goes on past the deck",
        "AutoencodeEasy",
        edited(Autoencode, last=105),
        {},
    ),
    (
        "actions are not projected",
        "PositionOnlyCartPoleEasy",
        lambda: make_single("PositionOnlyCartPoleEasy", project_observation=3),
        {"project_observation": 3, "project_action": 2},
    ),
    # the rules of the games
    ("one step too late", "RepeatPreviousEasy", edited(RepeatPrevious, k=3), {}),
    ("one step too early", "RepeatPreviousEasy", edited(RepeatPrevious, k=5), {}),
    (
        "rewards are multiplied by 0.923077",
        "RepeatPreviousEasy",
        edited(RepeatPrevious, unit=1 / 52),
        {},
    ),
    (
        "what is wrong costs nothing: negative rewards are 0",
        "RepeatFirstEasy",
        changed("RepeatFirstEasy", free_of_cost),
        {},
    ),
    ("the second card", "RepeatFirstEasy", edited(RepeatFirst, asked=1), {}),
    (
        "the card now seen",
        "RepeatFirstEasy",
        edited(RepeatFirst, answer=lambda self: self.card(self.t)),
        {},
    ),
    ("equal ranks are counted as a wrong", "HigherLowerEasy", edited(HigherLower, tie=-1 / 52), {}),
    (
        "the actions are exchanged",
        "HigherLowerEasy",
        edited(HigherLower, answer=lambda self: int(self.card(self.t + 1) > self.card(self.t))),
        {},
    ),
    ("the value now seen is not counted", "CountRecallEasy", edited(CountRecall, late=1), {}),
    (
        "in which they were dealt",
        "AutoencodeEasy",
        edited(Autoencode, answer=lambda self: self.deck[self.t - 51]),
        {},
    ),
    ("the last card is shown with mode 1", "AutoencodeEasy", edited(Autoencode, watching=52), {}),
    (
        "the pack has 13 of each suit",
        "RepeatPreviousEasy",
        edited(RepeatPrevious, shuffled=lambda self: self.np_random.integers(0, 4, 52)),
        {},
    ),
    ("but not itself", "MineSweeperEasy", Sweeper, {}),
    ("tests differ", "MultiarmedBanditEasy", Restless, {}),
    # what a step returns
    ("it is a termination", "RepeatPreviousEasy", changed("RepeatPreviousEasy", truncates), {}),
    ("it is a truncation", "MultiarmedBanditEasy", changed("MultiarmedBanditEasy", truncates), {}),
    ("expected a finite number", "RepeatFirstEasy", changed("RepeatFirstEasy", nan_once), {}),
    ("step 51, action", "RepeatFirstEasy", changed("RepeatFirstEasy", last_reward_lost), {}),
    ("observation 103 ", "AutoencodeEasy", changed("AutoencodeEasy", first_of_next), {}),
    (
        "does not show the card that was turned up",
        "ConcentrationEasy",
        changed("ConcentrationEasy", shown_late),
        {},
    ),
    ("goes on after 61 steps", "RepeatFirstEasy", edited(RepeatFirst, last=99), {}),
    (
        "rewards are multiplied by 200",
        "PositionOnlyCartPoleEasy",
        changed("PositionOnlyCartPoleEasy", times(200)),
        {},
    ),
    (
        "rewards are multiplied by 0.5",
        "LabyrinthEscapeEasy",
        changed("LabyrinthEscapeEasy", times(0.5), episode_length=64),
        {"episode_length": 64},
    ),
    # physics
    (
        "0 pushes to the left",
        "PositionOnlyCartPoleEasy",
        with_action("PositionOnlyCartPoleEasy", lambda a: 1 - a),
        {},
    ),
    (
        "the torque acts in the other direction",
        "PositionOnlyPendulumEasy",
        with_action("PositionOnlyPendulumEasy", lambda a: -a),
        {},
    ),
    (
        "tests differ",
        "NoisyPositionOnlyCartPoleEasy",
        lambda: make_single("NoisyPositionOnlyCartPoleMedium"),
        {},
    ),
    # levels and random numbers
    ("expected Discrete(17)", "CountRecallHard", lambda: make_single("CountRecallEasy"), {}),
    (
        "step 16, action",
        "RepeatPreviousMedium",
        lambda: make_single("RepeatPreviousMedium", k=16),
        {},
    ),
    ("reset(seed=...) does not seed", "RepeatPreviousEasy", Unseeded, {}),
    ("draws nothing new", "RepeatPreviousEasy", Frozen, {}),
    ("autoreset_mode", "RepeatPreviousEasy", WrongMode, {}),
]
