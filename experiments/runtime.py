"""Measure time and memory of one update with each core, against sequences of T = 2^6 … 2^14 steps.

    python experiments/runtime.py                                 laptop's network, one CPU core
    python experiments/runtime.py --preset paper --lengths 64 256 1024
    python experiments/runtime.py --device cuda --preset paper    a GPU, replaying a CUDA graph
    python experiments/runtime.py --in-turn 1024                  only print ratios to S5's time
    python experiments/runtime.py --report                        the table and the picture anew

An update is what training does with a minibatch of 8 episodes of T steps: forward, PPO's loss,
backward, Adam. All cores have about as many parameters as the preset's S5. Attention sees the whole
sequence (window = T), so that it can remember as much as the others.

Every measurement has a process of its own. After a warm-up it repeats the update and keeps the
median CPU time (on a GPU: the time until the GPU has finished). Memory is the most that the process
or the whole GPU held, less what it held before. The script skips what results.csv has already, and
lengths at which a measurement would take more than --limit seconds.

Writes results.csv and runtime.png to experiments/runtime, and the table to the READMEs (sweep.py).
Leaves out: acting. Source of the claim that S5's time grows as T and attention's as T²: 2303.03982,
sections 1 and 5. Tests: tests/test_runtime.py.
"""

import argparse
import csv
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import threadpoolctl
from gpu_report import slope
from sweep import ROOT, readmes, replace_block

from minis5 import files
from minis5.nn.scan import set_num_threads
from minis5.run import presets
from minis5.run.bench import commit
from minis5.run.machine import machine, versions
from minis5.run.train import core_parameters

OUT = ROOT / "experiments" / "runtime"
LENGTHS = tuple(2**k for k in range(6, 15))
CORES = {
    "s5": ("S5", "#0072b2"),
    "lstm": ("LSTM", "#d55e00"),
    "gru": ("GRU", "#e69f00"),
    "mlp": ("MLP", "#777777"),
}
CORES |= {"attention": ("self-attention", "#009e73")}
ENVS = 8  # of a minibatch: both presets have 64 environments in 8 minibatches
FITTED_FROM = 1024  # in shorter sequences, calls cost more than steps
SECONDS = 2.0  # of repetitions, at least three
KEY = ("device", "preset", "core", "length")
COLUMNS = (*KEY, "milliseconds", "low", "high", "repeats", "peak_mib", "parameters")
COLUMNS += ("machine", "versions", "commit")


def update(core, length, preset, device, shape=None):
    """Return a function that makes one update, and its agent.

    ``shape`` has hyper-parameters that replace the preset's.
    """
    from minis5.arrays import move
    from minis5.envs.registry import make_vec
    from minis5.rl.agent import ActorCritic
    from minis5.rl.ppo import PPO
    from minis5.rl.rollout import Rollout

    env = "RepeatPreviousEasy"
    base = presets.resolve(env, preset, overrides=shape)[0]
    settings = {**(shape or {}), "num_envs": ENVS, "unroll": length, "epochs": 1, "minibatches": 1}
    settings = {name: value for name, value in settings.items() if name in presets.fields(core)}
    if core in presets.SIZES:
        name, value = presets.SIZES[core]
        settings[name] = value(presets.equal_units(core, base.core_config, base.encoder[-1]))
    settings |= {"window": length} if core == "attention" else {}
    config, ppo_config, _ = presets.resolve(env, preset, core, settings)
    envs = make_vec(env, ENVS, device=device)
    agent = ActorCritic(
        envs.single_observation_space, envs.single_action_space, config, device=device
    )
    ppo = PPO(agent, envs, ppo_config)
    rng, many = np.random.default_rng(0), (length, ENVS)
    values, rewards = rng.standard_normal((2, *many)).astype(np.float32)
    reset = np.zeros(many, bool)
    reset[0] = True  # one episode, all of which attention sees
    rollout = Rollout(
        x=rng.standard_normal((*many, agent.input_size)).astype(np.float32),
        reset=reset,
        actions=rng.integers(0, envs.single_action_space.n, many),
        log_probs=np.full(many, -np.log(envs.single_action_space.n), np.float32),
        values=values,
        next_values=np.roll(values, -1, 0),
        rewards=rewards,
        terminated=np.zeros(many, bool),
        done=np.zeros(many, bool),
        valid=np.ones(many, bool),
        initial_state=agent.initial_state(ENVS),
    )
    moved = (None if array is None else move(array, device) for array in rollout)
    rollout = Rollout(*moved)

    def run():
        with ppo.passes.stream:
            return ppo.update(rollout, 1e-4)

    return run, agent


