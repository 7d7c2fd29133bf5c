"""What a recurrent learner keeps of a rollout, in each of Gymnasium's autoreset modes: its cases,
and the faults that people make.

The cases are rollouts of scripted environments by a toy network: rollouts.py has both, and what is
right.

Tests: tests/verify/test_replay.py, with minis5's own collector.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minis5.verify.case import Case, Operation, draws
from minis5.verify.operations.our_rollouts import our_collect
from minis5.verify.operations.rollouts import (
    MODES,
    ToyNetwork,
    action_of,
    earlier,
    environments,
    kept,
    look,
    next_in_time,
    recorded,
    right_next_values,
    rollout_of,
    settled,
)

SCRIPTS = {  # lengths of an environment's episodes, and how they end; the last one goes on
    "one episode": "9+",
    "terminated": "3t 4t 9+",
    "truncated": "3c 4c 9+",
    "single steps": "1t 1c 2t 1c 1t 9+",
    "at the edges": "4c 4t 8c 4t 9+",
    "both flags": "2b 3c 5b 9+",
    "mixed": "5t 2c 1c 6c 2t 3c 9+",
}


def cases(dtype: str, seed: int, small: bool) -> Iterator[Case]:
    """Yield the cases: every script in every mode, in one rollout and in several."""
    for mode in MODES:
        for script in SCRIPTS:
            for length, rollouts in ((12, 1), (4, 4)):
                if small and rollouts == 1 and script != "mixed":
                    continue
                name = f"{mode.replace('_', '-')}-{script.replace(' ', '-')}"
                name += f"-{rollouts}x{length}-{dtype}"
                yield make_case(name, mode, script, length, rollouts, dtype, seed)


def make_case(name, mode, script, length, rollouts, dtype, seed):
    """Return a case: two environments play the script, the other one from its second episode."""
    words = SCRIPTS[script].split()
    scripts = [" ".join(words), " ".join(words[1:] or words)]
    rngs = [draws(seed, "replay", name, b) for b in range(2)]
    most = 30 + 3 * length * rollouts
    numbers = np.array([1 + rng.permutation(99)[:most] for rng in rngs], np.int64)
    options = {"mode": mode, "length": length, "rollouts": rollouts, "scripts": scripts}
    flags = [mode]
    flags += ["initial_state"] if rollouts > 1 else []
    flags += ["reset"] if len(words) > 1 else []
    flags += ["truncation"] if "c" in SCRIPTS[script] else []
    case = Case("replay", name, tuple(flags), dtype, options, {"numbers": numbers}, {})
    case = case._replace(inputs=case.inputs | recorded(case))
    return case._replace(expected=kept(case), steps=length * rollouts)


def call(function, case: Case) -> dict[str, Any]:
    """Return what a function kept, with 0 wherever it does not matter."""
    options = case.options
    network = ToyNetwork(case.dtype)
    found = function(environments(case), network, options["length"], options["rollouts"])
    return settled(case, {name: np.asarray(z) for name, z in dict(found).items()})


# Faults


def fault(**parts):
    """Return a cause; each part is a function of the rollout, or one as `kept` takes it."""

    def outputs(case):
        r = rollout_of(case)
        fed = ("reset", "first", "previous", "valid")
        return kept(case, **{k: part(r) if k in fed else part for k, part in parts.items()})

    return outputs


def ended(r):
    return r.terminated | r.truncated


def if_any(rows_of, part):
    """Return a part that raises where the fault cannot show."""

    def checked(r, *arguments):
        if not rows_of(r).any():
            raise ValueError("this fault cannot be in such a case")
        return part(r, *arguments)

    return checked


def if_none(rows_of, part):
    """Return a part that raises where such rows are."""

    def checked(r, *arguments):
        if rows_of(r).any():
            raise ValueError("this fault cannot be in such a case")
        return part(r, *arguments)

    return checked


def _at_dummy(r):
    """Return the flags of steps that only reset, instead of those of episodes' first steps."""
    return r.dummy | (r.first & _from_first(r))


def _after(r, ends):
    """Return whether each row's episode follows one of such ends."""
    ended_last = np.zeros_like(ends)
    for t in range(1, len(ends)):
        ended_last[t] = np.where(r.dummy[t - 1], ended_last[t - 1], ends[t - 1])
    return ended_last


def _old_action(r):
    started = np.arange(len(r.obs))[:, None] == 0
    return np.where(started, 0, earlier(action_of(r.obs)))


