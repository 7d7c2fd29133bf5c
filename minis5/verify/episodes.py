"""Play whole episodes of anybody's environment, single or a batch, and keep what was seen.

A batch is played in its own autoreset mode (minis5/rl/autoreset.py): the last observation of an
episode comes from where the mode has it, and a step that only resets is no step of an episode.
Every environment of a batch plays the same number of episodes, so that short ones are not
preferred.

Tests: tests/verify/test_envs.py.
"""

import gymnasium
import numpy as np

from minis5.rl.autoreset import DISABLED, NEXT_STEP, Door
from minis5.spaces import leaves, rebuild, take
from minis5.verify.observers import Trace

BLOCK = 256  # random actions that are drawn at once
PATIENCE = 10  # steps that an episode may be too long before it is given up


class Player:
    """Choose actions in one episode, and keep it as a Trace.

    Parameters
    ----------
    actions : iterator
        Random actions; see `random_actions`.
    observer : Observer or None
        Sees the episode and suggests actions; None: actions are random.
    rng : numpy.random.Generator
    trust : float
        How often a suggestion is followed.
    """

    def __init__(self, actions, observer, rng, trust=0.75):
        self.actions, self.observer, self.rng, self.trust = actions, observer, rng, trust
        self.trace = Trace([], [], [], [], [])

    def begin(self, obs):
        self.trace.observations.append(copied(obs))
        self._ask("begin", obs)

    def _ask(self, method, *arguments):
        """Ask the observer; one that is contradicted suggests nothing any more."""
        try:
            return getattr(self.observer, method)(*arguments) if self.observer else None
        except Exception:  # what the environment shows may be anything
            self.observer = None
            return None

    def act(self):
        wise = None
        if self.observer and self.rng.random() < self.trust:
            wise = self._ask("suggest", self.rng)
        self.trace.actions.append(next(self.actions) if wise is None else wise)
        return self.trace.actions[-1]

    def see(self, obs, reward, terminated, truncated):
        """Note a step; return whether the episode is over."""
        trace = self.trace
        trace.observations.append(copied(obs))
        for values, value in zip(trace[2:], (reward, terminated, truncated), strict=True):
            values.append(value)
        self._ask("step", trace.actions[-1], trace.observations[-1], reward)
        return bool(terminated or truncated)


def random_actions(space, rng):
    """Yield uniform actions of a bounded space for ever, drawn from a generator of ours."""
    while True:
        many = BLOCK, *space.shape
        if isinstance(space, gymnasium.spaces.Box):
            yield from rng.uniform(space.low, space.high, many).astype(space.dtype)
        elif isinstance(space, gymnasium.spaces.MultiDiscrete):
            yield from rng.integers(0, space.nvec, many)
        else:
            yield from rng.integers(space.start, space.start + space.n, many).tolist()


def copied(obs):
    """Return a copy of an observation."""
    if isinstance(obs, np.ndarray):
        return obs.copy()
    return rebuild(obs, (np.array(leaf) for leaf in leaves(obs)))


def episodes(env, count, player, limit, seed=None):
    """Play `count` episodes or a few more.

    Parameters
    ----------
    env : gymnasium.Env or gymnasium.vector.VectorEnv
    count : int
    player : function
        Returns a new Player; called once for every episode.
    limit : int
        Steps after which an episode is given up, without flags.
    seed : int or None
        Of the first reset; later episodes go on from there.

    Returns
    -------
    list of Trace
    """
    if isinstance(env, gymnasium.vector.VectorEnv):
        return _batch(env, -(-count // env.num_envs), player, limit, seed)
    traces = []
    for episode in range(count):
        one, over = player(), False
        obs, _ = _pair(env.reset(seed=seed) if episode == 0 else env.reset())
        one.begin(obs)
        while not over and len(one.trace.actions) < limit:
            result = env.step(one.act())
            if not isinstance(result, tuple) or len(result) != 5:
                raise AssertionError(f"step: expected five values, got {result!r:.80}")
            over = one.see(*result[:4])
        traces.append(one.trace)
    return traces


def _pair(result):
    if not isinstance(result, tuple) or len(result) != 2:
        raise AssertionError(f"reset: expected (observation, info), got {result!r:.80}")
    return result


def _batch(env, rounds, player, limit, seed):
    """Play `rounds` episodes in each environment of a batch."""
    door, B = Door(env), env.num_envs
    obs, _ = door.begin(0 if seed is None else seed)
    players = [player() for _ in range(B)]
    traces: list = [[] for _ in range(B)]
    for i, one in enumerate(players):
        one.begin(single(obs, i))
    resetting = np.zeros(B, bool)
    while any(len(mine) < rounds for mine in traces):
        stacked = np.stack([
            next(one.actions) if waits else one.act()
            for one, waits in zip(players, resetting, strict=True)
        ])  # fmt: skip
        obs, rewards, terminated, truncated, infos = door.step(stacked)
        done = terminated | truncated
        ended = np.flatnonzero(done)
        last = door.final_observations(obs, infos, ended) if ended.size else None
        begun = resetting.copy()
        for i, one in enumerate(players):
            if not resetting[i]:
                seen = single(last, np.searchsorted(ended, i)) if done[i] else single(obs, i)
                one.see(seen, rewards[i], terminated[i], truncated[i])
                if not done[i] and len(one.trace.actions) >= limit:
                    return [trace for mine in traces for trace in mine] + [one.trace]
        if door.mode == DISABLED and done.any():
            obs, _ = door.restart(done)
        begun = begun if door.mode == NEXT_STEP else done
        for i in np.flatnonzero(done):
            traces[i].append(players[i].trace)
            players[i] = player()
        for i in np.flatnonzero(begun):
            players[i].begin(single(obs, i))
        resetting = done if door.mode == NEXT_STEP else np.zeros(B, bool)
    return [trace for mine in traces for trace in mine[:rounds]]


def single(batch, i):
    """Return observation i of a batch as its own; a Tuple of Discrete has integers."""
    return take(batch, i)
