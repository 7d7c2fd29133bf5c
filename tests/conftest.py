"""What each process of the tests begins with: one BLAS thread, and SIGINT that interrupts.

The tests run on all cores already, and their matrices are small: more threads would only wait for
each other, which costs many times the CPU time. NumPy reads their number when it is imported.

A shell lets its jobs in the background ignore SIGINT. The programs that tests start would too.
"""

import os
import signal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
