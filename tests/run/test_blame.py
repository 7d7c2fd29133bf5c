"""Errors of the user's own code come with its last places; those of minis5 are one sentence."""

import subprocess
import sys

import pytest
from command_line import TINY
from sampling import sampled

from minis5.run.blame import blame, frames, library

SOURCE = """
import gymnasium as gym, numpy as np

KINDS = {
    "ValueError": lambda: np.zeros(3) + np.zeros(4),
    "OSError": lambda: open("level_17.txt"),
    "ModuleNotFoundError": lambda: __import__("not_there"),
    "KeyError": lambda: {}["x"],
    "RuntimeError": lambda: exec("raise RuntimeError('simulator')"),
    "BrokenPipeError": lambda: exec("raise BrokenPipeError('simulator')"),
    "MemoryError": lambda: exec("raise MemoryError"),
    "AssertionError": lambda: exec("assert False"),
}

class Mistaken(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)
    steps = 0
    def __init__(self, kind="", where="step", after=100):
        self.kind, self.where, self.after = kind, where, after
        self.fail("constructor", 0)
    def fail(self, where, least):
        if self.where == where and Mistaken.steps >= least:
            KINDS[self.kind]()  # the mistake
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.fail("reset", self.after)
        return np.zeros(1, np.float32), {}
    def step(self, action):
        Mistaken.steps += 1
        self.fail("step", self.after)
        return np.zeros(1, np.float32), 1.0, True, False, {}

class Around(gym.Wrapper):
    def step(self, action):
        Mistaken.steps += 1
        if Mistaken.steps > 30:
            self.env.no_such_thing  # the mistake
        return self.env.step(action)

gym.register("Mistaken-v0", Mistaken)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("users")
    (folder / "mistaken.py").write_text(SOURCE)
    (folder / "broken.py").write_text("import gymnasium\nimport not_there_at_all  # the mistake\n")
    (folder / "misspelt.py").write_text("import gymnasium\ndef f(:  # the mistake\n    pass\n")
    return folder


def fails(folder, *words, env="mistaken:Mistaken-v0"):
    """Return the lines on stderr of a training that ends with exit code 2."""
    command = [sys.executable, "-W", "ignore", "-m", "minis5", "train", env, "--quiet"]
    command += [*TINY.split(), "--steps", "256", "--eval-episodes", "3"]
    result = subprocess.run([*command, *words], capture_output=True, text=True, cwd=folder)
    assert result.returncode == 2 and result.stdout == "", result
    return [line for line in result.stderr.splitlines() if "WARN" not in line]


@pytest.mark.parametrize(
    ("kind", "options"),
    sampled(
        [
            ("ValueError", {}),
            ("OSError", {}),
            ("ModuleNotFoundError", {"where": "reset"}),
            ("KeyError", {}),
            ("RuntimeError", {"where": "constructor"}),
            ("BrokenPipeError", {}),
            ("MemoryError", {}),
            ("AssertionError", {"where": "reset"}),
        ],
        every=4,
        unpack=True,
    ),
)
def test_the_users_own_place_is_shown(folder, monkeypatch, kind, options):
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    words = [f"--env-option={name}={value}" for name, value in {"kind": kind, **options}.items()]
    lines = fails(folder, *words, "--workers", "1")
    assert 'mistaken.py", line ' in lines[0] and len(lines) <= 12
    assert any("# the mistake" in line for line in lines)
    kind = "FileNotFoundError" if kind == "OSError" else kind
    assert lines[-1].startswith("minis5: error: the code above, which is not minis5's, raised ")
    assert f"raised {kind}" in lines[-1] and "minis5/" not in "".join(lines[:-1])


@pytest.mark.parametrize("words", [["--workers", "2"], ["--vector-option", "processes=2"]])
def test_the_users_place_in_another_process(folder, monkeypatch, words):
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    lines = fails(folder, "--env-option", "kind=KeyError", "--env-option", "after=20", *words)
    assert 'mistaken.py", line ' in lines[0] and any("# the mistake" in line for line in lines)
    assert lines[-1].endswith("raised KeyError: 'x'")


def test_in_the_evaluation(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    words = "--env-option", "kind=KeyError", "--env-option", "after=129"
    lines = fails(folder, *words, "--workers", "1")
    assert 'mistaken.py", line ' in lines[0] and lines[-1].endswith("raised KeyError: 'x'")


def test_in_a_wrapper(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    lines = fails(folder, "--wrapper", "mistaken:Around")
    assert "in step" in lines[0] and "# the mistake" in lines[1]
    assert "raised AttributeError: " in lines[-1] and "no attribute 'no_such_thing'" in lines[-1]


def test_while_importing(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
    lines = fails(folder, env="broken:Any-v0")
    assert 'broken.py", line 2' in lines[0] and "# the mistake" in lines[1]
    assert "raised ModuleNotFoundError: No module named 'not_there_at_all'" in lines[-1]
    lines = fails(folder, env="misspelt:Any-v0")
    assert 'misspelt.py", line 2' in lines[0] and "raised SyntaxError" in lines[-1]


def test_frames_of_a_text():
    text = (
        "environments 1: an environment failed\n"
        "Traceback (most recent call last):\n"
        '  File "/home/me/env.py", line 3, in step\n'
        "    return self.x[1]\n"
        "           ~~~~~~^^^\n"
        '  File "/usr/lib/numpy.py", line 9, in f\n'
        "KeyError: 1\n"
    )
    assert [frame.path for frame in frames(text)] == ["/home/me/env.py", "/usr/lib/numpy.py"]
    assert frames(text)[0].text.count("\n") == 2
    places, sentence, by_gymnasium = blame(RuntimeError(text))
    assert sentence == "KeyError: 1" and not by_gymnasium and "/home/me/env.py" in places[0]


def test_libraries():
    import json

    import gymnasium
    import numpy

    import minis5

    modules = {"minis5": minis5, "gymnasium": gymnasium, "numpy": numpy, "python": json}
    for name, module in modules.items():
        assert library(module.__file__) == name
    assert library("<frozen importlib._bootstrap>") == "python"
    assert library(__file__) is None and library("/x/site-packages/minigrid/env.py") is None


def test_an_error_of_our_own_has_no_places():
    try:
        minis5_error()
    except ValueError as error:
        places, sentence, _ = blame(error)
    assert sentence.startswith("ValueError: num_envs: expected an integer")
    assert all("test_blame.py" in place for place in places)  # only this test called it


def minis5_error():
    import minis5

    minis5.make_vec("MemoryChain", 0)
