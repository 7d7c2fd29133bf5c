"""Graphs without a GPU: a default stream is refused, nothing is queued then; memory goes back.

And how many graphs a series is.
"""

import gc
import sys
from types import SimpleNamespace

import minis5_cuda.graphs
import pytest
from minis5_cuda.graphs import Graph, Series
from simulated_driver import recording_cupy


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


@pytest.mark.parametrize("wanted", [False, True])
def test_a_dropped_graph_gives_its_memory_back(wanted, monkeypatch):
    """All of it, but for arrays of the result that are still in use elsewhere."""
    cupy, pools = recording_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(minis5_cuda.graphs, "SIMULATED", False)

    def work():
        cupy.empty(100)  # freed while it is recorded: replays still write there
        return cupy.empty(10), cupy.empty(1)

    graph = Graph(work, result=wanted)
    kept, _ = graph()
    (pool,) = pools
    assert graph()[0] is kept and pool.taken == 11 and pool.free >= 100
    del _, graph
    gc.collect()
    assert pool.taken == 10 and pool.free == 0 and kept.size == 10


def test_a_recording_that_is_dropped_is_made_again(monkeypatch):
    cupy, pools = recording_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(minis5_cuda.graphs, "SIMULATED", False)
    calls = []
    graph = Graph(lambda: calls.append(True))
    graph()
    graph()
    assert len(calls) == 2 and len(pools) == 1  # run and recorded, then replayed
    graph.drop()
    graph()
    assert len(calls) == 4 and len(pools) == 2


def test_a_graph_that_was_never_called_has_no_memory_to_give_back():
    graph = Graph(lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        errors = []
        patch.setattr(sys, "unraisablehook", errors.append)
        del graph
    assert not errors


def test_a_series_is_a_few_graphs(monkeypatch):
    """Full graphs first, then one of the rest; each length is run once, and recorded once."""
    cupy, pools = recording_cupy()
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(minis5_cuda.graphs, "SIMULATED", False)
    ran, launched = [], []
    cupy.cuda.get_current_stream().end_capture = lambda: SimpleNamespace(
        launch=lambda n=ran[-1]: launched.append(n)
    )
    series = Series(ran.append, 4)
    series(10)
    assert ran == [4, 4, 2, 2] and launched == [4] and len(pools) == 2
    series(10)
    series(8)
    series(0)
    assert ran == [4, 4, 2, 2] and launched == [4, 4, 4, 2, 4, 4]
    series(3)
    assert ran[4:] == [3, 3] and len(launched) == 6
