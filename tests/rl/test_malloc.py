"""Memory that is kept instead of being given back to the system."""

import platform

from minis5.rl.malloc import keep_freed_memory


def test_keep_freed_memory(monkeypatch):
    """True with glibc; elsewhere False, without an error."""
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr("sys.platform", "darwin")
    assert keep_freed_memory() is False
