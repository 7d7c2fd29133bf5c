"""Learning within an episode: a cart-pole in an encoding never seen before, 16 trials an episode.

    python experiments/meta_cartpole.py               all runs, then the report; stop it and start it as you like
    python experiments/meta_cartpole.py --report      the report alone

Each episode draws how the two numbers of PositionOnlyCartPole are projected, to four, and which of the two actions is left; the
agent keeps its memory over the trials and has to find out. It is evaluated on twice as many trials as it was trained with, on
projections that it has not met, with sampled actions.

A fall costs nothing at once, as the next trial begins and pays as much for a step; the episode alone is over the sooner, a thousand
steps later. Advantages are therefore those of each trial by itself (trial_horizon), while the memory lives on.
Source: 2303.03982, the experiment with randomly projected CartPole. How it runs and reports: experiments/sweep.py; the environment:
minis5/envs/meta.py. Tests: tests/test_experiments.py.
"""

import json

import numpy as np
from sweep import Sweep, main

TASK = "PositionOnlyCartPoleEasy"
TRIALS, EVALUATED, EPISODES = 16, 32, 512
# of details.csv: see by_trial
FIGURES = ("training", "return", "std", "gain", "gain_error", "pole_weaker", "pole_stronger")
META = (
    "--env-option",
    f"trials={TRIALS}",
    "--env-option",
    "project_observation=4",
    "--env-option",
    "permute_actions=true",
)
OURS = (
    "--unroll",
    "512",
    "--minibatches",
    "16",
    "--lr",
    "2e-3",
    "--adam-eps",
    "1e-8",
    "--trial-horizon",
    "true",
)
OURS += ("--eval-episodes", "32")
STEPS, LONG_STEPS = 12_000_000, 25_000_000
EPISODE = ("--trial-horizon", "false", "--gamma", "0.9995", "--gae-lambda", "0.97")
VARIANTS = {  # name: options, label, colour
    "s5": ((), "S5", "#0072b2"),
    "s5-noreset": (("--resets", "false"), "S5, resets off", "#d55e00"),
    "gru": (("--core", "gru"), "GRU", "#e69f00"),
    "mlp": (("--core", "mlp"), "MLP", "#777777"),
    "s5-long": ((), "S5, longer", "#56b4e9"),
    "s5-noreset-long": (("--resets", "false"), "S5, resets off, longer", "#f0a880"),
    "s5-episode": (EPISODE, "S5, one return an episode", "#009e73"),
}
DEFAULT = ("s5", "s5-noreset", "gru", "mlp")
PAPER = {  # final return in training over 16 trials; return of trials 0, 15, 31
    "s5": ("6.8", ".27 / .45 / .41"),
    "s5-noreset": ("5.9", "–"),
    "gru": ("5.9", ".13 / .43 / .32"),
    "mlp": ("2.9", ".18 / .18 / .17"),
}


def by_trial(folder):
    """Rows of details.csv for each trial, over EPISODES episodes of EVALUATED trials.

    training: mean return of an episode in the last tenth of training. return, std: of the trial. gain, gain_error: how much more
    than in the same episode's first trial, and its standard error.
    pole_weaker, pole_stronger: mean over encodings that show the pole's angle with a shorter vector than the cart's position, or a
    longer one.
    """
    from minis5 import load, make_vec
    from minis5.run import progress
    from minis5.run.evaluate import FIRST_SEED, trial_returns

    config, summary = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "summary.json")
    )
    episodes = 16 if summary["steps"] < 100_000 else EPISODES  # --quick
    env, seed, options = (
        config["env"],
        config["seed"],
        {**config["env_options"], "trials": EVALUATED},
    )
    returns = trial_returns(load(folder / "agent.npz"), env, episodes, seed, **options)
    envs = make_vec(env, episodes, FIRST_SEED + seed, **options)  # the same episodes
    envs.reset()
    cart, pole = np.linalg.norm(envs.view("M_o"), axis=1).T
    gain = returns - returns[:, :1]
    late = [
        row["return"]
        for row in progress.read_progress(folder / "progress.csv")
        if row["step"] > 0.9 * summary["steps"]
    ]
    late = [value for value in late if value == value]  # nan: no episode ended
    figures = {
        "training": np.full(EVALUATED, np.mean(late) if late else np.nan),
        "return": returns.mean(axis=0),
        "std": returns.std(axis=0),
        "gain": gain.mean(axis=0),
        "gain_error": gain.std(axis=0) / np.sqrt(episodes),
        "pole_weaker": returns[pole < cart].mean(axis=0),
        "pole_stronger": returns[pole >= cart].mean(axis=0),
    }
    columns = {name: values.round(4).tolist() for name, values in figures.items()}
    return [
        {
            "step": summary["steps"],
            "trial": k,
            **{name: values[k] for name, values in columns.items()},
        }
        for k in range(EVALUATED)
    ]


