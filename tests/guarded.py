"""An environment whose illegal actions raise an error, with its masks offered in every way."""

import gymnasium as gym
import numpy as np

LENGTHS = (3, 7)  # of episodes


class Guarded(gym.Env):
    """Which actions are legal follows from the observation (time, phase); a wrong one is an error.

    Parameters
    ----------
    space : gymnasium.Space
        Of the actions.
    offer : {"info", "method", "nothing"}
        How the masks are given.
    form : callable
        What is done with a mask, a bool vector, before it is given.
    truncate : bool
        The end of an episode is a truncation.
    """

    observation_space = gym.spaces.Box(0, 100, (2,), np.float32)

    def __init__(self, space=None, offer="info", form=np.asarray, truncate=False):
        self.action_space = gym.spaces.Discrete(6) if space is None else space
        self.offer, self.form, self.truncate = offer, form, truncate
        if offer == "method":
            self.action_masks = lambda: self.form(self.mask())

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(*LENGTHS, endpoint=True))
        self.phase = int(self.np_random.integers(3))
        return self.observe(), self.info()

    def observe(self):
        return np.array([self.t, self.phase], np.float32)

    def mask(self):
        """Return what is legal: nothing where the episode has ended."""
        if self.t >= self.length:
            return np.zeros(sum(sizes(self.action_space)), bool)
        return legal(self.action_space, self.t, self.phase)

    def info(self):
        return {"action_mask": self.form(self.mask())} if self.offer == "info" else {}

    def step(self, action):
        begin = 0
        start = np.ravel(getattr(self.action_space, "start", getattr(self.action_space, "low", 0)))
        for size, chosen in zip(sizes(self.action_space), np.ravel(action) - start, strict=True):
            if not self.mask()[begin : begin + size][chosen]:
                raise RuntimeError(f"illegal action {action} at time {self.t}")
            begin += size
        self.t += 1
        ended = self.t >= self.length
        end = (False, ended) if self.truncate else (ended, False)
        return self.observe(), float(self.phase), *end, self.info()


def sizes(space):
    """Return how many values each number of an action has."""
    if isinstance(space, gym.spaces.Discrete):
        return [space.n]
    if isinstance(space, gym.spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    if isinstance(space, gym.spaces.Box):
        return np.ravel(space.high - space.low + 1).tolist()
    return np.ravel(space.nvec).tolist()


def legal(space, t, phase):
    """Return the mask of an observation: every third value is illegal, but never all of them."""
    parts = []
    for size in sizes(space):
        part = (np.arange(size) + int(t) + int(phase)) % 3 != 0
        part[int(t) % size] = True
        parts.append(part)
    return np.concatenate(parts)


gym.register("Guarded-v0", Guarded)
