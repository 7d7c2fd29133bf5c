"""Random numbers in whole arrays on a GPU: the kernels of minis5/random.py's loops, with its own scalar functions inside.

A number depends only on the generator row and on its place in the array, so that threads need not know of each other, and the
bits are the CPU's.
Tested in tests/test_cuda_training.py with the simulator and, where there is a GPU, in tests/gpu/test_training.py.
"""

from numba import cuda

from minis5.random import normal_at, uniform_at

from .envs import exact_launch
from .launch import blocks, kernel

BLOCK = 128


@kernel
def uniforms_kernel(row, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = uniform_at(row, i)


@kernel
def normals_kernel(row, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = normal_at(row, i)


def uniforms(row, out):
    """row: int64 (3,); out: float64 (n,)."""
    exact_launch(uniforms_kernel, blocks(out.size, BLOCK), BLOCK, row, out)


def normals(row, out):
    """row: int64 (3,); out: float64 (n,)."""
    exact_launch(normals_kernel, blocks(out.size, BLOCK), BLOCK, row, out)
