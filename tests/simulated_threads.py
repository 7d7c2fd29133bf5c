"""The threads of a simulated block take turns.

Numba's simulator starts a thread of Python for each of them and polls them all, which takes more
time than their work. Here one runs until its next barrier or its end, and then another one. Their
order is that of their numbers, and the other way round after every barrier. So a thread that lacks
a barrier misses what another thread has yet to write, whichever of the two has the higher number.

A thread that waits at a barrier occupies a thread of Python, its carrier. If none waits, one
carrier is enough for all. Blocks may run at the same time (scan_checks.py), each with a carrier.

Leaves out: threads of a block that wait for each other without a barrier. Tests:
tests/test_simulator.py.
"""

import threading
from itertools import product
from types import SimpleNamespace

from numba.cuda.simulator import kernel, kernelapi

_here = threading.local()


def current_thread():
    """Return the simulated thread that runs in this thread of Python."""
    return _here.thread


class SimulatedThread(kernel.BlockThread):
    """What kernels ask of their thread. It is no thread of Python: that one is not made."""

    def __init__(self, block, manager, grid_point, index):
        self._manager, self._block = manager, block
        self.blockIdx, self.threadIdx = kernel.Dim3(*grid_point), kernel.Dim3(*index)
        width, height, _ = manager._block_dim
        self.thread_id = index[0] + width * (index[1] + height * index[2])
        self.turn = threading.Lock()
        self.turn.acquire()

    def syncthreads(self):
        """Let the block's other threads run up to their next barriers."""
        self._block.waiting.append(self)
        self._block.pass_on()
        self.turn.acquire()
        if self._block.error:
            raise RuntimeError("another thread of this block has failed")


class Block:
    """The threads of a block, and whose turn it is."""

    def __init__(self, work, manager, grid_point):
        self.work = work
        points = product(*map(range, manager._block_dim))
        self.fresh = [SimulatedThread(self, manager, grid_point, point) for point in points][::-1]
        self.phase, self.waiting = [], []  # at the last barrier, at the next one
        self.error, self.ended = None, threading.Lock()
        self.ended.acquire()

    def run(self):
        """Run all threads to their ends; raise the first error."""
        self.pass_on()
        self.ended.acquire()
        if self.error:
            raise self.error

    def pass_on(self):
        """Let the next thread run: of those that have not begun, then of those that wait."""
        if self.fresh and not self.error:
            Carrier.free().begin(self)
            return
        if not self.phase:  # all are at the next barrier
            self.phase, self.waiting = self.waiting, []
        if self.phase:
            self.phase.pop().turn.release()
        else:
            self.ended.release()

    def begin_threads(self):
        """Run threads that have not begun, one after the other."""
        while self.fresh and not self.error:
            _here.thread = thread = self.fresh.pop()
            try:
                self.work()
            except BaseException as error:
                error.add_note(f"in thread {thread.threadIdx} of block {thread.blockIdx}")
                self.error = self.error or error


class Carrier(threading.Thread):
    """A thread of Python for simulated threads; it is used again and again."""

    _free: list = []  # noqa: RUF012  of all blocks

    def __init__(self):
        super().__init__(daemon=True)
        self.block, self.given = None, threading.Lock()
        self.given.acquire()
        self.start()

    @classmethod
    def free(cls):
        """Return a carrier that has nothing to do."""
        try:
            return cls._free.pop()
        except IndexError:
            return cls()

    def begin(self, block):
        """Run the block's threads that have not begun, until one waits or all have ended."""
        self.block = block
        self.given.release()

    def run(self):
        """Carry what is given."""
        while self.given.acquire():
            block = self.block
            block.begin_threads()
            self._free.append(self)
            block.pass_on()


def run_block(manager, grid_point, *arguments):
    """Run a block's threads: BlockManager.run."""
    Block(lambda: manager._f(*arguments), manager, grid_point).run()


def take_turns():
    """Let the simulator run its threads this way from now on."""
    kernel.BlockManager.run = run_block
    kernelapi.threading = SimpleNamespace(current_thread=current_thread)
