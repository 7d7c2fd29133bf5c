"""Projections, trials and mixtures of any environments: wrappers of gymnasium.Env in NumPy.

They do for any environments what meta.py and mixture.py do for native ones.

    RandomProjection(Trials(gymnasium.make("CartPole-v1"), 16), 12, 2)    projected, 16 trials
    TaskMixture([lambda: RandomProjection(...), lambda: ...])             2303.03982, Algorithm 1
    gymnasium.vector.SyncVectorEnv([make] * 64), AsyncVectorEnv           batches

All three draw from a generator row of minis5/random.py, which `reset(seed=s)` begins anew and other
resets go on with. The matrices come from the same function as the native ones: the first episode's
are those of a native environment of that seed and stream.

Differs from native environments: the state of foreign environments cannot be set, so Trials resets
them with the episode's own seed. Random events within a trial (noise, say) are then the same in all
trials, whereas native ones draw new ones.
Leaves out: permuted actions, a limited number of projections.
Tests: tests/envs/foreign/test_wrappers.py.
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import RecordConstructorArgs

from minis5.checks import check_integer
from minis5.envs.meta import MOST, draw_matrix, with_reward_and_end
from minis5.random import MASK, next_bits, next_integer, seed_to_key
from minis5.spaces import ObservationEncoder

__all__ = ["RandomProjection", "Trials", "TaskMixture"]

# By default RandomProjection draws from stream 0.
TRIALS_STREAM, MIXTURE_STREAM = MASK, MASK - 1


class _Stream:
    """A generator row that begins with `reset(seed=...)`."""

    def __init__(self, stream):
        self.row = np.array([0, stream, 0], np.int64)
        self._seeded = False

    def seed(self, seed, np_random):
        """Begin anew with a `seed`, an int, or with one of `np_random` if there never was one."""
        if seed is not None or not self._seeded:
            self.row[0] = seed_to_key(int(np_random.integers(2**32)) if seed is None else seed)
            self.row[2] = 0
            self._seeded = True


class RandomProjection(gymnasium.Wrapper, RecordConstructorArgs):
    """Observations and actions through matrices that are drawn anew for every episode.

    The observation, float32, has two numbers more: the last reward, and 1 if the last step ended an
    episode of `env` or a trial of Trials within. Both are 0 at an episode's start.

    Parameters
    ----------
    env : gymnasium.Env
        Its observations must be such as minis5.spaces.ObservationEncoder takes. Actions that are to
        be projected are a Box of floats (clipped to its bounds after projection) or Discrete (the
        largest component counts).
    observation_size, action_size : int
        Numbers in a projected observation and action; 0 leaves observations flattened only, and
        actions as they are.
    stream : int
        Of the generator, as of environment number `stream` of a native vector environment.

    Attributes
    ----------
    observation_matrix : float64 (observation_size, |o|), or None
        The episode's M_o; entries are normal with variance 1 / observation_size.
    action_matrix : float64 (actions, action_size), or None
        The episode's M_a; entries are normal with variance 1 / action_size.
    """

    def __init__(self, env, observation_size=12, action_size=2, *, stream=0):
        RecordConstructorArgs.__init__(
            self, observation_size=observation_size, action_size=action_size, stream=stream
        )
        super().__init__(env)
        remedy = "0 does not project"
        observed = check_integer("observation_size", observation_size, 0, MOST, remedy)
        acted = check_integer("action_size", action_size, 0, MOST, remedy)
        self._stream = _Stream(check_integer("stream", stream, 0, MASK, "leave it out"))
        self._encoder, space = ObservationEncoder(env.observation_space), env.action_space
        self._discrete = isinstance(space, Discrete)
        floats = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
        if acted and not self._discrete and not floats:
            raise ValueError(
                f"action_size: expected 0 or actions in a Box of floats or Discrete, got {space}; "
                "pass action_size=0"
            )
        actions = int(space.n) if self._discrete else int(np.prod(space.shape))
        self.observation_matrix = np.zeros((observed, self._encoder.size)) if observed else None
        self.action_matrix = np.zeros((actions, acted)) if acted else None
        if acted:
            self.action_space = Box(-1, 1, (acted,))
        self.observation_space = with_reward_and_end(
            *(np.full(observed or self._encoder.size, x) for x in (-np.inf, np.inf))
        )

    def reset(self, *, seed=None, options=None):
        """Begin an episode, with new matrices; ``seed``, ``options`` as in gymnasium.Env.reset."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._stream.seed(seed, self.np_random)
        for matrix, n in ((self.observation_matrix, 0), (self.action_matrix, 1)):
            if matrix is not None:
                draw_matrix(self._stream.row, matrix.reshape(-1), 0, matrix.size, matrix.shape[n])
        return self._projected(observation, 0.0, False), info

    def step(self, action):
        """Take one step with ``action``, (action_size,) in [-1, 1] if actions are projected.

        Raises
        ------
        ValueError
            `action` is projected and has another shape, or numbers outside [-1, 1].
        """
        if self.action_matrix is not None:
            action = self._environment_action(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        ended = terminated or truncated or info.get("trial_ended", False)
        return self._projected(observation, reward, ended), reward, terminated, truncated, info

    def _projected(self, observation, reward, ended):
        flat = self._encoder.observation_vector(observation)
        if self.observation_matrix is not None:
            flat = self.observation_matrix @ flat
        return np.append(flat, [reward, ended]).astype(np.float32)

    def _environment_action(self, action):
        given, space = np.asarray(action), self.env.action_space
        if given.shape != self.action_space.shape or not (abs(given) <= 1).all():
            raise ValueError(
                f"action: expected a member of {self.action_space}, got {action!r}; "
                "sample() shows one"
            )
        projected = self.action_matrix @ given
        if self._discrete:
            return space.start + projected.argmax()
        return projected.reshape(space.shape).clip(space.low, space.high).astype(space.dtype)


class Trials(gymnasium.Wrapper, RecordConstructorArgs):
    """Several trials an episode, all from the same initial state.

    Each trial resets `env` with the episode's seed. Only the end of the last trial ends the
    episode. The step that ends a trial returns the next one's first observation, and
    info["trial_ended"] is true.

    Parameters
    ----------
    env : gymnasium.Env
        Any whose `reset(seed=...)` repeats the initial state.
    trials : int
        Trials in an episode, at least 1.

    Attributes
    ----------
    trial : int
        Number of the present trial, from 0. A step's info has that of the trial to which the step
        belongs.
    trial_return : float
        Its return so far; a step's info has it too.
    """

    def __init__(self, env, trials):
        RecordConstructorArgs.__init__(self, trials=trials)
        super().__init__(env)
        self.trials = check_integer(
            "trials", trials, 1, 2**31 - 1, "trials=1 plays one trial an episode"
        )
        self._stream = _Stream(TRIALS_STREAM)
        self.trial, self.trial_return = 0, 0.0
        self._again = {}

    def reset(self, *, seed=None, options=None):
        """Begin an episode, and its first trial.

        ``seed`` is that of the episode, ``options`` hold for all of its trials.
        """
        self._stream.seed(seed, self.np_random)
        self._again = {"seed": int(next_bits(self._stream.row)), "options": options}
        self.trial, self.trial_return = 0, 0.0
        return self.env.reset(**self._again)

    def step(self, action):
        """Take one step with ``action``; what ends a trial ends the episode after the last one.

        ``info`` has trial (the number, from 0), trial_return (so far) and trial_ended.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.trial_return += float(reward)
        ended = terminated or truncated
        info = {
            **info,
            "trial": self.trial,
            "trial_return": self.trial_return,
            "trial_ended": ended,
        }
        if ended and self.trial < self.trials - 1:
            observation, _ = self.env.reset(**self._again)
            self.trial, self.trial_return = self.trial + 1, 0.0
            terminated = truncated = False
        return observation, reward, terminated, truncated, info


class TaskMixture(gymnasium.Env):
    """One of several environments, drawn uniformly and anew for every episode.

    Parameters
    ----------
    factories : list of callables
        Each makes an environment. They must agree in their spaces, as RandomProjection's do for
        equal sizes. The first is called at once, for its spaces; any other when it is first drawn.

    Attributes
    ----------
    task : int
        Number of the episode's environment; reset's info has it as well.
    env : gymnasium.Env
        The episode's environment.

    Raises
    ------
    ValueError
        There is no factory; or, in a reset, an environment's spaces differ from the first one's.
    """

    def __init__(self, factories):
        self._factories = list(factories)
        if not self._factories or not all(map(callable, self._factories)):
            raise ValueError(
                "factories: expected functions that make an environment each, at least one, "
                f"got {factories!r}"
            )
        self._stream, self._envs, self.task = _Stream(MIXTURE_STREAM), {}, 0
        self._envs[0] = self.env = self._factories[0]()
        self.observation_space = self.env.observation_space
        self.action_space = self.env.action_space
        self.metadata, self.render_mode = self.env.metadata, self.env.render_mode

    def reset(self, *, seed=None, options=None):
        """Draw an environment with ``seed``; reset it with a seed that is drawn as well.

        ``options`` go to the environment that was drawn.
        """
        super().reset(seed=seed)
        self._stream.seed(seed, self.np_random)
        self.task = int(next_integer(self._stream.row, len(self._factories)))
        env_seed = int(next_bits(self._stream.row))
        if self.task not in self._envs:
            self._envs[self.task] = self._made(self.task)
        self.env = self._envs[self.task]
        observation, info = self.env.reset(seed=env_seed, options=options)
        return observation, {**info, "task": self.task}

    def _made(self, task):
        env = self._factories[task]()
        for name in ("observation_space", "action_space"):
            if getattr(env, name) != getattr(self, name):
                raise ValueError(
                    f"factories: expected the {name} {getattr(self, name)} of task 0, "
                    f"got {getattr(env, name)} of task {task}; "
                    "wrap each environment in RandomProjection with the same sizes"
                )
        return env

    def step(self, action):
        """Take one step with ``action`` in the episode's environment."""
        return self.env.step(action)

    def render(self):
        """Return what the episode's environment renders."""
        return self.env.render()

    def close(self):
        """Close all environments."""
        for env in self._envs.values():
            env.close()
