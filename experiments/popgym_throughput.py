"""Environment steps per second, minis5's against POPGym's, in one run and on the same core.

    python experiments/popgym_throughput.py                   every level, about six minutes
    python experiments/popgym_throughput.py --levels Easy     the easy ones

Both sides play random actions drawn beforehand, and begin a new episode when one ends. POPGym steps
one environment in a Python loop, minis5 a batch (--num-envs) per call, also from Python.
    raw          what `step` returns
    encoded      with the vector that a network takes: minis5's ObservationEncoder here,
                 gymnasium.wrappers.FlattenObservation there
    2 threads    two cores and a batch 8 times as large, because waking a thread takes longer than
                 stepping a small batch; all other columns have one core
Each figure is the median of `--repeats` turns, taken in alternation.

Writes throughput.csv to experiments/popgym, and the table to the READMEs (sweep.py).
Leaves out: rendering. Tests: tests/test_experiments.py.
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
from sweep import ROOT, readmes, replace_block

import minis5
from minis5.envs.registry import REGISTRY, family
from minis5.rl.malloc import keep_freed_memory
from minis5.run import machine
from minis5.spaces import ObservationEncoder

OUT = ROOT / "experiments" / "popgym"
QUICK_GAMES = "Autoencode Concentration CountRecall HigherLower MultiarmedBandit".split()
QUICK_GAMES += ["RepeatFirst", "RepeatPrevious"]
AIMS = dict.fromkeys(QUICK_GAMES, 100)  # times POPGym's speed; 50 for the other families
LARGER = 8  # times --num-envs: the batch with two threads
COLUMNS = ("level", "popgym", "popgym_encoded", "raw", "encoded", "raw_2_threads")


def popgym_turn(env, actions, seconds):
    """Return the steps per second of one of POPGym's environments."""
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
    """Return the steps per second of a batch, with encoding if ``encode`` is an encoder."""
    steps, actions = 0, itertools.cycle(actions)
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < seconds:
        observations, *_ = envs.step(next(actions))
        if encode is not None:
            encode.observation_vector(observations)
        steps += envs.num_envs
    return steps / (now - start)


def measure(level, peer_class, num_envs, seconds, repeats):
    """Return a row of the table: median steps per second in each column."""
    cores = os.sched_getaffinity(0)
    peer, flat = peer_class(), gymnasium.wrappers.FlattenObservation(peer_class())
    peer.action_space.seed(0)
    peer_actions = [peer.action_space.sample() for _ in range(4096)]
    one = minis5.make_vec(level, num_envs)
    two = minis5.make_vec(level, LARGER * num_envs, num_threads=2)
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(64)]
    many = [np.concatenate([one.action_space.sample() for _ in range(LARGER)]) for _ in range(8)]
    encoder = ObservationEncoder(one.single_observation_space)
    for envs, batches in ((one, actions), (two, many)):
        envs.reset(seed=0)
        our_turn(envs, batches, 0.05, encoder)  # the warm-up
    turns = {
        "popgym": lambda: popgym_turn(peer, peer_actions, seconds),
        "popgym_encoded": lambda: popgym_turn(flat, peer_actions, seconds),
        "raw": lambda: our_turn(one, actions, seconds),
        "encoded": lambda: our_turn(one, actions, seconds, encoder),
        "raw_2_threads": lambda: our_turn(two, many, seconds),
    }
    speeds = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            os.sched_setaffinity(0, cores if name == "raw_2_threads" else {min(cores)})
            speeds[name].append(turn())
    os.sched_setaffinity(0, cores)
    two.close()
    medians = {name: round(statistics.median(values)) for name, values in speeds.items()}
    return {"level": level, **medians}


def table(rows, num_envs):
    """Return the rows as a Markdown table."""
    titles = ("level", "POPGym", "ours", "ratio", "2 threads", "ratio")
    titles += ("POPGym, encoded", "ours, encoded", "ratio", "aim")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        base, flat = int(row["popgym"]), int(row["popgym_encoded"])
        raw, encoded, two = (int(row[name]) for name in ("raw", "encoded", "raw_2_threads"))
        aim = AIMS.get(family(row["level"]), 50)
        missed = " (missed)" if min(raw / base, encoded / flat) < aim else ""
        cells = [row["level"], f"{base / 1e3:.0f}k", f"{raw / 1e6:.1f}M", f"{raw / base:.0f}×"]
        cells += [f"{two / 1e6:.1f}M", f"{two / base:.0f}×", f"{flat / 1e3:.0f}k"]
        cells += [f"{encoded / 1e6:.1f}M", f"{encoded / flat:.0f}×", f"{aim}×{missed}"]
        lines.append(f"| {' | '.join(cells)} |")
    facts = machine.machine()
    numbers = machine.versions() | {"popgym": version("popgym")}
    versions = ", ".join(f"{name} {number}" for name, number in numbers.items())
    note = f"Steps per second on one core, {num_envs} environments in a call; with two threads "
    note += f"{LARGER * num_envs}. {facts['processor']}, {facts['cpus']} CPUs; {versions}."
    return [*lines, "", note]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--levels", nargs="+", default=[""], metavar="TEXT", help="only names with one of these"
    )
    parser.add_argument("--num-envs", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=0.4, help="of one turn")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="default experiments/popgym; with it, the repository's READMEs stay",
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
    out = options.out or OUT
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "throughput.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    replace_block(readmes(options.out), "popgym_throughput", table(rows, options.num_envs))


if __name__ == "__main__":
    main()
