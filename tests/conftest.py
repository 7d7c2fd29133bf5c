"""What each process of the tests begins with: one BLAS thread, SIGINT that interrupts, no pictures.

The tests run on all cores already, and their matrices are small: more threads would only wait for
each other, which costs many times the CPU time. NumPy reads their number when it is imported.

A shell lets its jobs in the background ignore SIGINT. The programs that tests start would too.
"""

import os
import signal
import sys

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Draw no learning curve at the end of a run: it takes 0.5 s of CPU, a tiny run 0.1 s.

    Fixtures of a larger scope are made before this one, so their runs have pictures, which
    tests/run/test_plot.py looks at. So have the runs of other processes.
    """
    if training := sys.modules.get("minis5.run.train"):
        monkeypatch.setattr(training, "plot", lambda *arguments: None)