def held(device, peak):
    """Return the MiB that this process or the GPU holds; with ``peak``, held at most.

    NaN if the system does not tell.
    """
    if device == "cuda":
        import cupy

        # CuPy's pool does not count the pools of CUDA graphs. The driver counts all.
        free, total = cupy.cuda.runtime.memGetInfo()
        return (total - free) / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(core, length, preset, device, shape=None):
    """Return one row of results.csv, measured in this process."""
    run, agent = update(core, length, preset, device, shape)
    before, times, began = held(device, False), [], time.perf_counter()
    clock = time.process_time if device == "cpu" else time.perf_counter
    stats, _ = run()  # the warm-up
    assert np.isfinite(stats).all(), f"{core}: the statistics of an update are not finite"
    first = time.perf_counter() - began
    while len(times) < 3 or time.perf_counter() - began < first + SECONDS:
        start = clock()
        run()
        times.append(1e3 * (clock() - start))
    low, middle, high = (float(f"{value:.5g}") for value in np.percentile(times, [10, 50, 90]))
    row = {"device": device, "preset": preset, "core": core, "length": length}
    row |= {"milliseconds": middle, "low": low, "high": high, "repeats": len(times)}
    row |= {"peak_mib": round(held(device, True) - before, 1), "parameters": core_parameters(agent)}
    facts, numbers = machine(device), versions(device).items()
    row |= {"machine": facts.get("gpu", f"{facts['processor']}, one core")}
    row |= {"versions": ", ".join(f"{name} {version}" for name, version in numbers)}
    return row | {"commit": commit()}


def in_turn(cores, length, preset, device, shape=None, repeats=40):
    """Return core → ratios of its update's time to S5's, one for each round.

    Within a round, other processes slow both sides alike.
    """
    both = dict.fromkeys(["s5", *cores])
    runs = {core: update(core, length, preset, device, shape)[0] for core in both}
    times = {core: [] for core in runs}
    clock = time.process_time if device == "cpu" else time.perf_counter
    for turn in range(repeats + 1):
        for core, run in runs.items():
            start = clock()
            run()
            times[core] += [clock() - start] if turn else []  # the first round is the warm-up
    return {core: np.divide(times[core], times["s5"]) for core in cores}


