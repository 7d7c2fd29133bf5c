"""No call of the public interface crashes, hangs or ends in an internal error; fuzz.py says how.

FUZZ_CALLS and FUZZ_SEED make it longer, or other: FUZZ_CALLS=5000 FUZZ_SEED=7 pytest this file.
The fuzzer itself must find what is wrong: a crash, an error that names no argument, a hang.
"""

import os
import subprocess
import sys

import fuzz
import numpy as np
import pytest

CALLS, SEED = int(os.environ.get("FUZZ_CALLS", "300")), int(os.environ.get("FUZZ_SEED", "0"))


def test_calls_succeed_or_name_what_is_wrong():
    figures, faults = fuzz.run(SEED, 0, CALLS)
    assert not faults, "\n".join(" | ".join(map(str, fault)) for fault in faults)
    assert figures.total() == CALLS
    assert figures["refused"] > CALLS / 4 and figures["succeeded"] > CALLS / 20


FAULTY = """
import ctypes, sys, time
import fuzz, fuzz_targets
from fuzz_targets import Target

def crash(x):
    ctypes.string_at(0)

def silent(x):
    raise ValueError("something is wrong")

def internal(x):
    raise KeyError(x)

def named(x):
    raise ValueError("x: expected a number, got another; pass one")

calls = {"crash": crash, "silent": silent, "internal": internal, "named": named, "good": repr}
calls["hang"] = lambda x: time.sleep(1000)
chosen = {CHOSEN!r}
made = {name: Target(lambda x, f=calls[name]: f(x), lambda: {"x": 1}) for name in chosen}
fuzz_targets.all_targets = lambda tell: made
fuzz.child(int(sys.argv[2]), int(sys.argv[3]), 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen, expected",
    [
        (["good"], {"succeeded": 3}),
        (["named"], {"refused": 3}),
        (["silent"], {"internal": 3}),
        (["internal"], {"internal": 3}),
        (["crash"], {"crash": 3}),
        (["hang"], {"hang": 1}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_faults_are_found(monkeypatch, tmp_path, chosen, expected):
    script = tmp_path / "faulty.py"
    script.write_text(FAULTY.replace("{CHOSEN!r}", repr(chosen)))
    folder = os.pathsep.join([os.path.dirname(fuzz.__file__), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", folder)
    monkeypatch.setattr(fuzz, "HERE", script)
    # a child has to import first; then a call that says nothing for so long is taken to hang
    monkeypatch.setattr(fuzz, "SECONDS", 15 if chosen == ["hang"] else 120)
    calls = sum(expected.values())
    figures, faults = fuzz.run(0, 0, calls)
    assert figures == expected
    right = "succeeded" in expected or "refused" in expected
    assert [fault[1] for fault in faults] == ([] if right else list(range(calls)))


def test_the_same_seed_makes_the_same_calls():
    def calls(seed):
        told = []
        targets = {"f": fuzz_target()}
        for number in range(20):
            fuzz.one_call(number, seed, targets, lambda *words: told.append(words))
        return told

    assert calls(1) == calls(1) != calls(2)


def fuzz_target():
    from fuzz_targets import Target

    return Target(lambda **given: None, lambda: {"a": np.ones((2, 3)), "b": 1, "c": "text"})


def test_the_command_line():
    command = [sys.executable, fuzz.__file__, "--seed", "5", "--calls", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("{")
