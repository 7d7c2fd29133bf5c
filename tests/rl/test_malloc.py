"""Memory that is kept instead of being given back to the system."""

import platform
import re
from pathlib import Path

import pytest

from minis5.rl import malloc
from minis5.rl.malloc import keep_freed_memory


def test_keep_freed_memory(monkeypatch):
    """True with glibc; elsewhere False, without an error."""
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False


def test_names_of_settings_are_glibc_s():
    """It ignores numbers that it does not know."""
    header = Path("/usr/include/malloc.h")
    if not header.exists():
        pytest.skip("needs glibc's headers")
    for name in ("M_TRIM_THRESHOLD", "M_TOP_PAD", "M_MMAP_MAX"):
        (number,) = re.findall(rf"#define\s+{name}\s+(-?\d+)", header.read_text())
        assert getattr(malloc, name) == int(number)
