"""The check that a state passes before compiled loops go on from it: `set_state`'s values.

A state is numbers: counters, squares, cards. The loops index with some of them and do not look, so
that a state from a file that somebody made must not hold a number that no episode can reach. Every
task says its ranges (minis5/envs/task.py: Range).

Leaves out: what several numbers must be together, such as that a pack has each card once. A state
that is wrong in this way alone plays another game, but touches no memory that is not its own.
Tests: tests/envs/test_states.py.
"""

import numpy as np

from minis5.envs.task import Range
from minis5.random import GENERATOR_SIZE, MASK

GENERATOR = Range("ints", 0, GENERATOR_SIZE, 0, MASK)
REMEDY = "pass what get_state of the same environment returned after a reset"


def check_state(task, ints, floats):
    """Raise ValueError if a state (rows of `ints` and `floats`) has a number out of its range.

    Parameters
    ----------
    task : Task
    ints : int64 (n, task.ints)
    floats : float64 (n, task.floats)
    """
    if not np.isfinite(floats).all():
        row, column = np.argwhere(~np.isfinite(floats))[0]
        got = f"{floats[row, column]} at place {column} of environment {row}"
        raise ValueError(f"state['floats']: expected finite numbers, got {got}; {REMEDY}")
    for range_ in (GENERATOR, *task.ranges):
        array = {"ints": ints, "floats": floats}[range_.array]
        part = array[:, range_.begin : range_.end]
        wrong = (part < range_.low) | (part > range_.high)
        if range_.only:
            place, value = range_.only
            wrong &= (ints[:, place] == value)[:, None]
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            got = f"{part[row, column]} at place {range_.begin + column} of environment {row}"
            wanted = f"numbers in [{range_.low}, {range_.high}]"
            raise ValueError(f"state[{range_.array!r}]: expected {wanted}, got {got}; {REMEDY}")
