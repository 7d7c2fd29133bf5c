"""Measure how training scales over ranks of MPI, fit a model, and predict larger clusters.

    python experiments/cluster.py              every layout that is missing, then the report
    python experiments/cluster.py --layouts 2  one of them
    python experiments/cluster.py --report     the table and the picture anew

A layout is a number of ranks on this machine, or on two hosts made of network namespaces, whose
link `tc` slows. Such hosts need root, iproute2 and MPICH, and are left out with a sentence
elsewhere. They are gone as soon as this script's pipe to them closes, however the script ends.

A layout is one job. Its ranks make training iterations of three kinds, in turns, so that other
programs slow all kinds alike: each rank alone, without sums; weak scaling, with 64 environments for
each rank; strong scaling, with 64 environments in all. Efficiency is steps/s together over steps/s
of as many independent runs on the same cores at the same time, round by round. Sums are also timed
by themselves.

The model: an iteration is compute, a + b · environments of a rank, and its sums; a sum is latency ·
rounds + bytes over a rank's link / bandwidth (see `rounds` and `traffic`). It knows no stragglers,
no switches that are shared, and no cost of a message beside its latency.

Writes results.csv and cluster.png to experiments/cluster, and the tables to the READMEs (sweep.py).
Leaves out: GPUs; what a real network does. Tests: tests/test_cluster.py.
"""

import argparse
import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls
from sweep import ROOT, readmes, replace_block

from minis5 import files
from minis5.rl import comm, mpi
from minis5.run import bench
from minis5.run.machine import available_cpus, machine, versions

OUT = ROOT / "experiments" / "cluster"


