"""Rollouts of scripted environments by a toy network, and what is right to keep of them.

A script says how long an environment's episodes are and how they end. A toy network makes every
mistake visible: its memory m, which is its value too, and its action are

    m' = 0.5 m + x  (x alone at a reset),   x = observation + previous action / 4 + first / 8
    action = 1 + (observation mod 3)

Observations are whole numbers, and no two of an environment are the same. `rows` lays the episodes
out in time; the autoreset mode only says where a step lies that does nothing but reset. `kept` is
what is to be kept of them; a fault is another row, flag or value there.

`environments` and `ToyNetwork` are for learners in Python; `recorded` is what they see, as arrays.

Leaves out: rewards and advantages (gae.py).
Tests: tests/verify/test_replay.py, with gymnasium.vector.SyncVectorEnv.
"""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from minis5.verify.case import Case

DECAY, ACTION, FIRST = 0.5, 0.25, 0.125  # the toy network's weights
ACTIONS = 3
MODES = {mode.name.lower(): mode for mode in AutoresetMode}


class Rollout(NamedTuple):
    """The rows of a script: step t of environment b is at [t, b], (N, B)."""

    obs: np.ndarray  # in hand before the step
    follows: np.ndarray  # the observation of the same episode that follows the step
    first: np.ndarray  # bool: the step begins an episode
    dummy: np.ndarray  # bool: the step only resets
    terminated: np.ndarray  # bool
    truncated: np.ndarray  # bool
    after: np.ndarray  # (B,): in hand after the last step


def action_of(obs):
    """Return the toy network's action."""
    return 1 + np.asarray(obs).astype(np.int64) % ACTIONS


def episodes_of(script: str) -> list[tuple[int, str]]:
    """Return (length, end) of each episode: t terminated, c cut, b both, + none."""
    return [(int(word[:-1]), word[-1]) for word in script.split()]


def rows(scripts: list[str], numbers: np.ndarray, mode: str, count: int) -> Rollout:
    """Return the rows of scripts, one for each environment, played in a mode.

    ``numbers`` are the observations, (B, many).
    """
    table = []
    for script, row in zip(scripts, numbers, strict=True):
        mine, begin = [], 0
        for length, end in episodes_of(script):
            length = count + 1 if end == "+" else length
            seen = row[begin : begin + length + 1]
            begin += length + 1
            for s in range(length):
                last = s == length - 1
                ends = last and end in "tb", last and end in "cb"
                mine.append((seen[s], seen[s + 1], s == 0, False, *ends))
            if mode == "next_step" and end != "+":
                mine.append((seen[-1], 0, False, True, False, False))
        table.append(mine[: count + 1])
    obs, follows, *flags = np.array(table, np.int64).transpose(2, 1, 0)
    first, dummy, terminated, truncated = (flag[:count].astype(bool) for flag in flags)
    seen = obs[:count], follows[:count]
    return Rollout(*seen, first, dummy, terminated, truncated, obs[count])


def look(memory, obs, previous, first, reset):
    """Return the toy network's next memory, which is its value too."""
    x = obs + ACTION * previous + FIRST * first
    return DECAY * np.where(reset, 0.0, memory) + x


def kept(case: Case, **wrong: Any) -> dict[str, np.ndarray]:
    """Return what is to be kept of a case's rollouts; ``wrong`` replaces a part of it.

    reset, first, previous: what the network is fed, (N, B); next_values: function of the rollout,
    memories before and after each step and values; start: function (rollout, memories before and
    after, length) → states at the starts; valid: (N, B); between: function of the memory and of
    what the next step is fed → the memory with which the next rollout begins.
    """
    r = rollout_of(case)
    N, B = r.obs.shape
    action = action_of(r.obs)
    reset, first = wrong.get("reset", r.first), wrong.get("first", r.first)
    previous = wrong.get("previous", np.where(r.first, 0, earlier(action)))
    before, after = np.zeros((N, B)), np.zeros((N, B))
    memory = np.zeros(B)
    for t in range(N):
        between = t > 0 and t % case.options["length"] == 0
        if between and (change := wrong.get("between")):
            memory = change(memory, r.obs[t], previous[t], first[t], reset[t])
        before[t] = memory
        memory = after[t] = look(memory, r.obs[t], previous[t], first[t], reset[t])
    length = case.options["length"]
    start = wrong.get("start", lambda r, before, after, length: before[::length])
    next_values = wrong.get("next_values", right_next_values)(r, before, after)
    found = {
        "reset": reset,
        "first": first,
        "previous_action": previous,
        "valid": wrong.get("valid", ~r.dummy),
        "values": after,
        "next_values": next_values,
        "initial_state": start(r, before, after, length),
    }
    return settled(case, found)


