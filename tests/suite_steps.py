"""Steps of dm_control's finger, recorded, so that they can be compared where it is not installed.

    python tests/suite_steps.py          record them anew: tests/suite_steps.npz

For each level there are N states before a control step (`floats`, a row as finger.py has it), the
actions, states and observations after it, and the rewards. Recorded with dm_control 1.0.50 and
MuJoCo 3.17, its solver at tolerance 0.
Tests: tests/envs/control/test_finger.py.
"""

from pathlib import Path

import numpy as np
from finger_states import any_states
from suite_pairs import Pair, flat

PATH = Path(__file__).with_suffix(".npz")
N = 100
PARTS = ("floats", "action", "floats_after", "observation", "reward")


def record(name):
    """Return N steps of a level from any states: {part: array (N, ...)}."""
    pair, rng = Pair(name), np.random.default_rng(2)
    rows = []
    for k, state in enumerate(any_states(N)):
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


if __name__ == "__main__":
    names = ("FingerSpin", "FingerTurnEasy", "FingerTurnHard")
    steps = {name: record(name) for name in names}
    arrays = {f"{name}/{part}": steps[name][part] for name in names for part in PARTS}
    np.savez_compressed(PATH, **arrays)
