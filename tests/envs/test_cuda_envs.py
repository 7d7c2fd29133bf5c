"""The environments on CUDA, in Numba's simulator: plain Python, one thread of a kernel after the
other, against the compiled loops of the CPU, bit for bit. tests/gpu/test_envs.py does the same on a
GPU."""

import re
import subprocess
import sys

import device_env_checks
import numpy as np
import pytest
from device_env_checks import (
    LEVELS,
    NUM_ENVS,
    STEPS,
    assert_same_bits,
    play_on_cpu,
    shortly_before_an_end,
)
from simulator import simulated

from minis5.envs.registry import make_vec


@pytest.mark.slow
def test_every_level_in_the_simulator_is_the_cpu_bit_for_bit(tmp_path):
    runs = {name: shortly_before_an_end(name, NUM_ENVS, STEPS) for name in LEVELS}
    given = {
        f"{name}/{key}": a
        for name, (state, actions) in runs.items()
        for key, a in (*state.items(), ("actions", actions))
    }
    np.savez(tmp_path / "in.npz", **given)
    files = str(tmp_path / "in.npz"), str(tmp_path / "out.npz")
    simulated(device_env_checks.__file__, f"simulate{files}")
    results = np.load(tmp_path / "out.npz")
    for name, run in runs.items():
        device = {
            key.removeprefix(f"{name}/"): results[key]
            for key in results
            if key.startswith(f"{name}/")
        }
        assert_same_bits(play_on_cpu(name, NUM_ENVS, *run), device)


def test_wrong_calls_in_the_simulator():
    simulated(device_env_checks.__file__, "misuse()")


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(ValueError, match="device: expected one of 'cpu', 'cuda', got 'gpu'"):
        make_vec("RepeatPreviousEasy", 2, device="gpu")
    with pytest.raises(
        ValueError, match="device: 'CartPole-v1' is not native .*and runs with device='cpu' only"
    ):
        make_vec("CartPole-v1", 2, device="cuda")
    import minis5_cuda.envs

    monkeypatch.setattr(minis5_cuda.envs.cuda, "is_available", lambda: False)
    with pytest.raises(
        RuntimeError, match=r"device: 'cuda' needs an NVIDIA GPU.* pip install 'minis5\[cuda\]'"
    ):
        make_vec("RepeatPreviousEasy", 2, device="cuda")


WITHOUT_NUMBA_CUDA = """
import re
import subprocess
import sys
sys.modules["numba_cuda"] = None
from minis5.envs.registry import make_vec
make_vec("RepeatPreviousEasy", 2, device="cuda")
"""


def test_a_missing_numba_cuda_is_named():
    """In a process of its own nothing has imported the GPU forms."""
    command = [sys.executable, "-c", WITHOUT_NUMBA_CUDA]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    message = r"DeviceError: device: 'cuda' needs numba-cuda.* pip install 'minis5\[cuda\]'"
    assert re.search(message, result.stderr)
