"""Measure the scan for gpu_bench.py: against T and B·P, a copy, other kernels, and JAX.

Leaves out: real-valued scans. Tests: tests/test_gpu_bench.py.
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
TRAINED = (1024, 8, 128)  # a minibatch of the paper's preset
AIM, LONG_AIM = 1.333, 1.667  # times the copy: three quarters of its bandwidth, three fifths


def shapes(part, quick=False):
    """Return the shapes (T, B, P) of a part, P at most 128."""
    steps = [1 << k for k in (range(8, 11) if quick else range(8, 21))]
    numbers, T = (1 << 15, 256) if quick else (NUMBERS, 4096)
    widths = [1 << k for k in (range(5, 8) if quick else range(5, 14))]
    if part == "length":
        return [(T, 1, 128) for T in steps]
    columns = [(T, numbers // T) for T in steps] if part == "total" else [(T, n) for n in widths]
    return [(T, max(1, n // 128), min(n, 128)) for T, n in columns]


def inputs(T, B, P, varying=False, device="cuda"):
    """Return (a, b, reset, x0, dx), planar, with |a| from 0.9 to 1."""
    rng = np.random.default_rng(0)
    polar = rng.random((2, *((T, B) if varying else (1, 1)), P), np.float32)
    size, angle = 1 - polar[0] / 10, 3 * polar[1]
    a = np.concatenate([size * np.cos(angle), size * np.sin(angle)], axis=-1)
    b, dx = rng.random((2, T, B, 2 * P), np.float32)
    reset, x0 = rng.random((T, B), np.float32) < RESETS, np.zeros((B, 2 * P), np.float32)
    return [move(z, device) for z in (a, b, reset, x0, dx)]


def check(data, x, g):
    """Compare the first and the last column of states and gradients with the CPU's scan."""
    a, b, reset, x0, dx = data
    T, B, P = b.shape[0], b.shape[1], b.shape[2] // 2
    for i, p in ((0, 0), (B - 1, P - 1)):

        def column(z, i=i, p=p):
            z = z[:, i % z.shape[1], p::P] if z.ndim == 3 else z[:, i]
            return np.ascontiguousarray(to_host(z))[:, None]

        a1, b1, reset1, dx1 = map(column, (a, b, reset, dx))
        zero = np.zeros((1, 2), np.float32)
        exact = scan_forward(a1, b1, reset1, zero)
        _, exact_g, _ = scan_backward(a1, reset1, zero, exact, dx1)
        for name, got, wanted in (("states", x, exact), ("gradients", g, exact_g)):
            bound = 1e-5 * math.log2(2 * T) * np.abs(wanted).max()
            assert np.abs(column(got) - wanted).max() < bound, (
                f"scan, T={T} B={B} P={P}: wrong {name} in column {i, p}"
            )


def on_a_stream(part):
    """Run a part of the benchmark on a stream of its own: the default stream records no graphs."""

    @wraps(part)
    def run(*arguments):
        import cupy

        with cupy.cuda.Stream() as stream:
            rows = part(*arguments)
            stream.synchronize()
        return rows

    return run


def event_ms(function):
    """Return the milliseconds that the GPU takes for what `function` queues."""
    import cupy

    start, stop, stream = cupy.cuda.Event(), cupy.cuda.Event(), cupy.cuda.get_current_stream()
    start.record(stream)
    function()
    stop.record(stream)
    stop.synchronize()
    return cupy.cuda.get_elapsed_time(start, stop)


