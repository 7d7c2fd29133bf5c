"""Evaluation of a trained agent: returns of fresh episodes, without bias.

Each row of a vector environment gives a fixed number of episodes, its first ones: by default one.
(The first N episodes to *end*, in whichever row, would be biased towards short ones.) The
environments' seeds differ from those of training: see FIRST_SEED.

Leaves out: recording. Tests: tests/run/test_evaluate.py, tests/envs/test_meta.py.
"""

import math
import sys
import time
from contextlib import closing, suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from minis5.checks import check_integer
from minis5.envs.registry import make_vec
from minis5.rl.agent import ActorCritic
from minis5.rl.autoreset import DISABLED, NEXT_STEP, SAME_STEP, Door, check_vector, is_native
from minis5.rl.masks import MaskReader, mask_forward
from minis5.run.console import is_terminal, tell
from minis5.spaces import ObservationError

__all__ = ["evaluate", "trial_returns"]

# With seed s, evaluation gives the environments the seed FIRST_SEED + s, training s itself.
FIRST_SEED = 2**30
MAX_ROWS = 256
MAX_STEPS = 1_000_000
NO_END = 50_000  # steps after which an evaluation ends in which no episode has ended
INTERVAL = 10.0  # seconds between lines of progress; in a terminal one line, each second


def evaluate(
    agent: ActorCritic,
    env_id: str | VectorEnv,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    *,
    num_envs: int | None = None,
    step_limit: int | None = None,
    quiet: bool = True,
    **environment: Any,
) -> dict[str, float]:
    """Play `episodes` whole episodes and summarise their returns.

    Parameters
    ----------
    agent : minis5.ActorCritic
        An agent on a GPU is evaluated by a copy on the CPU.
    env_id : str or gymnasium.vector.VectorEnv
        As for `minis5.make_vec`; or a vector environment of your own, wrapped as you like. That is
        reset with a seed, played in and not closed.
    episodes : int
        At least 1.
    seed : int
        In [0, 2**30): which fresh episodes; the same seed and agent give the same result.
    deterministic : bool
        The likeliest action (True) or a sampled one.
    num_envs : int
        Environments that play at the same time. Each plays a fixed share of the episodes, one after
        the other. None: one for each episode, at most MAX_ROWS at once; or a single one if that
        many foreign environments cannot be made. Another number plays other episodes.
    step_limit : int
        Most steps of each environment. Where it is reached, only the episodes that have ended
        count. Their mean is biased: long episodes are missing, and the returns of an environment
        that rewards a long life come out too low, those of one that punishes it too high. None:
        MAX_STEPS, or NO_END if no episode at all has ended by then.
    quiet : bool
        Print no line of progress to stderr.
    **environment
        Keywords of `minis5.make_vec`: env_options and wrappers as in training, or a native level's
        options by name.

    Returns
    -------
    dict
        mean_return, std_return, min_return, max_return (float; NaN if no episode has ended),
        episodes (int, those that have ended) and unfinished (int, those that have not).

    Raises
    ------
    ValueError
        An argument out of range, or an environment whose spaces differ from the agent's; an id, if
        the agent was trained in a batch behind wrappers that change what it sees or does.
    """
    if isinstance(env_id, str):
        check_behind(agent, env_id)
    if step_limit is not None:
        remedy = "leave it out for the default"
        step_limit = check_integer("step_limit", step_limit, 1, 2**62, remedy)
    line, returns, limit = _Line(episodes, quiet), [], step_limit or MAX_STEPS
    begin = None if isinstance(env_id, str) else FIRST_SEED + seed
    with closing(_batches(env_id, episodes, seed, num_envs, environment)) as batches:
        for envs, shares, rng in batches:
            running = np.zeros(envs.num_envs)
            for step in play(agent.to("cpu"), envs, shares, deterministic, rng, begin):
                running += np.where(step.counts, step.reward, 0.0)
                for i in np.flatnonzero(step.counts & step.done):
                    returns.append((line.first + i, running[i]))
                    running[i] = 0.0
                line.show(len(returns))
                given_up = step_limit is None and step.number >= NO_END and not returns
                if step.number >= limit or given_up:
                    break
            line.first += envs.num_envs
            if given_up:
                break
    line.close()
    ordered = sorted(returns, key=lambda pair: pair[0])  # stable: by row, then by time
    return _summary([total for _, total in ordered], episodes)


