"""Steps of dm_control's tasks, recorded, so that they can be compared where it is not installed.

    python tests/suite_steps.py          record them anew: tests/suite_steps.npz

For each level there are N states before a control step (`floats`, a row as the task's file has it),
the actions, states and observations after it, and the rewards. Recorded with dm_control 1.0.50 and
MuJoCo 3.17, its solver at tolerance 0.
Tests: those of each task, tests/envs/control/.
"""

from pathlib import Path

import numpy as np
from suite_pairs import TASKS, Pair, flat
from suite_states import any_states

from minis5.envs.registry import find

PATH = Path(__file__).with_suffix(".npz")
N = 100
PARTS = ("floats", "action", "floats_after", "observation", "reward")


def record(name):
    """Return N steps of a level from any states: {part: array (N, ...)}."""
    pair, rng = Pair(name), np.random.default_rng(2)
    rows = []
    for k, state in enumerate(any_states(name, N)):
        if k % 10 == 0:
            pair.reset()
        pair.put(state)
        before = pair.floats.copy()
        action = rng.uniform(-1, 1, pair.task.action_space.shape).astype(np.float32)
        _, theirs = pair.step(action)
        pair.floats[: len(state)] = pair.theirs()
        pair.feel()
        after = pair.floats.copy()
        rows.append((before, action, after, flat(theirs.observation), theirs.reward))
    return dict(zip(PARTS, map(np.array, zip(*rows, strict=True)), strict=True))


def read(name):
    """Return the recorded steps of a level."""
    with np.load(PATH) as file:
        return {part: file[f"{name}/{part}"] for part in PARTS}


def check_recorded_steps(name):
    """States, what sensors feel, observations and rewards are those recorded."""
    env, task = find(name)
    steps, ints, out = (
        read(name),
        np.zeros(task.ints, np.int64),
        np.zeros(task.observation_space.shape),
    )
    for before, action, after, observation, reward in zip(*steps.values(), strict=True):
        floats = before.copy()
        found, _, _ = env.step(task.params, ints, floats, action)
        scale = max(1, abs(after).max())
        np.testing.assert_allclose(floats, after, rtol=0, atol=1e-11 * scale)
        env.observe(task.params, ints, floats, out)
        np.testing.assert_allclose(out, observation, rtol=0, atol=1e-10)
        assert abs(found - reward) < 1e-10
    assert len(np.unique(steps["reward"])) > 1


if __name__ == "__main__":
    steps = {name: record(name) for name in TASKS}
    arrays = {f"{name}/{part}": steps[name][part] for name in TASKS for part in PARTS}
    np.savez_compressed(PATH, **arrays)
