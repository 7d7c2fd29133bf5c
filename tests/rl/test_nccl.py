"""Ranks on several GPUs: two are one with all environments; a dead one ends the others; mistakes.

In the simulator; the functions are in tests/several_gpus.py. On GPUs: tests/gpu/test_nccl.py.
"""

import inspect
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from mpi_here import ALLOWED, MPIEXEC, needs_mpi
from simulator import command, simulated

FILE = Path(__file__).parents[1] / "several_gpus.py"


def test_ranks_and_what_they_cannot_be():
    """All of it takes one process, because each costs seconds."""
    simulated(FILE, "basics()", gpus=2)


@pytest.mark.slow
def test_two_ranks_are_one_with_all_environments():
    simulated(FILE, "two_are_one('cuda')", gpus=2)


@pytest.mark.parametrize(("when", "in_thread"), [("meeting", False), ("summing", True)])
def test_a_killed_rank_ends_the_others(tmp_path, when, in_thread):
    simulated(FILE, f"killed({str(tmp_path)!r}, {when!r}, {in_thread})", gpus=3)


@pytest.mark.slow
def test_a_run_of_two_workers(tmp_path):
    """In one go as MPI starts it, and in two with --workers."""
    whole = str(tmp_path / "whole")
    if MPIEXEC is None or find_spec("mpi4py") is None:
        simulated(FILE, f"run_of_two({whole!r}, '--workers 2')", gpus=2)
    else:
        done = with_mpi(f"run_of_two({whole!r})", gpus=2)
        assert done.returncode == 0, done.stderr
    simulated(FILE, f"in_parts({str(tmp_path / 'parts')!r}, {whole!r})", gpus=2)


@needs_mpi
def test_more_ranks_of_mpi_than_gpus(tmp_path):
    done = with_mpi(f"run_of_two({str(tmp_path / 'run')!r})", gpus=1)
    assert done.returncode and "got none for rank 1, which sees 1" in done.stderr


def with_mpi(call, gpus):
    """Call a function of several_gpus.py in two ranks that MPI starts."""
    arguments, environment = command(FILE, call, gpus)
    arguments, environment = [MPIEXEC, "-n", "2", *arguments], {**environment, **ALLOWED}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True)


def test_the_simulated_nccl_has_nothing_that_cupy_lacks():
    nccl = pytest.importorskip("cupy.cuda.nccl")
    if not nccl.available:
        pytest.skip("CuPy cannot load NCCL")
    import simulated_nccl

    for name in ("NCCL_SUM", "NCCL_FLOAT32", "NCCL_FLOAT64"):
        assert getattr(nccl, name) == getattr(simulated_nccl, name)
    assert issubclass(nccl.NcclError, RuntimeError) and callable(nccl.get_unique_id)
    theirs, ours = nccl.NcclCommunicator, simulated_nccl.NcclCommunicator
    for name in ("allReduce", "check_async_error", "abort"):
        expected = list(inspect.signature(getattr(ours, name)).parameters)
        assert names_of(getattr(theirs, name)) == expected
    assert names_of(theirs)[:3] == list(inspect.signature(ours).parameters)
    import cupy

    assert cupy.cuda.Stream.done and cupy.cuda.Device.use and cupy.cuda.Device.__enter__
    assert cupy.cuda.runtime.deviceGetPCIBusId


def names_of(function):
    """Return the names of a compiled function's arguments, from the first line of its docstring."""
    line = (function.__doc__ or "").strip().splitlines()[0]
    parts = line.partition("(")[2].rpartition(")")[0].split(", ")
    return [part.split("=")[0].split()[-1] for part in parts]
