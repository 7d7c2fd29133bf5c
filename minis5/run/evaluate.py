"""Evaluation of a trained agent: returns of fresh episodes, without bias.

Each row of a vector environment gives one episode, its first, and is ignored afterwards. (The first
N episodes to *end* would be biased towards short ones.) The environments' seeds differ from those
of training: see FIRST_SEED.

Leaves out: recording. Tests: tests/run/test_evaluate.py, tests/envs/test_meta.py.
"""

from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from minis5.envs.registry import make_vec
from minis5.rl.agent import ActorCritic
from minis5.rl.masks import MaskReader, mask_forward
from minis5.rl.rollout import is_native

# With seed s, evaluation gives the environments the seed FIRST_SEED + s, training s itself.
FIRST_SEED = 2**30
MAX_ROWS = 256
MAX_STEPS = 1_000_000


def evaluate(
    agent: ActorCritic,
    env_id: str,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    **environment: Any,
) -> dict[str, float]:
    """Play `episodes` whole episodes and summarise their returns.

    Parameters
    ----------
    agent : minis5.ActorCritic
        An agent on a GPU is evaluated by a copy on the CPU.
    env_id : str
        As for `minis5.make_vec`.
    episodes : int
        At least 1.
    seed : int
        In [0, 2**30): which fresh episodes; the same seed and agent give the same result.
    deterministic : bool
        The likeliest action (True) or a sampled one.
    **environment
        Keywords of `minis5.make_vec`: env_options and wrappers as in training, or a native level's
        options by name.

    Returns
    -------
    dict
        mean_return, std_return, min_return, max_return (float) and episodes (int).

    Raises
    ------
    ValueError
        episodes or seed out of range, or an environment whose spaces differ from the agent's.
    """
    parts = []
    for envs, rng in _batches(env_id, episodes, seed, environment):
        parts.append(
            sum(
                np.where(playing, reward, 0.0)
                for reward, playing in _steps(agent.to("cpu"), envs, deterministic, rng)
            )
        )
    returns = np.concatenate(parts)
    return {
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
        "episodes": episodes,
    }


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
    for envs, rng in _batches(env_id, episodes, seed, environment):
        if not is_native(envs):
            wanted = "one of minis5's own environments, without wrappers"
            raise ValueError(f"env_id: expected {wanted}, got {env_id!r}; take evaluate instead")
        table, trial = np.zeros((envs.num_envs, trials)), envs.view("trial")
        for reward, playing in _steps(agent.to("cpu"), envs, deterministic, rng):
            np.add.at(table, (np.arange(envs.num_envs), trial), np.where(playing, reward, 0.0))
            trial = envs.view("trial")
        parts.append(table)
    return np.concatenate(parts)


def check_seed(seed: int) -> None:
    """Raise ValueError unless training and evaluation take `seed`: an integer in [0, 2**30)."""
    if not 0 <= seed < FIRST_SEED:
        raise ValueError(
            f"seed: expected an integer in [0, {FIRST_SEED}), got {seed}; pass for example 0"
        )


def _batches(env_id, episodes, seed, environment):
    """Yield environments, one row for each episode, at most MAX_ROWS at a time, and one generator.

    The generator samples the actions of all batches.
    """
    if episodes < 1:
        raise ValueError(f"episodes: expected at least 1, got {episodes}; pass for example 100")
    check_seed(seed)
    rng = np.random.default_rng([FIRST_SEED, seed])
    for first in range(0, episodes, MAX_ROWS):
        rows = min(episodes - first, MAX_ROWS)
        envs = make_vec(env_id, rows, FIRST_SEED + seed, first_index=first, **environment)
        try:
            yield envs, rng
        finally:
            envs.close()


def _steps(agent, envs, deterministic, rng):
    """Play the first episode of each row.

    Yields
    ------
    reward : (B,)
        Of this step.
    playing : bool (B,)
        The row's first episode had not ended before this step.
    """
    for name in ("observation_space", "action_space"):
        has, wants = getattr(envs, f"single_{name}"), getattr(agent, name)
        if has != wants:
            raise ValueError(
                f"environment: its {name} is {has}, the agent was trained with {wants}; "
                "take the environment and the options of the training"
            )
    mode = envs.metadata.get("autoreset_mode")
    reset_by_hand, same_step = mode == AutoresetMode.DISABLED, mode == AutoresetMode.SAME_STEP
    choose = (
        agent.distribution.mode if deterministic else partial(agent.distribution.sample, rng=rng)
    )
    step, state = agent.stepper(), agent.initial_state(envs.num_envs)
    previous_action = 0.0
    observation, infos = envs.reset()
    playing = np.ones(envs.num_envs, bool)
    reset = playing.copy()
    masks = MaskReader(agent, envs, infos)
    mask = masks.read(infos, playing)
    for _ in range(MAX_STEPS):
        x = agent.encode(observation, previous_action, reset)
        dist_params, _, state = step(x, reset, state)
        action = choose(mask_forward(dist_params, mask))
        previous_action = agent.distribution.encode(action, agent.dtype)
        observation, reward, terminated, truncated, infos = envs.step(agent.actions.to_env(action))
        yield reward, playing.copy()
        reset = terminated | truncated
        playing &= ~reset
        if not playing.any():
            return
        mask = masks.read(infos, ~reset | same_step)
        if reset_by_hand and reset.any():
            observation, infos = envs.reset(options={"reset_mask": reset})
            mask = masks.read(infos, reset, mask)
    raise ValueError(
        f"environment: an episode did not end within {MAX_STEPS} steps; give it a time limit"
    )
