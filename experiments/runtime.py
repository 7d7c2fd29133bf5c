"""What learning costs with each core as sequences grow: time and memory of one update against T = 2^6 … 2^14.

    python experiments/runtime.py                                 the laptop's network on one CPU core
    python experiments/runtime.py --preset paper --lengths 64 256 1024
    python experiments/runtime.py --device cuda --preset paper    on a GPU, the update replayed as one CUDA graph
    python experiments/runtime.py --in-turn 1024                  the cores by turns in one process: ratios to S5, printed only
    python experiments/runtime.py --report                        the table and the picture anew

An update is what training does with a minibatch of 8 episodes of T steps: forward, PPO's loss, backward, Adam. All cores have
about as many parameters as the preset's S5; attention sees the whole sequence (window = T), so that it can do what the others can.
Every measurement is a process of its own: after a warm-up the update is repeated, and the median of its CPU time is kept (on a GPU:
of the time until the GPU has finished). Memory is what the process, or the whole GPU, held at most, less what it held before. What
results.csv has already is not measured again; a length is left out once attention's T² would take it over --limit seconds.

Writes results.csv and runtime.png to experiments/runtime, and the table to the READMEs.
Source of the claim: 2303.03982, sections 1 and 5: time of S5 grows as T, of attention as T². Tests: tests/test_runtime.py.
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
from sweep import ROOT, replace_block

from minis5 import files
from minis5.nn.scan import set_num_threads
from minis5.run import machine, presets
from minis5.run.bench import commit

OUT = ROOT / "experiments" / "runtime"
LENGTHS = tuple(2**k for k in range(6, 15))
CORES = {
    "s5": ("S5", "#0072b2"),
    "lstm": ("LSTM", "#d55e00"),
    "gru": ("GRU", "#e69f00"),
    "mlp": ("MLP", "#777777"),
}
CORES |= {"attention": ("self-attention", "#009e73")}
ENVS = 8  # of a minibatch: 64 environments in 8 minibatches, as both presets have it
FITTED_FROM = 1024  # shorter sequences pay for calls more than for steps
SECONDS = 2.0  # of repetitions, and at least three of them
KEY = ("device", "preset", "core", "length")
COLUMNS = (
    *KEY,
    "milliseconds",
    "low",
    "high",
    "repeats",
    "peak_mib",
    "parameters",
    "machine",
    "versions",
    "commit",
)


def update(core, length, preset, device, shape=None):
    """A function that makes one update, and its agent. ``shape``: hyper-parameters that replace the preset's."""
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
    rollout = Rollout(*(move(array, device) for array in rollout))

    def run():
        with ppo.passes.stream:
            return ppo.update(rollout, 1e-4)

    return run, agent


def held(device, peak):
    """MiB that this process (or the GPU's pool) holds, or held at most; NaN where the system does not tell."""
    if device == "cuda":
        import cupy

        # CUDA graphs have pools of their own: ask the driver
        free, total = cupy.cuda.runtime.memGetInfo()
        return (total - free) / 2**20
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def measure(core, length, preset, device, shape=None):
    """One row of results.csv, in this process."""
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
    facts = machine.machine(device)
    return {
        "device": device,
        "preset": preset,
        "core": core,
        "length": length,
        "milliseconds": middle,
        "low": low,
        "high": high,
        "repeats": len(times),
        "peak_mib": round(held(device, True) - before, 1),
        "parameters": sum(
            z.size for name, z in agent.parameters().items() if name.startswith("core/")
        ),
        "machine": machine.get("gpu", f"{machine['processor']}, one core"),
        "versions": ", ".join(
            f"{name} {version}" for name, version in machine.versions(device).items()
        ),
        "commit": commit(),
    }


def in_turn(cores, length, preset, device, shape=None, repeats=40):
    """core → ratios of its update's time to S5's, round by round, so that a busy neighbour slows both."""
    runs = {
        core: update(core, length, preset, device, shape)[0]
        for core in dict.fromkeys(["s5", *cores])
    }
    clock, times = (
        time.process_time if device == "cpu" else time.perf_counter,
        {core: [] for core in runs},
    )
    for turn in range(repeats + 1):
        for core, run in runs.items():
            start = clock()
            run()
            times[core] += [clock() - start] if turn else []  # the first is the warm-up
    return {core: np.divide(times[core], times["s5"]) for core in cores}


