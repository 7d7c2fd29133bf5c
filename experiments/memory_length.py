"""How far back can an agent remember? MemoryChain-4 to -8192 with S5, LSTM, GRU, self-attention.

    python experiments/memory_length.py               all runs, then the report
    python experiments/memory_length.py --report      the report alone
    python experiments/memory_length.py --variants s5-a2c lstm-a2c      the paper's own setting
    python experiments/memory_length.py --variants s5-action s5-epsilon s5-horizon  what matters

Each run is `minis5 train MemoryChain-N --core CORE` on one CPU core. It lasts 10,000 episodes as in
the paper, or 500,000 steps if those are more, and ends early once a rollout's return is 0.99. The
agents differ in their core alone, and all have about the same number of parameters.

How it runs and reports: experiments/sweep.py. Leaves out: tuning for each length.
Source: 2303.03982, section 5, "Memory length". Tests: tests/test_experiments.py.
"""

import numpy as np
from sweep import Sweep, main

LENGTHS = tuple(2**k for k in range(2, 14))
TASKS = tuple(f"MemoryChain-{n}" for n in LENGTHS)
SOLVED, A2C = ("--target-return", "0.99"), ("--preset", "a2c")
SHOWN = ("--show-previous-action", "true", *SOLVED)
VARIANTS = {  # name: options, label, colour
    "s5": (SOLVED, "S5", "#0072b2"),
    "lstm": (("--core", "lstm", *SOLVED), "LSTM", "#d55e00"),
    "gru": (("--core", "gru", *SOLVED), "GRU", "#e69f00"),
    "attention": (("--core", "attention", *SOLVED), "self-attention", "#009e73"),
    # these see their last action, as all did before the preset hid it
    "s5-action": (SHOWN, "S5, action shown", "#7fb8d8"),
    "lstm-action": (("--core", "lstm", *SHOWN), "LSTM, action shown", "#eaae7f"),
    "gru-action": (("--core", "gru", *SHOWN), "GRU, action shown", "#f2cf7f"),
    "attention-action": (
        ("--core", "attention", *SHOWN),
        "self-attention, action shown",
        "#7fceb9",
    ),
    "s5-epsilon": (("--adam-eps", "1e-5", *SHOWN), "S5, shown, Adam's ε 1e-5", "#000000"),
    "s5-horizon": (
        ("--gamma", "0.99", "--gae-lambda", "0.95", *SHOWN),
        "S5, shown, γ .99, λ .95",
        "#999999",
    ),
    "s5-a2c": (A2C, "S5, A2C", "#56b4e9"),
    "lstm-a2c": (("--core", "lstm", *A2C), "LSTM, A2C", "#cc79a7"),
    "gru-a2c": (("--core", "gru", *A2C), "GRU, A2C", "#b8860b"),
    "attention-a2c": (("--core", "attention", *A2C), "self-attention, A2C", "#66c2a5"),
}
PAPER = {  # mean return from N = 4 to 2048, read off its figure, ± .05
    "S5": (1, 1, 1, 1, 1, 1, 1, 1, 0.5, 0),
    "LSTM": (1, 1, 0.85, 0.5, 0.1, 0.2, 0.35, 0.25, -0.05, 0.1),
    "self-attention": (1, 1, 1, 0.75, 1, 1, 1, 0.7, -0.25, 0.05),
}
COLOURS = {label: colour for _, label, colour in VARIANTS.values()}


def collect(groups):
    """Return {variant: {length: {figure's name: array over seeds}}} from rows of results.csv.

    The order is that of VARIANTS and LENGTHS.
    """
    found = {}
    for variant in VARIANTS:
        for length, task in zip(LENGTHS, TASKS, strict=True):
            rows = [group[0] for key, group in groups.items() if key[:2] == (task, variant)]
            if rows:
                wanted = ("mean_return", "steps", "cpu_seconds", "peak_mib")
                values = np.array(
                    [[row[name] or "nan" for name in wanted] for row in rows], float
                ).T
                found.setdefault(variant, {})[length] = dict(zip(wanted, values, strict=True))
    return found


