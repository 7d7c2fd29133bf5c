"""How a vector environment begins and ends episodes, and whether what it returns agrees with that.

Gymnasium's vector environments have three autoreset modes. They differ in an episode's last
observation o:
    SAME_STEP   o comes in infos["final_obs"]; the observation returned begins the next episode
    NEXT_STEP   o is returned; the next step only resets
    DISABLED    o is returned; whoever steps the environments resets those that ended

An environment that says one mode and does another would be learnt from with flags that are one step
off. So a missing mode is an error, and so is whatever contradicts the mode. minis5's own batches
have been checked by tests, and are not checked again here.

Tests: tests/rl/test_autoreset.py.
"""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import (
    AutoresetMode,
    VectorActionWrapper,
    VectorObservationWrapper,
    VectorWrapper,
)

from minis5.seeds import episode_seeds, reset_with_seeds
from minis5.spaces import leaves, take

SAME_STEP, NEXT_STEP, DISABLED = (
    AutoresetMode.SAME_STEP,
    AutoresetMode.NEXT_STEP,
    AutoresetMode.DISABLED,
)
TEXTS = {text: mode for mode in AutoresetMode for text in (mode.name, mode.value)}
PARTS = ("num_envs", "single_observation_space", "single_action_space", "reset", "step")
OLD_NAMES = ("final_observation", "terminal_observation")  # before Gymnasium 1.0


def is_native(envs: Any) -> bool:
    """Return whether these are minis5's own environments (which have get_state and set_state)."""
    return getattr(envs, "native", False)


def check_vector(envs: Any, name: str = "envs") -> None:
    """Raise ValueError unless this is a vector environment, or is built like one."""
    if not all(hasattr(envs, part) for part in PARTS):
        remedy = "put one into gymnasium.vector.SyncVectorEnv([make]), or take minis5.make_vec"
        raise ValueError(f"{name}: expected a gymnasium.vector.VectorEnv, got {envs!r}; {remedy}")


def changing_wrappers(envs: Any) -> tuple[str, ...]:
    """Return the names of the wrappers around a batch that change observations or actions.

    An agent that learns behind them can act only behind them, with the numbers that they have
    gathered (those of NormalizeObservation, for example). Outermost first.
    """
    names = []
    while isinstance(envs, VectorWrapper):
        if isinstance(envs, VectorObservationWrapper | VectorActionWrapper):
            names.append(type(envs).__name__)
        envs = envs.env
    return tuple(names)


def autoreset_mode(envs: Any) -> AutoresetMode:
    """Return the mode that a vector environment says it has, also by name ("NextStep").

    Raises
    ------
    ValueError
        It says none, or an unknown one.
    """
    mode = (getattr(envs, "metadata", None) or {}).get("autoreset_mode")
    if isinstance(mode, AutoresetMode):
        return mode
    if isinstance(mode, str) and mode in TEXTS:
        return TEXTS[mode]
    raise ValueError(
        "autoreset_mode: expected SAME_STEP, NEXT_STEP or DISABLED in the environment's metadata, "
        f"got {'none' if mode is None else repr(mode)}; set metadata = {{'autoreset_mode': "
        "gymnasium.vector.AutoresetMode.SAME_STEP} if the step that ends an episode returns the "
        "next one's first observation, NEXT_STEP if the step after it does, DISABLED if reset must "
        "be called"
    )


def check_rewards(rewards, first_index=0):
    """Raise ValueError unless the rewards (T, B) of a rollout are finite in the agent's dtype."""
    finite = np.isfinite(rewards)
    if not finite.all():
        t, i = np.argwhere(~finite)[0]
        raise ValueError(
            f"reward: expected a finite number within {rewards.dtype}, got {rewards[t, i]} "
            f"(environment {first_index + i}, step {t} of the rollout); correct the environment"
        )


