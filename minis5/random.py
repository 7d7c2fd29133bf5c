"""Random numbers from a counter: the same on every machine and in every execution.

Three integers (seed, stream, counter) give 32 bits. The generator is Philox-2x32-10 with key = seed
and counter words (counter, stream). It is stateless: the numbers of a stream depend on nothing but
these three integers. The functions are scalar and run as plain Python (`.py_func`, or
NUMBA_DISABLE_JIT=1), under numba.njit, and as device functions from the same source. Words are
uint64 and masked to 32 bits after every operation, so that nothing ever overflows: Numba tells LLVM
that signed integers do not, and compiles code that is silently wrong if they do. Results are int64,
because Numba makes uint64 + int64 a float.

A *generator row* is an integer row that begins with key, stream and counter; `next_*` functions
advance its counter. The counter wraps: a stream repeats after 2**32 draws.

`Generator` fills whole arrays, on the CPU or a GPU. Agents on a GPU sample their actions with it,
those on a CPU with NumPy's generators.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox);
Lemire, "Fast random integer generation in an interval", 2019 (multiply and shift, here without the
rejection step); Durstenfeld 1964 (the shuffle); Box and Muller 1958 (normal numbers).
Tests: tests/test_random.py, with Random123's known vectors.
"""

import math
import operator

import numpy as np
from numba import njit

from minis5.elementary import cos, log
from minis5.ops import operation

MASK = 0xFFFFFFFF
MASK64 = np.uint64(MASK)
SHIFT64 = np.uint64(32)
MULTIPLIER = np.uint64(0xD256D193)  # Philox 2x32, from the paper
WEYL = np.uint64(0x9E3779B9)  # golden ratio, the key's increment
ROUNDS = 10
GENERATOR_SIZE = 3  # key, stream, counter: the first entries of a generator row


@njit(nogil=True)
def philox2x32(key, counter0, counter1):
    """Return two words of 32 bits from a key and two counter words: Philox-2x32-10.

    All three are integers, taken modulo 2**32.
    """
    key64 = np.uint64(key & MASK)
    word0 = np.uint64(counter0 & MASK)
    word1 = np.uint64(counter1 & MASK)
    for _ in range(ROUNDS):
        product = word0 * MULTIPLIER  # below 2**64
        word0, word1 = (product >> SHIFT64) ^ key64 ^ word1, product & MASK64
        key64 = (key64 + WEYL) & MASK64
    return np.int64(word0), np.int64(word1)


@njit(nogil=True)
def random_bits(seed, stream, counter):
    """Return 32 random bits, an integer in [0, 2**32), from three integers modulo 2**32."""
    return philox2x32(seed, counter, stream)[0]


@njit(nogil=True)
def next_bits(row):
    """Draw 32 bits, an integer in [0, 2**32), from a generator row and advance its counter."""
    bits = random_bits(row[0], row[1], row[2])
    row[2] = (row[2] + 1) & MASK
    return bits


@njit(nogil=True)
def next_uniform(row):
    """Draw a float64 in [0, 1): a multiple of 2**-32."""
    return next_bits(row) * 2.0**-32


@njit(nogil=True)
def next_integer(row, n):
    """Draw an integer in [0, n), 0 < n <= 2**31.

    The probability of each value is within 2**-32 of 1/n.
    """
    return (next_bits(row) * n) >> 32


@njit(nogil=True)
def normal_of(u, v):
    """Return the standard normal number of two uniform ones (Box and Muller).

    It is cut off at +-6.66 = sqrt(64 log 2).
    """
    return math.sqrt(-2.0 * log(1.0 - u)) * cos(math.tau * v)  # 1 - u is in (0, 1]


@njit(nogil=True)
def next_normal(row):
    """Draw a float64 from the standard normal distribution; takes two draws."""
    return normal_of(next_uniform(row), next_uniform(row))


@njit(nogil=True)
def shuffle(row, start, n):
    """Permute row[start : start + n] in place; takes n - 1 draws.

    All orders are equally likely, up to the bias of `next_integer`.
    """
    for last in range(n - 1, 0, -1):
        other = start + next_integer(row, last + 1)
        row[start + last], row[other] = row[other], row[start + last]


def seed_to_key(seed):
    """Return the 32-bit key of a seed: the seed itself below 2**32, else a hash by SeedSequence.

    Parameters
    ----------
    seed : int
        Not negative, of any length.

    Raises
    ------
    ValueError
        `seed` is no integer, or negative.
    """
    try:
        value = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        value = -1
    if value < 0:
        raise ValueError(f"seed: expected an integer >= 0, got {seed!r}; pass for example seed=0")
    return value if value <= MASK else int(np.random.SeedSequence(value).generate_state(1)[0])


@njit(nogil=True)
def uniform_at(row, i):
    """Return the uniform number of draw `i` from now on, counted from 0; the row stays as it is."""
    return random_bits(row[0], row[1], row[2] + i) * 2.0**-32


@njit(nogil=True)
def normal_at(row, i):
    """Return the normal number of the draws 2i and 2i + 1 from now on; the row stays as it is."""
    return normal_of(uniform_at(row, 2 * i), uniform_at(row, 2 * i + 1))


@operation
def fill_uniform(row, out):
    """Fill `out` with the uniform numbers of the next draws; the row stays as it is."""
    for i in range(out.size):
        out[i] = uniform_at(row, i)


@operation
def fill_normal(row, out):
    """Fill `out` with the normal numbers of the next draws; the row stays as it is."""
    for i in range(out.size):
        out[i] = normal_at(row, i)


class Generator:
    """Arrays of random numbers from one stream, the same on the CPU and on a GPU.

    Parameters
    ----------
    seed : int
        Not negative.
    xp : module
        numpy or cupy: where the arrays are.
    """

    def __init__(self, seed, xp=np):
        self.xp, self.row = xp, xp.zeros(GENERATOR_SIZE, np.int64)
        self.restart(seed)

    def restart(self, seed, stream=0):
        """Begin a stream (an integer) of a seed.

        The row stays in the same array, because a captured CUDA graph knows its address.
        """
        self.row[:] = self.xp.asarray(np.array([seed_to_key(seed), stream, 0], np.int64))

    def random(self, shape):
        """Draw uniform float64 numbers in [0, 1), multiples of 2**-32."""
        return self._draw(fill_uniform, shape, 1)

    def standard_normal(self, shape):
        """Draw standard normal float64 numbers, as `next_normal` does."""
        return self._draw(fill_normal, shape, 2)

    def _draw(self, fill, shape, draws):
        out = self.xp.empty(shape, np.float64)
        fill(self.row, out.ravel())
        self.row[2:] += draws * out.size
        return out
