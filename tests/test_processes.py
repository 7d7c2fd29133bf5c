"""How processes are started: a library with the driver's functions is built with the C compiler."""

import ctypes
import shutil
import subprocess
import sys

import pytest

from minis5 import processes

DRIVER = """
static int ready = 0;
int cuInit(unsigned flags) { ready = 1; return flags; }
int cuCtxGetCurrent(void **context) { *context = 0; return ready ? 0 : 3; }
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Return the path of a driver of our own, under a name that no other library has."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    source, library = tmp_path / "driver.c", tmp_path / f"lib{tmp_path.parent.name}.so"
    source.write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(processes.cuda_initialised, "__defaults__", (str(library),))
    return str(library)


def test_fork_until_cuda_is_initialised(driver):
    """A driver that is not loaded, or loaded only, does no harm; one that is initialised does."""
    assert processes.start_method() == "fork"
    loaded = ctypes.CDLL(driver)
    assert not processes.cuda_initialised(driver) and processes.start_method() == "fork"
    loaded.cuInit(0)
    assert processes.cuda_initialised(driver) and processes.start_method() == "spawn"


def test_to_ask_loads_nothing(driver):
    assert not processes.cuda_initialised(driver)
    with open("/proc/self/maps", encoding="utf-8") as maps:
        assert driver not in maps.read()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_spawn(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert processes.start_method() == "spawn"