def settled(case: Case, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return what was kept with 0 wherever it does not matter.

    A state does not matter where the next step resets it, nor anything of a step that only resets.
    A zero state does as well as a reset at the very first step.
    """
    r, found = rollout_of(case), {name: np.array(z) for name, z in found.items()}
    length, N = case.options["length"], len(r.obs)
    shapes = {name: (N, r.obs.shape[1]) for name in case.expected or found}
    shapes["initial_state"] = N // length, r.obs.shape[1]
    if any(name not in shapes or z.shape != shapes[name] for name, z in found.items()):
        return found  # the comparison tells
    if {"reset", "initial_state"} <= found.keys():
        begins = found["reset"][::length].astype(bool)
        begins[0] |= found["initial_state"][0] == 0
        found["initial_state"][begins | r.dummy[::length]] = 0
        found["reset"][0] = begins[0]
    for name, z in found.items():
        if name not in ("valid", "initial_state"):
            z[r.dummy] = 0
    return found


def rollout_of(case: Case) -> Rollout:
    """Return the rows of a case."""
    options = case.options
    count = options["length"] * options["rollouts"]
    return rows(options["scripts"], case.inputs["numbers"], options["mode"], count)


def right_next_values(r, before, after):
    """Return the values of the true next observations; 0 where an episode terminated."""
    values = look(after, r.follows, action_of(r.obs), 0, False)
    return np.where(r.terminated, 0.0, values)


def next_in_time(r, before, after):
    """Return the values of the next row, which may begin an episode; 0 after a termination."""
    following = np.concatenate([r.obs[1:], r.after[None]])
    ends = r.terminated | r.truncated
    action = np.where(ends, 0, action_of(r.obs))
    values = look(after, following, action, ends, ends)
    return np.where(r.terminated, 0.0, values)


def earlier(z, n=1):
    """Return rows shifted by n steps to later ones (earlier ones if n < 0), 0 elsewhere."""
    shifted = np.zeros_like(z)
    if n > 0:
        shifted[n:] = z[:-n]
    else:
        shifted[:n] = z[-n:]
    return shifted


def recorded(case: Case) -> dict[str, np.ndarray]:
    """Return what a vector environment returned: the inputs of a case, for other languages."""
    r = rollout_of(case)
    following = np.concatenate([r.obs[1:], r.after[None]])
    ended = r.terminated | r.truncated
    none = np.full(r.obs.shape, np.nan)
    mode = case.options["mode"]
    returned = np.where(ended, r.follows, following) if mode == "disabled" else following
    return {
        "first_observations": r.obs[0].astype(float),
        "observations": returned.astype(float),
        "final_observations": np.where(ended, r.follows, np.nan) if mode == "same_step" else none,
        "restarted": np.where(ended, following, np.nan) if mode == "disabled" else none,
        "terminated": r.terminated,
        "truncated": r.truncated,
        "actions": action_of(r.obs),
    }


class Scripted(gymnasium.Env):
    """Plays the episodes of a script in turn."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(ACTIONS, start=1)

    def __init__(self, script, numbers):
        self.episodes, self.numbers = episodes_of(script), numbers
        self.k, self.begin, self.s = -1, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.k >= 0:
            self.begin += self.episodes[self.k][0] + 1
        self.k, self.s = self.k + 1, 0
        return self._seen(), {}

    def _seen(self):
        return np.array([self.numbers[self.begin + self.s]], float)

    def step(self, action):
        self.s += 1
        length, end = self.episodes[self.k]
        last = self.s == length and end != "+"
        return self._seen(), 1.0, last and end in "tb", last and end in "cb", {}


def environments(case: Case) -> SyncVectorEnv:
    """Return the vector environment that plays a case, in its autoreset mode."""
    pairs = zip(case.options["scripts"], case.inputs["numbers"], strict=True)
    makers = [lambda pair=pair: Scripted(*pair) for pair in pairs]
    return SyncVectorEnv(makers, autoreset_mode=MODES[case.options["mode"]])


class ToyNetwork:
    """The toy network, in a float type.

    ``initial_state(B)`` → state (B,). ``step(obs, previous_action, first, reset, state)`` → action
    (B,), value (B,), state (B,), from obs (B, 1) or (B,), previous_action (B,), 0 for none, and
    bool first and reset (B,). It keeps nothing between calls.
    """

    def __init__(self, dtype):
        self.dtype = np.dtype(dtype)

    def initial_state(self, batch):
        return np.zeros(batch, self.dtype)

    def step(self, obs, previous_action, first, reset, state):
        obs = np.asarray(obs, self.dtype).reshape(len(state))
        previous = np.asarray(previous_action).astype(self.dtype)
        flags = np.asarray(first).astype(self.dtype), np.asarray(reset).astype(bool)
        new = look(np.asarray(state), obs, previous, *flags).astype(self.dtype)
        return action_of(obs), new.copy(), new
