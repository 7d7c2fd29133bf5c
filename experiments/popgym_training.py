"""POPGym: an agent with and without memory on every family, beside the random policy.

    python experiments/popgym_training.py               all runs, then the report
    python experiments/popgym_training.py --report      the report alone

Trains on each family's Easy level. How it runs and reports: experiments/sweep.py.
Leaves out: the Hard levels of the paper's table, which are in popgym_hard.py.
Source: POPGym's paper (Morad et al., ICLR 2023).
Tests: tests/test_experiments.py.
"""

import numpy as np
from sweep import Sweep, main

from minis5.envs.random_returns import RANDOM_RETURNS
from minis5.envs.registry import find

FAMILIES = "RepeatFirst RepeatPrevious Autoencode CountRecall HigherLower Concentration".split()
FAMILIES += "MultiarmedBandit Battleship MineSweeper".split()
FAMILIES += "PositionOnlyCartPole VelocityOnlyCartPole NoisyPositionOnlyCartPole".split()
FAMILIES += "PositionOnlyPendulum NoisyPositionOnlyPendulum".split()
FAMILIES += "LabyrinthEscape LabyrinthExplore".split()
TASKS = tuple(name + "Easy" for name in FAMILIES)
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
PUBLISHED = {  # best mean return in training, of a GRU after 15M steps, in POPGym's paper
    "RepeatFirstEasy": "1 (GRU)",
    "RepeatPreviousEasy": "1 (GRU)",
    "AutoencodeEasy": "−.28 (GRU)",
    "CountRecallEasy": ".18 (GRU)",
    "HigherLowerEasy": ".53 (GRU)",
    "MultiarmedBanditEasy": ".62 (GRU)",
}
LINES = {task: ((RANDOM_RETURNS[task][0], "random policy", ":"),) for task in TASKS}


def table(groups):
    """Return the results as a Markdown table, one line for each level."""
    names = ("level", "random", "no memory", "S5: mean (worst seed)", "no memory in training")
    names += ("S5 in training", "bounds", "published", "steps", "time")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [group[0] for group in groups.values()]

    def values(some, name):
        return [float(row[name] or "nan") for row in some]

    for task in TASKS:
        scores = {
            v: [row for row in rows if (row["task"], row["variant"]) == (task, v)] for v in VARIANTS
        }
        if scores["s5"]:
            returns = values(scores["s5"], "mean_return")
            training = values(scores["s5"], "training_return_last")
            none = sampled = "–"
            if scores["none"]:
                none = f"{np.mean(values(scores['none'], 'mean_return')):.3f}"
                sampled = f"{np.mean(values(scores['none'], 'training_return_last')):.3f}"
            level = find(task)[1]
            cells = [task, f"{RANDOM_RETURNS[task][0]:.3f}", none]
            cells += [f"{np.mean(returns):.3f} ({min(returns):.3f})", sampled]
            cells += [f"{np.mean(training):.3f}"]
            cells += [f"{level.worst_return:.3g} … {level.best_return:.3g}"]
            cells += [PUBLISHED.get(task, "–"), f"{int(scores['s5'][0]['steps']):,}"]
            cells += [f"{np.nanmean(values(scores['s5'], 'wall_seconds')):.0f} s"]
            lines.append("| " + " | ".join(cells).replace("-", "−") + " |")
    count = sorted(
        {sum(row["task"] == task and row["variant"] == "s5" for row in rows) for task in TASKS}
        - {0}
    )
    note = f"Seeds with S5: {'–'.join(map(str, count))}. Returns: of {rows[0]['episodes']} fresh "
    note += "episodes, deterministic policy, at the end; in training: of the last rollout's "
    note += "episodes, sampled actions. Time: of the whole command. "
    return [*lines, "", note + "; ".join(sorted({row["machine"] for row in rows})) + "."]


POPGYM = Sweep("popgym", __doc__.splitlines()[0], TASKS, VARIANTS, table, LINES, columns=4)

if __name__ == "__main__":
    main(POPGYM)
