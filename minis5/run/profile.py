"""`minis5 bench profile`: where the time of a minibatch and of a rollout's step goes, by function.

    products   matrix products that a function asks BLAS for
    loops      other operations that it calls (ops.py): compiled loops
    rest       Python, NumPy, and loops that are no operations: the environments'

Products and loops are timed where `operation` dispatches them, and belong to the function that
called it. The rest is what is left of the whole. cProfile, on a clock that stops during operations,
says how to share it out among the functions of minis5; those of NumPy belong to their callers. Both
are taken from the fastest of several rounds, which other programs disturbed least.

The time that the bookkeeping takes belongs to nobody.

Leaves out: several threads, GPUs. Tests: tests/run/test_profile.py.
"""

import cProfile
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from minis5.ops import matmul, operations
from minis5.rl.agent import heads_backward, heads_forward

PACKAGE = Path(__file__).resolve().parents[1]
FEWEST = 0.003
COMPOSED = heads_forward, heads_backward  # of other operations, which are timed


class Watch:
    """Time every operation; ``spent`` has nanoseconds by (caller's code, kind), ``calls`` calls."""

    def __init__(self):
        self.spent, self.calls = Counter(), Counter()
        # when the operation that runs was called, 0 for none; the sum of these calls' times
        self.began = self.stopped = 0

    def clock(self):
        """Return nanoseconds, on a clock that stops while an operation is called and counted."""
        return (self.began or time.perf_counter_ns()) - self.stopped

    @contextmanager
    def watching(self):
        """Watch within this context."""
        single = (operation for operation in operations if operation not in COMPOSED)
        forms = {operation: operation.cpu_form for operation in single}
        for operation, form in forms.items():
            operation.cpu_form = self._timed(form, "products" if operation is matmul else "loops")
        try:
            yield
        finally:
            for operation, form in forms.items():
                operation.cpu_form = form

    def _timed(self, form, kind):
        def call(*args, **options):
            if self.began:  # part of another operation
                return form(*args, **options)
            self.began = called = time.perf_counter_ns()
            key = sys._getframe(2).f_code, kind  # 1 is the dispatch
            start = time.perf_counter_ns()
            result = form(*args, **options)
            self.spent[key] += time.perf_counter_ns() - start
            self.calls[key] += 1
            self.stopped += time.perf_counter_ns() - called
            self.began = 0
            return result

        return call


def profile(work, repeats):
    """Return rows of nanoseconds for ``work()``: one for the whole, then one for each function.

    A row is {"function", "calls" of operations, "products", "loops", "rest", "value": their sum}.
    Those of functions are in falling order, and add up to the first; the last has the small ones.
    """
    work()
    rounds = []
    for _ in range(repeats):
        watch = Watch()
        with watch.watching():
            start = time.perf_counter_ns()
            work()
            rounds.append((time.perf_counter_ns() - start - watch.stopped, watch))
    rest, watch = min(rounds, key=lambda round: round[0] + sum(round[1].spent.values()))
    whole, rows = rest + sum(watch.spent.values()), []
    times = min((_rest(work) for _ in range(repeats)), key=lambda times: sum(times.values()))
    shares = {code: taken / sum(times.values()) for code, taken in times.items()}
    for code in {code for code, _ in watch.spent} | set(shares):
        products, loops = watch.spent[code, "products"], watch.spent[code, "loops"]
        calls = watch.calls[code, "products"] + watch.calls[code, "loops"]
        rows.append(_row(_label(code), calls, products, loops, rest * shares.get(code, 0.0)))
    rows.sort(key=lambda row: -row["value"])
    few = [row for row in rows if row["value"] < FEWEST * whole]
    many = rows[: len(rows) - len(few)]
    last = [_sum(f"{len(few)} others", few)] if few else []
    return [_sum("all", rows), *many, *last]


def _row(function, calls, products, loops, rest):
    row = {"function": function, "calls": calls, "products": products, "loops": loops, "rest": rest}
    return row | {"value": products + loops + rest}


def _sum(function, rows):
    names = ("calls", "products", "loops", "rest")
    return _row(function, *(sum(row[name] for row in rows) for name in names))


def _rest(work):
    """Return the seconds that each function spent outside of operations, under cProfile."""
    watch, times = Watch(), {}
    profiler = cProfile.Profile(watch.clock, 1e-9)
    with watch.watching():
        profiler.runcall(work)
    for entry in profiler.getstats():
        if _is_ours(entry.code):
            others = [call.totaltime for call in entry.calls or () if _is_foreign(call.code)]
            times[entry.code] = entry.inlinetime + sum(others)
    return times


def _is_foreign(code):
    """Return whether a function is from elsewhere; that of a builtin is a text."""
    return isinstance(code, str) or not Path(code.co_filename).is_relative_to(PACKAGE)


def _is_ours(code):
    """Return whether a function is minis5's, and not this file's."""
    return not (_is_foreign(code) or code.co_filename == __file__)


def _label(code):
    """Return a function's name, as "nn/layers.dense_forward"."""
    path = Path(code.co_filename)
    path = path.relative_to(PACKAGE) if path.is_relative_to(PACKAGE) else Path(path.name)
    name = code.co_qualname.replace(".<locals>", "")
    return f"{path.with_suffix('').as_posix()}.{name}"
