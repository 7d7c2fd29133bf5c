"""Philox against Random123's known vectors, Python against Numba bit for bit, and the distributions drawn from it."""

import numpy as np
import pytest
from numba import njit
from scipy import stats

from minis5 import random

KNOWN = [  # Random123, tests/kat_vectors, philox2x32 10: counter words, key, result
    ((0x00000000, 0x00000000), 0x00000000, (0xFF1DAE59, 0x6CD10DF2)),
    ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
    ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
]
FUNCTIONS = ["compiled", "plain"]


def philox(how):
    return random.philox2x32 if how == "compiled" else random.philox2x32.py_func


@njit
def draws(seed, stream, n, bound):
    row = np.array([seed, stream, 0])
    bits, uniforms, integers = np.empty(n, np.int64), np.empty(n), np.empty(n, np.int64)
    for i in range(n):
        bits[i] = random.next_bits(row)
        uniforms[i] = random.next_uniform(row)
        integers[i] = random.next_integer(row, bound)
    return bits, uniforms, integers


@njit
def top_bits(seed, stream):
    first, second, third = np.array([seed, stream, 0]), np.array([seed, stream, 0]), np.array([seed, stream, 0])
    return random.next_integer(first, 2), random.next_integer(second, 4), random.next_integer(third, 8)


@njit
def shuffles(seed, n, repeats):
    out = np.empty((repeats, n), np.int64)
    row = np.zeros(4 + n, np.int64)
    row[0] = seed
    for i in range(repeats):
        for j in range(n):
            row[4 + j] = j
        random.shuffle(row, 4, n)
        for j in range(n):
            out[i, j] = row[4 + j]
    return out


@pytest.mark.parametrize("how", FUNCTIONS)
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_vectors(how, counter, key, expected):
    assert philox(how)(key, *counter) == expected


def test_python_and_numba_agree_on_extreme_and_random_words():
    edges = [0, 1, 2**31 - 1, 2**31, 2**32 - 1]
    words = [(a, b, c) for a in edges for b in edges for c in edges]
    words += np.random.default_rng(0).integers(0, 2**32, (1000, 3)).tolist()
    for key, c0, c1 in words:
        assert random.philox2x32(key, c0, c1) == random.philox2x32.py_func(key, c0, c1)
        scalars = np.array([key, c0, c1])  # NumPy scalars would overflow if they were not turned into ints
        assert random.philox2x32.py_func(*scalars) == random.philox2x32(*scalars)


def test_every_bit_survives_where_the_compiler_sees_the_whole_expression():
    """With signed arithmetic LLVM takes overflow to be impossible, and drops the top bit only in code like this."""
    cases = [(seed, stream) for seed in range(20) for stream in range(20)]
    expected = [
        [random.philox2x32.py_func(seed, 0, stream)[0] >> shift for shift in (31, 30, 29)] for seed, stream in cases
    ]
    assert [list(top_bits(seed, stream)) for seed, stream in cases] == expected


def test_words_are_taken_modulo_2_to_32():
    assert random.random_bits(5 + 2**32, 3 - 2**32, 2**40 + 7) == random.random_bits(5, 3, 7)


def test_a_row_is_the_counter_in_order_and_wraps():
    row = np.array([9, 4, random.MASK])
    assert random.next_bits(row) == random.random_bits(9, 4, random.MASK)
    assert row.tolist() == [9, 4, 0]
    assert random.next_bits(row) == random.random_bits(9, 4, 0)


def test_uniform_and_integer_follow_from_the_bits():
    for counter in range(50):
        bits = random.random_bits(1, 2, counter)
        assert random.next_uniform(np.array([1, 2, counter])) == bits / 2**32
        for n in (1, 2, 3, 52, 2**31):
            assert random.next_integer(np.array([1, 2, counter]), n) == bits * n // 2**32


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (0, 1), (1, 0), (123456789, 7)])
def test_uniformity(seed, stream):
    bits, uniforms, integers = draws(seed, stream, 60_000, 6)
    assert uniforms.min() >= 0 and uniforms.max() < 1
    assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
    assert stats.chisquare(np.bincount(integers, minlength=6)).pvalue > 1e-3
    for shift in (0, 8, 16, 24):
        assert stats.chisquare(np.bincount(bits >> shift & 255, minlength=256)).pvalue > 1e-3


def test_neighbouring_streams_and_seeds_are_not_correlated():
    base = draws(3, 10, 20_000, 2)[1]
    for seed, stream in [(3, 11), (4, 10), (10, 3)]:
        assert abs(np.corrcoef(base, draws(seed, stream, 20_000, 2)[1])[0, 1]) < 4 / np.sqrt(20_000)


def test_shuffle_gives_every_permutation_equally_often():
    perms = shuffles(1, 4, 24_000)
    _, counts = np.unique(perms, axis=0, return_counts=True)
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_seed_to_key():
    assert random.seed_to_key(0) == 0 and random.seed_to_key(2**32 - 1) == 2**32 - 1
    keys = {random.seed_to_key(s) for s in (7, 7 + 2**32, 7 + 2**33, 7 + 2**64, np.uint64(2**63), 10**40)}
    assert len(keys) == 6 and all(0 <= key < 2**32 for key in keys)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True, [1]])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed: expected an integer >= 0, got"):
        random.seed_to_key(seed)
