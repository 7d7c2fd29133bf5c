"""POPGym: an agent with and without memory on an environment of every family, beside the random policy.

    python experiments/popgym_training.py               all runs, then the report; stop it and start it as you like
    python experiments/popgym_training.py --report      the report alone

Each family's Easy level, and the Hard levels that the paper trains on (RepeatPreviousHard is in experiments/memory_tasks).
Source: 2303.03982, section 5, and POPGym's paper. How it runs and reports: experiments/sweep.py. Tests: tests/test_experiments.py.
"""

import numpy as np
from sweep import Sweep, main

from minis5.envs.random_returns import RANDOM_RETURNS
from minis5.envs.registry import find

EASY = "RepeatFirst RepeatPrevious Autoencode CountRecall HigherLower Concentration MultiarmedBandit Battleship MineSweeper"
EASY += " PositionOnlyCartPole VelocityOnlyCartPole NoisyPositionOnlyCartPole PositionOnlyPendulum NoisyPositionOnlyPendulum"
EASY += " LabyrinthEscape LabyrinthExplore"
HARD = (
    "PositionOnlyCartPole NoisyPositionOnlyCartPole PositionOnlyPendulum NoisyPositionOnlyPendulum"
)
TASKS = (*(name + "Easy" for name in EASY.split()), *(name + "Hard" for name in HARD.split()))
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
# best mean return in training: 2303.03982 for the Hard levels (S5, 15M steps), else POPGym's paper
# (GRU, 15M steps)
PUBLISHED = {
    "RepeatFirstEasy": "1 (GRU)",
    "RepeatPreviousEasy": "1 (GRU)",
    "AutoencodeEasy": "−.28 (GRU)",
    "CountRecallEasy": ".18 (GRU)",
    "HigherLowerEasy": ".53 (GRU)",
    "MultiarmedBanditEasy": ".62 (GRU)",
    "PositionOnlyCartPoleHard": "1.0 (S5)",
    "NoisyPositionOnlyCartPoleHard": ".28 (S5), .404 (IndRNN)",
    "PositionOnlyPendulumHard": ".79 (S5), .828 (GRU)",
    "NoisyPositionOnlyPendulumHard": ".55 (S5), .657 (GRU)",
}
LINES = {task: ((RANDOM_RETURNS[task][0], "random policy", ":"),) for task in TASKS}


def table(groups):
    """The results as a Markdown table, one line for each level."""
    names = (
        "level",
        "random",
        "no memory",
        "S5: mean (worst seed)",
        "no memory in training",
        "S5 in training",
        "bounds",
    )
    names += ("published", "steps", "time")
    lines, rows = (
        [f"| {' | '.join(names)} |", "|---" * len(names) + "|"],
        [group[0] for group in groups.values()],
    )
    for task in TASKS:
        scores = {
            v: [row for row in rows if (row["task"], row["variant"]) == (task, v)] for v in VARIANTS
        }
        if scores["s5"]:
            mean, worst, training, seconds = ([float(row[n] or "nan") for row in scores["s5"]] for n in (
                "mean_return", "mean_return", "training_return_last", "wall_seconds"))  # fmt: skip
            none, sampled = (
                f"{np.mean([float(row[n] or 'nan') for row in scores['none']]):.3f}"
                if scores["none"]
                else "–"
                for n in ("mean_return", "training_return_last")
            )
            level = find(task)[1]
            cells = (
                task,
                f"{RANDOM_RETURNS[task][0]:.3f}",
                none,
                f"{np.mean(mean):.3f} ({min(worst):.3f})",
                sampled,
                f"{np.mean(training):.3f}",
                f"{level.worst_return:.3g} … {level.best_return:.3g}",
                PUBLISHED.get(task, "–"),
                f"{int(scores['s5'][0]['steps']):,}",
                f"{np.nanmean(seconds):.0f} s",
            )
            lines.append("| " + " | ".join(cells).replace("-", "−") + " |")
    count = sorted(
        {sum(row["task"] == task and row["variant"] == "s5" for row in rows) for task in TASKS}
        - {0}
    )
    note = f"Seeds with S5: {'–'.join(map(str, count))}. Returns: of {rows[0]['episodes']} fresh episodes, deterministic policy, "
    note += "at the end; in training: of the last rollout's episodes, sampled actions. Time: of the whole command. "
    return [*lines, "", note + "; ".join(sorted({row["machine"] for row in rows})) + "."]


POPGYM = Sweep("popgym", __doc__.splitlines()[0], TASKS, VARIANTS, table, LINES, columns=4)

if __name__ == "__main__":
    main(POPGYM)
