"""Random numbers in whole arrays on a GPU: the kernels of minis5/random.py's loops, with its own scalar functions inside.

A number depends only on the generator row and on its place in the array, so that threads need not know of each other, and the
bits are the CPU's.
Tested in tests/rl/test_cuda_training.py with the simulator and, where there is a GPU, in tests/gpu/test_training.py.
"""

from numba import cuda

from minis5 import random as cpu
from minis5.ops import form_of
from minis5.random import normal_at, uniform_at
from minis5_cuda.envs import exact_launch
from minis5_cuda.launch import blocks, kernel

BLOCK = 128


@kernel
def fill_uniform_kernel(row, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = uniform_at(row, i)


@kernel
def fill_normal_kernel(row, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = normal_at(row, i)


@form_of(cpu.fill_uniform)
def fill_uniform(row, out):
    """row: int64 (3,); out: float64 (n,)."""
    exact_launch(fill_uniform_kernel, blocks(out.size, BLOCK), BLOCK, row, out)


@form_of(cpu.fill_normal)
def fill_normal(row, out):
    """row: int64 (3,); out: float64 (n,)."""
    exact_launch(fill_normal_kernel, blocks(out.size, BLOCK), BLOCK, row, out)