def read(path):
    """results.csv: key → row."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {tuple(row[name] for name in KEY): row for row in csv.DictReader(text.splitlines())}


def write(path, rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [COLUMNS, *([row[name] for name in COLUMNS] for row in rows.values())]
    )
    files.write_text(path, text.getvalue())


def curves(rows):
    """(device, preset) → core → lengths, milliseconds, MiB, in the order of CORES."""
    found = {}
    for device, preset in dict.fromkeys(key[:2] for key in rows):
        found[device, preset] = cores = {}
        for core in CORES:
            points = [rows[key] for key in rows if key[:3] == (device, preset, core)]
            points = sorted(
                (int(r["length"]), float(r["milliseconds"]), float(r["peak_mib"])) for r in points
            )
            if points:
                cores[core] = np.array(points).T
    return found


def exponent(lengths, values):
    """Slope on log axes from FITTED_FROM on, or None where there are too few points."""
    long = lengths >= FITTED_FROM
    return slope(lengths[long], values[long])


def table(rows):
    """Markdown: milliseconds and MiB by length, and the fitted slopes."""
    lines = []
    for (device, preset), cores in curves(rows).items():
        lengths = sorted({int(n) for points in cores.values() for n in points[0]})
        sizes = {
            core: int(rows[device, preset, core, str(int(points[0][0]))]["parameters"])
            for core, points in cores.items()
        }
        for k, title, unit in ((1, "time of an update", "ms"), (2, "memory", "MiB")):
            lines += [
                f"| {device}, {preset}: {title}, {unit} | {' | '.join(map(str, lengths))} | grows as |"
            ]
            lines += ["|---" + "|---:" * (len(lengths) + 1) + "|"]
            for core, points in cores.items():
                by_length = dict(zip(points[0].astype(int), points[k], strict=True))
                cells = [f"{by_length[n]:,.3g}" if n in by_length else "–" for n in lengths]
                grows = exponent(points[0], points[k])
                cells.append(f"T^{grows:.2f}" if grows is not None else "–")
                lines.append(f"| {CORES[core][0]} ({sizes[core]:,}) | {' | '.join(cells)} |")
            lines.append("")
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows.values()))
    note = f"In brackets: parameters of the core. {ENVS} environments × T steps. Slopes: least squares from T = {FITTED_FROM} on. "
    return [*lines, f"{note}{machines}."]


def draw(rows, path):
    """A row of panels for each device and preset: time and memory against T."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = curves(rows)
    FigureCanvasAgg(figure := Figure(figsize=(11, 4 * len(found)), dpi=150, layout="constrained"))
    for ((device, preset), cores), panels in zip(
        found.items(), figure.subplots(len(found), 2, squeeze=False), strict=True
    ):
        for k, (axes, label) in enumerate(
            zip(panels, ("milliseconds for an update", "MiB"), strict=True), 1
        ):
            for core, points in cores.items():
                name, colour = CORES[core]
                grows = exponent(points[0], points[k])
                name += f", grows as T^{grows:.2f}" if grows is not None else ""
                axes.plot(points[0], points[k], "o-", color=colour, markersize=4, label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set(
                xlabel="T",
                ylabel=label,
                title=f"{device}, the {preset} preset's sizes, {ENVS} environments × T steps",
            )
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    figure.savefig(path)


def too_long(rows, device, preset, core, length, limit):
    """Whether four updates (a warm-up and three) would take more than ``limit`` seconds, each four times as long as at half T.

    Where half T was not measured because it took too long already, so does this.
    """
    shorter = [
        row
        for key, row in rows.items()
        if key[:3] == (device, preset, core) and int(key[3]) < length
    ]
    if not shorter:
        return False
    longest = max(shorter, key=lambda row: int(row["length"]))
    return 4 * (length / int(longest["length"])) ** 2 * float(longest["milliseconds"]) / 1e3 > limit


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--preset",
        choices=("laptop", "paper"),
        default="laptop",
        help="whose sizes (default laptop)",
    )
    parser.add_argument(
        "--cores",
        nargs="+",
        choices=CORES,
        default=tuple(CORES),
        metavar="CORE",
        help=", ".join(CORES),
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=LENGTHS,
        metavar="T",
        help="default 64 128 … 16384",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=300,
        metavar="S",
        help="seconds that one measurement may take (default 300)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="default experiments/runtime; READMEs change only there",
    )
    parser.add_argument(
        "--in-turn",
        type=int,
        metavar="T",
        help="only print ratios of the cores' times to S5's at this length",
    )
    parser.add_argument("--report", action="store_true", help="no measurements")
    # the measuring process
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        print(
            json.dumps(
                measure(options.cores[0], options.lengths[0], options.preset, options.device)
            )
        )
        return 0
    if options.in_turn:
        set_num_threads(1)
        with threadpoolctl.threadpool_limits(1):
            for core, ratios in in_turn(
                options.cores, options.in_turn, options.preset, options.device
            ).items():
                low, middle, high = np.percentile(ratios, [10, 50, 90])
                print(
                    f"{core} at T = {options.in_turn}: {middle:.2f} x the time of s5 (10 % .. 90 %: {low:.2f} .. {high:.2f})"
                )
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
                print(
                    f"{core} at T = {length}: left out, it would take more than {options.limit:g} s",
                    flush=True,
                )
                continue
            row = apart(core, length, options.preset, options.device)
            rows[key] = {name: str(row[name]) for name in COLUMNS}
            write(out / "results.csv", rows)
            print(
                f"{core} at T = {length}: {row['milliseconds']:,} ms, {row['peak_mib']:,} MiB",
                flush=True,
            )
    if not rows:
        sys.exit(f"runtime: nothing to report; there is no {out / 'results.csv'}")
    draw(rows, out / "runtime.png")
    lines = table(rows)
    for readme in (
        (out / "README.md",) if options.out else (OUT.with_name("README.md"), ROOT / "README.md")
    ):
        replace_block(readme, "runtime", lines)
    print(*lines, sep="\n")
    return 0


def apart(core, length, preset, device):
    """`measure` in a process of its own, on one CPU core."""
    arguments = [
        "--one",
        "--device",
        device,
        "--preset",
        preset,
        "--cores",
        core,
        "--lengths",
        str(length),
    ]
    path = os.pathsep.join(
        filter(None, [str(ROOT), str(ROOT / "cuda"), os.environ.get("PYTHONPATH")])
    )
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(
            f"runtime: {core} at T = {length} failed with exit code {done.returncode}; the same command goes on from here"
        )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
