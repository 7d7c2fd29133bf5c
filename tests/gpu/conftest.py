"""Skip this folder's tests if there is no GPU; with MINIS5_REQUIRE_GPU=1, fail them instead.

Then it is also a failure if no test passes: skipped tests would look like good ones. Under
compute-sanitizer (the script beside this file) there is no memory pool.
"""

import os

import pytest

REQUIRED = os.environ.get("MINIS5_REQUIRE_GPU") == "1"
passed = 0


def missing():
    """Return what the tests need and do not find; None if they find all."""
    try:
        from minis5_cuda import launch
    except ImportError as error:
        return f"numba-cuda cannot be imported: {error}"
    if launch.SIMULATED:
        return "NUMBA_ENABLE_CUDASIM puts a simulator in its place"
    return None if launch.cuda.is_available() else "there is no driver or no device"


@pytest.fixture(scope="session", autouse=True)
def gpu():
    if reason := missing():
        (pytest.fail if REQUIRED else pytest.skip)(f"needs an NVIDIA GPU: {reason}")
    if "MINIS5_SANITIZE" in os.environ:
        pytest.importorskip("cupy").cuda.set_allocator(None)


def pytest_runtest_logreport(report):
    global passed
    passed += report.when == "call" and report.passed


def pytest_sessionfinish(session):
    """With several processes (-n), only the one that starts the others hears of all reports."""
    if REQUIRED and not passed and not hasattr(session.config, "workerinput"):
        print("\nMINIS5_REQUIRE_GPU=1, and no test of tests/gpu has passed")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
