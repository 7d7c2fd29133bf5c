"""Memory tasks: S5 with resets, S5 without them, and no memory at all.

    python experiments/memory_tasks.py               all runs, then the report
    python experiments/memory_tasks.py --report      the report alone

Each run is `minis5 train TASK --seed S`. How it runs and reports: experiments/sweep.py.
Leaves out: other cores (memory_length.py), Hard levels (popgym_hard.py).
Source: 2303.03982, section 5.
Tests: tests/test_experiments.py.
"""

import numpy as np
from sweep import Sweep, main

TASKS = ("RepeatPreviousEasy", "PositionOnlyCartPoleEasy", "MemoryChain-64")
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "s5-noreset": (("--resets", "false"), "S5, resets off", "#d55e00"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
PAPER = {("MemoryChain-64", "s5"): "1 ± .05 (read off a figure)"}


def table(groups):
    """Return the results as a Markdown table, one line for each task and variant."""
    names = ("task", "agent", "seeds", "mean return (worst seed)", "in training", "in the paper")
    names += ("steps", "time", "steps/s")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [group[0] for group in groups.values()]
    for task in TASKS:
        for variant, (_, label, _) in VARIANTS.items():
            some = [row for row in rows if (row["task"], row["variant"]) == (task, variant)]
            if some:
                wanted = ("mean_return", "training_return_last", "steps", "steps_per_second")
                returns, training, steps, speeds = np.array(
                    [[row[name] or "nan" for name in wanted] for row in some], float
                ).T
                walls = [float(row["wall_seconds"]) for row in some if row["wall_seconds"]]
                wall = "not known"
                if walls:
                    ends = dict.fromkeys(f"{w:.0f}" for w in (min(walls), max(walls)))
                    wall = "–".join(ends) + " s"
                score = f"{returns.mean():.3f} ({returns.min():.3f}) | {training.mean():.3f}"
                cells = [task, label, str(len(some)), score.replace("-", "−")]
                cells += [PAPER.get((task, variant), "–"), f"{steps.mean():,.0f}", wall]
                lines.append(f"| {' | '.join([*cells, f'{speeds.mean():,.0f}'])} |")
    note = f"Means over seeds. Mean return: over {rows[0]['episodes']} fresh episodes, "
    note += "deterministic policy, at the end; in training: over the last rollout's episodes, "
    note += "sampled actions. Time: of the whole command, fastest to slowest. "
    return [*lines, "", note + "; ".join(sorted({row["machine"] for row in rows})) + "."]


TITLE = __doc__.splitlines()[0]
MEMORY_TASKS = Sweep("memory_tasks", TITLE, TASKS, VARIANTS, table, {}, columns=3)

if __name__ == "__main__":
    main(MEMORY_TASKS)