def _from_first(r):
    """Return whether each row belongs to the environment's first episode."""
    return np.cumsum(r.first, axis=0) <= 1


def _at_starts(flags, value):
    """Return a part that has ``value`` at the first step of each rollout but the first one."""

    def part(r, length):
        starts = (np.arange(len(r.obs)) % length == 0) & (np.arange(len(r.obs)) > 0)
        return np.where(starts[:, None], value, flags(r))

    return part


def _each_start(**parts):
    """Return a cause; its parts are functions of the rollout and of the rollouts' length."""

    def outputs(case):
        length = case.options["length"]
        if case.options["rollouts"] == 1:
            raise ValueError("this fault cannot be in such a case")
        return fault(**{k: lambda r, p=p: p(r, length) for k, p in parts.items()})(case)

    return outputs


def _right_previous(r):
    return np.where(r.first, 0, earlier(action_of(r.obs)))


def _beginning(first):
    """Return the cause in which reset, first and previous action follow other flags, first(r)."""
    return fault(
        reset=first,
        first=first,
        previous=lambda r: np.where(first(r), 0, earlier(action_of(r.obs))),
    )


def _seen_with(action):
    """Return the next values with another action, action(r), in place of the step's."""
    return lambda r, before, after: np.where(
        r.terminated, 0.0, look(after, r.follows, action(r), 0, False)
    )


def _in_next_episode(r, before, after):
    following = np.concatenate([r.obs[1:], r.after[None]])
    values = look(after, following, action_of(r.obs), 0, False)
    return np.where(r.terminated, 0.0, values)


CAUSES = {
    "the reset flag comes one step late": fault(reset=lambda r: earlier(r.first)),
    "the step that only resets is given the reset flag, and the first step of the episode is not": (
        fault(reset=if_any(lambda r: r.dummy, _at_dummy))
    ),
    "the step that only resets is taken for the first step of the episode": fault(
        reset=if_any(lambda r: r.dummy, _at_dummy),
        first=_at_dummy,
        previous=lambda r: np.where(_at_dummy(r), 0, earlier(action_of(r.obs))),
    ),
    "the reset flag comes one step early": fault(
        reset=lambda r: earlier(r.first, -1) | (r.first & _from_first(r))
    ),
    "episodes begin anew after terminations only, not after truncations": _beginning(
        lambda r: r.first & (_from_first(r) | _after(r, r.terminated))
    ),
    "episodes begin anew after truncations only, not after terminations": _beginning(
        lambda r: r.first & (_from_first(r) | _after(r, r.truncated))
    ),
    "the end of an episode in one row of the batch resets all rows": _beginning(
        lambda r: r.first | r.first.any(axis=1, keepdims=True)
    ),
    "the reset flag of an episode that begins with a rollout is lost": _each_start(
        reset=_at_starts(lambda r: r.first, False)
    ),
    "each rollout begins with the reset flag": _each_start(
        reset=_at_starts(lambda r: r.first, True)
    ),
    "each rollout begins with the first-step flag": _each_start(
        first=_at_starts(lambda r: r.first, True)
    ),
    "the previous action is not carried from rollout to rollout": _each_start(
        previous=_at_starts(_right_previous, 0)
    ),
    "resets are ignored": fault(reset=lambda r: r.first & _from_first(r)),
    "the final observation is lost: the next episode's first one is valued after a truncation": (
        fault(next_values=if_none(lambda r: r.dummy, next_in_time))
    ),
    "the final observation is seen with the memory of the next episode, which is empty": fault(
        next_values=lambda r, before, after: np.where(
            r.truncated & ~r.terminated,
            look(after, r.follows, action_of(r.obs), 0, True),
            right_next_values(r, before, after),
        )
    ),
    "after a truncation the next episode's first observation is valued, with the old memory": (
        fault(next_values=if_none(lambda r: r.dummy, _in_next_episode))
    ),
    "the next value is seen with the previous action, not the step's own": fault(
        next_values=_seen_with(_right_previous)
    ),
    "the next value is seen without the step's action": fault(
        next_values=_seen_with(lambda r: 0 * action_of(r.obs))
    ),
    "the next value is the value of the step itself": fault(
        next_values=lambda r, before, after: np.where(r.terminated, 0.0, after)
    ),
    "the next value is seen with the memory before the step, not after it": fault(
        next_values=lambda r, before, after: right_next_values(
            r, after, np.where(r.first, 0.0, before)
        )
    ),
    "a truncation is treated as a termination: its next value is 0": fault(
        next_values=lambda r, before, after: np.where(
            ended(r), 0.0, right_next_values(r, before, after)
        )
    ),
    "a termination is treated as a truncation: its next value is not 0": fault(
        next_values=lambda r, before, after: look(after, r.follows, action_of(r.obs), 0, False)
    ),
    "where both flags are true, the truncation wins; nothing follows a termination": fault(
        next_values=lambda r, before, after: np.where(
            r.truncated,
            look(after, r.follows, action_of(r.obs), 0, False),
            right_next_values(r, before, after),
        )
    ),
    "steps that a time limit cut are left out": fault(valid=lambda r: ~r.dummy & ~r.truncated),
    "the first steps of episodes are left out": fault(valid=lambda r: ~r.dummy & ~r.first),
    "the step that only resets is learnt from": fault(valid=lambda r: np.ones_like(r.dummy)),
    "the last step of an episode is left out, not the step that only resets": fault(
        valid=if_any(lambda r: r.dummy, lambda r: ~ended(r))
    ),
    "the first step of an episode is left out, not the step that only resets": fault(
        valid=if_any(lambda r: r.dummy, lambda r: ~r.first | _from_first(r))
    ),
    "the state at the rollout's start is zero": fault(
        start=lambda r, before, after, length: 0.0 * before[::length]
    ),
    "the state at every rollout's start is the last one: it was written over, not copied": fault(
        start=lambda r, before, after, length: np.broadcast_to(after[-1], before[::length].shape)
    ),
    "the state at the rollout's start is that of its end": fault(
        start=lambda r, before, after, length: after[length - 1 :: length]
    ),
    "the state at the rollout's start is that after its first step": fault(
        start=lambda r, before, after, length: after[::length]
    ),
    "looking at the value after a rollout moves the memory on": fault(between=look),
    "the memory is emptied between rollouts": fault(between=lambda memory, *fed: 0.0 * memory),
    "the old episode's action leaks into the new one": fault(previous=_old_action),
    "the previous action is never given": fault(previous=lambda r: 0 * action_of(r.obs)),
    "the previous action is the present one": fault(
        previous=lambda r: np.where(r.first, 0, action_of(r.obs))
    ),
    "the first-step flag is 0 after an automatic reset": fault(
        first=lambda r: r.first & _from_first(r)
    ),
    "after an automatic reset the first-step flag is 0 and the old episode's action leaks": fault(
        first=lambda r: r.first & _from_first(r), previous=_old_action
    ),
    "the first-step flag comes one step late": fault(first=lambda r: earlier(r.first)),
}