def thousand(cell, length):
    """Return the CPU seconds for a thousand episodes of this length, from the runs of a cell."""
    return 1000 * np.nanmean(cell["cpu_seconds"] / cell["steps"]) * length


def table(groups):
    """Return Markdown tables: return, episodes, time and memory against the length."""
    found = collect(groups)
    rule = "|---" * (len(LENGTHS) + 1) + "|"

    def lines(title, text, more=()):
        rows = [
            (VARIANTS[v][1], [text(cells[n], n) if n in cells else "" for n in LENGTHS])
            for v, cells in found.items()
        ]
        for label, numbers in more:
            cells = [f"{x:.2g}" for x in numbers] + [""] * (len(LENGTHS) - len(numbers))
            rows.append((f"*{label}, paper*", cells))
        body = [f"| {label} | {' | '.join(cells)} |".replace("-0", "−0") for label, cells in rows]
        return [f"| {title} | {' | '.join(map(str, LENGTHS))} |", rule, *body, ""]

    def score(cell, _):
        mean, worst = f"{cell['mean_return'].mean():.2f}", f"{cell['mean_return'].min():.2f}"
        seeds = len(cell["mean_return"])
        return f"{mean} ×{seeds}" if mean == worst else f"{mean} ({worst}) ×{seeds}"

    def episodes(cell, length):
        return f"{cell['steps'].mean() / length:,.0f}"

    result = lines("mean return (worst) × seeds", score, PAPER.items())
    result += lines("episodes until solved, or all", episodes)
    result += lines("CPU seconds for 1,000 episodes", lambda cell, n: f"{thousand(cell, n):.3g}")
    result += lines("peak memory, MiB", lambda cell, n: f"{cell['peak_mib'].mean():.0f}")
    row = next(iter(groups.values()))[0]
    note = f"Mean return: over {row['episodes']} fresh episodes, deterministic policy, at the end, "
    note += "and over the seeds. CPU seconds: user and system time of the whole command on one "
    note += "core, start and compilation included. "
    machines = sorted({group[0]["machine"] for group in groups.values()})
    return [*result, f"{note}{'; '.join(machines)}."]


def figure(path, groups):
    """Draw return, time and memory against the memory length, as in the paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = collect(groups)
    FigureCanvasAgg(drawing := Figure(figsize=(15, 4.2), dpi=150, layout="constrained"))
    score, seconds, memory = drawing.subplots(1, 3)
    for variant, cells in found.items():
        _, label, colour = VARIANTS[variant]
        marker = "s" if variant.endswith("a2c") else "o"
        look = {"color": colour, "label": label, "marker": marker, "markersize": 4}
        returns = [cells[n]["mean_return"] for n in cells]
        low, high = [x.min() for x in returns], [x.max() for x in returns]
        score.plot(list(cells), [x.mean() for x in returns], **look)
        score.fill_between(list(cells), low, high, color=colour, alpha=0.15)
        seconds.plot(list(cells), [thousand(cells[n], n) for n in cells], **look)
        memory.plot(list(cells), [cells[n]["peak_mib"].mean() for n in cells], **look)
    for label, numbers in PAPER.items():
        look = {"color": COLOURS[label], "linestyle": ":", "linewidth": 1}
        score.plot(LENGTHS[: len(numbers)], numbers, label=f"{label}, paper (5 seeds)", **look)
    score.set(ylabel="mean return (band: worst to best seed)", ylim=(-0.6, 1.05))
    seconds.set(ylabel="CPU seconds for 1,000 episodes", yscale="log")
    memory.set(ylabel="peak memory of the process, MiB")
    for axes in (score, seconds, memory):
        axes.set_xscale("log", base=2)
        axes.set(xlabel="memory length N")
        axes.set_xticks(LENGTHS, map(str, LENGTHS), fontsize="small")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    drawing.savefig(path)


MEMORY_LENGTH = Sweep(
    "memory_length",
    __doc__.splitlines()[0],
    TASKS,
    VARIANTS,
    table,
    {},
    columns=5,
    one_core=True,
    default=("s5", "lstm", "gru", "attention"),
    figure=figure,
)

if __name__ == "__main__":
    main(MEMORY_LENGTH)
