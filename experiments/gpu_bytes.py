"""Predict what training costs on a GPU, from the bytes that every launch of an iteration moves.

    python experiments/gpu_bytes.py                    about a minute
    python experiments/gpu_bytes.py --out FOLDER       leave the repository's figures alone

It needs no GPU. An iteration is queued in Numba's simulator at its real sizes, and no kernel runs
(tests/launch_counts.py). Each launch's bytes follow from the shapes of its arguments and from
MOVES, which says what a kernel reads and writes. A launch reads and writes each number once, as if
no cache kept anything between two launches, and a cache everything within one.

"Least" leaves out what could be left out: parts of sums that one block hands to another, results
that are written although they could be computed anew, copies that make one vector of many. A
launch's time is LAUNCH + the longer one of its bytes at BANDWIDTH and its products' multiply-adds
at PEAK. **All times are predictions**. No kernel reaches these rates, and a small one does not fill
a GPU. But what comes from the second cache is faster.

The rollout in one launch (minis5_cuda/rl/persistent.py) computes more than it moves: its time is
that of its instructions, INSTRUCTIONS for each multiply-add, by the threads of the busiest
multiprocessor.

Writes launches.csv and predictions.json to experiments/gpu_bytes. It prints the tables that
cuda/README.md has: put them there by hand.
Leaves out: what the environment's rules cost, waiting at barriers and for the host.
Source: NVIDIA's figures of an H200; BANDWIDTH is what a copy reaches there, reads and writes
counted; LAUNCH and INSTRUCTIONS are guesses. Tests: tests/test_gpu_bytes.py.
"""

import argparse
import csv
import inspect
import json
import math
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "experiments" / "gpu_bytes"
BANDWIDTH = 4.3e12  # bytes a second
LAUNCH, FAST_LAUNCH = 2e-6, 1e-6  # seconds: as it is thought to be, and if it took less
PEAK = {"float32": 67e12, "tf32": 494e12, "bf16": 989e12}  # operations a second of products
CLOCK, MULTIPROCESSORS, LANES, INSTRUCTIONS = 1.755e9, 132, 128, 2.2
# name: preset, level, changes of its settings. gpu_bench.py trains the first and the last.
CASES = {
    "paper": ("paper", "RepeatPreviousHard", {}),
    "laptop": ("laptop", "RepeatPreviousHard", {}),
    "many": ("laptop", "RepeatPreviousEasy", {"num_envs": 4096, "unroll": 128}),
}
AIMS = {("paper", "float32"): 150_000, ("paper", "bf16"): 300_000, ("many", "float32"): 5_000_000}
HARD_STEPS = 3_014_656  # of a whole run of RepeatPreviousHard (popgym_hard)

