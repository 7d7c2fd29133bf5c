"""Random numbers in whole arrays on a GPU: the kernels of the operations of minis5/random.py.

They call that file's own scalar functions. A number depends only on the generator row and on its
place in the array. So threads need not know of each other, and the bits are the CPU's.

Leaves out: single numbers, which environments draw by themselves (envs.py).
Source, specification and CPU form: minis5/random.py.
Tests: tests/rl/test_cuda_training.py with the simulator, tests/gpu/test_training.py on a GPU.
"""

from minis5 import random as cpu
from minis5.ops import form_of
from minis5.random import normal_at, uniform_at
from minis5_cuda.envs import exact_launch
from minis5_cuda.launch import blocks, cuda, kernel

BLOCK = 128  # threads


@kernel
def fill_uniform_kernel(row, out):
    """Write out; a thread has one number."""
    i = cuda.grid(1)
    if i < out.size:
        out[i] = uniform_at(row, i)


@kernel
def fill_normal_kernel(row, out):
    """Write out; a thread has one number."""
    i = cuda.grid(1)
    if i < out.size:
        out[i] = normal_at(row, i)


@form_of(cpu.fill_uniform)
def fill_uniform(row, out):
    """Fill out, float64 (n,), with uniform numbers of the generator row, int64 (3,)."""
    exact_launch(fill_uniform_kernel, blocks(out.size, BLOCK), BLOCK, row, out)


@form_of(cpu.fill_normal)
def fill_normal(row, out):
    """Fill out, float64 (n,), with normal numbers of the generator row, int64 (3,)."""
    exact_launch(fill_normal_kernel, blocks(out.size, BLOCK), BLOCK, row, out)
