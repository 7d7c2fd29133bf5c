"""Episodes for ports: a port in plain Python passes by the draws alone, another by the states."""

import numpy as np
import pytest

from minis5.verify.checks import run_operation
from minis5.verify.environment import check_episodes
from minis5.verify.judge import judge
from minis5.verify.operations.envs import CAUSES, OPERATION, cases, levels


class Draws:
    """The random words, as minis5/random.py uses them."""

    def __init__(self, words):
        self.words = iter(words.tolist())

    def integer(self, n):
        return next(self.words) * n >> 32

    def shuffled(self, values):
        values = list(values)
        for last in range(len(values) - 1, 0, -1):
            other = self.integer(last + 1)
            values[last], values[other] = values[other], values[last]
        return values


def by_draws(task, start, actions):
    """Play the games of 52 cards that show one, and MultiarmedBandit."""
    draws, seen, rewards = Draws(start["draws"]), [], []
    if task == "MultiarmedBanditEasy":
        chances = [next(draws.words) >> 8 for _ in range(10)]
        paid = [next(draws.words) >> 8 < chances[arm] for arm in actions]
        T = len(actions)
        end = [t == T - 1 for t in range(T)]
        return [0, *paid], [(1 if one else -1) / T for one in paid], [False] * T, end
    kinds = {"RepeatPreviousEasy": 4, "RepeatFirstEasy": 4, "HigherLowerEasy": 13}
    if task not in kinds:
        raise NotImplementedError(task)
    seen = draws.shuffled(i // 4 if kinds[task] == 13 else i % 4 for i in range(52))
    for t, action in enumerate(actions):
        if task == "HigherLowerEasy":
            gap = seen[t + 1] - seen[t]
            rewards.append(np.sign(gap if action == 0 else -gap) / 52)
        elif task == "RepeatFirstEasy":
            rewards.append((1 if action == seen[0] else -1) / 51)
        else:
            rewards.append(0 if t < 3 else (1 if action == seen[t - 3] else -1) / 48)
    return seen, rewards, [t == 50 for t in range(51)], [False] * 51


def by_states(task, start, actions):
    """Play MineSweeperEasy, whose board is ints[3:], with a margin of one."""
    if task != "MineSweeperEasy":
        raise NotImplementedError(task)
    board, seen, steps = start["ints"][3:].reshape(6, 6), [0], []
    chosen = set()
    for i, j in actions.tolist():
        near = board[i : i + 3, j : j + 3].sum()
        mine, again = board[i + 1, j + 1] == 1, (i, j) in chosen
        chosen.add((i, j))
        seen.append(near)
        ended = mine or len(chosen) == 14
        cut = not ended and len(steps) == 13
        steps.append((-0.5 - 1 / 14 if mine else -0.5 / 12 if again else 1 / 14, ended, cut))
    return seen, *zip(*steps, strict=True)


def test_ours_pass():
    report = check_episodes(OPERATION.ours, small=True)
    assert report.passed and len(report.results) == len(levels(True)) + 11


@pytest.mark.slow
def test_ours_pass_in_the_whole_set():
    check_episodes(OPERATION.ours)
    assert len(levels(False)) == 49


@pytest.mark.parametrize(("port", "tasks"), [(by_draws, 4), (by_states, 1)])
def test_plain_ports_pass_what_they_have(port, tasks):
    report = run_operation(OPERATION, port, dtypes="float64", small=True)
    assert report.counts["passed"] == tasks and report.counts["failed"] == 0
    assert report.counts["missing"] == 11 - tasks and not report.passed


def test_draws_are_all_that_is_drawn():
    for case in cases("float32", 0, True):
        if "CartPole" in case.options["task"]:
            noisy = case.options["task"].startswith("Noisy")
            assert case.inputs["draws"].size == 4 + noisy * 4 * (case.steps + 1)


@pytest.mark.parametrize("cause", CAUSES)
def test_faults_are_told(cause):
    few = [case for case in cases("float32", 0, True)]
    results = [judge(OPERATION, case, case.expected | CAUSES[cause](case)) for case in few]
    named = [cause in result.causes for result in results if result.status == "failed"]
    assert len(named) > 10 and all(named)


def test_the_same_seed_gives_the_same_episodes_and_another_others():
    one, same, other = (next(cases("float32", seed, True)) for seed in (0, 0, 1))
    assert all(np.array_equal(one.inputs[name], z) for name, z in same.inputs.items())
    assert not np.array_equal(one.inputs["draws"], other.inputs["draws"])
