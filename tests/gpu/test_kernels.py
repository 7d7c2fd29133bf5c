"""The kernels on a GPU against the CPU forms of their operations (kernel_cases, fused_cases).

Shapes are fuzzed and lie on both sides of every limit of the blocks. A second call must give the
same bits.
"""

import fused_cases
import kernel_cases
import numpy as np
import pytest
from kernel_checks import DTYPES, arguments, assert_agrees, expected, leaves, on_device

pytest.importorskip("cupy")
FIXED = [(1, 1), (8, 32), (9, 33), (2049, 31), (5000, 65), (70001, 3)]
FUZZED = [(int(n), int(h)) for n, h in np.exp(np.random.default_rng(0).uniform(0, (8, 6), (12, 2)))]
CASES = {name: case for cases in kernel_cases.CASES.values() for name, case in cases.items()}
FUSED_SHAPES = [(1, 1), (8, 32), (9, 33), (2049, 31), (67, 301)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_kernels_are_the_loops_and_a_second_time(name, dtype):
    compare(name, CASES[name], dtype, FIXED + FUZZED)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", fused_cases.CASES)
def test_fused_kernels_are_the_steps_of_the_cpu(name, dtype):
    compare(name, fused_cases.CASES[name], dtype, FUSED_SHAPES)


def compare(name, case, dtype, shapes):
    """Assert that a case's kernels give what the CPU gives, and the same bits a second time."""
    for key, args in arguments({name: case}, [dtype], shapes, seed=1).items():
        got, again = on_device(case, args), on_device(case, args)
        assert all(
            np.asarray(a).tobytes() == np.asarray(b).tobytes()
            for a, b in zip(leaves(got), leaves(again), strict=True)
        ), key
        assert_agrees(key, args, expected(case, args), got, c=64)


def test_both_heads():
    fused_cases.heads()


def test_the_ends_of_the_numbers():
    kernel_cases.extreme_gates()
    kernel_cases.extreme_logits()


def test_steps_of_adam_one_after_the_other():
    kernel_cases.several_steps()
