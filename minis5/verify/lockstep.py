"""Native environments in lockstep with others: equal spaces, then equal observations, rewards and
flags at every step.

`start(peer, env)` brings both to the same first state and returns the peer's first observation.
When it is called, env has been reset, and so has the peer, with NumPy's generator. It may write
either one's state into the other, or reset the peer again with a `Replay` of our own random
numbers.

POPGym's cart-poles and pendulums draw starts and noise from a `Replay`. Their sin and cos are
NumPy's, whose last bit may differ from ours, and a balanced pole is unstable: in 600 steps one bit
grows into a metre. So the tests compare them in two ways. As they are, to 1e-6, where nothing has
time to grow: random actions, or policies with the peer set to our state before every step
(`together`). And bit by bit over whole episodes, with our sin and cos lent to the peer
(`OurNumPy`).

Tests: tests/verify/test_lockstep.py; those of POPGym's games in tests/envs/popgym use it.
"""

import numpy as np

from minis5 import elementary
from minis5.envs.registry import make_single
from minis5.random import next_bits, next_integer, next_normal, next_uniform
from minis5.verify.gradients import require

EPISODES = 200


class Replay:
    """A stand-in for a NumPy generator, or the module random, inside a peer.

    It makes the draws that our environment makes from its row.
    """

    def __init__(self, row):
        self.row = np.array(row, np.int64)

    def uniform(self, low, high, size=None):
        return np.array([a + (b - a) * next_uniform(self.row) for a, b in _pairs(low, high, size)])

    def normal(self, loc, scale, size=None):
        return np.array([a + b * next_normal(self.row) for a, b in _pairs(loc, scale, size)])

    def random(self):
        return (next_bits(self.row) >> 8) * 2.0**-24

    def randrange(self, start, stop=None, step=1):
        values = range(start) if stop is None else range(start, stop, step)
        return values[next_integer(self.row, len(values))]

    def choice(self, values):
        return values[next_integer(self.row, len(values))]


def _pairs(a, b, size):
    """Return both parameters for each number of an array of `size`, or of their own shape."""
    return np.broadcast(a, b) if size is None else np.broadcast(np.broadcast_to(a, size), b)


def lockstep(peer, name, start, episodes=EPISODES, policy=None, atol=0.0, **options):
    """Play `episodes` of a peer and of our `name` side by side.

    Actions are random, or those of `policy(env, rng)`; `options` are our level's. Discrete
    observations and flags must be equal, Box observations to `atol`, rewards to `atol` or 1e-12,
    whichever is larger. Return how the episodes ended, a list of (terminated, truncated).
    """
    env = make_single(name, **options)
    ours, theirs = env.observation_space, peer.observation_space
    require(ours == theirs and ours.dtype == theirs.dtype, f"observations: {theirs}, not {ours}")
    ours, theirs = env.action_space, peer.action_space
    require(ours == theirs, f"actions: {theirs}, not {ours}")
    rng = np.random.default_rng(0)
    env.action_space.seed(0)
    ends = []
    for episode in range(episodes):
        env.reset(seed=episode)
        peer.reset(seed=episode)
        peer_obs = start(peer, env)
        _same_observation(env.observation(), peer_obs, atol, f"{name}, episode {episode}, step 0")
        steps, ended = 0, False
        while not ended:
            action = env.action_space.sample() if policy is None else policy(env, rng)
            obs, reward, *flags, info = env.step(action)
            peer_obs, peer_reward, *peer_flags, _ = peer.step(action)
            steps += 1
            where = f"{name}, episode {episode}, step {steps}"
            _same_observation(obs, peer_obs, atol, where)
            error = abs(reward - peer_reward)
            require(error <= max(atol, 1e-12), f"{where}: reward {peer_reward}, not {reward}")
            peer_flags = [bool(flag) for flag in peer_flags]
            require(
                flags == peer_flags, f"{where}: terminated, truncated {peer_flags}, not {flags}"
            )
            ended = any(flags)
        require(steps <= env.task.episode_length, f"{where}: the episode goes on")
        ends.append(tuple(flags))
    return ends


def _same_observation(ours, theirs, atol, where):
    difference = f"{where}: observation {theirs}, not {ours}"
    require(isinstance(ours, tuple) == isinstance(theirs, tuple), difference)
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    require(ours.shape == theirs.shape and (abs(ours - theirs) <= atol).all(), difference)


def start_from_our_numbers(peer, env):
    """Reset a cart-pole or pendulum of POPGym with the numbers that ours draws: a `start`."""
    peer.np_random = Replay([env.get_state()["ints"][0], 0, 0])
    return peer.reset()[0]


class OurNumPy:
    """NumPy with our sine and cosine."""

    def __getattr__(self, name):
        return getattr(np, name)

    def sin(self, x):
        return np.float64(elementary.sin(x))

    def cos(self, x):
        return np.float64(elementary.cos(x))


def together(policy, size):
    """Return `start` and `policy` that set the peer to our state, `size` numbers, at every step."""
    peers = []

    def start_and_keep(peer, env):
        peers.append(peer)
        return start_from_our_numbers(peer, env)

    def set_and_act(env, rng):
        peers[-1].state = env.get_state()["floats"][:size]
        return policy(env, rng)

    return start_and_keep, set_and_act
