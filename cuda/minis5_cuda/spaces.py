"""One-hot observations on a GPU: the kernel of minis5/spaces.py's loop.

Tested in tests/rl/test_cuda_training.py with the simulator and, where there is a GPU, in tests/gpu/test_training.py.
"""

from numba import cuda

from minis5 import spaces as cpu
from minis5.ops import form_of
from minis5_cuda.launch import blocks, kernel, launch

BLOCK = 128


@kernel
def one_hot_kernel(values, start, sizes, offsets, out):
    """One thread a component: out[i, offset + value] = 1 if the value is legal."""
    k = cuda.grid(1)
    columns = values.shape[1]
    if k < values.shape[0] * columns:
        i, j = k // columns, k % columns
        index = values[i, j] - start[j]
        if 0 <= index < sizes[j]:
            out[i, offsets[j] + index] = 1


@form_of(cpu.one_hot)
def one_hot(values, start, sizes, offsets, out):
    """values: int64 (n, k), any strides; start, sizes, offsets: int64 (k,); out: float32 (n, size), zeros on entry."""
    launch(one_hot_kernel, blocks(values.size, BLOCK), BLOCK, values, start, sizes, offsets, out)
    return -1, -1
