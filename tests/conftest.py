"""One BLAS thread for each process of the tests, before NumPy is imported.

The tests run on all cores already, and their matrices are small: more threads would only wait for
each other, which costs many times the CPU time.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
