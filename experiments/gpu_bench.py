"""Measure what the library costs on a GPU: the scan, one PPO update, training.

    python experiments/gpu_bench.py                  all parts
    python experiments/gpu_bench.py length jax       some parts
    python experiments/gpu_bench.py --report         the table and the figure anew, from the json

    total       scan over T = 2^8 … 2^20 at T·B·P = 2^25 numbers, a constant and varying
    width       scan over B·P = 2^5 … 2^13 at T = 4096
    length      scan over T = 2^8 … 2^20 at B·P = 128: its time should grow no faster than T
    sequential  the scan against a kernel that walks through time, one thread a column
    passes      the scan of few columns in one pass, whose tiles look back, against three passes
    jax         the scan against jax.lax.associative_scan (jax_scan.py), if JAX finds the GPU
    rollout     the laptop's network in 4,096 environments, by one launch and step by step
                (gpu_rollout.py); and training it there
    update      one PPO update with the paper's network and settings, in each precision
    train       whole training, steps/s, in each precision
    cpu         one iteration of the same training on all CPUs of this machine

Parts that are not run keep the figures of an earlier run, if machine and versions are the same.
Each part first checks its result against the CPU, then warms up.

The scan is of complex float32 numbers, planar, with 2% resets. Its time is that of a replayed CUDA
graph between two events, without Python. The script compares it, turn by turn, with a
device-to-device copy of the bytes that a scan has to move at least (gpu_report.py). Against JAX,
Python calls both sides and waits for their results.

Writes results.json and scan.png to experiments/gpu_bench, and the tables to the READMEs (sweep.py).
Leaves out: several GPUs. Tests: tests/test_gpu_bench.py.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from gpu_report import SERIES, merged, report, table
from gpu_rollout import bench_rollout
from gpu_scan import bench_jax, bench_passes, bench_scan, bench_sequential, in_turn, wall_ms
from sweep import ROOT, readmes

from minis5 import files
from minis5.device import missing_for_cuda, set_precision
from minis5.envs.registry import make_vec
from minis5.rl import comm
from minis5.rl.agent import ActorCritic
from minis5.rl.ppo import PPO
from minis5.run import presets
from minis5.run.bench import TABLE, commit, row, show
from minis5.run.config import PRECISIONS, choose_workers
from minis5.run.machine import machine, versions

OUT = ROOT / "experiments" / "gpu_bench"
ENV = "RepeatPreviousHard"
QUICK = {"num_envs": 16, "unroll": 32, "epochs": 1}
QUICK |= {"encoder": (16,), "heads": (16,), "n_layers": 1, "ssm_size": 16}


def settings(quick):
    """Return the paper's settings of agent and training, or tiny ones."""
    return presets.resolve(ENV, "paper", "s5", QUICK if quick else {})[:2]


def trainer(device, quick, ranks=None):
    """Return PPO with the paper's preset on this process's share of the environments, and a text.

    The text says how large the network and the batch are.
    """
    agent_config, config = settings(quick)
    ranks = ranks or comm.Comm()
    share = config.num_envs // ranks.size
    envs = make_vec(ENV, share, first_index=ranks.rank * share, device=device)
    spaces = envs.single_observation_space, envs.single_action_space
    agent = ActorCritic(*spaces, agent_config, device=device)
    network = f"{agent_config.core_config.n_layers} x {agent_config.encoder[-1]}"
    batch = f"{config.num_envs} x {config.unroll} steps, epochs {config.epochs}"
    return PPO(agent, envs, config, comm=ranks), f"{network}, {batch}"


@contextmanager
def products(precision):
    """Have the GPU multiply matrices in one of PRECISIONS within."""
    set_precision(precision)
    try:
        yield
    finally:
        set_precision("float32")


