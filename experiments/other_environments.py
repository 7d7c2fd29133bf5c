"""Other people's environments with the defaults: what `minis5 train ID` alone reaches.

    python experiments/other_environments.py             all runs, then the report
    python experiments/other_environments.py --report    the report alone
    python experiments/other_environments_sb3.py         the same by Stable-Baselines3

The runs have no option but the seed. Two of MuJoCo's environments hide their velocities, so that
memory is needed. The MiniGrid tasks show an object at the start that decides at the end.
`--variants none` trains without memory. `pip install 'gymnasium[box2d,mujoco]' minigrid` brings the
environments.

How it runs and reports: experiments/sweep.py. Leaves out: tuning for single environments.
Tests: tests/test_experiments.py.
"""

import csv
from pathlib import Path

import numpy as np
from sweep import Sweep, main

POSITIONS = {  # environment: its first observed numbers, which are positions and angles
    "HalfCheetah-v5": 8,
    "InvertedDoublePendulum-v5": 5,
}
AIMS = {  # task: the mean return that was aimed at
    "CartPole-v1": "475",
    "Acrobot-v1": "−100",
    "Pendulum-v1": "−200",
    "MountainCarContinuous-v0": "90",
    "LunarLander-v3": "200",
    "HalfCheetah-v5": "twice the return without memory",
    "InvertedDoublePendulum-v5": "twice the return without memory",
    "minigrid:MiniGrid-MemoryS7-v0": "0.9",
    "minigrid:MiniGrid-MemoryS11-v0": "0.9",
    "minigrid:MiniGrid-MemoryS13-v0": "0.9",
}
HIDDEN = (*POSITIONS, *(task for task in AIMS if "Memory" in task))  # need memory
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5, defaults", "#0072b2"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
PEER = Path(__file__).parent / "other_environments" / "sb3.csv"


def table(groups, peer=PEER):
    """Return the results as a Markdown table, one line for each environment."""
    names = (
        "environment",
        "aim",
        "S5: mean ± s.e. (worst)",
        "seeds",
        "no memory",
        "steps",
        "CPU time",
    )
    names += ("SB3's PPO", "its seeds", "its CPU time")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [group[0] for group in groups.values()]
    theirs = list(csv.DictReader(open(peer, encoding="utf-8"))) if peer.exists() else []
    for task in AIMS:
        own = {v: [r for r in rows if (r["task"], r["variant"]) == (task, v)] for v in VARIANTS}
        s5, none, peers = own["s5"], own["none"], [row for row in theirs if row["task"] == task]
        if s5:
            name = task.partition(":")[2] or task
            name += ", velocities hidden" if task in POSITIONS else ""
            cells = [name, AIMS[task], _mean(s5), str(len(s5)), _mean(none)]
            cells += [f"{int(s5[0]['steps']):,}", _span(s5)]
            cells += [_mean(peers), str(len(peers)) if peers else "–", _span(peers)]
            lines.append("| " + " | ".join(cells).replace("-0", "−0") + " |")
    note = f"Mean return over {rows[0]['episodes']} fresh episodes at the end, deterministic "
    note += (
        "policy; mean and standard error over seeds. CPU time: of the whole command, fastest to "
    )
    note += "slowest seed; minis5 uses both CPUs, so that its wall time is half. "
    note += "; ".join(sorted({row["machine"] for row in rows})) + ". "
    note += "Stable-Baselines3's PPO has its own defaults, no memory, one environment and one CPU, "
    note += f"and {int(theirs[0]['steps']):,} steps." if theirs else "and was not run."
    return [*lines, "", note]


def _span(rows):
    """Return the smallest and the largest CPU time of the runs, as text."""
    times = [float(row["cpu_seconds"]) for row in rows if row["cpu_seconds"]]
    ends = sorted({f"{time:.0f}" for time in (min(times), max(times))}, key=float) if times else []
    return "–".join(ends) + " s" if ends else "–"


def _mean(rows):
    """Return mean, standard error and worst of the runs' returns, as text."""
    returns = [float(row["mean_return"]) for row in rows]
    if not returns:
        return "–"
    digits = 0 if max(map(abs, returns)) >= 100 else 2
    text = f"{np.mean(returns):.{digits}f}"
    if len(returns) > 1:
        error = np.std(returns, ddof=1) / np.sqrt(len(returns))
        text += f" ± {error:.{digits}f} ({min(returns):.{digits}f})"
    return text.replace("-", "−")


def positions_only(task):
    """Return the options of `minis5 train` that hide all but the positions."""
    numbers = list(range(POSITIONS[task]))
    keep = "minis5.envs.foreign.partial:KeepNumbers="
    return ("--wrapper", f'{keep}{{{{"numbers": {numbers}}}}}')


OPTIONS = {task: positions_only(task) for task in POSITIONS}
OTHER_ENVIRONMENTS = Sweep(
    "other_environments",
    __doc__.splitlines()[0],
    tuple(AIMS),
    VARIANTS,
    table,
    {},
    columns=3,
    options=OPTIONS,
    default=("s5",),
    seeds=(30, 31, 32),  # the defaults were chosen with others
)

if __name__ == "__main__":
    main(OTHER_ENVIRONMENTS)