def curves(details, figure="return"):
    """Variant → (seeds, EVALUATED) a figure by trial at the last stage that all its seeds have come to."""
    found = {}
    for variant in VARIANTS:
        runs = [rows for key, rows in details.items() if key[1] == variant]
        if runs:
            step = min(max(int(row["step"]) for row in rows) for rows in runs)
            found[variant] = (
                np.array(
                    [
                        [float(row[figure]) for row in rows if int(row["step"]) == step]
                        for rows in runs
                    ]
                ),
                step,
            )
    return found


def spread(values, form):
    """The mean over seeds, and the worst and the best where there are several."""
    return f"{values.mean():{form}}" + (
        f" ({values.min():{form}} … {values.max():{form}})" if len(values) > 1 else ""
    )


def table(results, details):
    """The results as a Markdown table, one line for each agent."""
    names = (
        "agent",
        "seeds",
        "steps",
        "return of 16 trials, last tenth of training",
        "paper",
        "trial 0",
        "trial 15",
        "trial 31",
    )
    names += (
        "paper: 0 / 15 / 31",
        "gain from trial 0 to 15",
        "trial 15, pole weaker / stronger",
        "time of a run",
    )
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    found = {figure: curves(details, figure) for figure in FIGURES}
    for variant, (returns, step) in found["return"].items():
        training, gain = found["training"][variant][0][:, 0], found["gain"][variant][0][:, 15]
        halves = [
            f"{found[figure][variant][0][:, 15].mean():.2f}"
            for figure in ("pole_weaker", "pole_stronger")
        ]
        times = [group[0]["wall_seconds"] for key, group in results.items() if key[1] == variant]
        time = f"{np.mean(list(map(float, times))):,.0f} s" if all(times) else "not known"
        label, (total, paper) = VARIANTS[variant][1], PAPER.get(variant, ("–", "–"))
        cells = [label, str(len(returns)), f"{step:,}", spread(training, ".2f"), total]
        cells += [
            *(spread(returns[:, k], ".3f") for k in (0, 15, 31)),
            paper,
            spread(gain, "+.3f"),
            " / ".join(halves),
            time,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    errors = np.concatenate([values[:, 15] for values, _ in found["gain_error"].values()])
    machines = "; ".join(sorted({group[0]["machine"] for group in results.values()}))
    note = f"Trials: mean over {EPISODES} episodes of {EVALUATED} trials with sampled actions, and over seeds (worst … best seed). "
    note += f"A run's gain has a standard error of {errors.min():.3f} to {errors.max():.3f}. Pole weaker: encodings that show the "
    note += "pole's angle with a shorter vector than the cart's position. The best return of a trial is 1."
    return [*lines, "", f"{note} {machines}."]


def figure(path, results, details):
    """Return by trial: each agent's mean over seeds, and a band from its worst to its best seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    del results
    FigureCanvasAgg(drawing := Figure(figsize=(10, 4.2), dpi=150, layout="constrained"))
    axes = drawing.add_subplot()
    for variant, (returns, step) in curves(details).items():
        _, label, colour = VARIANTS[variant]
        trials = np.arange(EVALUATED)
        axes.plot(
            trials,
            returns.mean(axis=0),
            color=colour,
            label=f"{label}, {step / 1e6:.3g}M steps, seeds: {len(returns)}",
        )
        axes.fill_between(
            trials, returns.min(axis=0), returns.max(axis=0), color=colour, alpha=0.2, linewidth=0
        )
    axes.axvline(
        TRIALS - 0.5,
        color="black",
        linestyle=":",
        linewidth=1,
        label="trained with the trials on the left",
    )
    axes.set(
        xlabel="trial of the episode",
        ylabel="mean return of the trial",
        title="Randomly projected PositionOnlyCartPole",
    )
    axes.grid(alpha=0.3)
    drawing.legend(fontsize="small", loc="outside right upper")
    drawing.savefig(path)


META_CARTPOLE = Sweep(
    "meta_cartpole",
    __doc__.splitlines()[0],
    (TASK,),
    VARIANTS,
    table,
    {},
    columns=1,
    options={TASK: (*META, *OURS)},
    stages={TASK: (STEPS,), **{name: (LONG_STEPS,) for name in VARIANTS if "long" in name}},
    one_core=True,
    default=DEFAULT,
    details=(("step", "trial", *FIGURES), by_trial),
    figure=figure,
)

if __name__ == "__main__":
    main(META_CARTPOLE)