# kernel: its parameters, or members of them, and r, w: read, written; R, W: also, but the least
# that is necessary has no such part; 1: a row of each; /2: half of it. A parameter x is left out if
# another one, has_x, is false. Not counted: counters, scalars and tables of a few numbers.
MOVES = {
    "bias_act_forward_kernel": "y:rw bias:r",
    "bias_act_backward_kernel": "dy:r y:r dz:w dbias:w partial:RW",
    "gelu_backward_kernel": "dh:r s:r ds:w",
    "glu_forward_kernel": "z:rW bias:r skip:r y:w",
    "glu_backward_kernel": "dy:r z:r dz:w dbias:w partial:RW",
    "skip_gelu_forward_kernel": "y:rw D:r u:r h:w",
    "skip_backward_kernel": "dy:r D:r u:r around:r du:rw dD:w partial:RW",
    "pair_act_forward_kernel": "y:rw bias:r other:r",
    "pair_act_backward_kernel": "dy:r y:r dz:w dbias:w partial:RW",
    "last_forward_kernel": "out:rw value:rw bias:r other:r",
    "last_backward_kernel": "d_out:r d_value:r dbias:w partial:RW",
    "categorical_log_prob_kernel": "logits:r action:r out:w",
    "categorical_entropy_kernel": "logits:r out:w",
    "categorical_backward_kernel": "logits:r action:r dlog_prob:r dentropy:r out:w",
    "categorical_sample_kernel": "logits:r uniform:r out:w",
    "ppo_loss_mean_kernel": "steps:r figures:w slopes:w partial:RW",
    "moments_kernel": "values:r partial:W",
    "normalise_kernel": "values:r partial:R out:w",
    "squares_kernel": "grad:R partial:W",
    "scalars_kernel": "partial:R count:rw settings:r norm:w scalars:W",
    "update_kernel": "theta:rw grad:r m:rw v:rw rates:r scalars:R",
    "tally_kernel": "figures:rw norm:rw tally.k:rw tally.settings:r",
    # the columns that are taken
    "take_columns_kernel": "words.1:rw octets.1:rw numbers:r",
    "join_columns_kernel": "lefts:r rights:r outs:w",
    "concatenate_vectors_kernel": "parts:RW",
    "matrices_forward_kernel": "layers:r made:w",
    "matrices_backward_kernel": "layers.lam_re:r layers.lam_im:r layers.log_step:r layers.B:r w:r"
    " das:r dWb:r dWc:r dspectrum:w dB:w dC:w",
    "forward_sequential": "a:r b:r reset:r x0:r x:w",
    "forward_scan": "a:r b:r reset:r x0:r x:w ends:R",
    "backward_scan": "a:r dx:r reset:r x0:r ends:R x:r g:w da:W dx0:w",
    # of the flags, one for each of two numbers is set
    "forward_look_back": "a:r b:r reset:r x0:r A_all:W ends:W flags:W/2 x:w",
    "backward_look_back": "a:r dx:r reset:r x0:r A_all:W ends:W flags:W/2 x:r g:w da:W dx0:w",
    "one_hot_kernel": "values:r values:w/2",  # a float32 for each int64
    "fill_uniform_kernel": "row:r out:w",
    "remember_kernel": "acted:rw new:rw",
    "record_kernel": "outcome:r running:rw kept:w1",
    "copy_kernel": "state:rw previous_action:rw obs:rw",
    "store_kernel": "values:rw",
    # at most: a rule reads a part of the state
    "step_kernel": "world.ints:rw world.floats:rw world.obs:w world.reward:w world.terminated:w"
    " world.truncated:w world.ended:rw actions:r",
    "rollout_kernel": "given:r world.ints:rw world.floats:rw moving:rw record:w",
}


class Launch(NamedTuple):
    """What equal launches of one part of an iteration move and compute, all together."""

    part: str
    times: int  # of the part in an iteration
    kind: str
    name: str
    launches: int  # in the part
    moved: int  # bytes
    least: int
    flop: int  # of products
    seconds: dict  # precision: predicted, of these launches


def host(x):
    """Return a simulated array as NumPy's."""
    import numpy as np

    return x.view(np.ndarray) if hasattr(x, "view") else x._ary


def member(value, path):
    """Return the arrays at a path of names and numbers in a tuple, or in each of its members."""
    for name in path:
        if name.isdigit():
            value = tuple(one[int(name)] for one in value)
        elif hasattr(value, name):
            value = getattr(value, name)
        else:
            value = tuple(getattr(one, name) for one in value)
    return arrays_of(value)


def arrays_of(value):
    """Return the arrays of a tree of tuples."""
    if isinstance(value, tuple | list):
        return [array for one in value for array in arrays_of(one)]
    return [host(value)] if hasattr(value, "__len__") and hasattr(value, "nbytes") else []


def bytes_of(kernel, arguments):
    """Return (moved, least) of a launch, in bytes; an array that is read twice counts once."""
    function = getattr(kernel, "py_func", None) or kernel.fn
    bound = inspect.signature(function).bind(*arguments).arguments
    found = {}  # (read or written, address, bytes): whether it is necessary
    for word in MOVES[function.__name__].split():
        path, _, how = word.partition(":")
        name, *rest = path.split(".")
        if not bound.get(f"has_{name}", True):
            continue
        for array in member(bound[name], rest):
            size = array.nbytes // (2 if "/2" in how else len(array) if "1" in how else 1)
            for letter in how:
                if letter.isalpha():
                    key = letter.lower(), array.ctypes.data, size
                    found[key] = found.get(key, False) or letter.islower()
    moved = sum(size for _, _, size in found)
    return moved, sum(size for (_, _, size), needed in found.items() if needed)


def bytes_of_cupy(name, arguments, result):
    """Return the bytes that an operation on whole arrays moves: its operands and its result."""
    if name == "setitem":
        array, index, value = arguments
        return host(array)[index].nbytes + sum(z.nbytes for z in arrays_of((value,)))
    read = 0 if name in ("zeros", "full", "ones") else sum(z.nbytes for z in arrays_of(arguments))
    written = sum(z.nbytes for z in arrays_of((result,)))
    return 2 * written if name == "take" else read + written


