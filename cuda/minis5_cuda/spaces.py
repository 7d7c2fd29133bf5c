"""One-hot observations on a GPU: the kernel of the operation of minis5/spaces.py.

Leaves out: a check of the values. An illegal value leaves zeros, where the CPU form reports it.
Source, specification and CPU form: one_hot in minis5/spaces.py.
Tests: tests/test_spaces.py and tests/rl/test_cuda_training.py with the simulator,
tests/gpu/test_kernels.py and tests/gpu/test_training.py on a GPU.
"""

from minis5 import spaces as cpu
from minis5.ops import form_of
from minis5_cuda.launch import blocks, cuda, kernel, launch

BLOCK = 128  # threads


@kernel
def one_hot_kernel(values, start, sizes, offsets, out):
    """Write out[i, offset + value] = 1 if the value is legal; a thread has one component."""
    k = cuda.grid(1)
    columns = values.shape[1]
    if k < values.shape[0] * columns:
        i, j = k // columns, k % columns
        index = values[i, j] - start[j]
        if 0 <= index < sizes[j]:
            out[i, offsets[j] + index] = 1


@form_of(cpu.one_hot)
def one_hot(values, start, sizes, offsets, out):
    """Write a 1 to out, float32 (n, size), zeros on entry, for each legal value.

    values: int64 (n, k), any strides; start, sizes, offsets: int64 (k,). Returns (-1, -1): no value
    is reported as illegal.
    """
    launch(one_hot_kernel, blocks(values.size, BLOCK), BLOCK, values, start, sizes, offsets, out)
    return -1, -1
