"""The environments of other_environments.py, by Stable-Baselines3's PPO with its defaults.

    python experiments/other_environments_sb3.py [--tasks T …] [--seeds S …]

Each run adds a row to other_environments/sb3.csv; runs that have one are skipped. A run has as many
steps as minis5's. Its policy has no memory: sb3-contrib's RecurrentPPO, which has one, takes about
ten times as long (experiments/versus.py). It needs `pip install stable-baselines3`.

Leaves out: MiniGrid, whose Text observations it refuses. Tests: tests/test_experiments.py.
"""

import argparse
import csv
import json
import sys
import time
from importlib.metadata import version

from other_environments import AIMS, OPTIONS, OTHER_ENVIRONMENTS, PEER

from minis5.run.presets import FOREIGN

COLUMNS = ("task", "seed", "steps", "mean_return", "std_return", "episodes", "cpu_seconds")
COLUMNS += ("versions",)
TASKS = tuple(task for task in AIMS if ":" not in task)


def run(task, seed, steps):
    """Train and evaluate; return a row."""
    import gymnasium
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor

    from minis5.envs.foreign.partial import KeepNumbers

    torch.set_num_threads(1)

    def make():
        env = gymnasium.make(task)
        if task in OPTIONS:
            _, _, options = OPTIONS[task][1].format().partition("=")
            env = KeepNumbers(env, **json.loads(options))
        return Monitor(env)

    start = time.process_time()
    model = PPO("MlpPolicy", make(), seed=seed, device="cpu")
    model.learn(steps)
    env = make()
    env.reset(seed=10_000 + seed)
    mean, deviation = evaluate_policy(model, env, n_eval_episodes=100, deterministic=True)
    packages = ("stable-baselines3", "torch", "gymnasium")
    return {
        "task": task,
        "seed": seed,
        "steps": model.num_timesteps,
        "mean_return": round(float(mean), 4),
        "std_return": round(float(deviation), 4),
        "episodes": 100,
        "cpu_seconds": round(time.process_time() - start, 1),
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
    }


def main(argv=None):
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, metavar="TASK")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=OTHER_ENVIRONMENTS.seeds, metavar="S"
    )
    parser.add_argument("--steps", type=int, default=FOREIGN[1], metavar="N")
    options = parser.parse_args(argv)
    rows = list(csv.DictReader(open(PEER, encoding="utf-8"))) if PEER.exists() else []
    for seed in options.seeds:
        for task in options.tasks:
            if any((row["task"], int(row["seed"])) == (task, seed) for row in rows):
                continue
            rows.append(run(task, seed, options.steps))
            print(f"{task}, seed {seed}: {rows[-1]['mean_return']}", flush=True)
            rows.sort(key=lambda row: (TASKS.index(row["task"]), int(row["seed"])))
            PEER.parent.mkdir(exist_ok=True)
            with open(PEER, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
