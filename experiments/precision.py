"""What tensor cores would do to gradients and to learning: products of rounded float32 matrices.

    python experiments/precision.py             all of it: minutes, on one core
    python experiments/precision.py --report    the table and the picture alone

On a GPU, `--precision tf32` and `bf16` round what is multiplied to 10 and 7 bits of mantissa, and
add up in float32. Here NumPy does the same: it rounds both matrices of each product, to nearest
even, and multiplies them in float32. All else is float32, as there.

gradient: of PPO's loss over one rollout of the untrained agent, against the same in float64:
|g - g64| / |g64|. learning: the return of RepeatPreviousEasy with the laptop preset, on seeds that
no hyper-parameter was chosen on.

Leaves out: the order in which tensor cores add. Tests: tests/test_precision.py.
"""

import argparse
import csv
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sweep import ROOT, readmes, replace_block

from minis5 import PPO, ActorCritic, files, make_vec, ops
from minis5.rl.gae import gae
from minis5.run import presets
from minis5.run.bench import commit
from minis5.run.evaluate import evaluate
from minis5.run.machine import machine, versions

BITS = {"float32": 23, "tf32": 10, "bf16": 7}  # of mantissa
ENV, HARD = "RepeatPreviousEasy", "RepeatPreviousHard"
SMALL = {"num_envs": 8, "minibatches": 1, "unroll": 256}  # of the rollout for the gradient
SEEDS = (40, 41, 42)
COLUMNS = ("part", "what", "precision", "seed", "value", "commit", "machine", "versions", "command")


def rounded(x, bits):
    """Return float32 ``x`` with ``bits`` bits of mantissa, rounded to nearest, ties to even."""
    if bits == BITS["float32"]:
        return x
    drop = BITS["float32"] - bits
    words = np.ascontiguousarray(x).view(np.uint32)
    last = (words >> np.uint32(drop)) & np.uint32(1)
    words = (words + np.uint32((1 << (drop - 1)) - 1) + last) & np.uint32(0x100000000 - (1 << drop))
    return words.view(np.float32)


@contextmanager
def products(precision):
    """Multiply matrices of float32 in this precision within."""
    exact, bits = ops.matmul.cpu_form, BITS[precision]

    def multiply(a, b):
        if a.dtype == np.float32:
            a, b = rounded(a, bits), rounded(b, bits)
        return exact(a, b)

    ops.matmul.cpu_form = multiply
    try:
        yield
    finally:
        ops.matmul.cpu_form = exact


def trainer(env_id, preset, seed, **overrides):
    """Return PPO with a preset's agent in its environments."""
    agent_config, config, steps = presets.resolve(env_id, preset, "s5", overrides)
    envs = make_vec(env_id, config.num_envs, seed)
    spaces = envs.single_observation_space, envs.single_action_space
    return PPO(ActorCritic(*spaces, agent_config, seed), envs, config, seed=seed), steps


def gradient(ppo, rollout, advantages, dtype):
    """Return the gradient of the loss over a rollout, computed in ``dtype``."""
    floats = {name: z for name, z in rollout._asdict().items() if z is not None}
    floats = {n: z.astype(dtype) if z.dtype.kind == "f" else z for n, z in floats.items()}
    rollout, group = rollout._replace(**floats), np.arange(ppo.envs.num_envs)
    returns = (advantages + rollout.values).astype(dtype)
    normalised = ((advantages - advantages.mean()) / advantages.std()).astype(dtype)
    batch = ppo.batch(rollout, normalised, returns, group)
    return ppo.gradient(rollout, group, batch, None)[0]


def gradients(preset, seed=0, sizes=SMALL):
    """Return {precision: relative error of the gradient against float64}."""
    ppo, _ = trainer(HARD, preset, seed, **sizes)
    exact, _ = trainer(HARD, preset, seed, dtype="float64", **sizes)
    exact.agent.parameter_vector[:] = ppo.agent.parameter_vector
    rollout, _ = ppo.collector.collect(ppo.config.unroll, np.random.default_rng(seed))
    ends, c = (rollout.terminated, rollout.done), ppo.config
    values = rollout.values, rollout.next_values
    advantages = gae(rollout.rewards, *values, *ends, c.gamma, c.gae_lambda)
    wanted, errors = gradient(exact, rollout, advantages, np.float64), {}
    for precision in BITS:
        with products(precision):
            got = gradient(ppo, rollout, advantages, np.float32)
        errors[precision] = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    return errors


