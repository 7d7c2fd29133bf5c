"""Many small arrays into one: the gradients by name as one vector, without copies through the host.

cupy.concatenate of more than eight arrays sends their addresses from the host. A recorded CUDA
graph would read them again, from memory that has been freed long before.

Leaves out: arrays of several dtypes; axes.
Source: minis5's own. Specification and CPU form: concatenate_vectors in minis5/ops.py.
Tests: tests/test_kernels.py with the simulator, tests/gpu/test_kernels.py on a GPU.
"""

import itertools

from minis5 import ops as cpu
from minis5.arrays import array_module
from minis5.ops import form_of
from minis5_cuda.launch import blocks, cuda, kernel, launch

BLOCK = 256  # threads
MOST_BLOCKS = 64  # along an array
# arrays of a launch: each takes 8 words of the kernel's arguments, together 3.75 KB of the 4 KB
# that every GPU allows
GROUP = 60


@kernel
def concatenate_vectors_kernel(parts, begins, out):
    """Write part y to out[begins[y]:], with y = blockIdx.y; blockIdx.x has a stripe of it."""
    part, begin = parts[cuda.blockIdx.y], begins[cuda.blockIdx.y]
    for i in range(cuda.grid(1), part.size, cuda.gridsize(1)):
        out[begin + i] = part[i]


@form_of(cpu.concatenate_vectors)
def concatenate_vectors(parts):
    """Return the arrays ``parts`` (one dtype, any shapes) end to end in one vector."""
    parts = [part.ravel() for part in parts]
    ends = list(itertools.accumulate(part.size for part in parts))
    out = array_module(parts[0]).empty(ends[-1], parts[0].dtype)
    begins = [end - part.size for end, part in zip(ends, parts, strict=True)]
    for i in range(0, len(parts), GROUP):
        group = tuple(parts[i : i + GROUP])
        grid = min(blocks(max(part.size for part in group), BLOCK), MOST_BLOCKS), len(group)
        launch(concatenate_vectors_kernel, grid, BLOCK, group, tuple(begins[i : i + GROUP]), out)
    return out