class Layout(NamedTuple):
    """Where the ranks of a job are."""

    hosts: int
    ranks: int  # in all

    def __str__(self):
        on_each = str(self.ranks // self.hosts)
        return on_each if self.hosts == 1 else " + ".join([on_each] * self.hosts)


LAYOUTS = {str(z): z for z in (Layout(1, 1), Layout(1, 2), Layout(1, 4), Layout(2, 2))}
LAYOUTS |= {str(Layout(2, 4)): Layout(2, 4)}
ENVS, QUICK_ENVS = 64, 32  # of a run, or of a rank in weak scaling
PARTS = (1, 2, 4)  # a rank alone has ENVS, and these parts of it: for the model
FLOATS = (1, 5_500, 55_000, 550_000)  # of the sums that are timed; a gradient has 55,109
ROUNDS, QUICK_ROUNDS = 20, 2  # after one to warm up
REPEATS = 3  # of every sum in a round
ADDRESS, DEVICE = "10.77.0.{}", "minis5"
DELAY = 0.2e-3  # seconds: the latency that the link should have


class Link(NamedTuple):
    """How tc slows a link."""

    tc: str
    name: str  # in the tables
    lacks: float  # seconds of latency
    free: int  # bytes that pass at once after a pause


LINKS = (  # the first that the kernel has
    Link("netem rate 1gbit delay 200us", "1 Gbit/s, 0.2 ms", 0.0, 0),
    Link("tbf rate 1gbit burst 32kb latency 50ms", "1 Gbit/s", DELAY, 1 << 15),
)
NO_LINK = Link("", "", DELAY, 0)
PICTURE = "![Efficiency of training over ranks, and the time of a sum](cluster/cluster.png)"
PREDICTED = (8, 16, 64, 256, 1024)  # ranks
LARGE = 8192  # environments of the large run in the predictions
KEY = ("layout", "what")
COLUMNS = (*KEY, "environments", "milliseconds", "low", "high", "repeats", "steps_per_second")
COLUMNS += ("efficiency", "efficiency_low", "efficiency_high", "sum_milliseconds", "sums")
COLUMNS += ("sum_bytes", "link_bytes", "link", "machine", "cpus", "versions", "commit")


# --- what a job's ranks do ------------------------------------------------------------------------


class Timed(comm.Comm):
    """A communicator that notes the seconds and the bytes of its sums."""

    def __init__(self, ranks):
        self.ranks, self.rank, self.size, self.sums = ranks, ranks.rank, ranks.size, []

    def allreduce(self, vector):
        start = time.perf_counter()
        total = self.ranks.allreduce(vector)
        self.sums.append((time.perf_counter() - start, vector.nbytes))
        return total


def sent():
    """Return how many bytes this process's host has sent over the link; NaN without one."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.strip().partition(":")
        if name == DEVICE:
            return int(numbers.split()[8])
    return math.nan


def measure(ranks, quick):
    """Return the times of all rounds, on rank 0: what → a list of dicts, one for each round."""
    envs, shape = (QUICK_ENVS, bench.TINY) if quick else (ENVS, bench.SMALL)
    shape = {**shape, "minibatches": 8}

    def trainer(number, ranks):
        return bench.trainer({**shape, "num_envs": number}, ranks)[0]

    trainers = {f"alone {envs // part}": trainer(envs // part, comm.Comm()) for part in PARTS}
    trainers |= {"weak": trainer(envs * ranks.size, Timed(ranks))}
    trainers |= {"strong": trainer(envs, Timed(ranks))}
    found = {what: [] for what in trainers}
    for _ in range(1 + (QUICK_ROUNDS if quick else ROUNDS)):
        for what, ppo in trainers.items():
            found[what].append(iteration(ranks, ppo))
        for size in FLOATS if ranks.size > 1 else ():
            found.setdefault(f"sum {4 * size}", []).append(a_sum(ranks, size))
    every = ranks.gather({what: rows[1:] for what, rows in found.items()})  # the first warms up
    return every and {what: [rows[what] for rows in every] for what in found}


def iteration(ranks, ppo):
    """Make an iteration that all ranks begin together; return its cost on this rank."""
    sums = getattr(ppo.comm, "sums", [])
    sums.clear()
    ranks.allreduce(np.zeros(1))
    before, start = sent(), time.perf_counter()
    ppo.iteration()
    seconds, bytes_sent = time.perf_counter() - start, sent() - before
    steps = ppo.config.num_envs * ppo.config.unroll
    row = {"seconds": seconds, "steps": steps, "link_bytes": bytes_sent, "sums": len(sums)}
    row |= {"environments": ppo.envs.num_envs, "sum_seconds": sum(s for s, _ in sums)}
    return row | {"sum_bytes": sum(size for _, size in sums)}


def a_sum(ranks, size):
    """Return what a sum of so many floats costs on this rank: the median of REPEATS."""
    vector, times, before = np.ones(size, np.float32), [], math.nan
    for _ in range(REPEATS):
        ranks.allreduce(np.zeros(1))
        before, start = sent(), time.perf_counter()
        ranks.allreduce(vector)
        times.append(time.perf_counter() - start)
    ranks.allreduce(np.zeros(1))  # the others have what was sent to them
    row = {"seconds": float(np.median(times)), "link_bytes": sent() - before, "sums": 1}
    return row | {"sum_bytes": vector.nbytes}


def rank_main(path, quick):
    """Be a rank of a job; rank 0 writes what they found to a file."""

    def lead():
        found = mpi.run(measure, mpi.size(), (quick,))
        files.write_text(Path(path), json.dumps(found))

    return mpi.lead(lead)


# --- rows of results.csv --------------------------------------------------------------------------


def rows_of(layout, found, facts):
    """Return rows of results.csv from what a job's ranks found."""
    means = {}  # what → name → (rounds,), over the ranks
    for what, ranks in found.items():
        names = ranks[0][0]
        by_name = {n: np.array([[r[n] for r in rank] for rank in ranks], float) for n in names}
        over = np.max if what.startswith("sum") else np.mean  # a sum is there when all have it
        means[what] = {name: over(values, 0) for name, values in by_name.items()}
    (alone, *_) = means
    speed = means[alone]["steps"] / means[alone]["seconds"]  # of one of the independent runs
    return [row_of(layout, what, mean, speed) | facts for what, mean in means.items()]


def row_of(layout, what, mean, speed):
    low, middle, high = np.percentile(1e3 * mean["seconds"], [10, 50, 90])
    row = {"layout": str(layout), "what": what, "repeats": len(mean["seconds"])}
    row |= {"milliseconds": f"{middle:.5g}", "low": f"{low:.5g}", "high": f"{high:.5g}"}
    if "steps" in mean:
        rate = mean["steps"] / mean["seconds"]
        row |= {"environments": int(mean["environments"][0])}
        row |= {"steps_per_second": f"{np.median(rate):.0f}"}
    if what in ("weak", "strong"):
        ratios = np.percentile(rate / (layout.ranks * speed), [10, 50, 90])
        names = ("efficiency_low", "efficiency", "efficiency_high")
        row |= {name: f"{value:.3f}" for name, value in zip(names, ratios, strict=True)}
        row |= {"sum_milliseconds": f"{1e3 * np.median(mean['sum_seconds']):.4g}"}
    if "alone" not in what:
        row |= {"sums": int(mean["sums"][0]), "sum_bytes": int(mean["sum_bytes"][0])}
        across = np.median(mean["link_bytes"])
        row |= {} if np.isnan(across) else {"link_bytes": int(across)}
    return row


# --- hosts ----------------------------------------------------------------------------------------


class NoHosts(Exception):
    """Two hosts cannot be made here."""


def mpiexec():
    """Return the path of mpiexec: this Python's (of the wheel mpich), or the machine's."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def inside(pid):
    """Return the start of a command line that runs in the host of process ``pid``."""
    return ["nsenter", f"--target={pid}", "--net", "--uts", "--mount"]


@contextmanager
def hosts(folder, each):
    """Make two hosts and a slow link; give mpiexec for ``each`` ranks on each, and the link's name.

    A host is the namespaces of a process that waits for the end of its standard input. The system
    takes them away with the last process in them, and the link with them.

    Raises
    ------
    NoHosts
        It takes root, iproute2, util-linux and MPICH.
    """
    if os.geteuid() != 0:
        raise NoHosts("network namespaces need root")
    if missing := [z for z in ("ip", "tc", "unshare", "nsenter") if shutil.which(z) is None]:
        raise NoHosts(f"{', '.join(missing)} not found")
    about = subprocess.run([mpiexec(), "--version"], capture_output=True, text=True).stdout
    if "HYDRA" not in about:
        raise NoHosts("only MPICH's mpiexec (Hydra) starts ranks in namespaces")
    with ExitStack() as stack:
        pids = [stack.enter_context(host(number)) for number in (1, 2)]
        first, second = (f"{DEVICE} netns {pid}" for pid in pids)
        succeed(f"ip link add {first} type veth peer name {second}".split())
        for number, pid in enumerate(pids, 1):
            address = f"{ADDRESS.format(number)}/24"
            succeed([*inside(pid), *f"ip addr add {address} dev {DEVICE}".split()])
            succeed([*inside(pid), *f"ip link set {DEVICE} up".split()])
            name = slowed(pid)
        for pid in pids:
            until_up(pid)
        launcher = folder / "launcher"
        launcher.write_text(LAUNCHER.format(*map(ADDRESS.format, (1, 2)), *pids))
        launcher.chmod(0o755)
        # UCX would find that the hosts share memory
        ucx = "env", "UCX_TLS=tcp,self", f"UCX_NET_DEVICES={DEVICE}"
        start = [*inside(pids[0]), *ucx, mpiexec(), "-launcher", "ssh"]
        start += ["-launcher-exec", str(launcher), "-localhost", ADDRESS.format(1), "-hosts"]
        yield [*start, ",".join(f"{ADDRESS.format(n)}:{each}" for n in (1, 2))], name


# Hydra calls it as it calls ssh: [-x] HOST WORDS..., which a shell on the host takes apart again.
LAUNCHER = """#!/bin/sh
[ "$1" = -x ] && shift
case $1 in {0}) pid={2};; {1}) pid={3};; esac
shift
exec nsenter --target=$pid --net --uts --mount sh -c "$*"
"""


@contextmanager
def host(number):
    """Give the number of a process in namespaces of its own: network, host name, mounts (/sys)."""
    text = f"mount -t sysfs none /sys && hostname host{number} && ip link set lo up && echo ready"
    command = ["unshare", "--net", "--uts", "--mount", "sh", "-c", f"{text} && exec cat"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    # its own session: Ctrl-C is not for it
    process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
    try:
        if process.stdout.readline() != "ready\n":
            raise NoHosts("the system refuses namespaces, see above")
        yield process.pid
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def succeed(command):
    """Run a command that makes a host; return what it prints.

    Raises
    ------
    NoHosts
        It failed.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoHosts(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def until_up(pid):
    """Wait until a host's end of the link is up: UCX looks once."""
    deadline = time.monotonic() + 10
    while succeed([*inside(pid), "cat", f"/sys/class/net/{DEVICE}/operstate"]) != "up\n":
        if time.monotonic() > deadline:
            raise NoHosts("the link between the hosts does not come up")
        time.sleep(0.01)


def slowed(pid):
    """Slow what a host sends; return what the link is like, in words."""
    # packets smaller than the burst: tc would have to cut them
    succeed([*inside(pid), *f"ip link set {DEVICE} gso_max_size 16384".split()])
    for link in LINKS:
        try:
            succeed([*inside(pid), *f"tc qdisc add dev {DEVICE} root {link.tc}".split()])
        except NoHosts as error:
            refused = error
        else:
            return link.name
    raise refused


def job(layout, quick):
    """Run the job of a layout; return its rows."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        out = Path(folder) / "found.json"
        command, link = [mpiexec()], ""
        if layout.hosts > 1:
            command, link = stack.enter_context(hosts(Path(folder), layout.ranks // 2))
        command += ["-n", str(layout.ranks), sys.executable, str(Path(__file__).resolve())]
        command += ["--rank", str(out), *(["--quick"] if quick else [])]
        paths = [str(ROOT), str(ROOT / "cuda"), os.environ.get("PYTHONPATH")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment)
        if done.returncode:
            sys.exit(f"cluster: layout {layout} failed with exit code {done.returncode}")
        found = json.loads(out.read_text(encoding="utf-8"))
    facts, numbers = machine(), versions().items()
    more = {"link": link, "machine": facts["processor"], "cpus": available_cpus()}
    more |= {"versions": ", ".join(f"{name} {version}" for name, version in numbers)}
    return rows_of(layout, found, more | {"commit": bench.commit()})


# --- the model ------------------------------------------------------------------------------------


def rounds(ranks, size):
    """Return how often a sum of ``size`` bytes waits for a message.

    MPICH's allgather takes log2(ranks) rounds. Slices (minis5/rl/mpi.py) go to all ranks before it,
    32 messages at a time (MPIR_CVAR_ALLTOALL_THROTTLE).
    """
    gather = math.ceil(math.log2(ranks))
    return gather + (math.ceil((ranks - 1) / 32) if sliced(ranks, size) else 0)


def traffic(ranks, size):
    """Return the bytes that a rank receives for a sum of ``size`` bytes."""
    return (2 * (ranks - 1) / ranks if sliced(ranks, size) else ranks - 1) * size


def sliced(ranks, size):
    """Return whether each rank adds one slice of a vector."""
    return ranks > 2 and (ranks - 1) * size >= mpi.SLICED


def fit(terms, seconds):
    """Return numbers >= 0 whose products with ``terms`` (n, k) are nearest to ``seconds`` (n,).

    Errors count relatively.
    """
    seconds = np.array(seconds, float)
    return nnls(np.array(terms, float) / seconds[:, None], np.ones(len(seconds)))[0]


class Model(NamedTuple):
    """Seconds of an iteration."""

    fixed: float  # of an iteration without environments
    each: float  # of each environment of a rank
    latency: float
    per_byte: float
    link: Link
    sums: int  # of an iteration
    sum_bytes: int  # of all of them: nearly all are gradients, so they are taken to be equal

    def compute(self, environments):
        return self.fixed + self.each * environments

    def sum(self, ranks, size):
        paid = max(0, traffic(ranks, size) - self.link.free)
        return self.latency * rounds(ranks, size) + self.per_byte * paid

    def iteration(self, ranks, environments):
        together = self.sum(ranks, self.sum_bytes / self.sums) if ranks > 1 else 0
        return self.compute(environments) + self.sums * together


def model_of(rows, layout):
    """Return the model fitted to a layout of two ranks on two cores; None without its rows.

    Of the sums it takes the 10th percentile, which other programs disturb least.
    """
    some = {what: row for (name, what), row in rows.items() if name == str(layout)}
    alone = [row for what, row in some.items() if what.startswith("alone")]
    sums = [(int(row["sum_bytes"]), row) for what, row in some.items() if what.startswith("sum")]
    if len(alone) < 2 or len(sums) < 2:
        return None
    fixed, each = fit([(1, int(row["environments"])) for row in alone], seconds_of(alone))
    weak = some["weak"]
    link = next((link for link in LINKS if link.name == weak["link"]), NO_LINK)
    paid = [max(0, traffic(layout.ranks, n) - link.free) for n, _ in sums]
    terms = [(rounds(layout.ranks, n), n_paid) for (n, _), n_paid in zip(sums, paid, strict=True)]
    latency, per_byte = fit(terms, seconds_of([row for _, row in sums], "low"))
    return Model(fixed, each, latency, per_byte, link, int(weak["sums"]), int(weak["sum_bytes"]))


def seconds_of(rows, name="milliseconds"):
    return [float(row[name]) / 1e3 for row in rows]


def expected(rows, layout, what):
    """Return the model's seconds for a row that was measured; None without a model.

    Ranks that share a core take turns.
    """
    model = model_of(rows, Layout(layout.hosts, 2))
    row = rows[str(layout), what]
    if model is None:
        return None
    turns = max(1, layout.ranks / int(row["cpus"]))
    environments = int(row["environments"])
    return model.iteration(layout.ranks, environments) + (turns - 1) * model.compute(environments)


def predictions(model):
    """Return rows (ranks, weak, its efficiency, strong with LARGE, its efficiency), in seconds.

    Each rank has a link of its own like the one that was measured. If tc could not delay it, the
    delay is added here.
    """
    latency = model.latency + model.link.lacks
    model, found = model._replace(latency=latency, link=model.link._replace(free=0)), []
    for ranks in PREDICTED:
        weak, strong = model.iteration(ranks, ENVS), model.iteration(ranks, LARGE // ranks)
        good = model.compute(ENVS) / weak, model.compute(LARGE) / ranks / strong
        found.append((ranks, weak, good[0], strong, good[1]))
    return found


# --- report ---------------------------------------------------------------------------------------


def table(rows):
    """Return the tables: what was measured, sums, predictions."""
    names = {name: layout for name, layout in LAYOUTS.items() if (name, "weak") in rows}
    head = ("ranks", "scaling", "environments of a rank", "ms an iteration", "of it sums, ms")
    head += ("steps/s", "efficiency (10 % … 90 %)", "model, ms")
    lines = [f"| {' | '.join(head)} |", "|---" * 2 + "|---:" * 6 + "|"]
    for name, layout in names.items():
        for what in ("weak", "strong") if layout.ranks > 1 else ("weak",):  # the same for one
            row, model = rows[name, what], expected(rows, layout, what)
            good = f"{float(row['efficiency']):.2f} ({float(row['efficiency_low']):.2f} … "
            good += f"{float(row['efficiency_high']):.2f})"
            scaling = what if layout.ranks > 1 else "–"
            cells = [label(name, row), scaling, row["environments"], number(row["milliseconds"])]
            cells += [number(row["sum_milliseconds"]), f"{int(row['steps_per_second']):,}", good]
            cells += [number(1e3 * model) if model else "–"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    sizes = sorted({int(what[4:]) for _, what in rows if what.startswith("sum")})
    head = [f"a sum of {size:,} bytes, ms" for size in sizes]
    lines += ["", f"| ranks | {' | '.join(head)} | latency | bandwidth |"]
    lines += ["|---" + "|---:" * (len(head) + 2) + "|"]
    for name, layout in names.items():
        if layout.ranks == 1:
            continue
        cells, row = [], rows[name, "weak"]
        for size in sizes:
            one = rows[name, f"sum {size}"]
            share = f" ({int(one['link_bytes']) / size:.2f} × sent)" if one["link_bytes"] else ""
            cells.append(number(one["milliseconds"]) + (share if size > 1000 else ""))
        model = model_of(rows, layout) if layout.ranks == 2 else None
        cells += [f"{1e6 * model.latency:.0f} µs" if model else "–"]
        cells += [f"{1e-6 / model.per_byte:,.0f} MB/s" if model and model.per_byte else "–"]
        lines.append(f"| {label(name, row)} | {' | '.join(cells)} |")
    model = model_of(rows, Layout(2, 2))
    if model:
        head = ("**predicted**: ranks", f"weak, {ENVS} environments each: ms", "efficiency")
        head += (f"strong, {LARGE:,} environments: ms", "efficiency")
        lines += ["", f"| {' | '.join(head)} |", "|---" + "|---:" * 4 + "|"]
        for ranks, weak, good, strong, better in predictions(model):
            cells = f"{1e3 * weak:,.0f} | {good:.2f} | {1e3 * strong:,.0f} | {better:.2f}"
            lines.append(f"| {ranks:,} | {cells} |")
    one = next(iter(rows.values()))
    text = f"{one['machine']}, {one['cpus']} CPUs; {commits(rows)}. Seed 0 of the environments; "
    return [*lines, "", f"{text}medians of {one['repeats']} rounds."]


def commits(rows):
    return "commit " + ", ".join(dict.fromkeys(row["commit"] for row in rows.values()))


def label(name, row):
    """Return what the table calls a layout."""
    layout = LAYOUTS[name]
    where = f" on two hosts, {row['link']}" if layout.hosts > 1 else ""
    many = f"; {layout.ranks / int(row['cpus']):g} a core" * (layout.ranks > int(row["cpus"]))
    return f"{name}{where}{many}"


def number(value):
    return f"{float(value):,.3g}" if float(value) < 1000 else f"{float(value):,.0f}"


def draw(rows, path):
    """Draw efficiency against ranks, measured and predicted, and the time of a sum."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    FigureCanvasAgg(figure := Figure(figsize=(11, 4.8), dpi=150, layout="constrained"))
    left, right = figure.subplots(1, 2)
    colours = {"weak": "#0072b2", "strong": "#d55e00"}
    for hosts_, marker in ((1, "o"), (2, "s")):
        some = [(n, z) for n, z in LAYOUTS.items() if z.hosts == hosts_ and (n, "weak") in rows]
        for what, colour in colours.items():
            points = [(z.ranks, float(rows[n, what]["efficiency"])) for n, z in some]
            if points:
                text = f"{what}, {'one machine' if hosts_ == 1 else 'two hosts'}"
                left.plot(*zip(*points, strict=True), marker, color=colour, label=text)
    model = model_of(rows, Layout(2, 2))
    if model:
        found = predictions(model)
        for column, what in ((2, "weak"), (4, "strong")):
            points = [(row[0], row[column]) for row in found]
            text = f"{what}{f', {LARGE:,} environments' * (what == 'strong')}: predicted"
            left.plot(*zip(*points, strict=True), "--", color=colours[what], label=text)
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    left.set(xlabel="ranks", ylabel="efficiency", ylim=(0, 1.1))
    left.set_title("Training: measured, and predicted for a link of 1 Gbit/s")
    for name, layout in LAYOUTS.items():
        sums = [row for (n, what), row in rows.items() if n == name and what.startswith("sum")]
        if layout.ranks > 1 and sums:
            sizes, text = [int(row["sum_bytes"]) for row in sums], label(name, sums[0])
            right.loglog(sizes, 1e3 * np.array(seconds_of(sums)), "o-", markersize=4, label=text)
    right.set(xlabel="bytes of the vector", ylabel="ms", title="A sum over all ranks, measured")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    figure.savefig(path)


def read(path):
    """Return the rows of results.csv by key."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return {tuple(row[name] for name in KEY): row for row in csv.DictReader(text.splitlines())}


def write(path, rows):
    """Write results.csv, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows.values())
    files.write_text(path, text.getvalue())


