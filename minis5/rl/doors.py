"""What may enter an agent: checks in front of its public methods.

The collector and the trainer pass through them too, so that an array that is right costs 0.3 µs.
The core checks flags and state itself (minis5/nn/doors.py).

Leaves out: observations, which spaces.py checks.
Tests: tests/rl/test_doors.py.
"""

import numpy as np

from minis5.arrays import array_module, as_array
from minis5.checks import FLOATS, check_array, check_choice, check_draws, check_instance, take_array
from minis5.nn.doors import OwnParameters
from minis5.random import seed_to_key

BOOL = np.dtype(bool)


def with_own_core(nested):
    """Return an agent's nested parameters, those of its core marked as right."""
    return nested | {"core": OwnParameters(nested.get("core", {}))}


def check_agent(config, seed, kind):
    """Raise unless these are arguments for ActorCritic; ``kind`` is AgentConfig."""
    check_instance("config", config, kind, "pass minis5.AgentConfig(), or leave it out")
    seed_to_key(seed)


def take_input(agent, x, axes):
    """Return ``x`` as rows of the agent's input (*axes, input_size), or raise."""
    return take_rows(agent, "x", x, axes, agent.input_size, agent.input_dtype)


def take_features(agent, features, axes=("...",)):
    """Return ``features`` of the core as the agent's array (*axes, H), or raise."""
    return take_rows(agent, "features", features, axes, agent.config.encoder[-1])


def take_rows(agent, name, x, axes, size, dtype=None):
    """Return ``x`` as the agent's array (*axes, size), or raise; axes ("...",) are any.

    ``dtype`` is the agent's by default.
    """
    dtype, any_axes = agent.dtype if dtype is None else dtype, axes == ("...",)
    if type(x) is agent.xp.ndarray and x.shape[-1:] == (size,) and x.dtype == dtype and x.size:
        if x.ndim == len(axes) + 1 or (any_axes and x.ndim > 1):
            return x
    if any_axes:
        axes = getattr(x, "shape", ("B",))[:-1] or ("B",)
    remedy = f"order the axes {', '.join(map(str, axes))}, features; cast to the agent's dtype"
    x = take_array(name, x, (*axes, size), dtype, remedy, agent.xp)
    if 0 in x.shape:
        raise ValueError(f"{name}: expected at least one row, got {x.shape}; leave out empty ones")
    return x


def take_gradients(agent, d_dist, d_value, cache, kind):
    """Return the arguments of ActorCritic.backward, checked."""
    check_instance("cache", cache, kind, "pass the fourth result of forward")
    shape, remedy = cache.shape, "it has the shape of what forward returned"
    dist = (*shape, agent.distribution.num_params)
    d_dist = take_array("d_dist", d_dist, dist, agent.dtype, remedy, agent.xp)
    return d_dist, take_array("d_value", d_value, shape, agent.dtype, remedy, agent.xp)


def take_past(agent, batch, previous_action, reset):
    """Return what an observation of axes ``batch`` is encoded with, checked."""
    xp, shape = agent.xp, (*batch, agent.distribution.encoded_size)
    right = type(previous_action) is xp.ndarray and previous_action.shape == shape
    if type(previous_action) is float:  # 0.0: there was none in any environment
        previous_action = xp.full(shape, previous_action, agent.dtype)
    elif not right or previous_action.dtype != agent.dtype:
        previous_action = as_array(previous_action, "previous_action")
        remedy = "zeros (..., encoded_size) at the start, then agent.actions.encode(action)"
        check_array("previous_action", previous_action, shape, FLOATS, remedy, xp)
    remedy = "one flag for each observation"
    return previous_action, take_array("reset", reset, batch, BOOL, remedy, xp)


def take_reset(reset):
    """Return act's flags as a bool array (B,) of their library."""
    reset = as_array(reset, "reset")
    if array_module(reset) is np:
        try:
            reset = np.asarray(reset)
        except ValueError:  # rows of different lengths
            reset = np.empty(0, object)
    if reset.dtype.kind not in "biu":
        wanted = "(B,) bool, True where an episode begins"
        raise TypeError(f"reset: expected {wanted}, got {reset.dtype} {reset.shape}; cast it")
    if reset.ndim != 1 or reset.size == 0:
        remedy = "act takes a batch, also for one environment"
        raise ValueError(f"reset: expected (B,) bool, got {reset.shape}; {remedy}")
    return reset.astype(bool, copy=False)


def check_memory(agent, memory, reset, kind):
    """Raise unless ``memory`` is one for the batch of ``reset``; ``kind`` is Memory.

    It is finite, too, where it is not forgotten. (On a GPU, to look would mean to wait.)
    """
    check_instance("memory", memory, kind, "pass what the last call returned, or None")
    batch = reset.size
    shape, remedy = agent.initial_state(batch).shape, "pass what the last call returned"
    previous = memory.previous_action
    if isinstance(previous, agent.xp.ndarray) and previous.shape[:1] != (batch,):
        got = len(previous) if previous.ndim else "a single number"
        raise ValueError(f"memory: expected a batch of {batch} as reset has, got {got}; {remedy}")
    core = take_array("memory.core", memory.core, shape, agent.dtype, remedy, agent.xp)
    encoded = batch, agent.distribution.encoded_size
    check_array("memory.previous_action", previous, encoded, FLOATS, remedy, agent.xp)
    if agent.xp is np:
        for name, rows in (("core", core.swapaxes(0, 1)), ("previous_action", previous)):
            if not np.isfinite(rows[~reset]).all():
                wanted = "finite numbers where reset is False"
                raise ValueError(f"memory.{name}: expected {wanted}, got NaN or inf; {remedy}")


def check_sampling(agent, deterministic, rng):
    """Raise unless actions can be drawn with ``rng``, or need not be."""
    check_choice("deterministic", deterministic, (True, False))
    if not deterministic and rng is None:
        wanted = f"a {'numpy' if agent.xp is np else 'minis5'}.random.Generator"
        raise ValueError(f"rng: expected {wanted} for sampled actions, got None; pass one")
    if not deterministic:
        check_draws(check_draws(rng), "standard_normal")