def learn(precision, seed, steps=None):
    """Train with a precision; return the mean return of the evaluation, which is in float32."""
    ppo, preset_steps = trainer(ENV, "laptop", seed, anneal_lr=True)
    with products(precision):
        ppo.learn(steps or preset_steps)
    return evaluate(ppo.agent, ENV, 100, seed)["mean_return"]


def measure():
    """Yield (part, what, precision, seed, value) of all that is measured."""
    for preset, network in (("laptop", "2 layers of 64"), ("paper", "4 layers of 256")):
        for seed in SEEDS:
            for precision, error in gradients(preset, seed).items():
                yield "gradient", network, precision, seed, error
    for seed in SEEDS:
        for precision in BITS:
            yield "learning", ENV, precision, seed, learn(precision, seed)


def table(rows):
    """Return the results as a Markdown table."""
    lines = ["| | " + " | ".join(BITS) + " |", "|---" * (len(BITS) + 1) + "|"]
    for part, what in dict.fromkeys((row["part"], row["what"]) for row in rows):
        values = {
            p: [
                float(r["value"])
                for r in rows
                if (r["part"], r["what"], r["precision"]) == (part, what, p)
            ]
            for p in BITS
        }
        if part == "gradient":
            cells = [f"{np.mean(v):.1e} ({max(v):.1e})" for v in values.values()]
            name = f"gradient's error, {what}, {len(values['bf16'])} seeds: mean (worst)"
        else:
            name = f"return of {what}, {len(values['bf16'])} seeds: mean (worst)"
            cells = [f"{np.mean(v):.3f} ({min(v):.3f})" for v in values.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def draw(rows, path):
    """Draw the gradients' errors and the returns of the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(8, 3.2), dpi=150, layout="constrained"))
    left, right = figure.subplots(1, 2)
    for what in dict.fromkeys(row["what"] for row in rows if row["part"] == "gradient"):
        points = [(r["precision"], float(r["value"])) for r in rows if r["what"] == what]
        left.semilogy(*zip(*points, strict=True), "o", label=what)
    left.set(title="error of PPO's gradient", ylabel="|g − g64| / |g64|")
    left.legend()
    found = [(r["precision"], float(r["value"])) for r in rows if r["part"] == "learning"]
    right.plot(*zip(*found, strict=True), "o")
    right.set(title=f"return of {ENV}", ylabel="mean return", ylim=(0.9, 1.005))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path)


def report(out, pages):
    """Make the picture and the table from results.csv."""
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    draw(rows, out / "precision.png")
    lines = [
        *table(rows),
        "",
        f"Rounded on the CPU, {rows[0]['machine']}; commit {rows[0]['commit']}.",
    ]
    print(*lines, sep="\n")
    replace_block(pages, "precision", lines)


def main(argv=None):
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default experiments/precision")
    options = parser.parse_args(argv)
    out = options.out or ROOT / "experiments" / "precision"
    out.mkdir(parents=True, exist_ok=True)
    if not options.report:
        found, lines = machine("cpu"), [",".join(COLUMNS)]
        where = f"{found['processor']}, {found['cpus']} CPUs"
        made_with = " ".join(f"{name} {version}" for name, version in versions("cpu").items())
        for part, what, precision, seed, value in measure():
            print(part, what, precision, seed, f"{value:.4g}", flush=True)
            row = (part, what, precision, seed, f"{value:.6g}", commit() or "unknown")
            row += (f'"{where}"', made_with, "python experiments/precision.py")
            lines.append(",".join(map(str, row)))
        files.write_text(out / "results.csv", "\n".join(lines) + "\n")
    report(out, readmes(options.out))


if __name__ == "__main__":
    main()