def main(argv=None):
    """Measure and report, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, names = parser.add_argument, tuple(LAYOUTS)
    text = f"ranks on one machine, or on two hosts: {', '.join(map(repr, names))}"
    add("--layouts", nargs="+", choices=names, default=names, metavar="L", help=text)
    add("--quick", action="store_true", help="tiny, to see that all works; needs --out")
    text = "default experiments/cluster; with it, the repository's READMEs stay"
    add("--out", type=Path, metavar="FOLDER", help=text)
    add("--report", action="store_true", help="no measurements")
    add("--rank", metavar="FILE", help=argparse.SUPPRESS)  # in the processes that MPI starts
    options = parser.parse_args(argv)
    if options.rank:
        return rank_main(options.rank, options.quick)
    if options.quick and options.out is None:
        parser.error("--quick: give --out too; its figures are not for the results kept here")
    if mpiexec() is None and not options.report:
        sys.exit("cluster: mpiexec: expected MPI, got none; pip install 'minis5[mpi]' mpich")
    out = options.out or OUT
    out.mkdir(parents=True, exist_ok=True)
    rows = read(out / "results.csv")
    for name in [] if options.report else options.layouts:
        if (name, "weak") in rows:
            continue
        print(f"== {name} ranks", flush=True)
        try:
            found = job(LAYOUTS[name], options.quick)
        except NoHosts as error:
            print(f"{name}: left out: {error}", flush=True)
            continue
        rows |= {(row["layout"], row["what"]): row for row in found}
        write(out / "results.csv", rows)
    if not (rows := read(out / "results.csv")):
        sys.exit(f"cluster: nothing to report; there is no {out / 'results.csv'}")
    draw(rows, out / "cluster.png")
    lines = table(rows)
    print(*lines, sep="\n")
    replace_block(readmes(options.out), "cluster", [PICTURE, "", *lines])
    return 0


if __name__ == "__main__":
    if "--rank" not in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the job ends too
    sys.exit(main())
