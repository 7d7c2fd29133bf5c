"""tests/gpu without a GPU: skipped, or with MINIS5_REQUIRE_GPU=1 a failure that says why."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE = "tests/gpu/test_envs.py::test_wrong_calls"  # it needs no CuPy


def run(*arguments, required):
    """Run pytest in a process that sees no GPU; return what it printed and its exit status."""
    variables = {"CUDA_VISIBLE_DEVICES": "", "MINIS5_REQUIRE_GPU": required}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True
    )
    return result.stdout, result.returncode


def test_skipped_tests_fail_where_a_gpu_is_required():
    """In processes of xdist too, of which only the first knows all results."""
    out, status = run(ONE, required="0")
    assert status == 0 and "1 skipped" in out and "MINIS5_REQUIRE_GPU" not in out
    out, status = run(ONE, "-n", "1", required="1")
    assert status == 1 and "needs an NVIDIA GPU: " in out
    assert "MINIS5_REQUIRE_GPU=1, and no test of tests/gpu has passed" in out


def test_a_pass_is_demanded_even_if_no_test_fails(tmp_path):
    """Here all are skipped by their own file, as without CuPy."""
    folder = tmp_path / "gpu"
    folder.mkdir()
    source = (ROOT / "tests" / "gpu" / "conftest.py").read_text(encoding="utf-8")
    (folder / "conftest.py").write_text(source.replace("if reason := missing():", "if False:"))
    test, file = "\n\ndef test_a():\n    pytest.skip('no')\n", folder / "test_a.py"
    file.write_text(f"import pytest\n{test}")
    out, status = run(str(file), "--rootdir", str(tmp_path), required="1")
    assert status == 1 and "1 skipped" in out and "has passed" in out
    file.write_text(f"import pytest\n{test}\n\ndef test_b():\n    pass\n")
    out, status = run(str(file), "--rootdir", str(tmp_path), required="1")
    assert status == 0 and "1 passed, 1 skipped" in out and "has passed" not in out
