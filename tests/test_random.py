"""Philox against Random123's vectors, Python against Numba, and the distributions drawn from it.

The statistical tests have fixed seeds, and fail where chance alone would be as far off less than
once in a thousand times.
"""

import math

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
def first_draws(seeds, streams, n):
    """Return the first n uniforms of every (seed, stream)."""
    out = np.empty((len(seeds), n))
    for i in range(len(seeds)):
        row = np.array([seeds[i], streams[i], 0])
        for j in range(n):
            out[i, j] = random.next_uniform(row)
    return out


@njit
def normals(seed, stream, n):
    row = np.array([seed, stream, 0])
    out = np.empty(n)
    for i in range(n):
        out[i] = random.next_normal(row)
    return out


@njit
def top_bits(seed, stream):
    first, second, third = (
        np.array([seed, stream, 0]),
        np.array([seed, stream, 0]),
        np.array([seed, stream, 0]),
    )
    return (
        random.next_integer(first, 2),
        random.next_integer(second, 4),
        random.next_integer(third, 8),
    )


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


def even(counts):
    return stats.chisquare(counts).pvalue > 1e-3


def independent(a, b, bins):
    """Tell whether pairs of numbers in [0, 1), each uniform, are independent, by chi-square.

    The categories are bins x bins squares.
    """
    return even(
        np.bincount((a * bins).astype(int) * bins + (b * bins).astype(int), minlength=bins * bins)
    )


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
        # NumPy scalars would overflow if they were not turned into ints
        scalars = np.array([key, c0, c1])
        assert random.philox2x32.py_func(*scalars) == random.philox2x32(*scalars)


