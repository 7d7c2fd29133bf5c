"""Device code of minis5: everything that runs inside a CUDA kernel lives in this package, and nothing else.

envs.py runs the native environments on a GPU. Training runs on the CPU so far. The folder above has no ``__init__.py`` on
purpose: a package named ``cuda`` would hide NVIDIA's namespace of that name.
"""
