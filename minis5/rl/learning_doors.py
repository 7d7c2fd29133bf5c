"""What may enter the trainer, the loss and Adam: checks in front of `PPO`, `ppo_loss` and the like.

The trainer passes through those of the loss, of `gae` and of Adam again and again. So they look at
shapes and dtypes, not at every number. (On a GPU, to look would mean to wait.)

Leaves out: the distribution's parameters and actions (rows.py).
Tests: tests/rl/test_learning_doors.py.
"""

import sys

import numpy as np
from gymnasium.spaces import Box

from minis5.arrays import array_module, as_array
from minis5.checks import (
    FLOATS,
    check_array,
    check_float_type,
    check_instance,
    check_integer,
    check_number,
    take_array,
)
from minis5.rl.autoreset import check_vector
from minis5.rl.rows import BOOLS, take_parameters, take_shaped

MOST = sys.float_info.max


def check_trainer(agent, envs, config, ranks):
    """Raise ValueError unless these are arguments for PPO on each of so many ranks."""
    check_vector(envs)
    if envs.num_envs * ranks != config.num_envs:
        wanted = f"{config.num_envs // ranks} environments on each of {ranks} ranks"
        raise ValueError(f"num_envs: expected {wanted}, got {envs.num_envs}")
    if envs.num_envs % config.minibatches:
        wanted = f"a divisor of the {envs.num_envs} environments of a rank"
        raise ValueError(f"minibatches: expected {wanted}, got {config.minibatches}")
    if config.reward_groups != "none" and agent.device == "cuda":
        wanted = "none for training on a GPU"
        raise ValueError(
            f"reward_groups: expected {wanted}, got {config.reward_groups!r}; use device='cpu'"
        )
    ours = agent.observation_space, agent.action_space
    theirs = envs.single_observation_space, envs.single_action_space
    if theirs != ours:
        wanted, got = (f"{spaces[0]}, {spaces[1]}" for spaces in (ours, theirs))
        raise ValueError(f"envs: expected the agent's spaces {wanted}, got {got}")
    space = theirs[0]
    flagged = isinstance(space, Box) and (space.low.flat[-1], space.high.flat[-1]) == (0, 1)
    if config.trial_horizon and not (flagged and agent.normalizer is None):
        wanted = "observations whose last number is in [0, 1] and that are not normalised"
        raise ValueError(f"trial_horizon: expected {wanted}, got {space}; pass trials=K too")


def take_batch(width, dist_params, value, batch, count, kind):
    """Return the arguments of ppo_loss, checked against the shape of the parameters.

    width: parameters of one distribution; kind: the class Batch. Actions are left as they are.
    """
    number = str(getattr(getattr(count, "dtype", None), "kind", "")) in ("i", "u", "f")
    scalar = isinstance(count, int | float) or (number and getattr(count, "shape", None) == ())
    if count is not None and not scalar:
        wanted = "a number of steps, or None for those of the batch"
        raise TypeError(f"count: expected {wanted}, got {type(count).__name__}; pass an integer")
    if isinstance(count, int) and abs(count) >= 2**63:
        remedy = "pass the number of valid steps"
        raise ValueError(f"count: expected an integer of 64 bits, got {count}; {remedy}")
    if not all(hasattr(batch, name) for name in kind._fields):  # any object that has them will do
        check_instance("batch", batch, kind, "pass Batch(actions, log_probs, ...) of loss.py")
    dist_params = take_parameters("dist_params", dist_params, width)
    xp, shape, remedy = array_module(dist_params), dist_params.shape[:-1], "give one for each step"
    value = take_shaped("value", value, shape, FLOATS, xp, remedy)
    taken = {
        name: take_shaped(f"batch.{name}", getattr(batch, name), shape, dtypes, xp, remedy)
        for name, dtypes in zip(kind._fields[1:], [FLOATS] * 4 + [BOOLS], strict=True)
    }
    return dist_params, value, kind(batch.actions, **taken)


def take_gae(rewards, values, next_values, terminated, done, gamma, lam):
    """Return the arrays of gae, checked; rewards decide on library, shape and dtype."""
    rewards = as_array(rewards, "rewards")
    xp, remedy = array_module(rewards), "give all the shape and dtype of rewards"
    shape = check_array("rewards", rewards, ("T", "B"), FLOATS, xp=xp).shape
    if 0 in shape:
        wanted = "at least one step and one environment"
        raise ValueError(f"rewards: expected {wanted}, got {shape}; leave out empty batches")
    values = take_array("values", values, shape, rewards.dtype, remedy, xp)
    next_values = take_array("next_values", next_values, shape, rewards.dtype, remedy, xp)
    terminated = take_array("terminated", terminated, shape, np.bool_, "cast to bool", xp)
    done = take_array("done", done, shape, np.bool_, "cast to bool", xp)
    check_ends(terminated, done)
    for name, factor in (("gamma", gamma), ("lam", lam)):
        check_number(name, factor, 0, 1, "1 looks ahead without end, 0 one step")
    return rewards, values, next_values, terminated, done


def check_ends(terminated, done):
    """Raise ValueError if a step is terminated but not done, unless the arrays are on a GPU."""
    if array_module(done) is np and (wrong := terminated & ~done).any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        wanted = "True in done wherever terminated is"
        remedy = "done is terminated | truncated, not truncated alone"
        raise ValueError(f"terminated, done: expected {wanted}, got False at {at}; {remedy}")


def check_adam(size, dtype, eps, rates, xp):
    """Raise unless these are arguments for Adam."""
    check_integer("size", size, 0, 2**36, "give the number of parameters")
    check_float_type("dtype", dtype)
    check_number("eps", eps, 0, MOST, "PPOConfig has adam_eps=1e-5")
    if rates is not None:
        remedy = "give one factor for each parameter, in their dtype"
        check_array("rates", rates, (size,), (np.dtype(dtype).type,), remedy, xp)


def check_step(moments, theta, grad, lr, max_norm):
    """Raise unless these are arguments for a step of Adam with ``moments``."""
    m = moments.m
    xp, remedy = array_module(m), "they are vectors of the size and dtype that Adam was made for"
    for name, value in (("theta", theta), ("grad", grad)):
        check_array(name, value, m.shape, (m.dtype.type,), remedy, xp)
    if xp is np and not theta.flags.writeable:
        raise ValueError("theta: expected an array to write to, got a read-only one; copy it")
    check_number("lr", lr, 0, MOST, "give a learning rate")
    if max_norm is not None:
        check_number("max_norm", max_norm, 0, np.inf, "give a bound, or None for no clipping")
