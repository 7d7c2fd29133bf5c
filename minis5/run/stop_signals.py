"""The signals that ask a run to stop: the first lets the update end, the second stops at once.

Leaves out: saving (minis5/run/learn.py). Tests: tests/run/test_progress.py,
tests/run/test_train.py.
"""

import signal
import sys
import threading

from minis5.run.console import tell


def _ignore_interrupts(unraisable):
    """Report an exception that was lost, but for an interrupt, which comes again."""
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


class StopSignals:
    """A context in which SIGINT and SIGTERM are handled; ``came``: the first of them is here.

    Only a main thread can handle them; elsewhere nothing changes.
    """

    def __init__(self):
        self.came, self.previous, self.unraisablehook = False, {}, sys.unraisablehook

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.previous = {
                number: signal.signal(number, self._signal)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error):
        if sys.platform != "win32" and signal.SIGALRM in self.previous:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = self.unraisablehook

    def _signal(self, number, frame):
        del number, frame
        if self.came:
            sys.unraisablehook = _ignore_interrupts
            if sys.platform != "win32":
                # While Numba compiles, LLVM calls Python back, and an exception raised in there is
                # lost. So a timer asks again each second until __exit__ shows that one arrived.
                self.previous.setdefault(
                    signal.SIGALRM, signal.signal(signal.SIGALRM, self._signal)
                )
                signal.setitimer(signal.ITIMER_REAL, 1.0)
            raise KeyboardInterrupt
        self.came = True
        tell("\nfinishing this update and saving; once more stops at once")
