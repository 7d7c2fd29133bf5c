"""The table of launches in cuda/README.md is what launch_counts.py counts, and no less."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "cuda" / "README.md"
CODE = """
import simulated_cupy
simulated_cupy.install()
import launch_counts
launch_counts.show({!r})
"""


ACTING = {
    "paper": ["rollout step", "prepare"],
    "laptop": ["a step by itself", "rollout of 256 steps", "prepare"],
}


@pytest.mark.parametrize("preset", ACTING)
def test_the_readme_has_the_launches_of_a_step_and_of_a_minibatch(preset):
    variables = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CODE.format(preset)]
    environment = {**os.environ, **variables, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows, page = result.stdout.splitlines(), PAGE.read_text(encoding="utf-8").splitlines()
    assert [row.split(" | ")[1] for row in rows] == [*ACTING[preset], "minibatch"]
    assert rows == [line for line in page if line.startswith(f"| {preset} |")]
    if preset == "laptop":  # fewer than one a step
        assert int(rows[1].split("|")[-2]) == 1
