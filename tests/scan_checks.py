"""Whether the scan on a GPU computes what the loops of the specification compute.

`check` compares both passes; tests/gpu/test_scan.py calls it on a GPU. The functions from
`everything` on run in Numba's simulator, called by tests/nn/test_scan.py. Blocks and tiles are so
small there that short sequences cross all of their edges. (tests/test_ptx.py compiles the kernels
and counts their registers and spills.)
"""

import os
import random
import sys
import threading
import time
from contextlib import contextmanager
from itertools import product
from unittest import mock

import numpy as np

from minis5 import reference

# dtype, complex or real, a varies or is constant
KINDS = list(product((np.float32, np.float64), (True, False), (True, False)))
RESETS = "none", "all", "first", "last", "chunks", "ends", "random"
CHUNK = 4  # steps of a chunk, or half of that


def resets(kind, T, B, rng):
    """Return flags (T, B): nowhere, everywhere, …, on first or on last steps of chunks."""
    t = np.arange(T)
    flags = {
        "all": t >= 0,
        "first": t == 0,
        "last": t == T - 1,
        "chunks": t % CHUNK == 0,
        "ends": t % CHUNK == CHUNK - 1,
    }
    if kind == "random":
        return rng.random((T, B)) < 0.15
    return np.repeat(flags.get(kind, t < 0)[:, None], B, axis=1)


def problem(rng, T, B, P, kind, reset="random", start=True, low=0.3):
    """Return planar a, b, reset, x0, dx on the CPU, with |a| in [low, 1]."""
    dtype, is_complex, varying = kind

    def planes(*shape, z=None):
        z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape) if z is None else z
        return (
            np.concatenate([z.real, z.imag], -1).astype(dtype)
            if is_complex
            else z.real.astype(dtype)
        )

    shape = (T, B, P) if varying else (1, 1, P)
    angle = rng.uniform(0, 2 * np.pi, shape) if is_complex else np.pi * rng.integers(0, 2, shape)
    a = planes(z=rng.uniform(low, 1, shape) * np.exp(1j * angle))
    x0 = planes(B, P) if start else np.zeros_like(planes(B, P))
    return a, planes(T, B, P), resets(reset, T, B, rng), x0, planes(T, B, P)