OPERATION = Operation(
    name="replay",
    about="""What a recurrent learner keeps of `rollouts` rollouts of `length` steps one after the
other, N steps in all, of B environments. The agent is a toy network with a memory m, 0 at first:
    m' = 0.5 m + x, x alone at a reset;  x = observation + previous action / 4 + first / 8
    value m',  action 1 + (observation mod 3)
Inputs are what the environments gave, in autoreset mode `mode`: first_observations (B) by reset,
then by each step observations, final_observations (infos["final_obs"], NaN for none), terminated,
truncated, and restarted, what reset(options={"reset_mask": ended}) gave after it; (N, B) each.
actions (N, B) are the agent's. (numbers and scripts are what this was made of.)
Step 0 starts from first_observations, step t + 1 from restarted[t] if step t ended an episode in
mode disabled, else from observations[t]. What truly followed step t is final_observations[t] if it
ended one in mode same_step, else observations[t]. In mode next_step, the step after one that ended
an episode only resets: it ignores its action, and observations has the next episode's first.
Outputs: reset (N, B), the flag that the network is fed, which empties the memory before the step;
first (N, B), the flag of an episode's first step; previous_action (N, B), 0 for none; valid (N, B),
false for a step that only resets; values (N, B); next_values (N, B), of the observation that truly
followed (m' of it with first = 0 and this step's action), 0 after a termination; initial_state
(rollouts, B), the memory before each rollout's first step. Write 0 where valid is false, and for a
state that the next step resets or that belongs to a step that only resets.
In Python: kept = function(envs, network, length, rollouts), a dict of these; envs is a
gymnasium.vector.VectorEnv, network.step(obs, previous_action, first, reset, state) → action, value,
state, network.initial_state(B) → state.""",
    cases=cases,
    call=call,
    causes=CAUSES,
    ours=our_collect,
)
