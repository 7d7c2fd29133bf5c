"""Threads of the simulator take turns (simulated_threads.py), and a lacking barrier is seen."""

import pytest
import turn_checks
from simulator import simulated


@pytest.mark.slow  # no version of Python or NumPy changes what it shows
def test_threads_take_turns():
    simulated(turn_checks.__file__, "in_turns()")