def numbers(z, is_complex):
    """Return planar numbers as complex128 or float64."""
    z = z.astype(np.float64)
    return z[..., : z.shape[-1] // 2] + 1j * z[..., z.shape[-1] // 2 :] if is_complex else z


def assert_close(got, expected, is_complex, scale, name):
    """Assert agreement to 8 units in the last place of ``scale`` or the largest number expected."""
    eps, got = np.finfo(got.dtype).eps, numbers(got, is_complex)
    assert got.shape == expected.shape, f"{name}: {got.shape}, not {expected.shape}"
    error, size = np.abs(got - expected).max(), max(np.abs(expected).max(), scale)
    assert error <= 8 * eps * size, f"{name}: differs by {error:.2e}, of {size:.2e}"


@contextmanager
def rubbish():
    """Fill new arrays on the device with NaN (or True).

    So nothing that a kernel should have written is right by chance.
    """
    import cupy

    def full(shape, dtype):
        return cupy.full(shape, True if dtype == np.bool_ else np.nan, dtype)

    with mock.patch.multiple(
        cupy, create=True, empty=full, empty_like=lambda z: full(z.shape, z.dtype)
    ):
        yield


def run(forward, backward, arrays, x=None, *, in_place=False, **options):
    """Run both passes on the device; return x, da, db, dx0 as NumPy arrays.

    ``x`` are the states that the backward pass gets; by default those of the forward pass.
    """
    import cupy

    a, b, reset, x0, dx = given = [cupy.asarray(z) for z in arrays]
    with rubbish():
        mine = forward(a, b, reset, x0, **options, **({"out": b} if in_place else {}))
        used = mine if x is None else cupy.asarray(x)
        da, db, dx0 = backward(
            a, reset, x0, used, dx, **options, **({"out": dx} if in_place else {})
        )
    assert not in_place or (mine is b and db is dx)
    for old, new in zip(arrays, given, strict=True):
        assert (in_place and (new is b or new is dx)) or np.array_equal(
            old, new.get(), equal_nan=True
        ), "an input has changed"
    results = [z.get() for z in (mine, da, db, dx0)]
    assert all(z.dtype == x0.dtype for z in results) and da.shape == a.shape
    return results


def check(forward, backward, arrays, is_complex, what, expected=None, slack=1, **options):
    """Compare the results of `run` with the specification and return them.

    ``expected``, if given, is compared with instead: x, da, db, dx0.
    """
    a, b, reset, x0, dx = arrays
    a_, b_, x0_, dx_ = (numbers(z, is_complex) for z in (a, b, x0, dx))
    varying = a.shape[:2] == b.shape[:2]
    got = run(forward, backward, arrays, is_complex=is_complex, **options)
    if expected is None:
        a_ = a_ if varying else a_[0, 0]
        x = reference.scan(a_, b_, reset, x0_)
        da, db, dx0 = reference.scan_vjp(a_, b_, reset, x0_, numbers(got[0], is_complex), dx_)
        expected = x, da if varying else da[None, None], db, dx0
    largest = [np.abs(z).max() for z in expected]
    # of which the products in da are about as large as x times db
    steps = np.sqrt(b.shape[0] * b.shape[1])
    scales = [
        slack * z
        for z in (
            largest[0],
            max(1 if varying else steps, 1) * largest[0] * largest[2],
            largest[2],
            largest[2],
        )
    ]
    for name, mine, theirs, scale in zip(
        ("x", "da", "db", "dx0"), got, expected, scales, strict=True
    ):
        assert_close(mine, theirs, is_complex, scale, f"{what} {name}")
    return got


def shrink(lanes, chunks):
    """Make blocks that the simulator runs in a moment; return both passes.

    Tiles have chunks·CHUNK steps, or half of that.
    """
    from minis5_cuda.nn import scan

    scan.LANES, scan.CHUNKS, scan.STEPS = lanes, chunks, CHUNK
    return scan.scan_forward, scan.scan_backward


def everything():
    """All kinds and resets, lengths around edges of chunks, tiles and segments, in place or not."""
    rng, chunks = np.random.default_rng(0), 2
    pair = shrink(2, chunks)
    used = 0
    for kind in KINDS:
        tile = chunks * CHUNK  # of the largest
        for T in (1, 2, 3, CHUNK, CHUNK + 1, tile - 1, tile, tile + 1, 2 * tile + CHUNK + 1):
            reset, segments = RESETS[used % 7], 1 + used % 3
            # lanes that are idle, or belong to two sequences
            B, P = ((1, 3), (3, 1), (1, 1), (1, 2), (5, 1))[used % 5]
            arrays = problem(rng, T, B, P, kind, reset, start=used % 2 == 0)
            options = {"in_place": used % 4 < 2, "sequential": False, "segments": segments}
            check(
                *pair,
                arrays,
                kind[1],
                f"{kind} T={T} B={B} P={P} resets {reset} {options}",
                **options,
            )
            used += 1


def sequential():
    """One thread a column."""
    rng = np.random.default_rng(1)
    pair = shrink(2, 2)
    for used, (kind, T) in enumerate(product(KINDS, (1, 2, 9))):
        arrays = problem(rng, T, 3, 2, kind, RESETS[used % 7])
        check(*pair, arrays, kind[1], f"{kind} T={T}", sequential=True, in_place=used % 2 == 0)


def shapes():
    """More chunks and lanes, by default sequential or looking back, and how deep."""
    from minis5_cuda.nn import scan

    rng, launches = np.random.default_rng(2), []
    launch = scan.launch

    def counted(kernel, grid, block, *arguments):
        launches.append((kernel.fn.__name__, grid))
        launch(kernel, grid, block, *arguments)

    def names(switch):
        launches.clear()
        for lanes, chunks, T, B, P in ((1, 1, 6, 2, 1), (3, 8, 37, 2, 2), (1, 4, 150, 1, 1)):
            pair = shrink(lanes, chunks)
            for kind in ((np.float32, True, False), (np.float64, False, True)):
                scan.SEQUENTIAL = 3 if chunks == 1 else 8
                with (
                    mock.patch.object(scan, "launch", counted),
                    mock.patch.dict(os.environ, {scan.SWITCH: switch}),
                ):
                    check(
                        *pair,
                        problem(rng, T, B, P, kind),
                        kind[1],
                        f"{lanes} lanes, {chunks} chunks, {kind}, {scan.SWITCH}={switch}",
                    )
        return [name for name, _ in launches]

    # where time is cut: T = 150 only, forward and backward, two kinds
    assert names("0").count("summary") == 4
    assert ("forward_scan", (1, 2)) in launches and ("backward_scan", (1, 4)) in launches
    found = names("1")
    assert "summary" not in found and found.count("forward_look_back") == 2
    # a tile has 16 steps or half of that
    assert ("forward_look_back", (10, 1)) in launches
    assert ("backward_look_back", (19, 1)) in launches


def look_back():
    """One pass is the specification, and three passes: one tile, many, windows of them."""
    from minis5_cuda.nn import scan

    rng, used = np.random.default_rng(7), 0
    for lanes, chunks, scan.SLOTS in ((2, 2, 1), (1, 1, 2)):
        pair, tile = shrink(lanes, chunks), chunks * CHUNK
        for kind, T in product(KINDS, (1, tile, tile + 1, 5 * tile + 3) if lanes == 2 else (21,)):
            B, P = ((1, 3), (3, 1), (1, 1), (5, 1))[used % 4]
            arrays = problem(rng, T, B, P, kind, RESETS[used % 7], start=used % 2 == 0)
            what = f"{kind} T={T} B={B} P={P} resets {RESETS[used % 7]}"
            options = {"sequential": False, "look_back": True, "in_place": used % 4 < 2}
            got = check(*pair, arrays, kind[1], what, **options)
            three = run(*pair, arrays, got[0], is_complex=kind[1], segments=3)
            for mine, theirs in zip(got, three, strict=True):
                scale = np.abs(theirs).max() * np.sqrt(T * B)
                assert_close(mine, numbers(theirs, kind[1]), kind[1], scale, f"{what} 3 passes")
            used += 1


@contextmanager
def blocks_at_once(most, seed, seconds=60):
    """Run up to ``most`` blocks of a launch at the same time, and begin them in any order.

    Publishing takes its time: threads sleep at fences and before atomics. A thread that waits for
    longer than ``seconds`` raises TimeoutError.
    """
    from numba.cuda.simulator.kernel import BlockManager
    from numba.cuda.simulator.kernelapi import FakeCUDAAtomic, FakeCUDAModule, FakeCUDAShared
    from simulated_threads import current_thread

    run_block, add, exch = BlockManager.run, FakeCUDAAtomic.add, FakeCUDAAtomic.exch
    rng, waiting, end = random.Random(seed), [], time.monotonic() + seconds

    def run_all(self, grid_point, *arguments):
        waiting.append((self, grid_point))
        if len(waiting) < np.prod(self._grid_dim):
            return
        places, errors = threading.Semaphore(most), []

        def run_one(manager, point):
            try:
                run_block(manager, point, *arguments)
            except BaseException as error:
                errors.append(error)
            places.release()

        # the last ones first, or in any order
        order = waiting[::-1] if most == 1 else rng.sample(waiting, len(waiting))
        threads = [threading.Thread(target=run_one, args=block) for block in order]
        waiting.clear()
        for thread in threads:
            places.acquire()
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def pause(*_):
        time.sleep(rng.choice((0, 0, 1e-3)))

    def slow_add(self, array, index, value):
        if value == 0:  # of a thread that waits
            time.sleep(1e-4)
            if time.monotonic() > end:
                raise TimeoutError("a tile waits for one that has not begun")
        return add(self, array, index, value)

    def slow_exch(self, array, index, value):
        pause()
        return exch(self, array, index, value)

    def array(self, shape, dtype):
        thread, caller = current_thread(), sys._getframe(1)
        key = tuple(thread.blockIdx), caller.f_code, caller.f_lineno
        return self._allocations.setdefault(key, np.empty(shape, dtype))

    with (
        mock.patch.object(BlockManager, "run", run_all),
        mock.patch.object(FakeCUDAShared, "array", array),
        mock.patch.object(FakeCUDAModule, "threadfence", pause),
        mock.patch.multiple(FakeCUDAAtomic, add=slow_add, exch=slow_exch),
    ):
        yield


def at_once():
    """Tiles that run together, in any order, give the same bits as one after the other.

    With one block at a time, the last one first, a tile by a block's number would wait for ever.
    """
    from minis5_cuda.nn import scan

    scan.SLOTS = 1
    pair, rng = shrink(2, 2), np.random.default_rng(8)
    for used, kind in enumerate((KINDS[1], KINDS[4])):
        arrays = problem(rng, 50, 3, 1, kind, start=True)
        options = {"is_complex": kind[1], "sequential": False, "look_back": True}
        expected = run(*pair, arrays, **options)
        for most in (1, 3, 99):
            with blocks_at_once(most, seed=10 * used + most):
                got = run(*pair, arrays, **options)
            for mine, theirs in zip(got, expected, strict=True):
                assert mine.tobytes() == theirs.tobytes(), f"{kind}, {most} at once"


def poison():
    """NaN and infinite numbers do not come past a reset, to the last bit.

    Those before it do not come past it forward, those after it not backward.
    """
    rng, T, at = np.random.default_rng(3), 21, 9
    pair = shrink(2, 2)
    for used, (kind, bad) in enumerate(product(KINDS, (np.nan, np.inf))):
        _, is_complex, varying = kind
        a, b, reset, x0, dx = problem(rng, T, 2, 1, kind, "none")
        reset[at, 0] = True
        options = {"sequential": used % 5 == 0, "is_complex": is_complex}
        options |= {"look_back": True} if used % 2 else {"segments": 1 + used % 3}
        x, da, db, dx0 = run(*pair, (a, b, reset, x0, dx), **options)

        bad_a, bad_b, bad_x0 = a.copy(), b.copy(), x0.copy()
        bad_b[at - 7 : at, 0], bad_x0[0] = bad, bad
        if varying:
            bad_a[at - 7 : at + 1, 0] = bad  # that of the reset itself is not used either
        bad_x = run(*pair, (bad_a, bad_b, reset, bad_x0, dx), **options)[0]
        assert not np.isfinite(bad_x[at - 1, 0]).any()
        assert np.array_equal(bad_x[at:], x[at:]) and np.array_equal(bad_x[:, 1], x[:, 1])

        bad_dx, bad_x = dx.copy(), x.copy()
        # x of the step before the reset is not used
        bad_dx[at + 3 :, 0], bad_x[at - 1, 0] = bad, bad
        _, da_, db_, dx0_ = run(*pair, (a, b, reset, x0, bad_dx), bad_x, **options)
        assert not np.isfinite(db_[at, 0]).any()
        assert (
            np.array_equal(db_[:at], db[:at])
            and np.array_equal(db_[:, 1], db[:, 1])
            and np.array_equal(dx0_, dx0)
        )
        if varying:
            assert np.array_equal(da_[: at + 1, 0], da[: at + 1, 0]) and np.array_equal(
                da_[:, 1], da[:, 1]
            )
            assert not da[at, 0].any()
        else:
            assert np.array_equal(run(*pair, (a, b, reset, x0, dx), bad_x, **options)[1], da)


def operator():
    """⊕ as the kernels apply it is the reference's, folded from the left.

    Kernels apply it step by step within a chunk, and to chunks as a tree.
    """
    import cupy
    from minis5_cuda.nn import scan

    rng, n, length = np.random.default_rng(4), 6, 16
    for backward, is_complex, chunks in product((False, True), (False, True), (1, 2, 8)):
        shrink(2, chunks)
        a, b, _, x0, _ = problem(rng, n * length, 3, 1, (np.float64, is_complex, True))
        reset = rng.random((n * length, 3)) < 0.04
        plan = scan.prepare(a, b, is_complex, backward)
        out = [np.full((n, *x0.shape), np.nan) for _ in "AB"] + [np.zeros((n, 3), np.uint8)]
        device = [cupy.asarray(z.reshape(-1)) for z in (a, b, reset.view(np.uint8), *out)]
        arguments = *plan.sizes, *device[:3], length, *device[3:]
        scan.launch(plan.kernels.summary, (2, n), (2, chunks), *arguments)
        A, B, C = (z.get().reshape(o.shape) for z, o in zip(device[3:], out, strict=True))
        A, B, a, b = (numbers(z, is_complex)[..., 0] for z in (A, B, a, b))
        some = set()
        for k, i in product(range(n), range(3)):
            element = (1.0, 0.0, False)
            for t in range(k * length, (k + 1) * length):
                s = len(a) - 1 - t if backward else t
                factor = np.conj(a[s, i]) if backward else a[s, i]
                value = factor * b[s, i] * (not reset[s, i]) if backward else b[s, i]
                element = reference.combine(element, (factor, value, bool(reset[s, i])))
            assert C[k, i] == element[2]
            np.testing.assert_allclose(B[k, i], element[1], atol=1e-14)
            assert C[k, i] or np.isclose(A[k, i], element[0], rtol=1e-12, atol=0)
            some.add(bool(C[k, i]))
        assert some == {True, False}


def textbook():
    """The textbook's scan on all kinds, in tiles of one and of four threads."""
    from minis5_cuda.nn import scan_textbook as textbook

    rng, used = np.random.default_rng(5), 0
    for threads in (4, 1):
        textbook.THREADS = threads
        for kind, T in product(KINDS, (3, 4, 9) if threads == 4 else (2,)):
            arrays = problem(rng, T, 1 + used % 2, 2, kind, RESETS[used % 7], start=used % 3 > 0)
            check(
                textbook.scan_forward,
                textbook.scan_backward,
                arrays,
                kind[1],
                f"{kind} T={T} of {threads} threads",
            )
            used += 1


def captured():
    """Nothing waits for the GPU: work can be recorded as a CUDA graph."""
    import cupy

    forward, backward = shrink(2, 2)
    a, b, reset, x0, dx = (
        cupy.asarray(z) for z in problem(np.random.default_rng(6), 40, 2, 1, KINDS[1])
    )
    with cupy.recorded():
        for options in ({"segments": 2}, {"look_back": True}):
            x = forward(a, b, reset, x0, **options)
            backward(a, reset, x0, x, dx, **options)