def check_behind(agent: ActorCritic, env_id: str) -> None:
    """Raise ValueError if the agent was trained behind wrappers that an id does not have."""
    if agent.behind:
        raise ValueError(
            f"env_id: expected a vector environment behind {' and '.join(agent.behind)}, as the "
            f"agent was trained, got the id {env_id!r}; pass that environment itself, or train "
            "with AgentConfig(normalize_observations=True) instead of a wrapper"
        )


def _summary(returns, episodes):
    names, figures = ("mean", "std", "min", "max"), [math.nan] * 4
    if returns:
        array = np.array(returns)
        figures = [float(f(array)) for f in (np.mean, np.std, np.min, np.max)]
    summary: dict[str, Any] = {f"{name}_return": f for name, f in zip(names, figures, strict=True)}
    return {**summary, "episodes": len(returns), "unfinished": episodes - len(returns)}


def json_figures(figures: dict[str, Any]) -> dict[str, Any]:
    """Return figures, such as the result of `evaluate`, as JSON has them: None instead of NaN."""
    return {name: None if value != value else value for name, value in figures.items()}


def result_text(summary: dict[str, Any]) -> str:
    """Say in one line what an evaluation found; `summary` may have None instead of NaN."""
    episodes, unfinished = summary["episodes"], summary.get("unfinished", 0)
    if not episodes:
        return f"none of {unfinished} episodes ended; set max_episode_steps, a time limit"
    text = (
        f"mean return {summary['mean_return']:.3f} ± {summary['std_return']:.3f} over {episodes} "
    )
    text += "fresh episodes"
    return f"{text} ({unfinished} more had not ended)" if unfinished else text


class _Line:
    """Say now and then, on stderr, how far an evaluation is."""

    def __init__(self, episodes, quiet):
        self.episodes, self.quiet, self.first, self.steps = episodes, quiet, 0, 0
        self.shown, self.live = time.monotonic(), False

    def show(self, ended):
        self.steps += 1
        if self.quiet or self.steps % 16:
            return
        terminal, now = is_terminal(), time.monotonic()
        if now - self.shown < (INTERVAL / 10 if terminal else INTERVAL):
            return
        self.shown = now
        hint = "" if ended else "; --eval-steps ends this"
        text = f"evaluation: {ended} of {self.episodes} episodes after {self.steps:,} steps{hint}"
        if not terminal:
            tell(text)
            return
        self.live = True
        with suppress(OSError, ValueError):  # the terminal may go at any time
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def close(self):
        if self.live:
            tell("")


def trial_returns(
    agent: ActorCritic,
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = False,
    **environment: Any,
) -> np.ndarray:
    """Play whole episodes of an environment with trials; return the return of every trial.

    Parameters
    ----------
    agent, env_id, episodes, seed, deterministic, **environment
        As for `evaluate`. The options include ``trials`` (minis5/envs/meta.py). An episode may have
        another number of trials than in training.

    Returns
    -------
    (episodes, trials) float64

    Raises
    ------
    ValueError
        As `evaluate`, or an environment without trials.
    """
    trials = {**(environment.get("env_options") or {}), **environment}.get("trials")
    if trials is None:
        raise ValueError("trials: expected the number in an episode, got none; pass trials=16")
    parts = []
    for envs, shares, rng in _batches(env_id, episodes, seed, None, environment):
        if not is_native(envs):
            wanted = "one of minis5's own environments, without wrappers"
            raise ValueError(f"env_id: expected {wanted}, got {env_id!r}; take evaluate instead")
        table, trial = np.zeros((envs.num_envs, trials)), envs.view("trial")
        rows = np.arange(envs.num_envs)
        for step in play(agent.to("cpu"), envs, shares, deterministic, rng, None):
            np.add.at(table, (rows, trial), np.where(step.counts, step.reward, 0.0))
            trial = envs.view("trial")
            if step.number == MAX_STEPS and step.left.any():
                raise ValueError(
                    f"environment: an episode did not end within {MAX_STEPS} steps; "
                    "give it a time limit"
                )
        parts.append(table)
    return np.concatenate(parts)


def check_seed(seed: int) -> None:
    """Raise ValueError unless training and evaluation take `seed`: an integer in [0, 2**30)."""
    whole = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not whole or not 0 <= seed < FIRST_SEED:
        raise ValueError(
            f"seed: expected an integer in [0, {FIRST_SEED}), got {seed}; pass for example 0"
        )


