"""The kernels of layers.py, s5.py, discretize.py, distributions.py, ppo.py and adam.py on a GPU against the loops of the CPU:
fuzzed shapes, on both sides of every limit of the blocks; and a second time, with the same bits."""

import numpy as np
import pytest
import test_cuda_layers
import test_cuda_loss
from test_cuda_layers import DTYPES, arguments, assert_agrees, on_device

pytest.importorskip("cupy")
FIXED = [(1, 1), (8, 32), (9, 33), (2049, 31), (5000, 65), (70001, 3)]
FUZZED = [(int(n), int(h)) for n, h in np.exp(np.random.default_rng(0).uniform(0, (8, 6), (12, 2)))]
CASES = [(test_cuda_layers, name) for name in test_cuda_layers.CASES] + [
    (test_cuda_loss, name) for name in test_cuda_loss.CASES
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tests, name", CASES, ids=[name for _, name in CASES])
def test_kernels_are_the_loops_and_a_second_time(tests, name, dtype):
    cases = {name: tests.CASES[name]}
    for key, args in arguments(cases, [dtype], FIXED + FUZZED, seed=1).items():
        got, again = on_device(cases, key, args), on_device(cases, key, args)
        assert all(
            np.asarray(a).tobytes() == np.asarray(b).tobytes()
            for a, b in zip(got, again, strict=True)
        ), key
        assert_agrees(key, args, tests.expected(cases, key, args), got, c=64)


def test_the_ends_of_the_numbers():
    test_cuda_layers.extremes()
    test_cuda_loss.extremes()


def test_steps_of_adam_one_after_the_other():
    test_cuda_loss.several_steps()
