"""Action masks: which actions are legal now, read from a vector environment.

A mask has a flag for every logit, True (or 1) where the action is legal:

    Discrete(n)               (n,)
    MultiDiscrete             the masks of its numbers end to end, or a tuple of them
    MultiBinary               so too: for each number, whether 0 is legal and whether 1 is
    bounded Box of integers   so too: for each number, its values from low to high

An environment offers it as ``info["action_mask"]``, from ``reset`` and every ``step``, or else by a
method ``action_masks()``, as sb3-contrib has it. The logits of illegal actions become -inf before
the distribution sees them: their probability is 0, and no gradient goes through them.

Leaves out: masks for a Box of floats; environments on a GPU.
Source: 2006.14171. Specification: reference.categorical, of the legal actions' logits.
Tests: tests/rl/test_masks.py.
"""

import dataclasses

import numpy as np

from minis5.arrays import array_module, move, to_host

KEY, METHOD = "action_mask", "action_masks"
OFFER = f"reset and step return info[{KEY!r}], or a method {METHOD}() does"


def mask_forward(logits, mask):
    """Return the logits with -inf where ``mask`` is False; as they are if it is None."""
    if mask is None:
        return logits
    return array_module(logits).where(mask, logits, logits.dtype.type(-np.inf))


def mask_backward(d_logits, mask):
    """Return the gradient of :func:`mask_forward`'s argument: 0 where -inf took its place."""
    if mask is None:
        return d_logits
    return array_module(d_logits).where(mask, d_logits, d_logits.dtype.type(0))


def check_masks(masks, sizes, batch, where="in row {}".format):
    """Return the masks of a batch as bool (batch, Σ sizes).

    Parameters
    ----------
    masks : array (batch, Σ sizes), or a tuple of arrays (batch, size)
        Bool, or integers 0 and 1.
    sizes : list of int, or None
        How many values each number of an action has; None: actions have no masks.
    batch : int
    where : callable
        Row → where it came from, for messages.

    Raises
    ------
    ValueError
        Another shape or dtype, or a number without a legal value.
    """
    if sizes is None:
        raise ValueError(f"{KEY}: expected none for a Box of floats, got one; leave it out")
    if isinstance(masks, tuple):
        masks = np.concatenate([np.asarray(part) for part in masks], axis=-1)
    masks, wanted = np.asarray(to_host(masks)), (batch, sum(sizes))
    flags = masks.dtype == bool or masks.dtype.kind in "iu"
    if masks.shape != wanted or not flags or not ((masks == 0) | (masks == 1)).all():
        got = f"{masks.dtype} {masks.shape}{' with other values' * flags}"
        got = f"{got} {where(0)}" if batch == 1 else got
        remedy = "give a flag for each action"
        raise ValueError(f"{KEY}: expected {wanted} flags (bool, or 0 and 1), got {got}; {remedy}")
    begins = np.cumsum([0, *sizes[:-1]])
    legal = np.logical_or.reduceat(masks, begins, axis=1).all(axis=1)
    if not legal.all():
        got, remedy = where(int(legal.argmin())), "end the episode where nothing is legal"
        raise ValueError(f"{KEY}: expected a legal action at each step, got none {got}; {remedy}")
    return masks.astype(bool, copy=False)


def mask_for_agent(agent, action_mask, batch):
    """Return the argument ``action_mask`` of `ActorCritic.act` where the agent is, or None.

    Raises
    ------
    ValueError
        As `check_masks`, or the agent learnt with masks and gets none.
    """
    if action_mask is not None:
        return move(check_masks(action_mask, agent.actions.sizes, batch), agent.device)
    if agent.config.action_masks:
        expected = f"({batch}, {sum(agent.actions.sizes)}) bool, because the agent uses masks"
        raise ValueError(f"{KEY}: expected {expected}, got None; pass ones where all is legal")
    return None


