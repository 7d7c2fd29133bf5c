"""What the library costs on a GPU: the scan, one PPO update, training.

    python experiments/gpu_bench.py                  all parts
    python experiments/gpu_bench.py length jax       some; the others keep the figures of an earlier run, if all else is the same
    python experiments/gpu_bench.py --report         the table and the figure anew, from the json

    total       scan over T = 2^8 … 2^20 at T·B·P = 2^25 numbers, a constant and varying
    width       scan over B·P = 2^5 … 2^13 at T = 4096
    length      scan over T = 2^8 … 2^20 at B·P = 128: its time has to grow no faster than T
    sequential  the scan against a kernel that walks through time, one thread a column
    jax         the scan against jax.lax.associative_scan (jax_scan.py), where JAX finds the GPU
    update      one PPO update with the paper's network and settings, float32 and TF32
    train       whole training, steps/s, float32 and TF32
    cpu         one iteration of the same training on this machine's CPUs, all of them

The scan is of complex float32 numbers, planar, with 2% resets. Its time is that of a replayed CUDA graph between two events, so
without Python; it is compared with a device-to-device copy of the bytes that it has to move at least (gpu_report.py:
necessary_bytes), turn by turn. Against JAX both sides are called from Python and wait at the end. Each part first checks its result
against the CPU, then warms up.

Writes results.json and scan.png to experiments/gpu_bench, and the table to the READMEs. Tests: tests/test_gpu_bench.py.
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
from gpu_scan import bench_jax, bench_scan, bench_sequential, in_turn, wall_ms
from sweep import ROOT

from minis5 import files
from minis5.device import missing_for_cuda
from minis5.rl import comm
from minis5.run import machine, presets
from minis5.run.bench import TABLE, commit, row, show

OUT = ROOT / "experiments" / "gpu_bench"
ENV = "RepeatPreviousHard"
QUICK = {
    "num_envs": 16,
    "unroll": 32,
    "epochs": 1,
    "encoder": (16,),
    "heads": (16,),
    "n_layers": 1,
    "ssm_size": 16,
}


def trainer(device, quick, ranks=None):
    """PPO with the paper's preset on this process's share of the environments; and its size in words."""
    from minis5.envs.registry import make_vec
    from minis5.rl.agent import ActorCritic
    from minis5.rl.ppo import PPO

    agent_config, config, _ = presets.resolve(ENV, "paper", "s5", QUICK if quick else {})
    ranks = ranks or comm.Comm()
    share = config.num_envs // ranks.size
    envs = make_vec(ENV, share, first_index=ranks.rank * share, device=device)
    agent = ActorCritic(
        envs.single_observation_space, envs.single_action_space, agent_config, device=device
    )
    size = f"{agent_config.core_config.n_layers} x {agent_config.encoder[-1]}, {config.num_envs} x {config.unroll} steps"
    return PPO(agent, envs, config, comm=ranks), f"{size}, epochs {config.epochs}"


@contextmanager
def products(tf32):
    """Within, matrix products on the GPU are in TF32 or not; yields what the rows call it."""
    from minis5_cuda.blas import set_tf32

    set_tf32(tf32)
    try:
        yield "TF32" if tf32 else "float32"
    finally:
        set_tf32(False)


def bench_update(repeats, quick):
    """All passes over one rollout, which ends with the statistics on the host. Its parity with the CPU: tests/gpu."""
    rows = []
    for tf32 in (False, True):
        with products(tf32) as precision:
            ppo, size = trainer("cuda", quick)
            with ppo.passes.stream:
                rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
                ms = in_turn(
                    {"update": partial(ppo._update, rollout, 0.0)}, max(3, repeats // 3), wall_ms
                )
        rows.append(
            {"part": "update", **row(f"PPO update, {size}, {precision}", ms["update"], "ms", None)}
        )
    return rows


def bench_train(repeats, quick):
    """All of an iteration; the first two are the warm-up."""
    rows = []
    for tf32, aim in ((False, 90_000), (True, 150_000)):
        with products(tf32) as precision:
            ppo, size = trainer("cuda", quick)
            lines = [ppo.iteration() for _ in range(2 + repeats)]
        assert np.isfinite([line["loss"] for line in lines]).all(), "train: the loss is not finite"
        speeds = [line["steps_per_second"] for line in lines[2:]]
        rows.append(
            {
                "part": "train",
                **row(f"train, {size}, {precision}", speeds, "steps/s", None if quick else aim),
            }
        )
    return rows


def train_rank(ranks, quick):
    """One process's part of one iteration on the CPU: (milliseconds of the update, of all, size in words)."""
    ppo, size = trainer("cpu", quick, ranks)
    start = time.perf_counter()
    rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(0))
    middle = time.perf_counter()
    ppo.update(rollout, 0.0)
    end = time.perf_counter()
    return 1e3 * (end - middle), 1e3 * (end - start), size


def cpu_times(quick):
    """The same of rank 0, with as many processes as `minis5 train` takes."""
    from minis5.run.train import _choose_workers

    workers = _choose_workers(
        None, presets.resolve(ENV, "paper", "s5", QUICK if quick else {})[1], ENV, {}
    )
    return comm.run(train_rank, workers, (quick,))


def bench_cpu(repeats, quick):
    """One iteration: minutes, so neither warmed up nor repeated. In a process of its own, which may fork: CUDA must not be."""
    code = f"import json, gpu_bench; print(json.dumps(gpu_bench.cpu_times({quick})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    update, iteration, size = json.loads(done.stdout.splitlines()[-1])
    config = presets.resolve(ENV, "paper", "s5", QUICK if quick else {})[1]
    speed = 1e3 * config.num_envs * config.unroll / iteration
    rows = (
        row(f"PPO update on the CPU, {size}", [update], "ms", None),
        row(f"train on the CPU, {size}", [speed], "steps/s", None),
    )
    return [{"part": "cpu", **line} for line in rows]


PARTS = {part: partial(bench_scan, part) for part in SERIES}
PARTS |= {
    "sequential": bench_sequential,
    "jax": bench_jax,
    "update": bench_update,
    "train": bench_train,
    "cpu": bench_cpu,
}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=15, metavar="N", help="runs of each (default 15)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; needs --out"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help=f"default {OUT.relative_to(ROOT)}; READMEs change only there",
    )
    parser.add_argument("--commit", default=commit(), help="of the source, where git does not tell")
    parser.add_argument("--report", action="store_true", help="no measurements")
    options = parser.parse_args(argv)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"PART: expected {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if options.quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    out = options.out or OUT
    readmes = (
        (out / "README.md",) if options.out else (OUT.with_name("README.md"), ROOT / "README.md")
    )
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
    report(results, out, readmes)
    print(*table(results), sep="\n")
    return 0


def measure(options, old, file):
    """Run the parts; the json is written after each."""
    facts = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "device": "cuda", "quick": options.quick}
    facts |= {"versions": machine.versions("cuda"), "machine": machine.machine("cuda")}
    print(
        "{gpu}, {processor}, {cpus} CPUs".format(**facts["machine"]), f"commit {options.commit}\n"
    )
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
