"""POPGym's Hard levels in the paper's table: S5, S5 without resets, GRU and no memory.

    python experiments/popgym_hard.py               all runs, then the report
    python experiments/popgym_hard.py --report      the report alone

The seeds are ones that no hyper-parameter was chosen on. How it runs and reports:
experiments/sweep.py. Leaves out: the other levels, which are in popgym_training.py.
Source: 2303.03982, table of POPGym; POPGym's paper (Morad et al., ICLR 2023).
Tests: tests/test_popgym_hard.py.
"""

import numpy as np
from sweep import Sweep, main

import minis5
from minis5.run import progress

TASKS = ("PositionOnlyCartPoleHard", "NoisyPositionOnlyCartPoleHard", "PositionOnlyPendulumHard")
TASKS += ("NoisyPositionOnlyPendulumHard", "RepeatPreviousHard")
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "s5-noreset": (("--resets", "false"), "S5, resets off", "#d55e00"),
    "gru": (("--core", "gru"), "GRU", "#009e73"),
    "none": (("--core", "none"), "no memory", "#777777"),
}
SEEDS = tuple(range(10, 18))
PAPER = {  # its MMER: over 8 seeds, after 15M steps, in the order of TASKS
    "s5": ("1.0", ".28", ".79 ± .01", ".55 ± .01", ".91 ± .01"),
    "s5-noreset": ("1.0", ".28", ".71 ± .04", ".50 ± .01", ".76 ± .02"),
    "gru": ("1.0", ".27", ".75", ".61 ± .01", "−.46 ± .01"),
    "none": (".26 (MLP)", ".22 (MLP)", ".41 ± .02 (MLP)", ".34 ± .01 (MLP)", "−.48 (MLP)"),
}
BEST = ((1.0, "GRU"), (0.404, "IndRNN"), (0.828, "GRU"), (0.657, "GRU"), (0.191, "LMU"))
LINES = {
    task: ((float(PAPER["s5"][i].split()[0]), "S5 in the paper", "--"), (*best, ":"))
    for i, (task, best) in enumerate(zip(TASKS, BEST, strict=True))
}
WINDOW = 65_536  # environment steps: the paper's 64 environments × 1024 steps
DETAILS = ("mmer", "last", "entropy", "grad_norm", "delta_low", "delta_median", "delta_high")


def windows(rows, size=WINDOW):
    """Return the mean return of the episodes that ended in each ``size`` steps of a run.

    Our iterations are shorter than the paper's. A maximum over them would gain from their noise.

    Parameters
    ----------
    rows : list of dict
        Of progress.csv.
    """
    step, episodes = (np.array([row[name] for row in rows]) for name in ("step", "episodes"))
    ended = np.diff(episodes, prepend=0)
    returns = np.where(ended > 0, [row["return"] for row in rows], 0.0)
    window = (step - 1) // size
    count, total = np.bincount(window, ended), np.bincount(window, ended * returns)
    return total[count > 0] / count[count > 0]


def look(folder):
    """Return the paper's measure for a run, and what its last tenth and its steps Δ were like."""
    rows = progress.read_progress(folder / "progress.csv")
    means, end = list(windows(rows)) or [np.nan], rows[-max(1, len(rows) // 10) :]
    found = {"mmer": max(means), "last": means[-1]}
    for name in ("entropy", "grad_norm"):
        found[name] = np.mean([row[name] for row in end])
    parameters = minis5.load(folder / "agent.npz").parameters()
    logs = [value.ravel() for name, value in parameters.items() if name.endswith("/log_step")]
    if logs:
        cuts = np.quantile(np.exp(np.concatenate(logs)), (0.1, 0.5, 0.9))
        found |= dict(zip(DETAILS[4:], cuts, strict=True))
    return [{name: f"{value:.5g}" for name, value in found.items()}]


def spread(values):
    """Return a mean and its standard error as text."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    return f"{np.mean(values):.3f}" + (f" ± {error:.3f}" if np.isfinite(error) else "")


def table(groups, details):
    """Return the results as a Markdown table, one line for each task and agent."""
    names = ("task", "agent", "seeds", "mean return", "worst seed", "MMER", "MMER in the paper")
    names += ("best published", "steps", "CPU time", "wall time")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    rows = [group[0] for group in groups.values()]
    for i, task in enumerate(TASKS):
        for variant, (_, label, _) in VARIANTS.items():
            keys = [key for key in groups if key[:2] == (task, variant)]
            if keys:
                some = [groups[key][0] for key in keys]
                returns = [float(row["mean_return"]) for row in some]
                mmer = [float(details[key][0]["mmer"]) for key in keys]
                cells = [task, label, str(len(some)), spread(returns), f"{min(returns):.3f}"]
                cells += [spread(mmer), PAPER[variant][i], f"{BEST[i][0]:.3g} ({BEST[i][1]})"]
                cells += [f"{np.mean([int(row['steps']) for row in some]):,.0f}"]
                for name in ("cpu_seconds", "wall_seconds"):
                    times = [float(row[name]) for row in some if row[name]]
                    cells += [f"{np.mean(times):.0f} s" if times else "not known"]
                lines.append(f"| {' | '.join(cells)} |".replace(" -", " −"))
    note = f"± is the standard error over the seeds. Mean return: over {rows[0]['episodes']} fresh "
    note += "episodes, deterministic policy, at the end. MMER: the highest mean return of the "
    note += f"episodes that ended within {WINDOW:,} steps of training (an iteration of the paper), "
    note += "sampled actions. Times: of the whole command on one core, mean over the seeds; other "
    note += "programs ran beside it, so compare CPU times. "
    return [*lines, "", note + "; ".join(sorted({row["machine"] for row in rows})) + "."]


POPGYM_HARD = Sweep(
    "popgym_hard",
    __doc__.splitlines()[0],
    TASKS,
    VARIANTS,
    table,
    LINES,
    columns=3,
    one_core=True,
    details=(DETAILS, look),
    seeds=SEEDS,
)

if __name__ == "__main__":
    main(POPGYM_HARD)
