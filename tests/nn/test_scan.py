"""scan and scan_vjp: against the specification, the properties of a resettable recurrence.

The kernels of the scan and of scan_textbook run in Numba's simulator (scan_checks.py).
"""

import os
import subprocess
import sys
import threading
from itertools import product

import numpy as np
import pytest
import scan_checks
from sampling import sampled
from simulator import simulated

from minis5 import reference as ref
from minis5.nn.scan import (
    from_planar,
    planar,
    scan,
    scan_backward,
    scan_forward,
    scan_vjp,
    set_num_threads,
)
from minis5.verify.gradients import assert_close, check_gradients, random_like

LENGTHS = [1, 2, 3, 31, 32, 33, 63, 257]
DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
CHUNK = 32


def resets(kind, T, B, rng):
    """Return a (T, B) reset pattern; None is "no argument"."""
    reset = np.zeros((T, B), bool)
    if kind == "absent":
        return None
    if kind == "all":
        reset[:] = True
    elif kind == "first":
        reset[0] = True
    elif kind == "last":
        reset[-1] = True
    elif kind == "edges":
        # first and last steps of chunks of 32, first columns at odd, last ones at even edges
        reset[::CHUNK, : B // 2] = True
        reset[CHUNK - 1 :: CHUNK, B // 2 :] = True
    elif kind == "random":
        reset[:] = rng.random((T, B)) < 0.1
    return reset


def multipliers(rng, shape, size, dtype):
    """Return numbers with |a| in [0.999, 1] ("near 1") or below 1e-3, at any angle (sign)."""
    radius = rng.uniform(0.999, 1.0, shape) if size == "near 1" else rng.uniform(0.0, 1e-3, shape)
    if np.issubdtype(dtype, np.complexfloating):
        return (radius * np.exp(1j * rng.uniform(0, 2 * np.pi, shape))).astype(dtype)
    return (radius * rng.choice([-1.0, 1.0], shape)).astype(dtype)


def problem(rng, T, B=2, P=3, *, dtype=np.complex128, varying=False, size="near 1", reset="random"):
    """Return a, b, reset, x0, dx."""
    a = multipliers(rng, (T, B, P) if varying else P, size, dtype)
    b, dx = (random_like(rng, np.zeros((T, B, P), dtype)) for _ in range(2))
    return a, b, resets(reset, T, B, rng), random_like(rng, np.zeros((B, P), dtype)), dx


def wide(z):
    """Return the same numbers in 64 bits a part."""
    return None if z is None else z.astype(np.complex128 if np.iscomplexobj(z) else np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", LENGTHS)
def test_equals_reference(T, dtype):
    rng = np.random.default_rng(T)
    for varying in (False, True):
        for size in ("near 0", "near 1"):
            for kind in ("absent", "none", "all", "first", "last", "edges", "random"):
                for start in ("nonzero", "absent" if varying else "zero"):
                    a, b, reset, x0, dx = problem(
                        rng, T, dtype=dtype, varying=varying, size=size, reset=kind
                    )
                    x0 = {"nonzero": x0, "zero": np.zeros_like(x0), "absent": None}[start]
                    case = f"varying={varying} |a| {size} resets {kind} x0 {start}"
                    expected = ref.scan(wide(a), wide(b), reset, wide(x0))
                    x = scan(a, b, reset, x0)
                    assert x.dtype == dtype
                    assert_close(x, expected, T=T, name=case)
                    expected = ref.scan_vjp(wide(a), wide(b), reset, wide(x0), wide(x), wide(dx))
                    for name, got, wanted in zip(
                        ("da", "db", "dx0"), scan_vjp(a, b, reset, x0, x, dx), expected, strict=True
                    ):
                        assert got.dtype == dtype
                        assert_close(got, wanted, T=T, name=f"{name} {case}")


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("varying", [False, True])
def test_vjp_against_differences(varying, dtype):
    a, b, reset, x0, _ = problem(np.random.default_rng(0), 9, 3, 2, dtype=dtype, varying=varying)

    def backward(z, cotangents):
        x = scan(z["a"], z["b"], reset, z["x0"])
        return dict(
            zip(
                ("a", "b", "x0"),
                scan_vjp(z["a"], z["b"], reset, z["x0"], x, *cotangents),
                strict=True,
            )
        )

    check_gradients(
        lambda z: (scan(z["a"], z["b"], reset, z["x0"]),), backward, {"a": a, "b": b, "x0": x0}
    )


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_does_not_pass_a_reset_forward(dtype, poison):
    rng = np.random.default_rng(1)
    T, t0, t1 = 40, 7, 33
    a, b, reset, x0, _ = problem(rng, T, dtype=dtype, varying=True, reset="none")
    reset[t1, 0] = True
    clean = scan(a, b, reset, x0)
    for bad_a, bad_b, bad_x0 in ((0, 1, 0), (1, 0, 0), (0, 0, 1), (1, 1, 1)):
        a2, b2, x2 = a.copy(), b.copy(), x0.copy()
        if bad_a:
            a2[t0:t1, 0] = poison
            a2[t1, 0] = poison  # the multiplier of a reset step is not read either
        if bad_b:
            b2[t0:t1, 0] = poison
        if bad_x0:
            x2[0] = poison
        x = scan(a2, b2, reset, x2)
        assert not np.isfinite(x[t1 - 1, 0]).any()
        np.testing.assert_array_equal(x[t1:], clean[t1:])
        np.testing.assert_array_equal(x[:, 1], clean[:, 1])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_poison_does_not_pass_a_reset_backward(dtype, varying, poison):
    """Neither gradients of later steps, nor a poisoned state just before the reset into da."""
    rng = np.random.default_rng(2)
    T, t1 = 40, 33
    a, b, reset, x0, dx = problem(rng, T, dtype=dtype, varying=varying, reset="none")
    reset[t1, 0] = True
    x = scan(a, b, reset, x0)
    clean = scan_vjp(a, b, reset, x0, x, dx)
    bad = dx.copy()
    bad[t1:, 0] = poison
    da, db, dx0 = scan_vjp(a, b, reset, x0, x, bad)
    assert not np.isfinite(db[t1:, 0]).any()
    np.testing.assert_array_equal(db[:t1], clean[1][:t1])
    np.testing.assert_array_equal(db[:, 1], clean[1][:, 1])
    np.testing.assert_array_equal(dx0, clean[2])
    if varying:
        np.testing.assert_array_equal(da[: t1 + 1], clean[0][: t1 + 1])
    x2 = x.copy()
    x2[t1 - 1, 0] = poison
    for got, wanted in zip(scan_vjp(a, b, reset, x0, x2, dx), clean, strict=True):
        np.testing.assert_array_equal(got, wanted)
    reset[0, 0] = True
    x0[0] = poison
    da, db, dx0 = scan_vjp(a, b, reset, x0, x, dx)
    assert np.isfinite(da).all() and np.isfinite(db).all() and np.isfinite(dx0).all()
    assert (dx0[0] == 0).all()


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_chunks_with_carried_state_are_the_whole(chunk, varying):
    """Forward and backward; chunk = 1 is step by step."""
    T = 65
    a, b, reset, x0, dx = problem(np.random.default_rng(3), T, varying=varying)
    x = scan(a, b, reset, x0)
    da, db, dx0 = scan_vjp(a, b, reset, x0, x, dx)
    pieces, state = [], x0
    starts = range(0, T, chunk)
    for t in starts:
        part = slice(t, t + chunk)
        pieces.append(scan(a[part] if varying else a, b[part], reset[part], state))
        state = pieces[-1][-1]
    assert_close(np.concatenate(pieces), x, T=T)
    dstate, da_parts, db_parts = np.zeros_like(x0), [], []
    for t in reversed(starts):
        part = slice(t, t + chunk)
        d = dx[part].copy()
        d[-1] += dstate
        before = x0 if t == 0 else x[t - 1]
        da_t, db_t, dstate = scan_vjp(
            a[part] if varying else a, b[part], reset[part], before, x[part], d
        )
        da_parts.insert(0, da_t)
        db_parts.insert(0, db_t)
    assert_close(np.concatenate(db_parts), db, T=T)
    assert_close(dstate, dx0, T=T)
    assert_close(np.concatenate(da_parts) if varying else sum(da_parts), da, T=T)


def test_packed_episodes_are_separate_episodes():
    """A column of episodes of many lengths gives what a scan of each gives, both ways."""
    rng = np.random.default_rng(4)
    lengths = [1, 5, 1, 32, 20, 2]
    T = sum(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    a, b, reset, x0, dx = problem(rng, T, 1, 4, reset="none")
    reset[starts[1:]] = True
    x = scan(a, b, reset, x0)
    da, db, dx0 = scan_vjp(a, b, reset, x0, x, dx)
    da_sum = np.zeros_like(a)
    for start, length in zip(starts, lengths, strict=True):
        part = slice(start, start + length)
        first = x0 if start == 0 else None
        alone = scan(a, b[part], None, first)
        assert_close(x[part], alone, T=T)
        da_part, db_part, dx0_part = scan_vjp(a, b[part], None, first, alone, dx[part])
        da_sum += da_part
        assert_close(db[part], db_part, T=T)
        if start == 0:
            assert_close(dx0, dx0_part, T=T)
    assert_close(da, da_sum, T=T)


@pytest.mark.parametrize("is_complex", [False, True])
def test_planar_form_writes_every_output(is_complex):
    """Outputs may hold NaN on entry or be inputs; the planar form is the public one."""
    dtype = np.complex64 if is_complex else np.float32
    a, b, reset, x0, dx = problem(np.random.default_rng(5), 33, 3, 4, dtype=dtype)
    x = scan(a, b, reset, x0)
    da, db, dx0 = scan_vjp(a, b, reset, x0, x, dx)
    pa, pb, px0, pdx = planar(a[None, None]), planar(b), planar(x0), planar(dx)
    out = np.full_like(pb, np.nan)
    assert scan_forward(pa, pb, reset, px0, is_complex=is_complex, out=out) is out
    np.testing.assert_array_equal(out, planar(x))
    da_p, db_p, dx0_p = scan_backward(pa, reset, px0, out, pdx.copy(), is_complex=is_complex)
    for got, wanted in ((da_p[0, 0], da), (db_p, db), (dx0_p, dx0)):
        np.testing.assert_array_equal(got, planar(wanted))
    db_out = np.full_like(pdx, np.nan)
    _, db_p, _ = scan_backward(pa, reset, px0, out, pdx, is_complex=is_complex, out=db_out)
    assert db_p is db_out
    np.testing.assert_array_equal(db_out, planar(db))
    np.testing.assert_array_equal(pdx, planar(dx))
    in_place = pb.copy()
    scan_forward(pa, in_place, reset, px0, is_complex=is_complex, out=in_place)
    np.testing.assert_array_equal(in_place, planar(x))
    np.testing.assert_array_equal(
        scan_backward(pa, reset, px0, out, pdx, is_complex=is_complex, out=pdx)[1], pdx
    )
    np.testing.assert_array_equal(pdx, planar(db))


def test_planar_round_trip():
    z = random_like(np.random.default_rng(6), np.zeros((4, 3), np.complex64))
    np.testing.assert_array_equal(planar(z), np.concatenate([z.real, z.imag], axis=-1))
    np.testing.assert_array_equal(from_planar(planar(z)), z)
    assert from_planar(planar(z)).dtype == np.complex64


@pytest.mark.parametrize("B, P", [(64, 40), (1, 2600)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_change_no_bit(dtype, B, P):
    """Large enough to be split along B or along P, also by three threads, which divide neither."""
    a, b, reset, x0, dx = problem(np.random.default_rng(7), 110, B, P, dtype=dtype)
    results = []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            x = scan(a, b, reset, x0)
            results.append((x, *scan_vjp(a, b, reset, x0, x, dx)))
    finally:
        set_num_threads(os.cpu_count() or 1)
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_the_number_of_threads_can_be_put_back():
    before = set_num_threads(3)
    assert before >= 1 and set_num_threads(5) == 3 and set_num_threads(before) == 5


def test_arguments_are_not_changed_and_may_be_views():
    a, b, reset, x0, dx = problem(np.random.default_rng(8), 12, 4, 6, varying=True)
    copies = [z.copy() for z in (a, b, reset, x0, dx)]
    x = scan(a, b, reset, x0)
    grads = scan_vjp(a, b, reset, x0, x, dx)
    for z, copy in zip((a, b, reset, x0, dx), copies, strict=True):
        np.testing.assert_array_equal(z, copy)
    strided = [np.asfortranarray(z) for z in (a, b, reset, x0)]
    np.testing.assert_array_equal(scan(*strided), x)
    for one, two in zip(
        scan_vjp(*strided, np.asfortranarray(x), np.asfortranarray(dx)), grads, strict=True
    ):
        np.testing.assert_array_equal(one, two)


A, B_, R, X0 = np.ones(3), np.ones((5, 2, 3)), np.zeros((5, 2), bool), np.ones((2, 3))


@pytest.mark.parametrize(
    "name, args",
    [
        ("a", ([1.0, 1.0, 1.0], B_)),
        ("a", (np.ones(4), B_)),
        ("a", (np.ones((5, 3)), B_)),
        ("a", (np.ones((5, 1, 3)), B_)),
        ("a", (A.astype(np.float32), B_)),
        ("a", (A.astype(complex), B_)),
        ("b", (A, B_.tolist())),
        ("b", (A, B_[0])),
        ("b", (A, B_.astype(int))),
        ("b", (A, B_.astype(np.float16))),
        ("b", (A, B_[:0])),
        ("reset", (A, B_, R.T)),
        ("reset", (A, B_, R.astype(np.float32))),
        ("reset", (A, B_, R.tolist())),
        ("x0", (A, B_, R, X0.T)),
        ("x0", (A, B_, R, X0.astype(complex))),
        ("x0", (A, B_, R, X0[0])),
    ],
)
def test_bad_arguments_are_named(name, args):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*got "):
        scan(*args)
    a, b, reset, x0 = (*args, None, None)[:4]
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*got "):
        scan_vjp(a, b, reset, x0, B_, B_)


@pytest.mark.parametrize("name", ["x", "dx"])
@pytest.mark.parametrize("bad", [B_[1:], B_.astype(np.float32), B_.tolist(), B_.astype(complex)])
def test_bad_gradients_are_named(name, bad):
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*got "):
        scan_vjp(A, B_, R, X0, **{"x": B_, "dx": B_} | {name: bad})


CHECKS = ["everything", "sequential", "shapes", "poison", "operator", "textbook", "captured"]
CHECKS += ["look_back", "at_once"]


@pytest.mark.parametrize("check", sampled(CHECKS))
def test_in_the_simulator(check):
    simulated(scan_checks.__file__, f"{check}()")


def test_segments(monkeypatch):
    """Segments cover time in whole tiles and fill the GPU once; none are made for no gain."""
    from minis5_cuda.nn import scan

    monkeypatch.setattr(scan, "multiprocessors", lambda: 132)
    assert scan.split(4096, 64 * 128, 128, None) == (1, 4096)
    assert scan.split(1000, 64 * 128, 128, None) == (1, 1024)
    assert scan.split(65536, 128, 128, None) == (64, 1024)
    assert scan.split(1, 1, 128, None) == (1, 128)
    for T, columns, tile in product((9, 512, 1023, 10**6), (1, 33, 1024), (64, 128)):
        for asked in (None, 1, 2, 7, 10**6):
            segments, length = scan.split(T, columns, tile, asked)
            assert length % tile == 0 and (segments - 1) * length < T <= segments * length
            if asked is None:
                assert segments == 1 or length >= scan.MIN_TILES * tile
                assert segments == 1 or segments * -(-columns // 32) <= 2 * 132
            else:
                assert segments <= asked


# Threads and processes

FORKED = """
import os, signal, warnings
import numpy as np
import minis5
from minis5.nn.scan import set_num_threads

warnings.simplefilter("ignore")
set_num_threads(2)
a, b = np.full(64, 0.9, np.float32), np.ones((1024, 32, 64), np.float32)
envs = minis5.make_vec("RepeatPreviousEasy", 8, seed=0, num_threads=2)
envs.reset(seed=0)
action = np.zeros(8, np.int64)


def work():
    envs.step(action)
    return minis5.scan(a, b)[-1, 0, 0]


expected = work()


def child(depth):
    pid = os.fork()
    if pid == 0:
        signal.alarm(120)  # none is left behind if it hangs
        code = 1
        try:
            same = work() == expected and minis5.scan_vjp(a, b, None, None, b, b)[0].shape == (64,)
            code = 0 if same and (depth == 0 or child(depth - 1) == 0) else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


for _ in range(3):
    assert child(1) == 0  # a child and its child
assert work() == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork():
    """A child has none of its parent's threads, and must not wait for them."""
    done = subprocess.run([sys.executable, "-c", FORKED], timeout=300, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_many_threads_scan_at_once_while_their_number_changes():
    a, b, reset, x0, _ = problem(np.random.default_rng(9), 64, 64, 70, varying=False)
    expected, wrong, ended = scan(a, b, reset, x0), [], threading.Event()

    def work():
        for _ in range(30):
            if not np.array_equal(scan(a, b, reset, x0), expected):
                wrong.append("another result")

    def guarded():
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    before = set_num_threads(2)
    try:
        threads = [threading.Thread(target=guarded) for _ in range(6)]
        for thread in threads:
            thread.start()

        def change():
            while not ended.is_set():
                for n in (1, 2, 3, 5):
                    set_num_threads(n)

        changing = threading.Thread(target=change)
        changing.start()
        for thread in threads:
            thread.join(timeout=300)
        ended.set()
        changing.join()
        assert not wrong and not any(thread.is_alive() for thread in threads)
    finally:
        ended.set()
        set_num_threads(before)


@pytest.mark.parametrize("bad", [0, -1, True, 1.0, 2.5, "2", None, np.nan, 10**9])
def test_numbers_of_threads_that_are_none(bad):
    before = set_num_threads(2)
    try:
        with pytest.raises(ValueError, match=r"^n: expected an integer in \[1, .*; "):
            set_num_threads(bad)
        assert set_num_threads(2) == 2
    finally:
        set_num_threads(before)
