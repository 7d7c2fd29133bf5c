"""Learning within an episode: a cart-pole in an encoding never seen before, 16 trials an episode.

    python experiments/meta_cartpole.py               all runs, then the report
    python experiments/meta_cartpole.py --report      the report alone

Each episode draws a projection of PositionOnlyCartPole's two numbers to four, and which of the two
actions is left. The agent keeps its memory over the trials and has to find out. It is evaluated
with sampled actions on twice as many trials as in training, on projections that it has not met.

A fall costs nothing at once, because the next trial begins and pays as much for a step. Only the
episode ends sooner, a thousand steps later. Advantages therefore end with each trial
(trial_horizon), while memory lives on.

How it runs and reports: experiments/sweep.py. The environment: minis5/envs/meta.py.
Leaves out: other tasks (meta_control.py). Source: 2303.03982, randomly projected CartPole.
Tests: tests/test_experiments.py.
"""

import json

import numpy as np
from sweep import Sweep, main

TASK = "PositionOnlyCartPoleEasy"
TRIALS, EVALUATED, EPISODES = 16, 32, 512
# Columns of details.csv: see by_trial.
FIGURES = ("training", "return", "std", "gain", "gain_error", "pole_weaker", "pole_stronger")
META = f"--env-option trials={TRIALS} --env-option project_observation=4".split()
META += ["--env-option", "permute_actions=true"]
OURS = "--unroll 512 --minibatches 16 --lr 2e-3 --adam-eps 1e-8 --trial-horizon true".split()
OURS += ["--eval-episodes", "32"]
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
    """Return a row of details.csv for each trial, from EPISODES episodes of EVALUATED trials.

    training            mean return of an episode in the last tenth of training
    return, std         of the trial
    gain, gain_error    how much more than in the same episode's first trial, and its standard error
    pole_weaker         mean over encodings that show the pole's angle with a shorter vector than
                        the cart's position
    pole_stronger       mean over the other encodings
    """
    from minis5 import load, make_vec
    from minis5.run import progress
    from minis5.run.evaluate import FIRST_SEED, trial_returns

    config, summary = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "summary.json")
    )
    episodes = 16 if summary["steps"] < 100_000 else EPISODES  # --quick
    env, seed = config["env"], config["seed"]
    options = {**config["env_options"], "trials": EVALUATED}
    returns = trial_returns(load(folder / "agent.npz"), env, episodes, seed, **options)
    envs = make_vec(env, episodes, FIRST_SEED + seed, **options)  # the same episodes
    envs.reset()
    cart, pole = np.linalg.norm(envs.view("M_o"), axis=1).T
    gain = returns - returns[:, :1]
    log = progress.read_progress(folder / "progress.csv")
    late = [row["return"] for row in log if row["step"] > 0.9 * summary["steps"]]
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
    rows = [{name: values[k] for name, values in columns.items()} for k in range(EVALUATED)]
    return [{"step": summary["steps"], "trial": k, **row} for k, row in enumerate(rows)]


def curves(details, figure="return"):
    """Return variant → (a figure by seed and trial, steps), at the last stage of all its seeds."""
    found = {}
    for variant in VARIANTS:
        runs = [rows for key, rows in details.items() if key[1] == variant]
        if runs:
            step = min(max(int(row["step"]) for row in rows) for rows in runs)
            runs = [[row for row in rows if int(row["step"]) == step] for rows in runs]
            values = [[float(row[figure]) for row in rows] for rows in runs]
            found[variant] = np.array(values), step
    return found


def spread(values, form):
    """Return the mean over seeds, with the worst and the best if there are several."""
    ends = f" ({values.min():{form}} … {values.max():{form}})" if len(values) > 1 else ""
    return f"{values.mean():{form}}{ends}"


def table(results, details):
    """Return the results as a Markdown table, one line for each agent."""
    names = ("agent", "seeds", "steps", "return of 16 trials, last tenth of training", "paper")
    names += ("trial 0", "trial 15", "trial 31", "paper: 0 / 15 / 31", "gain from trial 0 to 15")
    names += ("trial 15, pole weaker / stronger", "time of a run")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    found = {figure: curves(details, figure) for figure in FIGURES}
    for variant, (returns, step) in found["return"].items():
        training, gain = found["training"][variant][0][:, 0], found["gain"][variant][0][:, 15]
        halves = [found[name][variant][0][:, 15] for name in ("pole_weaker", "pole_stronger")]
        times = [group[0]["wall_seconds"] for key, group in results.items() if key[1] == variant]
        time = f"{np.mean(list(map(float, times))):,.0f} s" if all(times) else "not known"
        label, (total, paper) = VARIANTS[variant][1], PAPER.get(variant, ("–", "–"))
        cells = [label, str(len(returns)), f"{step:,}", spread(training, ".2f"), total]
        cells += [*(spread(returns[:, k], ".3f") for k in (0, 15, 31)), paper]
        cells += [spread(gain, "+.3f"), " / ".join(f"{half.mean():.2f}" for half in halves), time]
        lines.append(f"| {' | '.join(cells)} |")
    errors = np.concatenate([values[:, 15] for values, _ in found["gain_error"].values()])
    machines = "; ".join(sorted({group[0]["machine"] for group in results.values()}))
    note = f"Trials: mean over {EPISODES} episodes of {EVALUATED} trials with sampled actions, and "
    note += "over seeds (worst … best seed). A run's gain has a standard error of "
    note += (
        f"{errors.min():.3f} to {errors.max():.3f}. Pole weaker: encodings that show the pole's "
    )
    note += "angle with a shorter vector than the cart's position. The best return of a trial is 1."
    return [*lines, "", f"{note} {machines}."]


def figure(path, results, details):
    """Draw return by trial: each agent's mean over seeds, in a band from worst to best seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    del results
    FigureCanvasAgg(drawing := Figure(figsize=(10, 4.2), dpi=150, layout="constrained"))
    axes = drawing.add_subplot()
    for variant, (returns, step) in curves(details).items():
        _, label, colour = VARIANTS[variant]
        trials, low, high = np.arange(EVALUATED), returns.min(axis=0), returns.max(axis=0)
        label += f", {step / 1e6:.3g}M steps, seeds: {len(returns)}"
        axes.plot(trials, returns.mean(axis=0), color=colour, label=label)
        axes.fill_between(trials, low, high, color=colour, alpha=0.2, linewidth=0)
    label = "trained with the trials on the left"
    axes.axvline(TRIALS - 0.5, color="black", linestyle=":", linewidth=1, label=label)
    axes.set(xlabel="trial of the episode", ylabel="mean return of the trial")
    axes.set(title="Randomly projected PositionOnlyCartPole")
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
