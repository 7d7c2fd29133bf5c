"""A small run on the command line, and what a mistake prints there."""

from pathlib import Path

from minis5.run.cli import main

WITHOUT_MATPLOTLIB = str(Path(__file__).with_name("without_matplotlib"))
TINY = "--num-envs 8 --unroll 8 --minibatches 2 --epochs 1"
TINY += " --encoder 8 --heads 8,8 --n-layers 1 --ssm-size 8"
CHAIN = f"train MemoryChain --env-option memory_length=3 {TINY} --workers 1 --eval-episodes 20"


def error_of(capsys, command):
    """Return the one line on stderr of a command that fails as it should."""
    assert main(command if isinstance(command, list) else command.split()) == 2
    captured = capsys.readouterr()
    assert (
        captured.out == ""
        and captured.err.startswith("minis5: error: ")
        and captured.err.count("\n") == 1
    )
    return captured.err
