"""`minis5 completion`: what Tab offers in bash, and a library that is missing."""

import shutil
import subprocess
import sys

import pytest
from command_line import error_of

from minis5.run.cli import main
from minis5.run.summaries import SUMMARIES

TRY = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=()
_shtab_minis5 minis5 "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Write the script for bash; return its path."""
    pytest.importorskip("shtab")
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    path = tmp_path_factory.mktemp("completion") / "minis5.bash"
    command = [sys.executable, "-m", "minis5", "completion", "bash"]
    path.write_bytes(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("", set(SUMMARIES)),
        ("tr", {"train"}),
        ("train RepeatPreviousH", {"RepeatPreviousHard"}),
        ("train CartPole-v1 --anneal", {"--anneal-lr"}),
        ("train X --core g", {"gru"}),
        ("train X --hid", {"--hidden"}),  # of another core
        ("train X --preset p", {"paper"}),
        ("train X --device ", {"cpu", "cuda"}),
        ("train X --track ", {"tensorboard", "wandb"}),
        ("completion z", {"zsh"}),
        ("eval --stoch", {"--stochastic"}),
    ],
)
def test_what_is_offered(script, words, offered):
    typed = ["minis5", *words.split(" ")]
    done = subprocess.run(["bash", "-c", TRY, "-", script, *typed], capture_output=True, text=True)
    found = set(done.stdout.split())
    assert offered <= found if words == "" else offered == found, done.stderr


def test_other_shells(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("#compdef minis5\n")
    assert main(["completion", "tcsh"]) == 0
    assert "complete minis5" in capsys.readouterr().out
    message = error_of(capsys, "completion fish")
    assert "unknown SHELL 'fish'; did you mean" in message or "expected one of bash" in message


def test_a_library_that_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install 'minis5[completion]'" in error_of(capsys, "completion bash")
