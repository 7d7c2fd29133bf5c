"""The GPU forms of minis5: CUDA kernels, their launchers, and what only a GPU has.

An operation of ``minis5/X.py`` has its kernel in ``X.py`` here, under the same name. The kernels
are tested in Numba's simulator and compiled for three generations of GPUs (ptx.py). Nothing here
has run on a GPU so far.

Read in this order:

    register                  imports every file that has GPU forms; minis5/device.py imports it
    launch                    compiles a kernel and queues it on CuPy's current stream
    nn/scan_textbook          Blelloch's scan as in the textbook, with resets
    nn/scan and scan_*        the fast scan and its adjoint
    reduce                    sums in a fixed order; the blocks of threads of most kernels
    nn/, rl/                  the other kernels; their __init__ gives the order
    graphs, blas              CUDA graphs; matrix products
    pack, columns             the gradients as one vector; a rollout's columns, joined matrices
    random, spaces, envs      random numbers, one-hot observations, the environments
    ptx, ptx_examples         all kernels compiled without a GPU: registers, shared memory, spills

This folder's parent has no ``__init__.py`` on purpose: a package named ``cuda`` would hide NVIDIA's
namespace of that name.
"""
