"""What the rules of a task say of an episode, from nothing but what was seen of it.

An `Observer` follows one episode. It knows the level's constants and is told the first observation,
then each action with the observation and the reward that came of it. It answers with the reward
and the flags that the rules give, or raises `Wrong` if an observation contradicts them. It needs
neither the environment's state nor its random numbers, so that it can judge anybody's environment.

What is hidden becomes known as it is seen: a card that was turned up, a square that had a mine.

Tests: tests/verify/test_envs.py.
"""

from collections import Counter
from typing import NamedTuple


class Wrong(AssertionError):
    """An observation that the rules exclude, in one sentence."""


class Expected(NamedTuple):
    """What a step must return; None where the rules leave it open."""

    reward: float | None
    terminated: bool | None = False
    truncated: bool | None = False


class Trace(NamedTuple):
    """One episode as it was played. There is one observation more than steps."""

    observations: list
    actions: list
    rewards: list
    terminated: list
    truncated: list


class Observer:
    """Follow one episode of a task.

    Parameters
    ----------
    params : NamedTuple
        The level's constants, Task.params.
    """

    tolerance = 1e-6  # of a reward: it may have been float32
    # {sentence: predicate(observer class, params, trace)}: well-known ways to get the task wrong
    causes: dict = {}

    def __init__(self, params):
        self.params = params

    def begin(self, obs):
        """See the first observation."""

    def step(self, action, obs, reward):
        """See a step; return what it should have returned, `Expected`."""
        raise NotImplementedError

    @classmethod
    def knows(cls, params):
        """Return whether `suggest` ever suggests something in this level."""
        return True

    def suggest(self, rng):
        """Return an action that an agent with a memory would take, or None for a random one."""
        return None


class Pack:
    """How many cards of each value a pack still has."""

    def __init__(self, cards, kinds, name):
        self.each, self.kinds, self.name, self.dealt = cards // kinds, kinds, name, Counter()

    def deal(self, value):
        """Note a card; raise Wrong if the pack has no such card left."""
        value = int(value)
        self.dealt[value] += 1
        if self.dealt[value] > self.each:
            raise Wrong(f"shows {self.name} {value} for the {self.dealt[value]}th time; {self!r}")

    def __repr__(self):
        return f"the pack has {self.each} of each {self.name}"


def fits(observer, trace):
    """Return whether a trace agrees with an observer's rules in all that they determine."""
    return next(faults(observer, trace), None) is None


def faults(observer, trace):
    """Yield (kind, step, got, expected or a sentence) where a trace contradicts the rules.

    kind: "observation", "reward", "terminated" or "truncated". After an observation that the rules
    exclude, or a wrong end, the rest of the episode is not judged.
    """
    try:
        observer.begin(trace.observations[0])
    except Wrong as wrong:
        yield "observation", 0, trace.observations[0], str(wrong)
        return
    for t, action in enumerate(trace.actions):
        obs, reward = trace.observations[t + 1], trace.rewards[t]
        try:
            expected = observer.step(action, obs, reward)
        except Wrong as wrong:
            yield "observation", t + 1, obs, str(wrong)
            return
        if expected.reward is not None:
            if not abs(reward - expected.reward) <= observer.tolerance:
                yield "reward", t + 1, reward, expected.reward
        ended = False
        for kind in ("terminated", "truncated"):
            flag, rule = getattr(trace, kind)[t], getattr(expected, kind)
            if rule is not None and flag != rule:
                yield kind, t + 1, flag, rule
                ended = True
        if ended or expected.terminated or expected.truncated:
            return