def product(pairs):
    """Return (moved, least, operations) of a batch of products; a matrix may be in several."""
    moved = flop = 0
    operands = {}
    for a, b in pairs:
        (N, K), M = a.shape, b.shape[1]
        moved += (N * K + K * M + N * M) * a.itemsize
        flop += 2 * N * K * M
        operands |= {(host(z).ctypes.data, z.shape): z.nbytes for z in (a, b)}
    results = sum(a.shape[0] * b.shape[1] * a.itemsize for a, b in pairs)
    return moved, sum(operands.values()) + results, flop


def measure(kind, name, what):
    """Return (moved, least, operations of products) of a launch that launch_counts.py sees."""
    if kind == "kernels":
        return *bytes_of(*what), 0
    if kind == "products":
        return product(what)
    moved = bytes_of_cupy(name, *what)
    return moved, moved, 0


def rollout_seconds(environments, weights, steps):
    """Return the least time of a rollout in one launch, by its instructions."""
    from minis5_cuda.rl.persistent import ENVS, THREADS

    resident = math.ceil(environments / ENVS / MULTIPROCESSORS)  # blocks of a multiprocessor
    lanes = min(LANES, THREADS * resident)
    return steps * resident * ENVS * weights * INSTRUCTIONS / lanes / CLOCK


class Recorder:
    """Collects what launches of a part move, for launch_counts.Counts."""

    def __init__(self):
        self.sums = {}

    def __call__(self, kind, name, number, what):
        row = self.sums.setdefault((kind, name), [0, 0, 0, 0, defaultdict(float)])
        moved, least, flop = measure(kind, name, what)
        for i, value in enumerate((number, moved, least, flop)):
            row[i] += value
        for precision, peak in PEAK.items():
            row[4][precision] += number * LAUNCH + max(moved / BANDWIDTH, flop / peak)

    def rows(self, part, times):
        """Return what has been collected as Launches of a part, and begin anew."""
        rows = [Launch(part, times, *key, *row) for key, row in self.sums.items()]
        self.sums = {}
        return rows


def iteration(name, counts, recorder):
    """Return the Launches of an iteration, and its steps of all environments together."""
    from unittest import mock

    import launch_counts
    from minis5_cuda.rl import ppo as passes

    preset, level, changes = CASES[name]
    ppo = launch_counts.trainer(level, preset, changes)
    config, persistent, rows = ppo.config, ppo.collector.persistent, []
    with ppo.passes.stream:
        launch_counts.first_minibatch(ppo)
        if persistent is None:
            ppo.collector.t[:] = 0
            counts.of(ppo.collector._one_step)
            rows += recorder.rows("rollout step", config.unroll)
        counts.of(ppo.passes._minibatch)
        minibatches = recorder.rows("minibatch", config.epochs * config.minibatches)
    nothing = mock.Mock()
    ppo.collector._steps, ppo.passes.minibatches = nothing, nothing
    with mock.patch.object(passes, "check_norm"):
        counts.of(ppo.iteration)
    once = recorder.rows("once", 1)
    if persistent is not None:
        at = next(i for i, row in enumerate(once) if row.name == "rollout_kernel")
        seconds = rollout_seconds(config.num_envs, persistent.plan.step, config.unroll)
        least = {p: max(s, LAUNCH + seconds) for p, s in once[at].seconds.items()}
        rows, once = [once.pop(at)._replace(part="rollout", seconds=least)], once
    return rows + once + minibatches, config.num_envs * config.unroll


def all_cases():
    """Return {case: (Launches, steps)}; in a process with the simulator."""
    import warnings

    import launch_counts

    recorder = Recorder()
    counts = launch_counts.Counts(recorder)
    launch_counts.prepare(counts)
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # means of no figures
        return {name: iteration(name, counts, recorder) for name in CASES}


