"""The parts of gpu_bench.py about the scan: against T, against B·P, against a copy, a sequential kernel, and JAX.

Tests: tests/test_gpu_bench.py.
"""

import math
import os
import time
from functools import partial, wraps

import numpy as np
from gpu_report import necessary_bytes, scan_row

from minis5.arrays import move, to_host
from minis5.nn.scan import from_planar, planar, scan_backward, scan_forward
from minis5.run.bench import row

NUMBERS = 1 << 25  # T·B·P of the part "total"
RESETS = 0.02
WIDE, LONG, AIMED = (1024, 64, 128), (65536, 1, 128), (4096, 64, 128)  # (T, B, P)
AIM = 1.333  # times the copy: three quarters of its bandwidth


def shapes(part, quick=False):
    """(T, B, P) of a part, P at most 128."""
    steps = [1 << k for k in (range(8, 11) if quick else range(8, 21))]
    numbers, T = (1 << 15, 256) if quick else (NUMBERS, 4096)
    widths = [1 << k for k in (range(5, 8) if quick else range(5, 14))]
    if part == "length":
        return [(T, 1, 128) for T in steps]
    columns = [(T, numbers // T) for T in steps] if part == "total" else [(T, n) for n in widths]
    return [(T, max(1, n // 128), min(n, 128)) for T, n in columns]


def inputs(T, B, P, varying=False, device="cuda"):
    """(a, b, reset, x0, dx), planar, with |a| from 0.9 to 1."""
    rng = np.random.default_rng(0)
    polar = rng.random((2, *((T, B) if varying else (1, 1)), P), np.float32)
    size, angle = 1 - polar[0] / 10, 3 * polar[1]
    a = np.concatenate([size * np.cos(angle), size * np.sin(angle)], axis=-1)
    b, dx = rng.random((2, T, B, 2 * P), np.float32)
    reset, x0 = rng.random((T, B), np.float32) < RESETS, np.zeros((B, 2 * P), np.float32)
    return [move(z, device) for z in (a, b, reset, x0, dx)]


def check(data, x, g):
    """The first and the last column of states and gradients against the CPU's scan."""
    a, b, reset, x0, dx = data
    T, B, P = b.shape[0], b.shape[1], b.shape[2] // 2
    for i, p in ((0, 0), (B - 1, P - 1)):

        def column(z, i=i, p=p):
            return np.ascontiguousarray(
                to_host(z[:, i % z.shape[1], p::P] if z.ndim == 3 else z[:, i])
            )[:, None]

        a1, b1, reset1, dx1 = map(column, (a, b, reset, dx))
        exact = scan_forward(a1, b1, reset1, np.zeros((1, 2), np.float32))
        _, exact_g, _ = scan_backward(a1, reset1, np.zeros((1, 2), np.float32), exact, dx1)
        for name, got, wanted in (("states", x, exact), ("gradients", g, exact_g)):
            bound = 1e-5 * math.log2(2 * T) * np.abs(wanted).max()
            assert np.abs(column(got) - wanted).max() < bound, (
                f"scan, T={T} B={B} P={P}: wrong {name} in column {i, p}"
            )


def on_a_stream(part):
    """A part of the benchmark on a stream of its own: CUDA graphs cannot be recorded on the default one."""

    @wraps(part)
    def run(*arguments):
        import cupy

        with cupy.cuda.Stream() as stream:
            rows = part(*arguments)
            stream.synchronize()
        return rows

    return run


def event_ms(function):
    """Milliseconds that the GPU takes for what `function` queues."""
    import cupy

    start, stop, stream = cupy.cuda.Event(), cupy.cuda.Event(), cupy.cuda.get_current_stream()
    start.record(stream)
    function()
    stop.record(stream)
    stop.synchronize()
    return cupy.cuda.get_elapsed_time(start, stop)


def wall_ms(function):
    """Milliseconds until `function` returns; it waits for its own work."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def in_turn(functions, repeats, clock, warm_up=3):
    """Each function in turn, `repeats` times round: name → milliseconds of each run."""
    times = {
        name: [clock(function) for _ in range(warm_up)] for name, function in functions.items()
    }
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(clock(function))
    return {name: values[warm_up:] for name, values in times.items()}


def copying(bytes_moved):
    """A function that copies on the device, reading half of the bytes and writing the other half."""
    import cupy

    source, target = cupy.zeros(bytes_moved // 2, np.uint8), cupy.empty(bytes_moved // 2, np.uint8)
    return lambda: target.data.copy_from_device_async(
        source.data, target.nbytes, cupy.cuda.get_current_stream()
    )


def scan_rows(part, shape, varying, repeats, aim):
    """Rows for one shape: forward, backward and both, each against a copy of its bytes."""
    import cupy
    from minis5_cuda.graphs import Graph

    data = a, b, reset, x0, dx = inputs(*shape, varying)
    x = scan_forward(a, b, reset, x0)
    check(data, x, scan_backward(a, reset, x0, x, dx)[1])
    work = {
        "forward": lambda: scan_forward(a, b, reset, x0, out=x),
        "backward": lambda: scan_backward(a, reset, x0, x, dx),
    }
    work["forward+backward"] = lambda: (
        scan_forward(a, b, reset, x0, out=x),
        scan_backward(a, reset, x0, x, dx),
    )
    moved = {name: necessary_bytes(*shape, name, varying) for name in work}
    functions = {}
    for name in work:
        functions |= {name: Graph(work[name]), f"copy for {name}": Graph(copying(moved[name]))}
    ms = in_turn(functions, repeats, event_ms)
    rows = [
        scan_row(part, name, shape, varying, ms[name], ms[f"copy for {name}"], aim) for name in work
    ]
    del functions
    cupy.get_default_memory_pool().free_all_blocks()
    return rows


@on_a_stream
def bench_scan(part, repeats, quick):
    """The parts total, width and length."""
    rows = []
    for shape in shapes(part, quick):
        for varying in (False, True) if part == "total" else (False,):
            rows += scan_rows(
                part, shape, varying, repeats, AIM if shape == AIMED and not varying else None
            )
    return rows


@on_a_stream
def bench_sequential(repeats, quick):
    """One thread a column, a loop over T: the least work, but little of it at a time."""
    from minis5_cuda.graphs import Graph
    from minis5_cuda.nn import scan as gpu

    rows = []
    for shape in [(256, 4, 16)] if quick else (WIDE, LONG, AIMED):
        data = a, b, reset, x0, dx = inputs(*shape)

        def both(sequential, a=a, b=b, reset=reset, x0=x0, dx=dx):
            x = gpu.scan_forward(a, b, reset, x0, sequential=sequential)
            return x, gpu.scan_backward(a, reset, x0, x, dx, sequential=sequential)[1]

        check(data, *both(True))
        ms = in_turn(
            {name: Graph(partial(both, name)) for name in (False, True)}, repeats, event_ms
        )
        what = "forward+backward, T={} B={} P={}, a constant".format(*shape)
        rows.append(
            {
                "part": "sequential",
                **row(what, ms[False], "ms", None, "a sequential kernel", ms[True]),
            }
        )
    return rows


@on_a_stream
def bench_jax(repeats, quick):
    """Forward, and forward and backward; both sides called from Python, waiting for the result."""
    # or it takes most of the memory, which is ours too
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax
        import jax_scan

        device = jax.devices("gpu")[0]
    except (ImportError, RuntimeError) as error:
        print(
            f"jax: left out, for there is no JAX with a GPU ({str(error).splitlines()[0]}); pip install 'jax[cuda13]'"
        )
        return []
    import cupy

    rows, synchronize = [], cupy.cuda.get_current_stream().synchronize
    for shape in [(256, 4, 16)] if quick else (WIDE, LONG):
        data = a, b, reset, x0, dx = inputs(*shape)
        lam, inflow, flow = (jax.device_put(from_planar(to_host(z)), device) for z in (a, b, dx))
        theirs = lam[0, 0], inflow, jax.device_put(to_host(reset), device), flow
        jax_forward, jax_both = jax.jit(jax_scan.forward), jax.jit(jax_scan.forward_and_backward)
        x, _, db = jax_both(*theirs)
        check(data, *(planar(np.asarray(z)) for z in (x, db)))

        def ours(backward, a=a, b=b, reset=reset, x0=x0, dx=dx):
            x = scan_forward(a, b, reset, x0)
            if backward:
                scan_backward(a, reset, x0, x, dx)
            synchronize()

        functions = {"forward": partial(ours, False), "forward+backward": partial(ours, True)}
        functions["JAX forward"] = lambda f=jax_forward, z=theirs: f(*z[:3]).block_until_ready()
        functions["JAX forward+backward"] = lambda f=jax_both, z=theirs: jax.block_until_ready(
            f(*z)
        )
        ms = in_turn(functions, repeats, wall_ms)
        for name in ("forward", "forward+backward"):
            what, aim = (
                "{}, T={} B={} P={}, a constant".format(name, *shape),
                None if quick or "+" not in name else 0.1,
            )
            rows.append(
                {
                    "part": "jax",
                    **row(what, ms[name], "ms", aim, f"JAX {jax.__version__}", ms[f"JAX {name}"]),
                }
            )
    return rows
