"""check_env: is this environment, written by anybody, one of our native tasks?

It is tried in these ways, each a case of the report:

    spaces         both spaces are the task's
    bounds         what a step returns: members of the spaces, finite rewards, flags, lengths
    rules          rewards, flags and observations follow from what was seen (observers/)
    seeds          a seed repeats an episode; without one, episodes are new
    distribution   episodes of random and of knowing players are distributed as ours (samples.py)
    known-return   the random player's mean return is the one that was measured for minis5
    lockstep       side by side with ours from the same random numbers (lockstep.py): Gymnasium's
                   cart-poles and pendulums with POPGym's views, and whatever `start` can set

Only the cases of distributions may fail by chance: together with the probability `false_alarms`.

Tests: tests/verify/test_envs.py.
"""

from collections.abc import Callable, Iterable
from typing import Any

import gymnasium

from minis5.checks import check_integer, check_number
from minis5.envs.registry import find
from minis5.verify.checks import check_operation, checked
from minis5.verify.operations import envs as envs_operation
from minis5.verify.report import Report
from minis5.verify.trial import Trial


def check_env(
    env: Any,
    task: str,
    *,
    episodes: int = 200,
    seed: int = 0,
    start: Callable | None = None,
    false_alarms: float = 1e-4,
    xfail: Iterable[str] = (),
    **options: Any,
) -> Report:
    """Check that an environment is a native task.

    Parameters
    ----------
    env : gymnasium.Env, gymnasium.vector.VectorEnv, or a function without arguments that makes one
        A batch says its autoreset mode in its metadata.
    task : str
        The task's id, "RepeatPreviousEasy".
    episodes : int
        Episodes that each of two players plays: a random one, and one that knows the rules.
    seed : int
        Of the episodes and the players.
    start : callable, optional
        ``start(env, ours)`` brings the environment to the state of ``ours`` (a NativeEnv that has
        been reset), or ours to its, and returns its first observation. Then both are played in
        lockstep. Single environments only.
    false_alarms : float
        Probability with which a right environment fails.
    xfail : names
        Expected failures: ``envs/RepeatPreviousEasy-rules``, or a pattern of such names.
    **options
        Of the task, as `minis5.make_vec` takes them: ``k=4``, ``project_action=2``.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        Something is not as in the task; the message is the report.
    TypeError, ValueError
        ``task`` is no native task, or an option is wrong.
    """
    report = run_env(
        env,
        task,
        episodes=episodes,
        seed=seed,
        start=start,
        false_alarms=false_alarms,
        xfail=xfail,
        **options,
    )
    return checked(report, env if callable(env) else type(env))


def check_episodes(play: Callable, **options: Any) -> Report:
    """Check a port of the native tasks: episodes from the same random numbers or first states.

    Parameters
    ----------
    play : callable
        ``play(task, start, actions)`` → observations, rewards, terminated, truncated of an episode;
        ``start`` is a dict of draws, ints, floats, options and seed. `minis5 verify --help` has
        more. NotImplementedError means that a task is not there.
    **options
        As in :func:`minis5.verify.check_scan`.

    Returns
    -------
    Report
        What became of each case.

    Raises
    ------
    AssertionError
        A case failed or is not implemented; the message is the report.
    """
    return check_operation(envs_operation.OPERATION, play, **options)


def run_env(env, task, *, episodes, seed, start, false_alarms, xfail, **options):
    """Return the report of :func:`check_env`."""
    check_integer("episodes", episodes, 10, 10**6, "pass episodes=200")
    check_integer("seed", seed, 0, 2**31, "pass seed=0")
    check_number("false_alarms", false_alarms, 0.0, 0.1, "pass false_alarms=1e-4")
    native = find(task, options)
    if native is None:
        raise ValueError(f"task: expected a native task, got {task!r}; `minis5 envs` lists them")
    kinds = gymnasium.Env, gymnasium.vector.VectorEnv
    made = env() if callable(env) and not isinstance(env, kinds) else env
    if not isinstance(made, kinds):
        kind = type(made).__name__
        remedy = "pass an environment, or a function that makes one"
        raise TypeError(f"env: expected a gymnasium.Env or VectorEnv, got {kind}; {remedy}")
    trial = Trial(made, task, native, options, episodes, seed, start, false_alarms)
    return Report(trial.results(), xfail)
