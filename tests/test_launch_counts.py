"""The tables of launches and waits in cuda/README.md are what is counted, and no less.

launch_counts.py counts launches, host_counts.py what the host does in an iteration.
"""

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
import {0}
{0}.show({1!r})
"""


ACTING = {
    "paper": ["rollout step", "such a step's copies", "values of 64 such steps", "prepare"],
    "laptop": ["a step by itself", "rollout of 256 steps", "prepare"],
}


def counted(module, preset):
    """Return what ``module`` prints of a preset, and what the page has of it there."""
    variables = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CODE.format(module, preset)]
    environment = {**os.environ, **variables, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    heading = {"launch_counts": "## How much is queued", "host_counts": "## What stays on the GPU"}
    page = PAGE.read_text(encoding="utf-8").partition(f"\n{heading[module]}\n")[2]
    lines = page.partition("\n## ")[0].splitlines()
    return result.stdout.splitlines(), [x for x in lines if x.startswith(f"| {preset} |")]


@pytest.mark.slow  # no version of Python or NumPy changes what is launched
@pytest.mark.parametrize("preset", ACTING)
def test_the_readme_has_the_launches_of_a_step_and_of_a_minibatch(preset):
    rows, page = counted("launch_counts", preset)
    assert [row.split(" | ")[1] for row in rows] == [*ACTING[preset], "minibatch"]
    assert rows == page
    if preset == "laptop":  # fewer than one a step
        assert int(rows[1].split("|")[-2]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("preset", ACTING)
def test_the_readme_has_what_the_host_does_in_an_iteration(preset):
    rows, page = counted("host_counts", preset)
    assert rows == [row.rpartition(" | ")[0] + " |" for row in page]
    for row in rows:
        *_, normalised, graphs, waits = row.strip("| ").split(" | ")
        assert int(graphs) <= 40 and int(waits) == (6 if normalised == "yes" else 2)