def wall_ms(function):
    """Return the milliseconds until `function`, which waits for its own work, returns."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def in_turn(functions, repeats, clock, warm_up=3):
    """Run all functions in turn, `repeats` times; return name → milliseconds of each run."""
    times = {name: [clock(work) for _ in range(warm_up)] for name, work in functions.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(clock(function))
    return {name: values[warm_up:] for name, values in times.items()}


def copying(bytes_moved):
    """Return a function that copies on the device: it reads half of the bytes and writes half."""
    import cupy

    source, target = cupy.zeros(bytes_moved // 2, np.uint8), cupy.empty(bytes_moved // 2, np.uint8)

    def copy():
        stream = cupy.cuda.get_current_stream()
        target.data.copy_from_device_async(source.data, target.nbytes, stream)

    return copy


def scan_rows(part, shape, varying, repeats, aim):
    """Return the rows for one shape: forward, backward, both, each against a copy of its bytes."""
    import cupy
    from minis5_cuda.graphs import Graph

    data = a, b, reset, x0, dx = inputs(*shape, varying)
    x = scan_forward(a, b, reset, x0)
    check(data, x, scan_backward(a, reset, x0, x, dx)[1])

    def forward():
        scan_forward(a, b, reset, x0, out=x)

    def backward():
        return scan_backward(a, reset, x0, x, dx)

    work = {"forward": forward, "backward": backward}
    work["forward+backward"] = lambda: (forward(), backward())
    moved = {name: necessary_bytes(*shape, name, varying) for name in work}
    functions = {}
    for name in work:
        functions |= {name: Graph(work[name]), f"copy for {name}": Graph(copying(moved[name]))}
    ms = in_turn(functions, repeats, event_ms)
    del functions
    cupy.get_default_memory_pool().free_all_blocks()
    times = {name: (ms[name], ms[f"copy for {name}"]) for name in work}
    return [scan_row(part, name, shape, varying, *pair, aim) for name, pair in times.items()]


@on_a_stream
def bench_scan(part, repeats, quick):
    """Measure the parts total, width and length."""
    rows = []
    for shape in shapes(part, quick):
        for varying in (False, True) if part == "total" else (False,):
            aim = None if varying else {LONG: LONG_AIM, AIMED: AIM}.get(shape)
            rows += scan_rows(part, shape, varying, repeats, aim)
    return rows


@on_a_stream
def bench_sequential(repeats, quick):
    """Measure the scan against one thread a column: the least work, but little of it at a time."""
    from minis5_cuda.graphs import Graph
    from minis5_cuda.nn import scan as gpu

    rows = []
    for shape in [(256, 4, 16)] if quick else (WIDE, LONG, AIMED):
        data = a, b, reset, x0, dx = inputs(*shape)

        def both(sequential, a=a, b=b, reset=reset, x0=x0, dx=dx):
            x = gpu.scan_forward(a, b, reset, x0, sequential=sequential)
            return x, gpu.scan_backward(a, reset, x0, x, dx, sequential=sequential)[1]

        check(data, *both(True))
        graphs = {name: Graph(partial(both, name)) for name in (False, True)}
        ms = in_turn(graphs, repeats, event_ms)
        what = "forward+backward, T={} B={} P={}, a constant".format(*shape)
        line = row(what, ms[False], "ms", None, "a sequential kernel", ms[True])
        rows.append({"part": "sequential", **line})
    return rows


@on_a_stream
def bench_passes(repeats, quick):
    """Measure one pass, in which tiles look back, against three passes."""
    from minis5_cuda.graphs import Graph
    from minis5_cuda.nn import scan as gpu

    rows = []
    for shape in [(256, 4, 16)] if quick else (TRAINED, LONG):
        data = a, b, reset, x0, dx = inputs(*shape)

        def forward(look_back, a=a, b=b, reset=reset, x0=x0):
            return gpu.scan_forward(a, b, reset, x0, look_back=look_back)

        x = forward(False)

        def backward(look_back, a=a, reset=reset, x0=x0, x=x, dx=dx):
            return gpu.scan_backward(a, reset, x0, x, dx, look_back=look_back)[1]

        check(data, forward(True), backward(True))
        for work in (forward, backward):
            graphs = {one: Graph(partial(work, one)) for one in (True, False)}
            ms = in_turn(graphs, repeats, event_ms)
            what = "{}, T={} B={} P={}, a constant, one pass".format(work.__name__, *shape)
            line = row(what, ms[True], "ms", None, "three passes", ms[False])
            rows.append({"part": "passes", **line})
    return rows


@on_a_stream
def bench_jax(repeats, quick):
    """Measure forward, and forward with backward, against JAX.

    Python calls both sides and waits for the result.
    """
    # Otherwise JAX takes most of the GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import jax
        import jax_scan

        device = jax.devices("gpu")[0]
    except (ImportError, RuntimeError) as error:
        reason = f"there is no JAX with a GPU ({str(error).splitlines()[0]})"
        print(f"jax: left out, because {reason}; pip install 'jax[cuda13]'")
        return []
    import cupy

    def waiting(function, arguments):
        return jax.block_until_ready(function(*arguments))

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
        functions["JAX forward"] = partial(waiting, jax_forward, theirs[:3])
        functions["JAX forward+backward"] = partial(waiting, jax_both, theirs)
        ms = in_turn(functions, repeats, wall_ms)
        for name in ("forward", "forward+backward"):
            what = "{}, T={} B={} P={}, a constant".format(name, *shape)
            aim, against = None if quick or "+" not in name else 0.1, f"JAX {jax.__version__}"
            line = row(what, ms[name], "ms", aim, against, ms[f"JAX {name}"])
            rows.append({"part": "jax", **line})
    return rows
