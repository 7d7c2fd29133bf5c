"""`minis5 bench`: what the library costs on this machine.

    scan      the scan, forward and backward, against a copy of the same bytes
    update    a PPO update with the paper's network, against its matrix products; one thread each
    train     environment steps a second with learning, paper's and small network, on all CPUs
    start     from the command `minis5 train` to the first update, without and with Numba's cache
    profile   where a minibatch's and a rollout step's time goes, function by function (profile.py)

The first four check that their result is right, then warm up, then take the median and the spread
of repeated runs. Ratios are taken round by round, so that other programs slow both sides.

Leaves out: other people's libraries. Tests: tests/run/test_bench.py.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from minis5 import reference
from minis5.envs.registry import make_vec
from minis5.files import write_json
from minis5.nn.scan import from_planar, planar, scan_backward, scan_forward
from minis5.rl import comm, mpi
from minis5.rl.agent import ActorCritic
from minis5.rl.loss import Batch, ppo_loss
from minis5.rl.ppo import PPO
from minis5.run import presets
from minis5.run.machine import machine, versions
from minis5.run.parser import Parser
from minis5.run.profile import profile
from minis5.run.progress import read_progress
from minis5.run.split import choose_workers

ROOT = Path(__file__).resolve().parents[2]
ENV = "RepeatPreviousEasy"
PAPER = {"unroll": 128, "epochs": 2}
SMALL = {
    "encoder": (64, 64),
    "heads": (64, 64),
    "n_layers": 2,
    "ssm_size": 64,
    "unroll": 128,
    "epochs": 4,
}
TINY = {
    "encoder": (8,),
    "heads": (8,),
    "n_layers": 1,
    "ssm_size": 8,
    "num_envs": 16,
    "unroll": 16,
    "epochs": 1,
}


def trainer(changes, ranks=None):
    """Make a PPO on this process's share of the environments.

    Its settings are the paper's but for ``changes``. Returns it and a text about its size.
    """
    shape, config, _ = presets.resolve(ENV, "paper", "s5", changes)
    ranks = ranks or comm.Comm()
    share = config.num_envs // ranks.size
    envs = make_vec(ENV, share, first_index=ranks.rank * share)
    agent = ActorCritic(envs.single_observation_space, envs.single_action_space, shape)
    network = f"{shape.core_config.n_layers} x {shape.encoder[-1]}"
    batch = f"{config.num_envs} x {config.unroll} steps, epochs {config.epochs}"
    return PPO(agent, envs, config, comm=ranks), f"{network}, {batch}"


def timed(functions, repeats):
    """Run all functions in turn, ``repeats`` times; return name → milliseconds of each run."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def row(what, values, unit, aim, against=None, baseline=None):
    """Return a line of the table: median and spread (10th to 90th percentile) of ``values``.

    With a ``baseline`` (values of the work named ``against``) the aim bounds the median of the
    ratios from above. Otherwise it bounds the value, from below if the unit is steps/s. None: there
    is no aim.
    """
    low, middle, high = (float(f"{value:.4g}") for value in np.percentile(values, [10, 50, 90]))
    line = {"what": what, "value": middle, "unit": unit, "spread": [low, high]}
    if baseline is not None:
        base, ratio = np.median(baseline), np.median(np.divide(values, baseline))
        line |= {
            "against": against,
            "against_value": float(f"{base:.4g}"),
            "ratio": float(f"{ratio:.4g}"),
        }
    got = line.get("ratio", line["value"])
    met = None if aim is None else bool(got >= aim if unit == "steps/s" else got <= aim)
    return line | {"aim": aim, "met": met}


