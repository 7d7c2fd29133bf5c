"""Device code of minis5: the CUDA kernels, what launches them, and what only a GPU has (cuBLAS, streams, graphs).

A loop of ``minis5/X.py`` has its kernel in ``X.py`` here, under the same name. Nothing of this has run on a GPU so far: the kernels
are tested in Numba's simulator and compiled (ptx.py). The folder above has no ``__init__.py`` on purpose: a package named ``cuda``
would hide NVIDIA's namespace of that name.
"""
