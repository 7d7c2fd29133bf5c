"""Where a sweep makes its runs: here, one after another; in several processes; on MPI's ranks.

    python experiments/X.py --jobs 4                          four processes
    mpiexec -n 5 python -m mpi4py.futures experiments/X.py    four ranks, and one that leads

`pool` gives a function like `map`: that of an executor of `concurrent.futures`, or `map` itself.

Leaves out: calls that need each other's results. Tests: tests/test_pool.py.
"""

import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context

from minis5.processes import RANK_NAMES, start_method, started_by_mpi

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGALRM  # that stop a call
FUTURES = "mpi4py.futures"
_stopped = []  # not empty in a worker that begins no other call


class Stopped(SystemExit):
    """A signal stopped a call. A call returns it, so that no other one is begun."""


def environment_of_a_run():
    """Return this process's environment; a run is no rank of MPI, though this process may be."""
    return {name: value for name, value in os.environ.items() if name not in RANK_NAMES}


@contextmanager
def pool(jobs):
    """Give a function like `map` that makes ``jobs`` calls at once, or one on each rank of MPI.

    It gives the results in the order of the arguments. At a signal every call that is being made
    gets SIGINT. One job at a time is done in this process.
    """
    if FUTURES in sys.modules:  # python -m mpi4py.futures: this is rank 0, the others wait
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor

        if MPI.COMM_WORLD.Get_size() > 1:
            with MPIPoolExecutor(initializer=_begin) as executor, _signals_go_on():
                yield partial(_map, executor)
            return
    elif started_by_mpi():
        sys.exit(f"mpiexec: expected python -m {FUTURES} {sys.argv[0]} …, got it without -m")
    if jobs == 1:
        yield map
        return
    context = get_context(start_method())
    with ProcessPoolExecutor(jobs, context, _begin, (True,)) as executor, _signals_go_on():
        yield partial(_map, executor)


def _map(executor, function, arguments):
    return executor.map(partial(_call, function), arguments)


def _call(function, argument):
    """Call a function in a worker."""
    result = Stopped("stopped before it began") if _stopped else function(argument)
    if isinstance(result, Stopped):
        _stopped.append(True)
    return result


def _begin(apart=False):
    """Begin to be a worker; ``apart``: Ctrl-C in a terminal reaches only the script itself."""
    if apart:
        os.setpgid(0, 0)
    for number in SIGNALS:
        signal.signal(number, lambda *_: _stopped.append(True))


@contextmanager
def _signals_go_on():
    """Within this context, signals go on to workers of this process; mpiexec tells MPI's itself."""

    def go_on(*_):
        for process in active_children():
            os.kill(process.pid, signal.SIGINT)

    before = {number: signal.signal(number, go_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