def bench_scan(repeats, quick):
    """Time the scan of complex64 with 2% resets; the copy moves the bytes of the states once."""
    T, B, P = (64, 8, 16) if quick else (1024, 64, 128)
    rng = np.random.default_rng(0)
    b, dx = rng.standard_normal((2, T, B, 2 * P), np.float32)
    a = planar(np.exp(rng.uniform(-0.1, 0, P) + 1j * rng.uniform(0, 3, P)).astype(np.complex64))[
        None, None
    ]
    reset, x0 = rng.random((T, B)) < 0.02, np.zeros((B, 2 * P), np.float32)
    x, copy = scan_forward(a, b, reset, x0), np.empty_like(b)
    _, g, _ = scan_backward(a, reset, x0, x, dx)
    # the first column, checked against the loop
    one = [from_planar(z[:, :1, [0, P]]) for z in (b, x, dx, g)]
    exact = reference.scan(from_planar(a)[0, 0, :1], one[0], reset[:, :1])
    exact_g = reference.scan_vjp(
        from_planar(a)[0, 0, :1], one[0], reset[:, :1], None, exact, one[2]
    )[1]
    assert np.abs(one[1] - exact).max() < 1e-4 * np.abs(exact).max(), "scan: wrong states"
    assert np.abs(one[3] - exact_g).max() < 1e-4 * np.abs(exact_g).max(), "scan: wrong gradients"
    dx[:] = 0  # the backward scan works in place: other gradients would grow from run to run
    work = {
        "forward": lambda: scan_forward(a, b, reset, x0, out=copy),
        "backward": lambda: scan_backward(a, reset, x0, x, dx, out=dx),
        "copy": lambda: np.copyto(copy, b),
    }
    ms = timed(work, repeats)
    size, aim = f"T={T} B={B} P={P} complex64", None if quick else 2.0
    return [
        row(f"scan {way}, {size}", ms[way], "ms", aim, "copy of the bytes", ms["copy"])
        for way in ("forward", "backward")
    ]


def products(agent, rows, times):
    """Return a function that does the matrix products of an agent's learning, and nothing else.

    They are those of ``times`` forward and backward passes over ``rows`` inputs.
    """
    config, core = agent.config, agent.config.core_config
    H, P2 = config.encoder[-1], core.ssm_size * (1 if core.conj_sym else 2)
    heads = [(H, *config.heads, n) for n in (agent.distribution.encoded_size, 1)]
    widths = (agent.input_size, *config.encoder)
    layers = [pair for chain in (widths, *heads) for pair in zip(chain, chain[1:], strict=False)]
    layers += [(H, P2), (P2, H), (H, 2 * H)] * core.n_layers
    rng = np.random.default_rng(0)
    inputs = {n: rng.standard_normal((rows, n), np.float32) for pair in layers for n in pair}
    weights = {pair: rng.standard_normal(pair, np.float32) for pair in layers}

    def run():
        for i, (n, m) in enumerate(layers * times):
            inputs[n] @ weights[n, m]
            inputs[n].T @ inputs[m]
            if i % len(layers):  # nothing needs the gradient of the observation
                inputs[m] @ weights[n, m].T

    return run


def check_gradient(agent, rollout, config):
    """Assert that the PPO loss's gradient agrees with the reference loss's slope along it."""
    x, reset, initial_state = (
        rollout.x[:6, :2],
        rollout.reset[:6, :2],
        np.ascontiguousarray(rollout.initial_state[:, :2]),
    )
    fields = {
        name: getattr(rollout, name)[:6, :2] for name in ("actions", "log_probs", "values", "valid")
    }
    batch = Batch(
        advantages=rollout.rewards[:6, :2] - 0.1, returns=fields["values"] + 0.3, **fields
    )
    dist_params, value, _, cache = agent.forward(x, reset, initial_state)
    _, _, d_dist, d_value = ppo_loss(agent.distribution, dist_params, value, batch, config)
    gradient = agent.gradient_vector(agent.backward(d_dist, d_value, cache)[0]).astype(np.float64)
    norm, theta, h = np.linalg.norm(gradient), agent.parameter_vector.astype(np.float64), 1e-5
    options = {
        name: getattr(config, name) for name in ("clip", "value_coef", "entropy_coef", "clip_value")
    }

    def loss(flat):
        params, v, _ = reference.agent(
            agent.views(flat), agent.config, x.astype(np.float64), reset, initial_state
        )
        return reference.ppo_loss(reference.categorical, params, v, batch, **options)

    slope = (loss(theta + h * gradient / norm) - loss(theta - h * gradient / norm)) / (2 * h)
    assert abs(slope - norm) < 1e-3 * norm, (
        f"update: the gradient's norm is {norm}, the slope along it {slope}"
    )


