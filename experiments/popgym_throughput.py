"""Environment steps per second, ours against POPGym's, in one run and on the same core.

    python experiments/popgym_throughput.py                   every level of every family, about six minutes
    python experiments/popgym_throughput.py --levels Easy     the easy ones

Both sides play random actions that were drawn beforehand, and begin a new episode when one ends. POPGym runs one environment in
a Python loop; ours steps a batch (--num-envs) per call, from Python too. "raw" is what `step` returns; "encoded" adds the
float32 or one-hot vector that a network takes: minis5's ObservationEncoder here, gymnasium.wrappers.FlattenObservation there. The process
is tied to one core, except in the column with two threads, which also has a batch 8 times as large: waking a thread takes
longer than stepping a small one. Each figure is the median of `--repeats` turns, taken in alternation.

Writes experiments/popgym/throughput.csv and the table in the READMEs, in the top one the Easy levels alone.
Tests: tests/test_experiments.py.
"""

import argparse
import csv
import itertools
import os
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import gymnasium
import numpy as np
from sweep import ROOT, replace_block

import minis5
from minis5.envs.registry import REGISTRY, family
from minis5.rl.malloc import keep_freed_memory
from minis5.run import machine
from minis5.spaces import ObservationEncoder

OUT = ROOT / "experiments" / "popgym"
AIMS = dict.fromkeys(
    (
        "Autoencode",
        "Concentration",
        "CountRecall",
        "HigherLower",
        "MultiarmedBandit",
        "RepeatFirst",
        "RepeatPrevious",
    ),
    100,
)  # times POPGym; 50 for the other families
LARGER = 8  # the batch with two threads, times --num-envs
COLUMNS = ("level", "popgym", "popgym_encoded", "raw", "encoded", "raw_2_threads")


def popgym_turn(env, actions, seconds):
    """Steps per second of one of POPGym's environments."""
    steps, actions = 0, itertools.cycle(actions)
    env.reset()
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        for action in itertools.islice(actions, 64):
            _, _, terminated, truncated, _ = env.step(action)
            steps += 1
            if terminated or truncated:
                env.reset()
    return steps / (now - start)


def our_turn(envs, actions, seconds, encode=None):
    """Steps per second of a batch, with encoding if a ObservationEncoder is given."""
    steps, actions = 0, itertools.cycle(actions)
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        observations, *_ = envs.step(next(actions))
        if encode is not None:
            encode.flatten(observations)
        steps += envs.num_envs
    return steps / (now - start)


def measure(level, peer_class, num_envs, seconds, repeats):
    """A row of the table: median steps per second in each column."""
    core = min(os.sched_getaffinity(0))
    cores = os.sched_getaffinity(0)
    peer = peer_class()
    peer.action_space.seed(0)
    peer_actions = [peer.action_space.sample() for _ in range(4096)]
    one, two = (
        minis5.make_vec(level, n, num_threads=k) for n, k in ((num_envs, 1), (LARGER * num_envs, 2))
    )
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(64)]
    many = [np.concatenate([one.action_space.sample() for _ in range(LARGER)]) for _ in range(8)]
    observation_encoder = ObservationEncoder(one.single_observation_space)
    for envs, batches in ((one, actions), (two, many)):
        envs.reset(seed=0)
        our_turn(envs, batches, 0.05, observation_encoder)
    turns = {
        "popgym": lambda: popgym_turn(peer, peer_actions, seconds),
        "popgym_encoded": lambda: popgym_turn(
            gymnasium.wrappers.FlattenObservation(peer), peer_actions, seconds
        ),
        "raw": lambda: our_turn(one, actions, seconds),
        "encoded": lambda: our_turn(one, actions, seconds, observation_encoder),
        "raw_2_threads": lambda: our_turn(two, many, seconds),
    }
    speeds = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            os.sched_setaffinity(0, cores if name == "raw_2_threads" else {core})
            speeds[name].append(turn())
    os.sched_setaffinity(0, cores)
    two.close()
    return {
        "level": level,
        **{name: round(statistics.median(values)) for name, values in speeds.items()},
    }


def table(rows, num_envs):
    """The rows as Markdown."""
    titles = (
        "level",
        "POPGym",
        "ours",
        "ratio",
        "2 threads",
        "ratio",
        "POPGym, encoded",
        "ours, encoded",
        "ratio",
        "aim",
    )
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        base, flat = int(row["popgym"]), int(row["popgym_encoded"])
        raw, encoded, two = (int(row[name]) for name in ("raw", "encoded", "raw_2_threads"))
        aim = AIMS.get(family(row["level"]), 50)
        missed = " (missed)" if min(raw / base, encoded / flat) < aim else ""
        cells = (
            row["level"],
            f"{base / 1e3:.0f}k",
            f"{raw / 1e6:.1f}M",
            f"{raw / base:.0f}×",
            f"{two / 1e6:.1f}M",
        )
        cells += (
            f"{two / base:.0f}×",
            f"{flat / 1e3:.0f}k",
            f"{encoded / 1e6:.1f}M",
            f"{encoded / flat:.0f}×",
            f"{aim}×{missed}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    facts = machine.machine()
    versions = ", ".join(
        f"{name} {number}"
        for name, number in (machine.versions() | {"popgym": version("popgym")}).items()
    )
    note = f"Steps per second on one core, {num_envs} environments in a call; with two threads {LARGER * num_envs}. "
    return [*lines, "", f"{note}{facts['processor']}, {facts['cpus']} CPUs; {versions}."]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--levels",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="only levels whose names contain one of these",
    )
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0.4, help="of one turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="FOLDER", help="READMEs change only without it"
    )
    options = parser.parse_args(argv)
    from popgym.envs import ALL

    keep_freed_memory()  # as training does
    peers = {peer.__name__: peer for peer in ALL}
    rows = []
    for level in REGISTRY:
        if level in peers and any(text in level for text in options.levels):
            rows.append(
                measure(level, peers[level], options.num_envs, options.seconds, options.repeats)
            )
            print(*table(rows[-1:], options.num_envs)[2:3], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    with open(options.out / "throughput.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if options.out == OUT:
        replace_block(
            OUT.with_name("README.md"), "popgym_throughput", table(rows, options.num_envs)
        )
        easy = [row for row in rows if row["level"].endswith("Easy")]
        replace_block(ROOT / "README.md", "popgym_throughput", table(easy, options.num_envs))


if __name__ == "__main__":
    main()
