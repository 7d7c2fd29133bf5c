"""Skip this folder's tests if there is no GPU.

Under compute-sanitizer (the script beside this file) there is no memory pool.
"""

import os

import pytest


def missing():
    """Return what the tests need and do not find; None if they find all."""
    try:
        import numba_cuda  # noqa: F401  without it, numba.cuda is another one
        from numba import config, cuda
    except ImportError as error:
        return f"numba-cuda cannot be imported: {error}"
    if config.ENABLE_CUDASIM:
        return "NUMBA_ENABLE_CUDASIM puts a simulator in its place"
    return None if cuda.is_available() else "there is no driver or no device"


@pytest.fixture(scope="session", autouse=True)
def gpu():
    if reason := missing():
        pytest.skip(f"needs an NVIDIA GPU: {reason}")
    if "MINIS5_SANITIZE" in os.environ:
        pytest.importorskip("cupy").cuda.set_allocator(None)
