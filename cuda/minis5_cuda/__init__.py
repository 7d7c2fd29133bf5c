"""Device code of minis5: everything that runs inside a CUDA kernel will live in this package, and nothing else.

Empty so far: training runs on the CPU. The folder above has no ``__init__.py`` on purpose: a package named ``cuda``
would hide NVIDIA's namespace of that name.
"""
