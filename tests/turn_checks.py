"""What simulated_threads.py promises, checked in the simulator by tests/test_simulator.py."""

import numpy as np
import pytest
import simulated_threads
from minis5_cuda.launch import cuda

SIZE = 5


def in_turns():
    """Their order, their numbers, barriers that some lack, and errors."""
    told = []

    def launch(function, blocks=1, threads=SIZE):
        out = np.zeros(SIZE, int)
        told.clear()
        cuda.jit(function)[blocks, threads](out)
        return out.tolist()

    def neighbour(out, step, barrier):
        me = cuda.threadIdx.x
        held = cuda.shared.array(SIZE, np.int64)
        held[me] = 0
        cuda.syncthreads()
        held[me] = 1 + me
        if barrier:
            cuda.syncthreads()
        out[me] = held[(me + step) % SIZE]

    def either_way(out):  # the phase after the first barrier begins with the last thread
        neighbour(out, -1, False)

    def after_two(out):  # and the next one with the first
        cuda.syncthreads()
        neighbour(out, 1, False)

    def with_barriers(out):
        neighbour(out, 2, True)

    assert launch(with_barriers) == [3, 4, 5, 1, 2]
    assert launch(either_way) == [5, 0, 0, 0, 0]
    assert launch(after_two) == [0, 0, 0, 0, 1]

    def order(out):
        for number in range(4):
            told.append((number, cuda.threadIdx.x))
            if number < cuda.threadIdx.x:  # the others have ended
                cuda.syncthreads()
            else:
                return

    launch(order, threads=4)
    assert told[:4] == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert told[4:] == [(1, 3), (1, 2), (1, 1), (2, 2), (2, 3), (3, 3)]

    def place(out):
        told.append((tuple(cuda.blockIdx), tuple(cuda.threadIdx), cuda.laneid, cuda.grid(3)))

    launch(place, (1, 2), (2, 1, 2))
    assert len(told) == 8
    assert told[3] == ((0, 0, 0), (1, 0, 1), 3, (1, 0, 1)) and told[-1][-1] == (1, 1, 1)

    def counted(out):
        out[cuda.threadIdx.x] = cuda.syncthreads_count(cuda.threadIdx.x < 3)

    assert launch(counted) == [3] * SIZE

    def wrong(out):
        if cuda.threadIdx.x == 3:
            raise KeyError("it")
        cuda.syncthreads()
        told.append("past the barrier")

    for _ in range(2):
        with pytest.raises(KeyError, match="it") as error:
            launch(wrong)
        assert error.value.__notes__ == ["in thread (3, 0, 0) of block (0, 0, 0)"]
        assert not told
    assert launch(with_barriers) == [3, 4, 5, 1, 2]
    # as many carriers as threads that waited at once, and none is lost by an error
    free = simulated_threads.Carrier._free
    assert len(free) == SIZE and all(carrier.is_alive() for carrier in free)
