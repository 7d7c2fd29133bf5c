"""The kernels on a GPU against the CPU forms of the same operations (kernel_cases.py).

Shapes are fuzzed and lie on both sides of every limit of the blocks. A second call must give the
same bits.
"""

import kernel_cases
import numpy as np
import pytest
from kernel_checks import DTYPES, arguments, assert_agrees, expected, leaves, on_device

pytest.importorskip("cupy")
FIXED = [(1, 1), (8, 32), (9, 33), (2049, 31), (5000, 65), (70001, 3)]
FUZZED = [(int(n), int(h)) for n, h in np.exp(np.random.default_rng(0).uniform(0, (8, 6), (12, 2)))]
CASES = {name: case for cases in kernel_cases.CASES.values() for name, case in cases.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_kernels_are_the_loops_and_a_second_time(name, dtype):
    case = CASES[name]
    for key, args in arguments({name: case}, [dtype], FIXED + FUZZED, seed=1).items():
        got, again = on_device(case, args), on_device(case, args)
        assert all(
            np.asarray(a).tobytes() == np.asarray(b).tobytes()
            for a, b in zip(leaves(got), leaves(again), strict=True)
        ), key
        assert_agrees(key, args, expected(case, args), got, c=64)


def test_the_ends_of_the_numbers():
    kernel_cases.extreme_gates()
    kernel_cases.extreme_logits()


def test_steps_of_adam_one_after_the_other():
    kernel_cases.several_steps()
