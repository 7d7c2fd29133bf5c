"""The scan on a GPU against the loops of the CPU in float64.

Shapes and resets are fuzzed, memory is full of NaN, and a second call must give the same bits. The
tolerance grows with the square root of the length, as rounding errors do that add up by chance.
"""

import numpy as np
import pytest
from scan_checks import KINDS, RESETS, check, numbers, problem

from minis5.nn.scan import scan_backward as cpu_backward
from minis5.nn.scan import scan_forward as cpu_forward

pytest.importorskip("cupy")
EDGES = [(T, 3, 11) for T in (1, 8, 9, 63, 64, 65, 127, 128, 129, 513)] + [
    (2, 1, 1),
    (700, 1, 1),
    (4096, 2, 16),
    (100, 64, 128),
]


def fuzzed(rng):
    """Return T, B, P with T up to 5000 and at most 2 million numbers."""
    T = int(np.exp(rng.uniform(0, np.log(5000))))
    B = int(np.exp(rng.uniform(0, np.log(100))))
    return T, B, int(np.exp(rng.uniform(0, np.log(min(300, 1 + 2_000_000 // (T * B))))))


def expected(arrays, is_complex):
    """Return x, da, db, dx0 of the CPU in float64."""
    a, b, reset, x0, dx = (z.astype(np.float64) if z.dtype != bool else z for z in arrays)
    x = cpu_forward(a, b, reset, x0, is_complex=is_complex)
    return [
        numbers(z, is_complex)
        for z in (x, *cpu_backward(a, reset, x0, x, dx, is_complex=is_complex))
    ]


def check_twice(pair, arrays, is_complex, what, **options):
    results = expected(arrays, is_complex)
    first, second = (
        check(
            *pair,
            arrays,
            is_complex,
            what,
            results,
            np.sqrt(len(arrays[1])),
            in_place=in_place,
            **options,
        )
        for in_place in (False, True)
    )
    for one, other in zip(first, second, strict=True):
        assert one.tobytes() == other.tobytes(), f"{what}: other bits the second time"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_scan_is_the_cpu_and_a_second_time(kind):
    from minis5_cuda.nn.scan import scan_backward, scan_forward

    pair, rng = (scan_forward, scan_backward), np.random.default_rng(0)
    for used, shape in enumerate(EDGES + [fuzzed(rng) for _ in range(20)]):
        reset = RESETS[used % 7]
        arrays = problem(
            rng, *shape, kind, reset, start=used % 2 == 0, low=(0, 0.99)[used // 2 % 2]
        )
        ways = {"segments": 3}, {"look_back": True}, {}
        for options in [{"sequential": False, **way} for way in ways] + [{"sequential": True}]:
            check_twice(
                pair, arrays, kind[1], f"{kind} {shape} resets {reset} {options}", **options
            )


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[3]], ids=str)
def test_a_million_steps(kind):
    from minis5_cuda.nn.scan import scan_backward, scan_forward

    rng = np.random.default_rng(1)
    arrays = problem(rng, 1_000_000, 1, 2, kind, "none", low=0.99)
    arrays[2][rng.integers(0, 1_000_000, 9)] = True
    check_twice((scan_forward, scan_backward), arrays, kind[1], f"{kind}")


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[4]], ids=str)
def test_look_back_in_a_graph(kind):
    """Replays begin without flags of the replay before: other inputs, and the bits of a call.

    There are more tiles than run at once, so that some begin when others have ended.
    """
    import cupy
    from minis5_cuda.graphs import Graph
    from minis5_cuda.nn.scan import scan_backward, scan_forward

    options = {"is_complex": kind[1], "sequential": False, "look_back": True}
    arrays = problem(np.random.default_rng(4), 40_000, 1, 100, kind)
    with cupy.cuda.Stream() as stream:
        a, b, reset, x0, dx = map(cupy.asarray, arrays)

        def work():
            x = scan_forward(a, b, reset, x0, **options)
            return x, *scan_backward(a, reset, x0, x, dx, **options)

        recorded = Graph(work, result=True)
        for factor in (1, -0.5, 3):
            b *= b.dtype.type(factor)
            got = [z.get() for z in recorded()]
            for one, other in zip(got, work(), strict=True):
                assert one.tobytes() == other.get().tobytes(), f"{kind}, {factor}"
        stream.synchronize()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_textbook(kind):
    from minis5_cuda.nn.scan_textbook import scan_backward, scan_forward

    rng = np.random.default_rng(2)
    for used, T in enumerate((1, 2, 255, 256, 257, 1000)):
        arrays = problem(rng, T, 2, 5, kind, RESETS[-1 - used % 7])
        check(
            scan_forward,
            scan_backward,
            arrays,
            kind[1],
            f"{kind} {T}",
            expected(arrays, kind[1]),
            np.sqrt(T),
        )


@pytest.mark.parametrize("way", [{"segments": 3}, {"look_back": True}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_comes_past_a_reset(bad, way):
    """Poison between two resets stays there; elsewhere every bit is the same.

    The stretch between the resets is longer than a segment, and than a window of tiles.
    """
    import cupy
    from minis5_cuda.nn.scan import scan_backward, scan_forward

    T, lo, hi = 9000, 1000, 8100
    for kind in KINDS:
        a, b, reset, x0, dx = problem(np.random.default_rng(3), T, 2, 3, kind, "random")
        reset[lo : hi + 1] = False
        reset[lo] = reset[hi] = True
        bad_b, bad_dx = b.copy(), dx.copy()
        bad_b[lo, 0], bad_dx[hi - 1, 0] = bad, bad
        good = [cupy.asarray(z) for z in (a, b, reset, x0, dx)]
        how = {"is_complex": kind[1], **way}
        x = scan_forward(*good[:4], **how)
        bad_x = scan_forward(good[0], cupy.asarray(bad_b), *good[2:4], **how).get()
        g = scan_backward(good[0], *good[2:4], x, good[4], **how)[1].get()
        bad_g = scan_backward(good[0], *good[2:4], x, cupy.asarray(bad_dx), **how)[1].get()
        for mine, clean in ((bad_x, x.get()), (bad_g, g)):
            assert not np.isfinite(mine[lo:hi, 0]).all()
            mine[lo:hi, 0] = clean[lo:hi, 0]
            assert mine.tobytes() == clean.tobytes(), kind