def bench_update(repeats, quick):
    """Time all passes over one rollout, until the host has the statistics.

    tests/gpu checks that the update equals the CPU's.
    """
    rows = []
    for precision in PRECISIONS:
        with products(precision):
            ppo, size = trainer("cuda", quick)
            with ppo.passes.stream:
                rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
                work = {"update": partial(ppo.update, rollout, 0.0)}
                ms = in_turn(work, max(3, repeats // 3), wall_ms)
        line = row(f"PPO update, {size}, {precision}", ms["update"], "ms", None)
        rows.append({"part": "update", **line})
    return rows


def bench_train(repeats, quick):
    """Time whole iterations. The first two are the warm-up."""
    rows = []
    for precision, aim in zip(PRECISIONS, (150_000, None, 300_000), strict=True):
        with products(precision):
            ppo, size = trainer("cuda", quick)
            lines = [ppo.iteration() for _ in range(2 + repeats)]
        assert np.isfinite([line["loss"] for line in lines]).all(), "train: the loss is not finite"
        speeds = [line["steps_per_second"] for line in lines[2:]]
        line = row(f"train, {size}, {precision}", speeds, "steps/s", None if quick else aim)
        rows.append({"part": "train", **line})
    return rows


def train_rank(ranks, quick):
    """Do one process's part of an iteration on the CPU.

    Returns the milliseconds of the update, those of the iteration, and the size as a text.
    """
    ppo, size = trainer("cpu", quick, ranks)
    start = time.perf_counter()
    rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
    middle = time.perf_counter()
    ppo.update(rollout, 0.0)
    end = time.perf_counter()
    return 1e3 * (end - middle), 1e3 * (end - start), size


def cpu_times(quick):
    """Run `train_rank` in as many processes as `minis5 train` takes; return rank 0's result."""
    workers = choose_workers(None, settings(quick)[1], ENV, native=True)
    return comm.run(train_rank, workers, (quick,))


def bench_cpu(repeats, quick):
    """Time one iteration on the CPU. It takes minutes: there is no warm-up and no repetition.

    A process that uses CUDA must not fork, so another one forks the workers.
    """
    code = f"import json, gpu_bench; print(json.dumps(gpu_bench.cpu_times({quick})))"
    command, folder = [sys.executable, "-c", code], Path(__file__).parent
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    update, iteration, size = json.loads(done.stdout.splitlines()[-1])
    config = settings(quick)[1]
    speed = 1e3 * config.num_envs * config.unroll / iteration
    lines = [row(f"PPO update on the CPU, {size}", [update], "ms", None)]
    lines += [row(f"train on the CPU, {size}", [speed], "steps/s", None)]
    return [{"part": "cpu", **line} for line in lines]


PARTS = {part: partial(bench_scan, part) for part in SERIES}
PARTS |= {"sequential": bench_sequential, "passes": bench_passes, "jax": bench_jax}
PARTS |= {"rollout": bench_rollout, "update": bench_update, "train": bench_train, "cpu": bench_cpu}


def main(argv=None):
    """Measure and report, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=15, metavar="N", help="runs of each (default 15)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that all works; needs --out"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"default {OUT.relative_to(ROOT)}; with it, the repository's READMEs stay",
    )
    parser.add_argument("--commit", default=commit(), help="of the source, if git does not tell")
    parser.add_argument("--report", action="store_true", help="no measurements")
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"PART: expected {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if options.quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    out = options.out or OUT
    file = out / "results.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    if not options.report:
        if reason := missing_for_cuda():
            print(f"gpu_bench: needs {reason}", file=sys.stderr)
            return 2
        out.mkdir(parents=True, exist_ok=True)
        results = measure(options, results, file)
    if results is None:
        sys.exit(f"gpu_bench: nothing to report; there is no {file}")
    print(*table(results), sep="\n")
    report(results, out, readmes(options.out))
    return 0


def measure(options, old, file):
    """Run the parts; write the json after each."""
    facts = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "device": "cuda", "quick": options.quick}
    facts |= {"versions": versions("cuda"), "machine": machine("cuda")}
    print("{gpu}, {processor}, {cpus} CPUs".format(**facts["machine"]), end=" ")
    print(f"commit {options.commit}\n")
    print(TABLE.format("what", "median", "10 % .. 90 %", "ratio", "aim"), flush=True)
    rows, results = [], old
    for part in dict.fromkeys(options.parts or PARTS):
        new = PARTS[part](options.repeats, options.quick)
        for line in new:
            print(show(line), flush=True)
        rows += [{**line, "commit": options.commit} for line in new]
        results = merged(old, {**facts, "rows": rows}, list(PARTS))
        files.write_json(file, results)
    return results


if __name__ == "__main__":
    sys.exit(main())