def _batches(env_id, episodes, seed, num_envs, environment):
    """Yield (environments, number of episodes of each row, generator) until all are played.

    The generator samples the actions of all batches.
    """
    episodes = check_integer("episodes", episodes, 1, 2**31, "pass for example 100")
    check_seed(seed)
    rng = np.random.default_rng([FIRST_SEED, seed])
    if not isinstance(env_id, str):
        if num_envs is not None or environment:
            names = ", ".join((*environment, *["num_envs"] * (num_envs is not None)))
            raise ValueError(f"{names}: expected none with environments of your own; leave it out")
        check_vector(env_id, "env_id")
        yield env_id, _shares(episodes, env_id.num_envs), rng
        return
    if num_envs is not None:
        remedy = "leave it out for one for each episode"
        num_envs = min(check_integer("num_envs", num_envs, 1, 2**31, remedy), episodes)
    first = 0
    while first < episodes:
        wanted = num_envs or min(episodes - first, MAX_ROWS)
        envs = _make(env_id, wanted, seed, first, num_envs is None, environment)
        one_each = num_envs is None and envs.num_envs == wanted
        share = np.ones(wanted, int) if one_each else _shares(episodes - first, envs.num_envs)
        try:
            yield envs, share, rng
        finally:
            envs.close()
        first += int(share.sum())


def _make(env_id, rows, seed, first, may_be_one, environment):
    """Return so many environments, or one if there cannot be more."""
    try:
        return make_vec(env_id, rows, FIRST_SEED + seed, first_index=first, **environment)
    except Exception as error:
        if not may_be_one or rows == 1:
            raise
        try:
            envs = make_vec(env_id, 1, FIRST_SEED + seed, first_index=first, **environment)
        except Exception:
            raise error from None
        why = " ".join(str(error).split())
        tell(f"evaluation: {rows} environments cannot be made at once ({why}); one plays alone")
        return envs


def _shares(episodes, rows):
    """Return how many episodes each row plays; the first rows play one more if it does not fit."""
    return episodes // rows + (np.arange(rows) < episodes % rows)


class Step(NamedTuple):
    """One step of all rows; every array is (B,)."""

    number: int  # from 1
    reward: np.ndarray
    counts: np.ndarray  # bool: it belongs to an episode that counts
    done: np.ndarray  # bool: it ended an episode
    left: np.ndarray  # episodes that the row has still to end


def play(agent, envs, shares, deterministic, rng, seed):
    """Play whole episodes in the rows of a vector environment; yield a Step for each step.

    Parameters
    ----------
    agent : ActorCritic
        On the CPU.
    envs : gymnasium.vector.VectorEnv
    shares : (B,) int
        How many episodes each row plays, its first ones.
    deterministic : bool
        The likeliest action or a sampled one.
    rng : numpy.random.Generator
        For sampled actions.
    seed : int
        Of the reset; None for environments that have been seeded.

    Raises
    ------
    ValueError
        The spaces of the environments are not the agent's.
    """
    for name in ("observation_space", "action_space"):
        has, wants = getattr(envs, f"single_{name}"), getattr(agent, name)
        if has != wants:
            raise ValueError(
                f"environment: its {name} is {has}, the agent was trained with {wants}; "
                "take the environment and the options of the training"
            )
    door, number = Door(envs), 0
    choose = (
        agent.distribution.mode if deterministic else partial(agent.distribution.sample, rng=rng)
    )
    step, state = agent.stepper(), agent.initial_state(envs.num_envs)
    previous_action = 0.0
    observation, infos = envs.reset() if seed is None else door.begin(seed)
    left, reset = shares.copy(), np.ones(envs.num_envs, bool)
    resetting, ages = np.zeros(envs.num_envs, bool), np.zeros(envs.num_envs, np.int64)
    masks = MaskReader(agent, envs, infos)
    mask = masks.read(infos, reset)
    while True:
        try:
            x = agent.encode(observation, previous_action, reset)
        except ObservationError as error:
            raise error.located(0, None, ages) from None
        dist_params, _, state = step(x, reset, state)
        action = choose(mask_forward(dist_params, mask))
        previous_action = agent.actions.encode(action, agent.dtype)
        outcome = door.step(agent.actions.to_env(action))
        observation, reward, terminated, truncated, infos = outcome
        done, counts, number = terminated | truncated, (left > 0) & ~resetting, number + 1
        left = left - (done & counts)
        yield Step(number, reward, counts, done, left)
        if not left.any():
            return
        ages = np.where(done | resetting, 0, ages + 1)
        reset, resetting = (resetting, done) if door.mode == NEXT_STEP else (done, resetting)
        mask = masks.read(infos, ~done | (door.mode == SAME_STEP))
        if door.mode == DISABLED and done.any():
            observation, infos = door.restart(done)
            mask = masks.read(infos, done, mask)
