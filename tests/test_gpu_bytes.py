"""The bytes that launches move are what the kernels touch, and the tables are what is computed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from simulator import simulated

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "experiments"
sys.path.append(str(EXPERIMENTS))
import gpu_bytes  # noqa: E402

# What MOVES leaves out: counters, numbers of rows, tables of a few numbers. Of the tally's row
# only a part is read.
NOT_COUNTED = {"arrived", "t", "start", "sizes", "offsets", "counted"}
SKIP = {"tally_kernel", "ppo_loss_mean_kernel"}  # in training no step is left out as not valid
# of an environment's state they read a part; backward_scan reads all states but the last
AT_MOST = {"step_kernel", "rollout_kernel", "backward_scan"}
CASES = {  # of each file: which cases, by a part of their names; of those, kernels in MOVES
    "layers": "act 0.01|act_forward 0.01|act_backward 0.01|gelu_backward|glu",
    "distributions": "log_prob|entropy|backward|sample None",
    "adam": "rates|first",
    "spaces": "one_hot",
    "fused": "gelu|around|residual|matrices|layers|record|remember|copy|store|concatenate",
}


def test_the_page_and_the_files_are_what_is_computed(tmp_path):
    """In a process of its own, in the simulator, at the sizes of the trainings."""
    command = [sys.executable, EXPERIMENTS / "gpu_bytes.py", "--out", tmp_path]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in ("launches.csv", "predictions.json"):
        assert (tmp_path / name).read_text() == (EXPERIMENTS / "gpu_bytes" / name).read_text()
    page = (ROOT / "cuda" / "README.md").read_text(encoding="utf-8")
    page = page.partition("\n## What is moved")[2].partition("\n## ")[0]
    rows = [line for line in page.splitlines() if re.match(r"\| (rollout|mini|paper|laptop)", line)]
    assert rows == result.stdout.splitlines()
    hard = f"RepeatPreviousHard, {gpu_bytes.HARD_STEPS} steps, seconds"
    predicted = json.loads((tmp_path / "predictions.json").read_text())[hard]
    assert f"({gpu_bytes.HARD_STEPS:,} steps) computes for {predicted} s." in page


def test_the_scans_bytes_are_those_of_the_benchmark():
    """gpu_report.py counts them in another way, and a test of it counts by hand."""
    text = (EXPERIMENTS / "gpu_bytes" / "launches.csv").read_text()
    found = dict(re.findall(r"^paper,minibatch,240,kernels,(\w+),4,(\d+),", text, re.MULTILINE))
    T, B, P, tiles = 1024, 8, 128, 8
    columns, step, constant = B * P, 8 * B * P, 8 * P  # bytes of a step, and of a
    published = tiles * columns * (8 + 8 + 4)  # A, B and a flag of each column
    wanted = T * (2 * step + B) + published + step + constant
    assert abs(int(found["forward_look_back"]) - 4 * wanted) < 64
    published = 2 * tiles * columns * (8 + 8 + 4 + 8)  # of tiles half as long; and a sum for da
    wanted = T * (3 * step + B) + published + 2 * step + constant
    assert abs(int(found["backward_look_back"]) - 4 * wanted) < 64


def counting():
    """Compare bytes_of with the numbers that a kernel touches, of small cases."""
    import cupy
    import numpy as np
    from kernel_checks import arguments, on_device, shrink, tables
    from minis5_cuda import launch
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    shrink()
    read, written, seen = {}, {}, set()
    get, put, queue = FakeCUDAArray.__getitem__, FakeCUDAArray.__setitem__, launch.queue

    def place(array, index):
        index = index if isinstance(index, tuple) else (index,)
        size = zip(map(int, index), array._ary.strides, strict=True)
        return array._ary.ctypes.data + sum(i * stride for i, stride in size)

    def counted_get(array, index):
        value = get(array, index)
        if not isinstance(value, FakeCUDAArray):
            read[place(array, index)] = array._ary.itemsize
        return value

    def counted_put(array, index, value):
        written[place(array, index)] = array._ary.itemsize
        put(array, index, value)

    def checked(kernel, grid, block, given):
        read.clear()
        written.clear()
        queue(kernel, grid, block, given)
        name = kernel.fn.__name__
        if name not in gpu_bytes.MOVES or name in SKIP:
            return
        names = list(kernel.fn.__code__.co_varnames[: len(given)])
        aside = [z for n, z in zip(names, given, strict=True) if n in NOT_COUNTED]
        spans = [(z.ctypes.data, z.ctypes.data + z.nbytes) for z in gpu_bytes.arrays_of(aside)]
        touched = sum(
            size
            for found in (read, written)
            for at, size in found.items()
            if not any(low <= at < high for low, high in spans)
        )
        moved, least = gpu_bytes.bytes_of(kernel, given)
        assert moved == touched and 0 <= least <= moved, (name, moved, touched)
        seen.add(name)

    FakeCUDAArray.__getitem__, FakeCUDAArray.__setitem__ = counted_get, counted_put
    launch.queue = checked
    for file, names in CASES.items():
        cases = {n: c for n, c in tables()[0][file].items() if re.search(names, n)}
        for key, made in arguments(cases, [np.float32], [(4, 2)]).items():
            on_device(cases[key.case], made)
    others(cupy, np.random.default_rng(0))
    unseen = set(gpu_bytes.MOVES) - seen
    assert unseen == SKIP | {name for name in gpu_bytes.MOVES if name in AT_MOST or "look" in name}


def others(xp, rng):
    """Call what has no case: columns, numbers, advantages, scans."""
    from minis5_cuda import columns, random
    from minis5_cuda.nn import scan
    from minis5_cuda.rl import ppo

    x = xp.asarray(rng.standard_normal((3, 4, 2)).astype("f4"))
    columns.take_columns([x, x > 0], xp.asarray(rng.permutation(4)[:2]))
    columns.join_columns([x], [x + 0])
    random.fill_uniform(xp.zeros(3, "i8"), xp.zeros(5))
    ppo.normalise(x.ravel())
    a, reset, x0 = x[:1, :1] + 0, x[..., 0] > 0, x[0] + 0
    for sequential in (True, False):
        scan.scan_forward(a, x, reset, x0, sequential=sequential, segments=1)


def test_what_a_kernel_moves_is_what_it_touches():
    simulated(__file__, "counting()")
