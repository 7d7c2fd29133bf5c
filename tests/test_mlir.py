"""All kernels compiled by numba-cuda-mlir too: the table in cuda/README.md is true.

.ci/run installs the version that the table names, in a folder of its own.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "cuda" / "README.md"


@pytest.mark.slow
def test_the_readme_says_which_kernels_numba_cuda_mlir_compiles():
    try:
        version = metadata.version("numba-cuda-mlir")
    except metadata.PackageNotFoundError:
        pytest.skip("needs numba-cuda-mlir: pip install --no-deps --target FOLDER numba-cuda-mlir")
    # its launch.py takes the place of ours: in a process of its own
    command = [sys.executable, TESTS / "mlir_report.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    page, rows = PAGE.read_text(encoding="utf-8"), result.stdout.splitlines()
    table = page.partition("## The next compiler")[2].partition("\n## ")[0]
    assert f"numba-cuda-mlir {version}" in table, "the table is of another version"
    assert rows == [line for line in table.splitlines() if line.startswith("| ")][1:]