class MaskReader:
    """Read the masks of a vector environment from step to step.

    Parameters
    ----------
    agent : ActorCritic
        Its ``config.action_masks`` says whether it needs them; None: it takes those that come.
    envs : gymnasium.vector.VectorEnv
    infos : dict
        Of the reset before.
    first_index : int
        Number of the first environment, for messages.

    Raises
    ------
    ValueError
        The agent needs masks, and the environment offers none or the actions cannot have any.
    """

    def __init__(self, agent, envs, infos, first_index=0):
        self.envs, self.sizes, self.first, self.steps = envs, agent.actions.sizes, first_index, 0
        self.ignored = agent.config.action_masks is False or self.sizes is None
        self.ask = None if self.ignored else offered(envs, infos)
        if agent.config.action_masks and self.ask is None:
            expected = f"expected {OFFER}, because the agent uses masks"
            got = "got none" if self.sizes else "got a Box of floats, which has none"
            raise ValueError(
                f"action_masks: {expected}, {got}; set action_masks=false to do without"
            )

    def settle(self, agent):
        """Write down in an agent's configuration that it learns with masks, if there are any."""
        if self.ask is not None:
            agent.config = dataclasses.replace(agent.config, action_masks=True)

    def read(self, infos, rows, mask=None):
        """Return the masks (B, Σ sizes) bool of the coming step, or None without masks.

        Parameters
        ----------
        infos : dict
            Of the last reset or step.
        rows : (B,) bool
            The environments that act in the coming step and whose ``infos`` these are.
        mask : (B, Σ sizes) bool
            What the other rows get; None: all is legal.

        Raises
        ------
        ValueError
            A mask is missing or wrong; the message says which environment's and when.
        """
        if self.ask is None:
            if not self.ignored and KEY in infos:
                remedy = "return it from reset too, or set action_masks=false"
                raise ValueError(f"{KEY}: expected one in reset's info, got it from step; {remedy}")
            return None
        self.steps += 1
        masks = np.ones((rows.size, sum(self.sizes)), bool) if mask is None else mask.copy()
        if not rows.any():  # all environments have ended
            return masks
        numbers, given = np.flatnonzero(rows), self.ask(self.envs, infos)
        there = np.ones(rows.size, bool) if given is not None else np.zeros(rows.size, bool)
        if self.ask is _from_infos:
            there &= infos.get(f"_{KEY}", True)
        if not there[rows].all():
            got = f"none from {self._where(np.flatnonzero(rows & ~there)[0])}"
            raise ValueError(f"{KEY}: expected one at each step, got {got}; {OFFER}")
        if isinstance(given, np.ndarray) and given.dtype != object:
            vectors = given[rows].reshape(numbers.size, -1)
        else:
            vectors = np.concatenate([self._vector(i, given[i])[None] for i in numbers])
        masks[rows] = check_masks(
            vectors, self.sizes, numbers.size, lambda row: f"from {self._where(numbers[row])}"
        )
        return masks

    def _where(self, row):
        return f"environment {self.first + row} at step {self.steps}"

    def _vector(self, row, mask):
        """Return one environment's mask, or the parts of it, end to end."""
        vector = _flat(mask)
        if vector.size != (size := sum(self.sizes)):
            got = f"{vector.size} from {self._where(row)}"
            raise ValueError(f"{KEY}: expected {size} flags, got {got}; give one for each action")
        return vector


def offered(envs, infos):
    """Return the function of (envs, infos) by which an environment gives its masks, or None."""
    if KEY in infos:
        return _from_infos
    if callable(getattr(envs, METHOD, None)):
        return _from_method
    call = getattr(getattr(envs, "unwrapped", envs), "call", None)
    if call is None or getattr(envs, "native", False):
        return None
    try:  # to call what is not there would end the processes of gymnasium's AsyncVectorEnv
        return _from_calls if all(call("has_wrapper_attr", METHOD)) else None
    except (AttributeError, NotImplementedError, TypeError):  # another sort of vector environment
        return None


def _from_infos(envs, infos):
    return infos.get(KEY)


def _from_method(envs, infos):
    return envs.action_masks()


def _from_calls(envs, infos):
    return envs.unwrapped.call(METHOD)


def _flat(mask):
    if isinstance(mask, tuple | list) and any(
        isinstance(z, tuple | list | np.ndarray) for z in mask
    ):
        return np.concatenate([_flat(part) for part in mask])
    return np.ravel(mask)