def simulate():
    """Have Numba's simulator and the stand-in for CuPy in this process, before anything else."""
    os.environ.update(NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    sys.path[:0] = [str(ROOT), str(ROOT / "cuda"), str(ROOT / "tests")]
    import simulated_cupy

    simulated_cupy.install()


FAMILIES = {  # what cuda/README.md calls them: kernels, or kinds of launches
    "matrix products": ["products"],
    "scans": [name for name in MOVES if name.endswith(("_scan", "_look_back", "_sequential"))],
    "skip and gelu, gate and residual": ["skip_gelu_forward_kernel", "glu_forward_kernel"],
    "the same backward": ["glu_backward_kernel", "gelu_backward_kernel", "skip_backward_kernel"],
    "bias and activation of encoder and heads": [
        "bias_act_forward_kernel",
        "pair_act_forward_kernel",
        "last_forward_kernel",
    ],
    "biases and activations backward": [
        "bias_act_backward_kernel",
        "pair_act_backward_kernel",
        "last_backward_kernel",
    ],
    "gradient as a vector, Adam": [
        "concatenate_vectors_kernel",
        "squares_kernel",
        "scalars_kernel",
        "update_kernel",
    ],
    "matrices of all layers and their gradients": [
        "matrices_forward_kernel",
        "matrices_backward_kernel",
        "join_columns_kernel",
    ],
    "CuPy's operations": ["CuPy"],
}
REST = "policy, loss, environments, copies"


def family_of(row):
    """Return the name of the family that a Launch belongs to."""
    found = (name for name, ours in FAMILIES.items() if row.name in ours or row.kind in ours)
    return next(found, REST)


def families(rows, part):
    """Return lines of a Markdown table: launches, bytes and time of a part, by families."""
    sums = {}
    for row in (row for row in rows if row.part == part):
        numbers = row.launches, row.moved, row.least, row.seconds["float32"]
        for name in (family_of(row), "sum"):
            before = sums.get(name, (0, 0, 0, 0))
            sums[name] = tuple(map(sum, zip(before, numbers, strict=True)))
    lines = []
    for name in (*FAMILIES, REST, "sum"):
        if name in sums:
            launches, moved, least, seconds = sums[name]
            ratio = f"{moved / least:.2f}" if least else ""
            cells = part, name, launches, f"{moved / 1e6:,.2f}", f"{least / 1e6:,.2f}", ratio
            lines.append(f"| {' | '.join(map(str, cells))} | {seconds * 1e6:,.0f} |")
    return lines


def seconds_of(rows, precision, *parts):
    """Return the predicted time of an iteration's parts."""
    return sum(row.times * row.seconds[precision] for row in rows if row.part in parts)


def predictions(found):
    """Return {what gpu_bench.py calls it: predicted steps/s}, and lines of a Markdown table."""
    from minis5.run import presets

    speeds, lines = {}, []
    for name, (rows, steps) in found.items():
        preset, level, changes = CASES[name]
        agent, config, _ = presets.resolve(level, preset, "s5", changes)
        size = f"{config.num_envs} x {config.unroll} steps, epochs {config.epochs}"
        for precision in PEAK if name == "paper" else ("float32", "bf16"):
            parts = ("rollout", "rollout step"), ("minibatch",), ("once",)
            times = [seconds_of(rows, precision, *some) for some in parts]
            speed = steps / sum(times)
            launches = sum(row.times * row.launches for row in rows)
            faster = steps / (sum(times) - launches * (LAUNCH - FAST_LAUNCH))
            what = f"{preset}, {level}, {size}"
            aim = AIMS.get((name, precision))
            cells = (*(f"{1e3 * s:.1f} ms" for s in times), f"{speed:,.0f}", f"{faster:,.0f}")
            cells += (f"{aim:,}" if aim else "",)
            lines.append(f"| {what} | {precision} | {' | '.join(cells)} |")
            network = f"{agent.core_config.n_layers} x {agent.encoder[-1]}"
            train = f"train, {network}, {size}, {precision}"
            if name == "many":
                train = f"train {level}, {preset}, {size}"
            if name == "paper" or (name == "many" and precision == "float32"):
                speeds[train] = round(speed)
            if name == "laptop" and precision == "float32":
                speeds[f"{level}, {HARD_STEPS} steps, seconds"] = round(HARD_STEPS / speed, 1)
    return speeds, lines


def write(found, out):
    """Write both files."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "launches.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = "moved_bytes", "least_bytes", "flop", *(f"predicted_us_{p}" for p in PEAK)
        writer.writerow(("training", *Launch._fields[:5], *names))
        for name, (rows, _) in found.items():
            for row in rows:
                times = (round(1e6 * row.seconds[precision], 2) for precision in PEAK)
                writer.writerow((name, *row[:8], *times))
    text = json.dumps(predictions(found)[0], indent=1) + "\n"
    (out / "predictions.json").write_text(text, encoding="utf-8")


def tables(found):
    """Return the lines of the tables in cuda/README.md."""
    rows, _ = found["paper"]
    return [*predictions(found)[1], *families(rows, "rollout step"), *families(rows, "minibatch")]


def main(argv=None):
    """Do what the header says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=f"default {OUT}")
    options = parser.parse_args(argv)
    simulate()
    found = all_cases()
    write(found, options.out)
    print(*tables(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
