"""Graphs without a GPU: a default stream is refused, and nothing is queued then."""

import sys
from types import SimpleNamespace

import pytest
from minis5_cuda.graphs import Graph


def test_the_default_streams_cannot_be_recorded(monkeypatch):
    """0 is the null stream, 1 the legacy default stream, 2 that of each thread."""
    calls = []
    graph = Graph(lambda: calls.append(True))
    for pointer in (0, 1, 2):
        stream = SimpleNamespace(ptr=pointer)
        cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda s=stream: s))
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        with pytest.raises(RuntimeError, match="stream: CUDA graphs need a stream of their own"):
            graph()
    assert not calls
