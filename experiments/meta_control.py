"""Many control tasks, one agent that is not told which, also tested on tasks that it has never met.

    python experiments/meta_control.py                          native tasks: all runs, the report
    python experiments/meta_control.py --report                 the report alone
    python experiments/meta_control.py --tasks dmc/mixture      the suite (needs extra "control")
    python experiments/meta_control.py --tasks dmc/mixture --variants s5-native mlp-native
                                                 agents that go on from native tasks to the suite

Every episode draws one of the training tasks, a projection of its observation to 12 numbers and of
its action from 2. The agent sees these numbers and the last reward, but no label. After each stage
of training it is tested with sampled actions on all tasks, those held out included, on projections
that it has not met. "Mixture" has minis5's own tasks, "dmc/mixture" the DeepMind Control Suite's,
split as in the paper. An action lasts 4 frames: an episode of 1000 frames is 250 steps, and a
rollout has whole episodes.

How it runs and reports: experiments/sweep.py. Leaves out: Muesli, the paper's algorithm; PPO
learns here. Source: 2303.03982, the experiment on many tasks of DMControl.
Tests: tests/test_experiments.py.
"""

import json

import numpy as np
from sweep import Sweep, main

from minis5.envs.foreign import dmc

SUITES = {  # native task: the suite's; split as in the paper
    "train": {
        "BallInCupCatch": "ball_in_cup-catch",
        "CartPoleSwingUp": "cartpole-swingup",
        "FingerSpin": "finger-spin",
        "FingerTurnHard": "finger-turn_hard",
        "PointMassEasy": "point_mass-easy",
        "ReacherEasy": "reacher-easy",
    },
    "held out": {
        "CartPoleBalance": "cartpole-balance",
        "FingerTurnEasy": "finger-turn_easy",
        "PendulumSwingUp": "pendulum-swingup",
        "PointMassHard": "point_mass-hard",
        "ReacherHard": "reacher-hard",
    },
}
NATIVE = {split: tuple(names) for split, names in SUITES.items()}
FOUR = "BallInCupCatch,CartPoleSwingUp,PointMassEasy,ReacherEasy"  # without finger
SUITE = {"train": dmc.TRAIN, "held out": dmc.HELD_OUT}
SPLITS = {"Mixture": NATIVE, "dmc/mixture": SUITE}
REPEAT = 4  # frames of an action
TASKS = "--env-option", f"tasks={','.join(NATIVE['train'])}"
PROJECTED = "--env-option project_observation=12 --env-option project_action=2".split()
SHARED = f"--env-option action_repeat={REPEAT} --unroll 250 --gamma 0.98 --lr 5e-4".split()
SHARED += "--anneal-lr false --adam-eps 1e-8 --reward-scale 0.02 --observation-scale 5".split()
SHARED += "--entropy-coef 0.002 --target-kl 0.03 --eval-episodes 8".split()
# Tasks pay between 0 and 1000 an episode, and those that pay little must count too. The rest gives
# larger batches, and keeps actions random for longer.
NORMALISED = "--reward-scale 1 --normalize-rewards true --reward-groups task".split()
NORMALISED += "--center-values true --gae-lambda 0.9 --entropy-coef 0.01".split()
NORMALISED += "--num-envs 256 --minibatches 16".split()
STAGES = {  # the suite's physics is about a hundred times slower
    "Mixture": tuple(k * 1_000_000 for k in (1, 2, 4, 8, 16, 32, 64)),
    "dmc/mixture": tuple(k * 100_000 for k in (1, 2, 4, 8, 16, 32)),
}


def begun_with(variant):
    """Return the options to begin training in the suite with the agent of the native tasks."""
    return "--init-from", f"{{runs}}/Mixture-{variant}-seed{{seed}}"


VARIANTS = {  # name: options, label, colour
    "s5": (("--postnorm", "true"), "S5", "#0072b2"),
    "lstm": (("--core", "lstm"), "LSTM", "#d55e00"),
    "mlp": (("--core", "mlp"), "MLP", "#777777"),
}
VARIANTS |= {  # trained on Mixture before minis5 had the finger tasks
    f"{name}-four": ((*options, "--env-option", f"tasks={FOUR}"), f"{label}, four tasks", colour)
    for (name, (options, label, _)), colour in zip(
        tuple(VARIANTS.items()), ("#9ac7e4", "#efbb8e", "#bbbbbb"), strict=True
    )
}
VARIANTS |= {  # for dmc/mixture, after the same agent has been trained on Mixture
    "s5-native": ((*VARIANTS["s5"][0], *begun_with("s5")), "S5, begun on native tasks", "#56b4e9"),
    "mlp-native": (("--core", "mlp", *begun_with("mlp")), "MLP, begun on native tasks", "#bbbbbb"),
}
DEFAULT = ("s5", "lstm", "mlp")
PAPER = {  # mean return S5 / LSTM / MLP
    "ball_in_cup-catch": "946 / 908 / 140",
    "cartpole-swingup": "603 / 503 / 160",
    "finger-spin": "799 / 432 / 31",
    "finger-turn_hard": "741 / 406 / 314",
    "point_mass-easy": "798 / 709 / 4",
    "reacher-easy": "915 / 896 / 729",
    "cartpole-balance": "460 / 275 / 232",
    "finger-turn_easy": "804 / 521 / 468",
    "pendulum-swingup": "4 / 4 / 2",
    "point_mass-hard": "681 / 458 / 2",
    "reacher-hard": "598 / 584 / 281",
}
NAMES = SUITES["train"] | SUITES["held out"]
EPISODES = {"Mixture": 64, "dmc/mixture": 16}  # of each task in a test


