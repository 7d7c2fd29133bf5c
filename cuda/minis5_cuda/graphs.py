"""CUDA graphs: work that is queued again and again is recorded once, and then queued by one call.

Python takes 10 to 50 µs to queue a kernel, more than most of an agent's kernels take to run. For a
recorded kernel it takes no time. A recording holds addresses. So a function that is to be recorded
    reads and writes only arrays that stay where they are (numbers that change are arrays too);
    never waits for the GPU, and takes no decision on what the GPU has computed;
    does the same work each time.
The arrays that it allocates come from a memory pool of its own, which serves nobody else: a replay
writes the same addresses again. The pool's memory goes back to the GPU with the graph, because CuPy
keeps it otherwise until the process ends.

A `Series` is work of many equal parts, such as the steps of a rollout: a few graphs of many parts.

Leaves out: an update of a recorded graph; functions with arguments; conditional nodes.
Source: CUDA C++ Programming Guide, "CUDA Graphs". Specification: the function itself, called each
time, as in the simulator. Tests: tests/test_graphs.py; on a GPU tests/gpu/test_training.py; the
rules above: tests/rl/test_cuda_training.py.
"""

import sys
from contextlib import suppress
from functools import partial

from minis5_cuda.launch import SIMULATED


class Graph:
    """A function without arguments, recorded at its first call.

    Parameters
    ----------
    function : callable
        As above. The first call runs it, while Numba compiles its kernels. Then it records it,
        which runs nothing.
    result : bool
        Whether the result of the function is wanted. If so, the first call also replays the
        recording, because a replay writes the arrays of the recording, not those of the first run.
        The function must give the same result when run twice.
    """

    def __init__(self, function, result=False):
        self.function, self.wanted = function, result
        self.graph = self.pool = self.result = None

    def __call__(self):
        """Queue the work; return what the function returned when it was recorded.

        Raises
        ------
        RuntimeError
            The current stream is the default stream, which cannot be recorded.
        """
        if self.graph is not None:
            self.graph.launch()
            return self.result
        import cupy

        stream = cupy.cuda.get_current_stream()
        if stream.ptr in (0, 1, 2):  # the default streams cannot be recorded
            raise RuntimeError(
                "stream: CUDA graphs need a stream of their own; "
                "work within `with cupy.cuda.Stream():`"
            )
        if SIMULATED:
            return self.function()
        self.pool = cupy.cuda.MemoryPool()
        with cupy.cuda.using_allocator(self.pool.malloc):
            self.function()
            # relaxed: the pool may still grow
            stream.begin_capture(cupy.cuda.runtime.streamCaptureModeRelaxed)
            try:
                self.result = self.function()
            except BaseException:
                # of a recording that the error has spoilt
                with suppress(cupy.cuda.runtime.CUDARuntimeError):
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()
        if self.wanted:
            self.graph.launch()
        return self.result

    def drop(self):
        """Forget the recording: the next call makes another."""
        self.graph = self.result = None

    def __del__(self):
        """Give the recording's memory back, but for arrays of the result that others still hold.

        Freeing waits for the GPU, so that a replay which is under way keeps its memory to its end.
        """
        self.drop()
        if self.pool is not None and not sys.is_finalizing():
            self.pool.free_all_blocks()


class Series:
    """Equal parts of work, one after the other, as a few graphs that each have many of them.

    One graph for all would be the simplest, but Python passes through every part that it records:
    a rollout of the paper's preset has 1,024 parts of some 60 nodes, its learning 240 of some 260.
    At 20 µs a node each would take more than a second, before training begins. So a graph has at
    most ``most`` parts, and the host's work is one launch for each of them. What it waits for at
    the end of an iteration takes longer than these launches.

    Parameters
    ----------
    function : callable
        function(n) queues n parts. It follows the rules above.
    most : int
        Most parts in a graph.
    """

    def __init__(self, function, most):
        self.function, self.most, self.graphs = function, most, {}

    def __call__(self, count):
        """Queue ``count`` parts: graphs of ``most``, and at last one of the rest."""
        full, rest = divmod(count, self.most)
        for n in [self.most] * full + [rest] * (rest > 0):
            if n not in self.graphs:
                self.graphs[n] = Graph(partial(self.function, n))
            self.graphs[n]()

    def drop(self):
        """Forget the recordings: the next call makes others."""
        for graph in self.graphs.values():
            graph.drop()