def test_every_bit_survives_where_the_compiler_sees_the_whole_expression():
    """With signed numbers LLVM excludes overflow, and drops the top bit only in code like this."""
    cases = [(seed, stream) for seed in range(20) for stream in range(20)]
    expected = [
        [random.philox2x32.py_func(seed, 0, stream)[0] >> shift for shift in (31, 30, 29)]
        for seed, stream in cases
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
    assert even(np.bincount(integers, minlength=6))
    for shift in (0, 8, 16, 24):
        assert even(np.bincount(bits >> shift & 255, minlength=256))


@pytest.mark.parametrize("bound", [2, 3, 13, 52, 1000])
def test_integers_below_any_bound(bound):
    integers = draws(17, 5, 200_000, bound)[2]
    assert len(np.bincount(integers)) == bound and even(np.bincount(integers))


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_consecutive_draws_are_independent(lag):
    u = first_draws(np.array([11]), np.array([0]), 200_000)[0]
    assert independent(u[:-lag:2], u[lag::2], 16)
    assert independent(u[:-lag] * 256 % 1, u[lag:], 16)  # low bits and high bits


@pytest.mark.parametrize("apart", [(0, 1), (1, 0), (0, 2**16), (2**16, 0), (2**31, 2**31)])
def test_seeds_and_streams_are_independent(apart):
    numbers = np.arange(50)
    one = first_draws(7 + numbers, 100 + numbers, 2000).ravel()
    other = first_draws(7 + apart[0] + numbers, 100 + apart[1] + numbers, 2000).ravel()
    assert stats.kstest(one, "uniform").pvalue > 1e-3 and independent(one, other, 16)


def test_seed_and_stream_are_not_interchangeable():
    numbers = np.arange(300)
    one, other = first_draws(numbers, numbers + 1, 200), first_draws(numbers + 1, numbers, 200)
    assert independent(one.ravel(), other.ravel(), 16)


@pytest.mark.parametrize("what", ["seeds", "streams"])
def test_first_draws_of_counted_seeds_and_streams(what):
    """The environments of a batch, and runs with seeds 0, 1, 2 ..., begin with these."""
    numbers, fixed = np.arange(100_000), np.zeros(100_000, np.int64)
    u = first_draws(*((numbers, fixed) if what == "seeds" else (fixed, numbers)), 3)
    for column in u.T:
        assert even(np.bincount((column * 256).astype(int), minlength=256))
        assert independent(column[:-1:2], column[1::2], 16)
    assert independent(u[:, 0], u[:, 1], 16) and independent(u[:, 0], u[:, 2], 16)


def test_shuffle_gives_every_permutation_equally_often():
    perms = shuffles(1, 4, 24_000)
    _, counts = np.unique(perms, axis=0, return_counts=True)
    assert len(counts) == 24 and even(counts)


@pytest.mark.parametrize("n", [52, 104])
def test_shuffled_packs(n):
    """Every card is everywhere equally often, and so are pairs of neighbours, by suit."""
    packs = shuffles(2, n, 10_000)
    assert np.array_equal(np.sort(packs, axis=1), np.broadcast_to(np.arange(n), packs.shape))
    counts = np.array([np.bincount(position, minlength=n) for position in packs.T])
    # each row and each column has the same sum
    squares = ((counts - 10_000 / n) ** 2).sum() / (10_000 / n) * (n - 1) / n
    assert (
        stats.chi2.sf(squares, (n - 1) ** 2) > 1e-3 and stats.chi2.cdf(squares, (n - 1) ** 2) > 1e-3
    )
    for place in (0, n // 2, n - 2):
        card, following = packs[:, place], packs[:, place + 1]
        pairs = np.bincount(card % 4 * 4 + following % 4, minlength=16).reshape(4, 4)
        expected = np.full((4, 4), n / 4) - np.eye(4)  # the card itself cannot follow
        assert (
            stats.chisquare(pairs.ravel(), (10_000 * expected / expected.sum()).ravel()).pvalue
            > 1e-3
        )


def test_shuffle_leaves_the_rest_of_the_row_alone():
    row = np.array([1, 2, 0, 7, 8, 9, 10, 11])
    random.shuffle(row, 4, 3)
    assert row[[0, 1, 2, 3, 7]].tolist() == [1, 2, 2, 7, 11] and sorted(row[4:7]) == [8, 9, 10]


def test_normal_follows_from_two_uniforms(monkeypatch):
    for stream in range(100):
        row = np.array([4, stream, 0])
        a, b = random.next_uniform(row), random.next_uniform(row)
        other = np.array([4, stream, 0])
        expected = math.sqrt(-2 * math.log(1 - a)) * math.cos(2 * math.pi * b)
        assert math.isclose(random.next_normal(other), expected, rel_tol=1e-14, abs_tol=1e-15)
        assert random.next_normal.py_func(np.array([4, stream, 0])) == random.next_normal(
            np.array([4, stream, 0])
        )
        assert other.tolist() == row.tolist() == [4, stream, 2]
    largest = math.sqrt(64 * math.log(2))
    for uniforms, expected in [
        ((0, 0.3), 0),
        ((1 - 2**-32, 0), largest),
        ((1 - 2**-32, 0.5), -largest),
    ]:
        values = iter(uniforms)
        monkeypatch.setattr(random, "next_uniform", lambda row, values=values: next(values))
        assert math.isclose(random.next_normal.py_func(None), expected, rel_tol=1e-14)


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (987654321, 40)])
def test_normals(seed, stream):
    n = 200_000
    z = normals(seed, stream, n)
    # Mean, variance, skewness, kurtosis: 0, 1, 0, 3, with the variances of their estimates.
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((z**power).mean() - moment) < 4 * math.sqrt(variance / n)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    u = stats.norm.cdf(z)  # uniform, if z is normal
    assert even(np.bincount((u * 100).astype(int), minlength=100))
    assert even(np.bincount((u[u < 0.01] * 1e4).astype(int), minlength=100))  # the tails
    assert even(np.bincount(((1 - u[u > 0.99]) * 1e4).astype(int), minlength=100))
    for lag in (1, 2):
        assert independent(u[:-lag:2], u[lag::2], 16)
    assert independent(u, stats.norm.cdf(normals(seed, stream + 1, n)), 16)
    assert independent(u, stats.norm.cdf(normals(seed + 1, stream, n)), 16)


def test_seed_to_key():
    assert random.seed_to_key(0) == 0 and random.seed_to_key(2**32 - 1) == 2**32 - 1
    keys = {
        random.seed_to_key(s)
        for s in (7, 7 + 2**32, 7 + 2**33, 7 + 2**64, np.uint64(2**63), 10**40)
    }
    assert len(keys) == 6 and all(0 <= key < 2**32 for key in keys)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True, [1]])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="seed: expected an integer >= 0, got"):
        random.seed_to_key(seed)


def test_arrays_are_the_draws_one_after_the_other():
    """Generator's numbers are those of next_uniform and next_normal; counters move on alike."""
    for draw, scalar in (("random", random.next_uniform), ("standard_normal", random.next_normal)):
        generator, row = random.Generator(5), np.array([5, 0, 0])
        for shape in ((2, 3), (1,), (7,)):
            expected = [scalar(row) for _ in range(int(np.prod(shape)))]
            assert np.array_equal(getattr(generator, draw)(shape).ravel(), expected)
        assert generator.row.tolist() == row.tolist()
    generator.restart(2**40, stream=3)
    assert generator.row.tolist() == [random.seed_to_key(2**40), 3, 0]