def bench_update(repeats, quick):
    """Time one pass over the paper's environments, unroll 128.

    BLAS has one thread, as in each of several processes.
    """
    ppo, size = trainer({**(TINY if quick else PAPER), "epochs": 1})
    config, agent = ppo.config, ppo.agent
    rollout, _ = ppo.collector.collect(config.unroll, np.random.default_rng(0))
    check_gradient(agent, rollout, config)
    multiply = products(
        agent, config.unroll * config.num_envs // config.minibatches, config.minibatches
    )
    work = {"update": lambda: ppo.update(rollout, 0.0), "products": multiply}
    with comm.one_thread():
        ms = timed(work, max(3, repeats // 3))
    aim = None if quick else 1.4
    return [
        row(f"PPO update, {size}", ms["update"], "ms", aim, "its matrix products", ms["products"])
    ]


def train_rank(ranks, changes, iterations):
    """Do one process's part of a training; return each iteration's steps/s, and the size."""
    ppo, size = trainer(changes, ranks)
    rows = [ppo.iteration() for _ in range(iterations)]
    assert np.isfinite([r["loss"] for r in rows]).all(), "train: the loss is not finite"
    weights = ranks.gather(ppo.agent.parameter_vector)
    assert ranks.rank or all(np.array_equal(weights[0], w) for w in weights), (
        "train: the processes' weights differ"
    )
    return [r["steps_per_second"] for r in rows], size


def bench_train(repeats, quick):
    """Time whole iterations, in as many processes as `minis5 train` takes.

    The first two iterations are the warm-up.
    """
    rows = []
    for changes, aim in ((TINY, None),) if quick else ((PAPER, 5000), (SMALL, 40000)):
        _, config, _ = presets.resolve(ENV, "paper", "s5", changes)
        workers = choose_workers(None, config)
        speeds, size = mpi.run(train_rank, workers, (changes, 2 + repeats))
        rows.append(row(f"train, {size}", speeds[2:], "steps/s", aim))
    return rows


def first_row(cache):
    """Return the seconds from the command `minis5 train` to the first row of progress.csv.

    ``cache`` is the folder of Numba's cache; None takes the usual one.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)} | (
            {"NUMBA_CACHE_DIR": cache} if cache else {}
        )
        command = f"-m minis5 train {ENV} --steps 1 --eval-episodes 1 --quiet --out run".split()
        start = time.time()
        subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rows = read_progress(progress := Path(folder, "run", "progress.csv"))
        assert len(rows) == 1 and np.isfinite(rows[0]["loss"]), (
            f"start: expected one finite row, got {rows}"
        )
        return progress.stat().st_mtime - start  # nothing is written there after the only row


def bench_start(repeats, quick):
    """Time the start of `minis5 train`: once with an empty cache, then with the filled one."""
    if quick:
        return [row("first update, Numba's cache as it is", [first_row(None)], "s", None)]
    with tempfile.TemporaryDirectory() as cache:
        cold = [first_row(cache)]
        warm = [first_row(cache) for _ in range(max(3, repeats // 5))]
    return [
        row("first update, Numba's cache empty", cold, "s", 25),
        row("first update, cache filled", warm, "s", 5),
    ]


def bench_profile(repeats, quick):
    """Share out the time of a minibatch and of a rollout step among functions, on one thread.

    A minibatch has its part of what is done once for all of them, such as the advantages, and a
    step its part of what is done once for a rollout, such as the values.
    """
    lines = []
    for changes in (TINY,) if quick else (SMALL, PAPER):
        ppo, size = trainer({**changes, "epochs": 1})
        c, rng, network = ppo.config, np.random.default_rng(0), size.partition(",")[0]
        rollout, _ = ppo.collector.collect(c.unroll, rng)
        batch = f"{c.num_envs // c.minibatches} x {c.unroll} steps"
        learn, act = (
            partial(ppo.update, rollout, 0.0),
            partial(ppo.collector.collect, c.unroll, rng),
        )
        parts = (
            (f"minibatch, {network}, {batch}", learn, c.minibatches),
            (f"rollout step, {network}, {c.num_envs} x 1", act, c.unroll),
        )
        for what, work, count in parts:
            with comm.one_thread():
                rows = profile(work, repeats)
            for line in rows:
                numbers = {name: line[name] / count / 1e3 for name in MICROSECONDS}
                calls = line["calls"] / count
                lines.append({"what": what, **line, "calls": calls, "unit": "us", **numbers})
    return lines


PARTS = {"scan": bench_scan, "update": bench_update, "train": bench_train, "start": bench_start}
PARTS |= {"profile": bench_profile}
MICROSECONDS = ("products", "loops", "rest", "value")
TABLE = "{:<54}{:>15}{:>20}{:>30}{:>16}"
PROFILE = "{:<43}{:>6}{:>9}{:>7}{:>7}{:>8}"


def show_profile(line):
    """Return a row of a profile as a line of its table; the first one has the table's head too."""
    whole, (*parts, value) = line["function"] == "all", (line[name] for name in MICROSECONDS)
    numbers = (f"{number:,.0f}" for number in (line["calls"], *parts, value))
    text = PROFILE.format(line["function"][:43], *numbers)
    if not whole:
        return text
    head = PROFILE.format(line["what"] + ": µs", "calls", *MICROSECONDS[:-1], "all")
    shares = (f"{100 * part / value:.0f} %" for part in parts)
    return "\n".join(["", head, text, PROFILE.format("", "", *shares, "").rstrip()])


def show(line):
    """Return a row as a line of the table."""
    if "function" in line:
        return show_profile(line)
    sign = ">=" if line["unit"] == "steps/s" else "<="
    against = f"{line['ratio']:.2f} x {line['against']}" if "ratio" in line else ""
    aim = "" if line["aim"] is None else f"{sign} {line['aim']:,}{'' if line['met'] else ' missed'}"
    spread = " .. ".join(f"{value:,.5g}" for value in line["spread"])
    return TABLE.format(
        line["what"], f"{line['value']:,.5g} {line['unit']}", spread, against, aim
    ).rstrip()


def main(argv=None):
    """Run `minis5 bench` with the arguments ``argv``; return 0, even if an aim is missed."""
    parser = Parser(
        prog="minis5 bench", description="Measure the speed on this machine.", allow_abbrev=False
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)"
    )
    parser.add_argument(
        "--repeats", type=int, default=15, metavar="N", help="runs of each (default 15)"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="write the figures, with device and versions, to this file"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works: no figures to quote"
    )
    options = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if unknown := set(options.parts) - set(PARTS):
        raise ValueError(f"PART: expected {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    if options.repeats < 1:
        raise ValueError(f"--repeats: expected at least 1, got {options.repeats}")
    if options.json and not (folder := Path(options.json).resolve().parent).is_dir():
        raise ValueError(f"--json: there is no folder {folder}; make it first")
    facts = {"date": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "device": "cpu", "commit": commit()}
    facts |= {"versions": versions(), "machine": machine(), "quick": options.quick}
    print(
        *(f"{name} {facts['versions'][name]}," for name in ("minis5", "numpy", "numba")),
        f"commit {facts['commit'] or 'unknown, because this is no git checkout'}",
    )
    print("{processor}, {cpus} CPUs, {system}\n".format(**facts["machine"]))
    if set(options.parts or PARTS) - {"profile"}:
        print(TABLE.format("what", "median", "10 % .. 90 %", "ratio", "aim"), flush=True)
    rows = []
    for part in dict.fromkeys(options.parts or PARTS):
        for line in PARTS[part](options.repeats, options.quick):
            rows.append({"part": part, **line})
            print(show(line), flush=True)
    if options.json:
        write_json(options.json, {**facts, "rows": rows})
    return 0


def commit():
    """Return the source tree's commit, with "-dirty" if files differ from it; None without git."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
