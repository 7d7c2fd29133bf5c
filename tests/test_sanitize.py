"""tests/gpu/sanitize with a stand-in for compute-sanitizer.

How the script calls it, and what the script makes of its answers.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # its tools run on one Python

SCRIPT = Path(__file__).parent / "gpu" / "sanitize"
ALL = "tests/gpu/test_kernels.py tests/gpu/test_scan.py tests/gpu/test_persistent.py"
ALL += "::test_one_launch_is_the_steps_one_by_one"
CLEAN = {
    "memcheck": "ERROR SUMMARY: 0 errors",
    "racecheck": "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)",
}


def run(folder, *arguments, tool="", missing="", **variables):
    """Run the script with a compute-sanitizer whose body is `tool`.

    Its Python lacks what `missing` says.
    """
    python = folder / "python"
    question = "*minis5.device*missing_for_cuda*"
    answer = f'echo "{missing}"; test -z "{missing}"'
    python.write_text(f'#!/bin/sh\ncase "$2" in {question}) {answer};; *) exit 1;; esac\n')
    fake = folder / "compute-sanitizer"
    fake.write_text(f'#!/bin/sh\necho "$MINIS5_SANITIZE $@" >>{folder}/calls\n{tool}\n')
    for file in (python, fake):
        file.chmod(0o755)
    if not tool:
        fake.unlink()
    variables |= {
        "PATH": f"{folder}:/usr/bin:/bin",
        "PYTHON": str(python),
        "CUDA_HOME": "",
        "CUDA_PATH": "",
    }
    environment = {**os.environ, **variables}
    return subprocess.run(
        [SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def answering(answers):
    cases = " ".join(f'*" {tool} "*) echo "========= {text}";;' for tool, text in answers.items())
    return f'case " $* " in {cases} esac'


def test_clean(tmp_path):
    result = run(tmp_path, tool=answering(CLEAN | {"synccheck": CLEAN["memcheck"]}))
    assert result.returncode == 0 and result.stderr == ""
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[:3] for call in calls] == [
        ["1", "--tool", tool] for tool in ("memcheck", "racecheck", "synccheck")
    ]
    assert all("--error-exitcode 1" in call and call.endswith(ALL) for call in calls)


def test_arguments(tmp_path):
    run(tmp_path, "-k", "gelu", tool="true", TOOLS="memcheck")
    run(tmp_path, "tests/gpu/test_envs.py::test_wrong_calls", tool="true", TOOLS="memcheck")
    keyword, other = (tmp_path / "calls").read_text().splitlines()
    assert keyword.endswith(f"{ALL} -k gelu")
    assert other.endswith("no:cacheprovider tests/gpu/test_envs.py::test_wrong_calls")


@pytest.mark.parametrize(
    "tool",
    [
        answering(CLEAN) + "; exit 1",
        answering(
            CLEAN | {"racecheck": "RACECHECK SUMMARY: 3 hazards displayed (0 errors, 3 warnings)"}
        ),
        answering(CLEAN | {"memcheck": "ERROR SUMMARY: 10 errors"}),
        answering({}),
    ],
    ids=["exit code", "warnings", "errors", "no summary"],
)
def test_findings(tmp_path, tool):
    result = run(tmp_path, tool=tool, TOOLS="memcheck racecheck")
    assert result.returncode == 1 and "findings, or a test that failed" in result.stderr


def test_what_is_missing_is_named(tmp_path):
    result = run(tmp_path, tool="true", missing="an NVIDIA GPU")
    assert result.returncode == 2 and result.stderr == "sanitize: needs an NVIDIA GPU\n"
    if (
        not list(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
        and not Path("/usr/bin/compute-sanitizer").exists()
    ):
        result = run(tmp_path)
        assert result.returncode == 2 and "pip install nvidia-cuda-sanitizer-api" in result.stderr


def test_the_wheel_is_found():
    """If it is installed; without a GPU the script then stops at that."""
    nvidia = pytest.importorskip("nvidia")
    if not any(list(Path(root).glob("*/bin/compute-sanitizer")) for root in nvidia.__path__):
        pytest.skip("needs compute-sanitizer: pip install nvidia-cuda-sanitizer-api")
    environment = {**os.environ, "PYTHON": sys.executable, "TOOLS": " "}
    result = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert "was not found" not in result.stderr