def by_task(folder):
    """Return rows of details.csv: the mean return on every task, trained on and held out."""
    from minis5 import load
    from minis5.run.evaluate import evaluate

    config, summary = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "summary.json")
    )
    agent, rows = load(folder / "agent.npz"), []
    episodes = 1 if summary["steps"] < 100_000 else EPISODES[config["env"]]  # --quick
    for split, tasks in SPLITS[config["env"]].items():
        for tested in tasks:
            options = {**config["env_options"], "tasks": tested}
            found = evaluate(
                agent, config["env"], episodes, config["seed"], deterministic=False, **options
            )
            mean, std = round(found["mean_return"], 2), round(found["std_return"], 2)
            row = {"step": summary["steps"], "split": split, "tested": tested}
            rows.append(row | {"return": mean, "std": std})
    return rows


def collect(details):
    """Return (env, variant) → {tested: {step: returns of all seeds}}."""
    found = {}
    for env in SPLITS:
        for variant in VARIANTS:
            runs = [rows for key, rows in details.items() if key[:2] == (env, variant)]
            for rows in runs:
                for row in rows:
                    cell = found.setdefault((env, variant), {}).setdefault(row["tested"], {})
                    cell.setdefault(int(row["step"]), []).append(float(row["return"]))
            for cell in found.get((env, variant), {}).values():
                for step in [step for step, returns in cell.items() if len(returns) < len(runs)]:
                    del cell[step]
    return found


def table(results, details):
    """Return a Markdown table for each environment: mean return by task, at the last stage."""
    found, lines = collect(details), []
    for env, splits in SPLITS.items():
        agents = {variant: cells for (where, variant), cells in found.items() if where == env}
        if not agents:
            continue
        steps = {v: max(next(iter(cells.values()))) for v, cells in agents.items()}
        heads = [f"{VARIANTS[v][1]}, {steps[v] * REPEAT / 1e6:.3g}M frames" for v in agents]
        lines += [
            f"| {env} | task | {' | '.join(heads)} | paper, 2e9 frames: S5 / LSTM / MLP |",
            "|---" * (len(agents) + 3) + "|",
        ]
        for split, tasks in splits.items():
            for tested in tasks:
                cells = [
                    f"{np.mean(cells[tested][steps[v]]):.0f}" if tested in cells else ""
                    for v, cells in agents.items()
                ]
                name = NAMES.get(tested, tested).removeprefix(dmc.NAMESPACE)
                lines.append(f"| {split} | {tested} | {' | '.join(cells)} | {PAPER[name]} |")
            means = []
            for v, cells in agents.items():
                some = [np.mean(cells[t][steps[v]]) for t in tasks if t in cells]
                of = f" of {len(some)}" if len(some) < len(tasks) else ""
                means.append(f"**{np.mean(some):.0f}**{of}")
            lines.append(f"| {split} | **mean** | {' | '.join(means)} | |")
        seeds = {VARIANTS[v][1]: sum(key[:2] == (env, v) for key in details) for v in agents}
        counts = "; ".join(f"{label}: {count}" for label, count in seeds.items())
        note = f"Seeds: {counts}. {EPISODES[env]} episodes of each task, sampled actions; "
        lines += ["", f"{note}returns are at most 1000.", ""]
    machines = "; ".join(sorted({group[0]["machine"] for group in results.values()}))
    return [*lines, f"Trained and tested on {machines}."]


def figure(path, results, details):
    """Draw mean return against frames, over the tasks trained on and over those held out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    del results
    found = collect(details)
    envs = [env for env in SPLITS if any(where == env for where, _ in found)]
    FigureCanvasAgg(drawing := Figure(figsize=(11, 4 * len(envs)), dpi=150, layout="constrained"))
    for env, panels in zip(envs, drawing.subplots(len(envs), 2, squeeze=False), strict=True):
        for axes, (split, tasks) in zip(panels, SPLITS[env].items(), strict=True):
            for variant, (_, label, colour) in VARIANTS.items():
                if (env, variant) in found:
                    cells = found[env, variant]
                    tested = [task for task in tasks if task in cells]
                    steps = sorted(cells[tested[0]])
                    # The mean over the tasks, for each step and seed.
                    means = [np.mean([cells[t][n] for t in tested], axis=0) for n in steps]
                    means = np.array(means)
                    frames = [n * REPEAT / 1e6 for n in steps]
                    look = {"color": colour, "markersize": 3, "label": label}
                    axes.plot(frames, means.mean(axis=1), "o-", **look)
                    low, high = means.min(axis=1), means.max(axis=1)
                    axes.fill_between(frames, low, high, color=colour, alpha=0.2)
            axes.set(title=f"{env}: tasks {'trained on' if split == 'train' else split}")
            axes.set(xlabel="million frames", ylabel="mean return over the tasks")
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
    drawing.savefig(path)


META_CONTROL = Sweep(
    "meta_control",
    __doc__.splitlines()[0],
    tuple(SPLITS),
    VARIANTS,
    table,
    {},
    options={"Mixture": (*TASKS, *PROJECTED, *SHARED, *NORMALISED), "dmc/mixture": SHARED},
    stages=STAGES,
    one_core=True,
    default=DEFAULT,
    details=(("step", "split", "tested", "return", "std"), by_task),
    figure=figure,
)

if __name__ == "__main__":
    main(META_CONTROL)
