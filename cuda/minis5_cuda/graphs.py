"""CUDA graphs: work that is queued again and again is recorded once and then queued as a whole, by one call.

Python takes 10 to 50 µs to queue a kernel, more than most of an agent's kernels take to run; for a recorded one it takes nothing.
What is recorded are addresses, so a function that is to be recorded
    reads and writes nothing but arrays that stay where they are (numbers that change are arrays too);
    never waits for the GPU, and takes no decision on what the GPU has computed;
    does the same work each time.
What it allocates comes from a memory pool of its own, which nobody else gets memory from: in a replay the same addresses are
written again.

Source: CUDA C++ Programming Guide, "CUDA Graphs". Tested in tests/gpu/test_training.py; in the simulator the function is just
called.
"""

from contextlib import suppress

from minis5_cuda.launch import SIMULATED


class Graph:
    """A function without arguments, recorded at its first call.

    Parameters
    ----------
    function : callable
        As above. The first call runs it (Numba compiles its kernels then), then records it, which runs nothing.
    result : bool
        Whether what the function returns is wanted: then the first call also replays the recording, because its arrays,
        not those of the first run, are those which a replay writes. The function has to give the same when run twice.
    """

    def __init__(self, function, result=False):
        self.function, self.wanted = function, result
        self.graph = self.pool = self.result = None

    def __call__(self):
        if self.graph is not None:
            self.graph.launch()
            return self.result
        import cupy

        stream = cupy.cuda.get_current_stream()
        if stream.ptr in (0, 1, 2):  # the default streams cannot be recorded
            raise RuntimeError(
                "stream: CUDA graphs need a stream of their own; work within `with cupy.cuda.Stream():`"
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