class Door:
    """A vector environment, whose returned values are compared with its mode and its spaces.

    Parameters
    ----------
    envs : gymnasium.vector.VectorEnv

    Attributes
    ----------
    mode : AutoresetMode

    Raises
    ------
    ValueError
        The environment says no mode.
    """

    def __init__(self, envs):
        check_vector(envs)
        self.envs, self.mode = envs, autoreset_mode(envs)
        self.space, self.count = envs.single_observation_space, envs.num_envs
        self._ended = np.zeros(self.count, bool)  # in the step before
        self._ages, self._first = np.zeros(self.count, np.int64), 0  # steps of each one's episode
        # of the class, because a wrapper's instance would answer for what is within it
        if is_native(envs) or getattr(type(envs), "checked", False):
            self.step = envs.step

    def begin(self, seed, first_index=0):
        """Reset all; native streams know their numbers, every other gets a seed of its own."""
        self._ended[:], self._ages[:], self._first = False, 0, first_index
        if is_native(self.envs):
            return self.envs.reset(seed=seed)
        seeds = episode_seeds(seed, first_index, self.count)
        return self._pair(reset_with_seeds(self.envs, seeds))

    def restart(self, ended):
        """Begin anew where ``ended`` (B,), in mode DISABLED."""
        self._ended[:], self._ages[ended] = False, 0
        return self._pair(self.envs.reset(options={"reset_mask": ended}))

    def _pair(self, result):
        if not isinstance(result, tuple) or len(result) != 2:
            got = f"{type(result).__name__}"
            raise ValueError(f"reset: expected (observations, infos), got {got}; return both")
        self._check_batch(*result)
        return result

    def _check_batch(self, obs, infos):
        sizes = {np.shape(leaf)[:1] for leaf in leaves(obs)}
        if sizes != {(self.count,)}:
            got = ", ".join(str(np.shape(leaf)) for leaf in leaves(obs))
            expected = f"a batch of {self.count}, got arrays of shapes {got}"
            raise ValueError(f"observations: expected {expected}; put the environments first")
        if not isinstance(infos, Mapping):
            got = type(infos).__name__
            raise ValueError(f"infos: expected a dict of arrays, got {got}; see gymnasium.vector")

    def step(self, actions):
        """Step, and return observations, rewards, terminated, truncated (arrays) and infos.

        Raises
        ------
        ValueError
            A value has a wrong shape or type, or contradicts the mode.
        """
        result = self.envs.step(actions)
        if not isinstance(result, tuple) or len(result) != 5:
            expected = "(observations, rewards, terminated, truncated, infos)"
            raise ValueError(f"step: expected {expected}, got {type(result).__name__}; return five")
        obs, rewards, terminated, truncated, infos = result
        rewards = self._row("rewards", rewards, "biuf")
        terminated = self._row("terminated", terminated, "biu").astype(bool, copy=False)
        truncated = self._row("truncated", truncated, "biu").astype(bool, copy=False)
        done = terminated | truncated
        self._check_batch(obs, infos)
        self._ages += 1
        if self.mode == NEXT_STEP and (again := done & self._ended).any():
            raise self._contradiction(
                f"an episode that ends in environment {np.flatnonzero(again)[0]} in the step that "
                "should only have reset it"
            )
        if done.any():
            self._check_end(obs, done, infos)
        if not np.isfinite(rewards).all():
            i = np.flatnonzero(~np.isfinite(rewards))[0]
            place = f"environment {self._first + i}, step {self._ages[i]} of its episode"
            expected = f"a finite number, got {rewards[i]} ({place})"
            raise ValueError(f"reward: expected {expected}; correct the environment")
        self._ages[done if self.mode == SAME_STEP else self._ended] = 0
        self._ended = done
        return obs, rewards, terminated, truncated, infos

    def _row(self, name, values, kinds):
        array = np.asarray(values)
        if array.shape != (self.count,) or array.dtype.kind not in kinds:
            expected = f"{'numbers' if 'f' in kinds else 'booleans'} ({self.count},)"
            got = f"{array.dtype} {array.shape}"
            raise ValueError(f"{name}: expected {expected}, got {got}; one for each environment")
        return array

    def _contradiction(self, got):
        expected = {
            SAME_STEP: "the last observations in infos['final_obs']",
            NEXT_STEP: "the last observations to be returned, and a step that only resets",
            DISABLED: "the last observations to be returned, and nothing to begin by itself",
        }[self.mode]
        return ValueError(
            f"autoreset_mode: expected {expected} as the mode {self.mode.name} says, got {got}; "
            "correct metadata['autoreset_mode'] or the environment"
        )

    def _check_end(self, obs, done, infos):
        final = infos.get("final_obs")
        if self.mode != SAME_STEP:
            if final is not None or any(infos.get(name) is not None for name in OLD_NAMES):
                raise self._contradiction("some in infos['final_obs']")
            return
        if final is None:
            old = [name for name in OLD_NAMES if name in infos]
            raise self._contradiction(f"infos[{old[0]!r}]" if old else "none there")
        mask = infos.get("_final_obs")
        if mask is None:
            return
        mask = np.asarray(mask)
        if mask.shape != done.shape or mask.dtype != bool or (done & ~mask).any():
            expected = "bool (B,), true where an episode ended"
            raise ValueError(
                f"infos['_final_obs']: expected {expected}: {done}, got {mask}; set it so"
            )

    def final_observations(self, obs, infos, rows):
        """Return the last observations of the episodes that ended in ``rows``, as a batch.

        Parameters
        ----------
        obs : batch of observations
            What the step returned.
        infos : dict
        rows : int (N,)

        Raises
        ------
        ValueError
            An observation is missing or misshapen, or the new episode has overwritten it.
        """
        if self.mode != SAME_STEP:
            return take(obs, rows)
        final = infos["final_obs"]
        if is_native(self.envs):
            return take(final, rows)
        if isinstance(final, list) or (isinstance(final, np.ndarray) and final.dtype == object):
            return self._stacked(final, rows)
        sizes = {np.shape(leaf)[:1] for leaf in leaves(final)}
        if sizes != {(self.count,)}:
            expected = f"a batch of {self.count} as the observations are, or an array of objects"
            got = f"leading sizes {sorted(sizes)}"
            raise ValueError(f"infos['final_obs']: expected {expected}, got {got}; pad it")
        pairs = zip(leaves(final), leaves(obs), strict=False)
        if any(np.may_share_memory(one, other) for one, other in pairs):
            raise self._overwritten("the observations returned")
        return take(final, rows)

    def _stacked(self, final, rows):
        """Return a batch of single observations, which are objects in an array or a list."""
        if len(final) != self.count:
            got = f"{len(final)} of them"
            raise ValueError(
                f"infos['final_obs']: expected {self.count}, None where nothing ended, got {got}; "
                "pad it"
            )
        items = [final[i] for i in rows]
        # SyncVectorEnv keeps each environment's latest observation there
        latest = getattr(getattr(self.envs, "unwrapped", None), "_env_obs", None)
        for i, item in zip(rows, items, strict=True):
            if item is None:
                raise self._contradiction(f"none there of environment {i}")
            new = [] if latest is None or latest[i] is None else leaves(latest[i])
            for one, other in zip(leaves(item), new, strict=False):
                arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
                if arrays and np.may_share_memory(one, other):
                    raise self._overwritten(f"environment {i}'s own array")
        out = gym.vector.utils.create_empty_array(self.space, n=len(items))
        try:
            return gym.vector.utils.concatenate(self.space, items, out)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise ValueError(
                f"infos['final_obs']: expected observations of {self.space}, got others ({error}); "
                "correct the environment"
            ) from error

    def _overwritten(self, what):
        return ValueError(
            f"infos['final_obs']: expected copies, got {what}, where the next episode's first "
            "observation is now; return a copy from step, or use minis5.make_vec, which copies"
        )