def read(path):
    """Return the rows of results.csv by key."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {tuple(row[name] for name in KEY): row for row in csv.DictReader(text.splitlines())}


def write(path, rows):
    """Write results.csv, whole or not at all."""
    text = io.StringIO()
    lines = [COLUMNS, *([row[name] for name in COLUMNS] for row in rows.values())]
    csv.writer(text, lineterminator="\n").writerows(lines)
    files.write_text(path, text.getvalue())


def curves(rows):
    """Return (device, preset) → core → lengths, milliseconds, MiB, in the order of CORES."""
    found = {}
    for device, preset in dict.fromkeys(key[:2] for key in rows):
        found[device, preset] = cores = {}
        for core in CORES:
            some = [row for key, row in rows.items() if key[:3] == (device, preset, core)]
            names = ("length", "milliseconds", "peak_mib")
            points = sorted(tuple(float(row[name]) for name in names) for row in some)
            if points:
                cores[core] = np.array(points).T
    return found


def exponent(lengths, values):
    """Return the slope on log axes from FITTED_FROM on, None if there are too few points."""
    long = lengths >= FITTED_FROM
    return slope(lengths[long], values[long])


def table(rows):
    """Return Markdown tables: milliseconds and MiB by length, and the fitted slopes."""
    lines = []
    for (device, preset), cores in curves(rows).items():
        lengths = sorted({int(n) for points in cores.values() for n in points[0]})
        sizes = {
            core: int(rows[device, preset, core, str(int(points[0][0]))]["parameters"])
            for core, points in cores.items()
        }
        for k, title, unit in ((1, "time of an update", "ms"), (2, "memory", "MiB")):
            head = (f"{device}, {preset}: {title}, {unit}", *map(str, lengths), "grows as")
            lines += [f"| {' | '.join(head)} |", "|---" + "|---:" * (len(lengths) + 1) + "|"]
            for core, points in cores.items():
                by_length = dict(zip(points[0].astype(int), points[k], strict=True))
                cells = [f"{by_length[n]:,.3g}" if n in by_length else "–" for n in lengths]
                grows = exponent(points[0], points[k])
                cells.append(f"T^{grows:.2f}" if grows is not None else "–")
                lines.append(f"| {CORES[core][0]} ({sizes[core]:,}) | {' | '.join(cells)} |")
            lines.append("")
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows.values()))
    note = f"In brackets: parameters of the core. {ENVS} environments × T steps. Slopes: least "
    return [*lines, f"{note}squares from T = {FITTED_FROM} on. {machines}."]


def draw(rows, path):
    """Draw a row of panels for each device and preset: time and memory against T."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = curves(rows)
    FigureCanvasAgg(figure := Figure(figsize=(11, 4 * len(found)), dpi=150, layout="constrained"))
    rows_of_panels = figure.subplots(len(found), 2, squeeze=False)
    for ((device, preset), cores), panels in zip(found.items(), rows_of_panels, strict=True):
        for k, label in ((1, "milliseconds for an update"), (2, "MiB")):
            axes = panels[k - 1]
            for core, points in cores.items():
                name, colour = CORES[core]
                grows = exponent(points[0], points[k])
                name += f", grows as T^{grows:.2f}" if grows is not None else ""
                axes.plot(points[0], points[k], "o-", color=colour, markersize=4, label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            title = f"{device}, the {preset} preset's sizes, {ENVS} environments × T steps"
            axes.set(xlabel="T", ylabel=label, title=title)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    figure.savefig(path)


def too_long(rows, device, preset, core, length, limit):
    """Return whether a measurement would take more than ``limit`` seconds.

    It is four updates: a warm-up and three. Their time is estimated from that of the longest
    sequence measured so far, growing as T².
    """
    same = [row for key, row in rows.items() if key[:3] == (device, preset, core)]
    shorter = [row for row in same if int(row["length"]) < length]
    if not shorter:
        return False
    longest = max(shorter, key=lambda row: int(row["length"]))
    seconds = float(longest["milliseconds"]) / 1e3 * (length / int(longest["length"])) ** 2
    return 4 * seconds > limit


def main(argv=None):
    """Measure and report, as the command line says."""
    options = parsed(argv)
    if options.one:
        row = measure(options.cores[0], options.lengths[0], options.preset, options.device)
        print(json.dumps(row))
        return 0
    if options.in_turn:
        set_num_threads(1)
        with threadpoolctl.threadpool_limits(1):
            found = in_turn(options.cores, options.in_turn, options.preset, options.device)
        for core, ratios in found.items():
            low, middle, high = np.percentile(ratios, [10, 50, 90])
            print(f"{core} at T = {options.in_turn}: {middle:.2f} x the time of s5", end=" ")
            print(f"(10 % .. 90 %: {low:.2f} .. {high:.2f})")
        return 0
    out = options.out or OUT
    rows = read(out / "results.csv")
    out.mkdir(parents=True, exist_ok=True)
    for length in [] if options.report else sorted(options.lengths):
        for core in options.cores:
            key = (options.device, options.preset, core, str(length))
            if key in rows:
                continue
            if too_long(rows, *key[:3], length, options.limit):
                why = f"it would take more than {options.limit:g} s"
                print(f"{core} at T = {length}: left out, {why}", flush=True)
                continue
            row = apart(core, length, options.preset, options.device)
            rows[key] = {name: str(row[name]) for name in COLUMNS}
            write(out / "results.csv", rows)
            cost = f"{row['milliseconds']:,} ms, {row['peak_mib']:,} MiB"
            print(f"{core} at T = {length}: {cost}", flush=True)
    if not rows:
        sys.exit(f"runtime: nothing to report; there is no {out / 'results.csv'}")
    draw(rows, out / "runtime.png")
    lines = table(rows)
    print(*lines, sep="\n")
    replace_block(readmes(options.out), "runtime", lines)
    return 0


def parsed(argv):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, sizes, cores = parser.add_argument, ("laptop", "paper"), tuple(CORES)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--preset", choices=sizes, default="laptop", help="whose sizes (default laptop)")
    text = ", ".join(cores)
    add("--cores", nargs="+", choices=cores, default=cores, metavar="CORE", help=text)
    text = "default 64 128 … 16384"
    add("--lengths", nargs="+", type=int, default=LENGTHS, metavar="T", help=text)
    text = "seconds that a measurement may take (default 300)"
    add("--limit", type=float, default=300, metavar="S", help=text)
    text = "default experiments/runtime; with it, the repository's READMEs stay"
    add("--out", type=Path, metavar="FOLDER", help=text)
    text = "only print ratios of the cores' times to S5's at this length"
    add("--in-turn", type=int, metavar="T", help=text)
    add("--report", action="store_true", help="no measurements")
    add("--one", action="store_true", help=argparse.SUPPRESS)  # in the process that measures
    return parser.parse_args(argv)


def apart(core, length, preset, device):
    """Call `measure` in a process of its own, on one CPU core."""
    arguments = f"--one --device {device} --preset {preset} --cores {core} --lengths {length}"
    folders = [str(ROOT), str(ROOT / "cuda"), os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments.split()]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        failed = f"{core} at T = {length} failed with exit code {done.returncode}"
        sys.exit(f"runtime: {failed}; the same command goes on from here")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
