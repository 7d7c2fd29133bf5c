"""The environments on a GPU against the loops of the CPU, bit for bit: nothing is fused."""

import numpy as np
import pytest
from device_env_checks import (
    LEVELS,
    assert_same_bits,
    misuse,
    play_on_cpu,
    play_on_device,
    shortly_before_an_end,
)

from minis5.envs.registry import make_vec

NUM_ENVS = 257  # one more than four blocks
STEPS = 300


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_is_the_cpu_bit_for_bit_and_a_second_time(name):
    run = shortly_before_an_end(name, NUM_ENVS, STEPS)
    cpu = play_on_cpu(name, NUM_ENVS, *run)
    for _ in range(2):
        assert_same_bits(cpu, play_on_device(name, NUM_ENVS, *run))


def test_wrong_calls():
    misuse()


@pytest.mark.parametrize("own_stream", [False, True])
def test_cupy_takes_and_gives_arrays_without_a_copy(own_stream):
    cupy = pytest.importorskip("cupy")
    envs, cpu = (
        make_vec("RepeatPreviousEasy", NUM_ENVS, device="cuda"),
        make_vec("RepeatPreviousEasy", NUM_ENVS),
    )
    obs, expected = cupy.asarray(envs.reset()[0]), cpu.reset()[0]
    stream = cupy.cuda.Stream(non_blocking=True) if own_stream else cupy.cuda.Stream.null
    for t in range(120):
        np.testing.assert_array_equal(cupy.asnumpy(obs), expected)
        envs.check_actions = t % 2 == 0
        with stream:
            result = envs.step((obs + 1) % 4)
        stream.synchronize()  # Numba's arrays do not tell CuPy of it
        expected, *others = cpu.step((expected + 1) % 4)
        assert cupy.asarray(result[0]).data.ptr == obs.data.ptr
        for ours, theirs in zip(others[:3], result[1:4], strict=True):
            np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(theirs)), ours)
