"""Ask the C library to keep freed memory instead of returning it to the system.

Every update allocates the same large arrays again. glibc maps each array anew and returns it to the
system when it is freed; the system then clears it. Measured once, this took a sixth of a
minibatch's time with the paper's network, and a quarter with arrays above 32 MiB. glibc's threshold
for mapping cannot be raised beyond that, so mapping is switched off.

Leaves out: other C libraries. Source: mallopt(3). Tests: tests/rl/test_malloc.py.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds in this process; return whether glibc accepted them."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library without mallopt, such as musl
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, (1 << 31) - 1), (M_TOP_PAD, 1 << 26))
    return all([mallopt(name, value) == 1 for name, value in settings])
